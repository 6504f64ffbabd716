import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { DatasetHandle } from '../native/AddonTypes.js';
import { LthError } from '../native/errors.js';
import { packageRoot } from '../package.js';
import { didYouMean } from '../recipe/nearest.js';
import { dataFolders, fileIn, findFile } from './folders.js';
import { readIdxDataset } from './idx.js';
import { fashionMnist, mnist, type Source } from './sources.js';

interface IdxSet {
  description: string;
  classes: number;
  /** Folder inside this package, or what `data fetch` gets. */
  from: { folder: string } | { source: Source };
}

const sets: Record<string, IdxSet> = {
  'mnist-10k': {
    description: '10,000 real MNIST digits (8,004 training, 1,996 test); comes with the package',
    classes: 10,
    from: { folder: join(packageRoot, 'data', 'mnist-10k') },
  },
  mnist: { description: 'MNIST, 60,000 + 10,000 digits', classes: 10, from: { source: mnist } },
  'fashion-mnist': {
    description: 'Fashion-MNIST, 60,000 + 10,000 pictures of clothes in the format of MNIST',
    classes: 10,
    from: { source: fashionMnist },
  },
};

export const datasetNames = Object.keys(sets);

const fileNames = ['train', 't10k'].flatMap((part) => [
  `${part}-images-idx3-ubyte`,
  `${part}-labels-idx1-ubyte`,
]);

function setNamed(name: string): IdxSet {
  const set = Object.hasOwn(sets, name) ? sets[name] : undefined;
  if (set) return set;
  throw new LthError(
    'recipe',
    `There is no data set "${name}".${didYouMean(name, datasetNames)} Data sets: ${datasetNames.join(', ')}.`,
  );
}

const fetchCommand = (name: string) => `lth-train data fetch ${name}`;

/**
 * What has to be fetched for a data set.
 * @throws LthError "recipe" for an unknown set, "invalid-argument" for one that comes with the package.
 */
export function datasetSource(name: string): Source {
  const { from } = setNamed(name);
  if ('source' in from) return from.source;
  throw new LthError('invalid-argument', `${name} comes with the package: there is nothing to fetch`);
}

/**
 * Where the files of a data set are: the folder given, else the package's own, else LTH_DATA/NAME, else the cache.
 * @throws LthError "recipe" for an unknown set, "io" where none of these folders is there.
 */
export function datasetFolder(name: string, folder: string | null): string {
  const { from } = setNamed(name);
  if (folder) return folder;
  if ('folder' in from) return from.folder;
  const places = dataFolders(name);
  const found = places.find((place) => existsSync(place));
  if (found) return found;
  throw new LthError(
    'io',
    `Data set "${name}" is not in ${places.join(' nor ')}: run \`${fetchCommand(name)}\`, or tell where its files are with` +
      ` --set data.folder=DIR, or set LTH_DATA to the folder that holds ${name}/.`,
  );
}

/** What `data list` tells of a data set. */
export interface DatasetPlace {
  set: string;
  description: string;
  /** The folder that holds all of its files, or null. */
  folder: string | null;
  /** The command that gets it where it is not there. */
  get: string | null;
}

/** All data sets and where they would be read from; files are looked for, not read. */
export function datasetPlaces(): DatasetPlace[] {
  return Object.entries(sets).map(([set, { description, from }]) => {
    const places = 'folder' in from ? [from.folder] : dataFolders(set);
    // As `datasetFolder` does: the first that is there counts, also where files are missing in it.
    const first = places.find((place) => existsSync(place));
    const folder = first && fileNames.every((name) => findFile(first, name)) ? first : null;
    const get = 'folder' in from ? 'npm rebuild lth-train' : fetchCommand(set);
    return { set, description, folder, get: folder ? null : get };
  });
}

/** Both parts of a data set, in native memory. */
export async function openDataset(
  name: string,
  folder: string | null,
): Promise<{ train: DatasetHandle; test: DatasetHandle }> {
  const where = datasetFolder(name, folder);
  const { classes, from } = setNamed(name);
  const hint = folder || 'folder' in from ? '' : `: run \`${fetchCommand(name)}\``;
  const part = (prefix: string) =>
    readIdxDataset(
      fileIn(where, `${prefix}-images-idx3-ubyte`, hint),
      fileIn(where, `${prefix}-labels-idx1-ubyte`, hint),
      classes,
    );
  const [train, test] = await Promise.all([part('train'), part('t10k')]);
  return { train, test };
}
