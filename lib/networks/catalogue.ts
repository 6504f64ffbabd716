import { LthError } from '../native/errors.js';
import { didYouMean } from '../recipe/nearest.js';
import { inceptionV3 } from './imagenet/inception.js';
import { imagenetResnet } from './imagenet/resnet.js';
import { squeezenet } from './imagenet/squeezenet.js';
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
  'resnet18',
  'resnet34',
  'resnet50',
  'resnet101',
  'resnet152',
  'squeezenet1_0',
  'squeezenet1_1',
  'inception_v3',
];

/** Those of ImageNet have torchvision's names: `resnet-50` is the one for 32x32 pictures. */
const imagenet: Record<string, (options: { classes?: number; size?: number }) => Network> = {
  resnet18: (options) => imagenetResnet(18, options),
  resnet34: (options) => imagenetResnet(34, options),
  resnet50: (options) => imagenetResnet(50, options),
  resnet101: (options) => imagenetResnet(101, options),
  resnet152: (options) => imagenetResnet(152, options),
  squeezenet1_0: (options) => squeezenet('1_0', options),
  squeezenet1_1: (options) => squeezenet('1_1', options),
  inception_v3: inceptionV3,
};

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
  const [, known, size, many] = /^([a-z]\w*)(?:-s([1-9]\d{0,3}))?(?:-c([1-9]\d{0,5}))?$/.exec(name) ?? [];
  const ofImagenet = Object.hasOwn(imagenet, known ?? '') ? imagenet[known as string] : undefined;
  if (ofImagenet && many !== '1')
    return ofImagenet({
      ...(size ? { size: Number(size) } : {}),
      ...(many ? { classes: Number(many) } : {}),
    });
  const [, family, depthText, rest] = /^(resnet|vgg)-(\d{1,4})(-.*)?$/.exec(name) ?? [];
  const depth = Number(depthText);
  const options = factors(rest ?? '');
  if (options && family === 'resnet' && depth > 2 && (depth - 2) % 6 === 0) return resnet(depth, options);
  if (options && family === 'vgg' && [11, 13, 16, 19].includes(depth)) return vgg(depth, options);
  const bare = name.replace(/(-[wsc][\d.]+)+$/, '');
  const hint = networkNames.includes(bare) ? '' : didYouMean(bare, networkNames);
  throw new LthError(
    'recipe',
    `There is no network "${name}".${hint} Networks: ${networkNames.join(', ')}; any lenet-N-M-..., any resnet-D of D = 6n + 2; with -w0.5 half as wide (those of 32x32 pictures), with -s64 for pictures of 64x64 (those of ImageNet), with -c100 for 100 classes; or describe one of your own.`,
  );
}
