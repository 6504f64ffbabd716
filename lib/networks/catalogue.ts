import { LthError } from '../native/errors.js';
import { didYouMean } from '../recipe/nearest.js';
import { lenet } from './lenet.js';
import type { Network } from './Network.js';
import { resnet } from './resnet.js';
import { vgg } from './vgg.js';

/** Names for help texts and suggestions; others come of them by depth, width and classes. */
export const networkNames = [
  'lenet-300-100',
  'resnet-20',
  'resnet-32',
  'resnet-44',
  'resnet-56',
  'resnet-110',
  'vgg-11',
  'vgg-13',
  'vgg-16',
  'vgg-19',
];

/** `-w0.5`: half as many channels; `-c100`: 100 classes. */
function factors(text: string): { width?: number; classes?: number } | undefined {
  const found = /^(?:-w(\d{1,3}(?:\.\d{1,4})?))?(?:-c(\d{1,6}))?$/.exec(text);
  if (!found) return undefined;
  const [width, classes] = [found[1], found[2]].map((one) => (one === undefined ? undefined : Number(one)));
  if (width === 0 || (classes !== undefined && classes < 2)) return undefined;
  return { ...(width === undefined ? {} : { width }), ...(classes === undefined ? {} : { classes }) };
}

/** @throws LthError "recipe" for a name that is not in the catalogue. */
export function networkByName(name: string): Network {
  const widths = /^lenet((?:-[1-9]\d{0,5})+)$/.exec(name)?.[1];
  if (widths) return lenet(widths.slice(1).split('-').map(Number));
  const [, family, depthText, rest] = /^(resnet|vgg)-(\d{1,4})(-.*)?$/.exec(name) ?? [];
  const depth = Number(depthText);
  const options = factors(rest ?? '');
  if (options && family === 'resnet' && depth > 2 && (depth - 2) % 6 === 0) return resnet(depth, options);
  if (options && family === 'vgg' && [11, 13, 16, 19].includes(depth)) return vgg(depth, options);
  throw new LthError(
    'recipe',
    `There is no network "${name}".${didYouMean(name, networkNames)} Networks: ${networkNames.join(', ')}; any lenet-N-M-..., any resnet-D of D = 6n + 2; with -w0.5 half as wide, with -c100 for 100 classes; or describe one of your own.`,
  );
}
