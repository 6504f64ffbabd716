import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { DatasetHandle } from '../native/AddonTypes.js';
import { LthError } from '../native/errors.js';
import { packageRoot } from '../package.js';
import { didYouMean } from '../recipe/nearest.js';
import { readIdxDataset } from './idx.js';

interface IdxSet {
  description: string;
  classes: number;
  /** Folder inside this package; null: the user brings the files. */
  folder: string | null;
}

const sets: Record<string, IdxSet> = {
  'mnist-10k': {
    description: '10,000 real MNIST digits (8,004 training, 1,996 test); comes with the package',
    classes: 10,
    folder: join(packageRoot, 'data', 'mnist-10k'),
  },
  mnist: { description: 'MNIST, 60,000 + 10,000 digits; files of yours', classes: 10, folder: null },
};

export const datasetNames = Object.keys(sets);

function find(folder: string, name: string): string {
  for (const file of [`${name}.gz`, name, name.replace('-idx', '.idx')]) {
    if (existsSync(join(folder, file))) return join(folder, file);
  }
  throw new LthError('io', `${folder} holds neither ${name}.gz nor ${name}`);
}

/**
 * Where the files of a data set are: the folder given, else LTH_DATA/NAME, else the package's own.
 * @throws LthError "recipe" for an unknown set, "io" where its folder is not known.
 */
export function datasetFolder(name: string, folder: string | null): string {
  const set = sets[name];
  if (!set)
    throw new LthError(
      'recipe',
      `There is no data set "${name}".${didYouMean(name, datasetNames)} Data sets: ${datasetNames.join(', ')}.`,
    );
  if (folder) return folder;
  if (set.folder) return set.folder;
  if (process.env.LTH_DATA) return join(process.env.LTH_DATA, name);
  throw new LthError(
    'io',
    `Data set "${name}": tell where its files are with --set data.folder=DIR, or set LTH_DATA to the folder that holds ${name}/.`,
  );
}

/** Both parts of a data set, in native memory. */
export async function openDataset(
  name: string,
  folder: string | null,
): Promise<{ train: DatasetHandle; test: DatasetHandle }> {
  const where = datasetFolder(name, folder);
  const classes = sets[name]?.classes ?? 0;
  const part = (prefix: string) =>
    readIdxDataset(
      find(where, `${prefix}-images-idx3-ubyte`),
      find(where, `${prefix}-labels-idx1-ubyte`),
      classes,
    );
  const [train, test] = await Promise.all([part('train'), part('t10k')]);
  return { train, test };
}
