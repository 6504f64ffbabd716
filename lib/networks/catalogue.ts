import { LthError } from '../native/errors.js';
import { didYouMean } from '../recipe/nearest.js';
import { lenet } from './lenet.js';
import type { Network } from './Network.js';

/** Names for help texts and suggestions; any lenet-N-M-... exists. */
export const networkNames = ['lenet-300-100'];

/** @throws LthError "recipe" for a name that is not in the catalogue. */
export function networkByName(name: string): Network {
  const widths = /^lenet((?:-[1-9]\d{0,5})+)$/.exec(name)?.[1];
  if (widths) return lenet(widths.slice(1).split('-').map(Number));
  throw new LthError(
    'recipe',
    `There is no network "${name}".${didYouMean(name, networkNames)} Networks: ${networkNames.join(', ')} and any lenet-N-M-...; or describe one of your own.`,
  );
}
