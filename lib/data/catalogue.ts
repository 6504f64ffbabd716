import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { DatasetHandle } from '../native/AddonTypes.js';
import { LthError } from '../native/errors.js';
import { packageRoot } from '../package.js';
import { didYouMean } from '../recipe/nearest.js';
import { type CifarSet, cifar10, cifar100, findCifar, readCifar } from './cifar.js';
import { dataFolders, fileIn, findFile } from './folders.js';
import { readIdxDataset } from './idx.js';
import { cifar10Source, cifar100Source, fashionMnist, mnist, type Source } from './sources.js';

interface CatalogueSet {
  description: string;
  /** Folder inside this package, or what `data fetch` gets. */
  from: { folder: string } | { source: Source };
  format: Format;
}

/** How the files of a set are read. */
interface Format {
  /** Are all of its files in the folder? They are looked for, not read. */
  isIn(folder: string): boolean;
  /** @param hint what to do where a file is missing. */
  read(folder: string, hint: string): Promise<{ train: DatasetHandle; test: DatasetHandle }>;
}

const parts = ['train', 't10k'] as const;
const idxNames = (part: string) => [`${part}-images-idx3-ubyte`, `${part}-labels-idx1-ubyte`] as const;

function idxFormat(classes: number): Format {
  return {
    isIn: (folder) => parts.flatMap(idxNames).every((name) => findFile(folder, name)),
    async read(folder, hint) {
      const [train, test] = await Promise.all(
        parts.map((part) => {
          const [images, labels] = idxNames(part);
          return readIdxDataset(fileIn(folder, images, hint), fileIn(folder, labels, hint), classes);
        }),
      );
      return { train: train as DatasetHandle, test: test as DatasetHandle };
    },
  };
}

function cifarFormat(set: CifarSet): Format {
  return {
    isIn: (folder) => findCifar(set, folder)?.missing.length === 0,
    read: (folder, hint) => readCifar(set, folder, hint),
  };
}

const sets: Record<string, CatalogueSet> = {
  'mnist-10k': {
    description: '10,000 real MNIST digits (8,004 training, 1,996 test); comes with the package',
    from: { folder: join(packageRoot, 'data', 'mnist-10k') },
    format: idxFormat(10),
  },
  mnist: {
    description: 'MNIST, 60,000 + 10,000 digits',
    from: { source: mnist },
    format: idxFormat(10),
  },
  'fashion-mnist': {
    description: 'Fashion-MNIST, 60,000 + 10,000 pictures of clothes in the format of MNIST',
    from: { source: fashionMnist },
    format: idxFormat(10),
  },
  'cifar-10': {
    description: 'CIFAR-10, 50,000 + 10,000 colour pictures of 32x32 in 10 classes',
    from: { source: cifar10Source },
    format: cifarFormat(cifar10),
  },
  'cifar-100': {
    description: 'CIFAR-100, 50,000 + 10,000 colour pictures of 32x32 in 100 classes',
    from: { source: cifar100Source },
    format: cifarFormat(cifar100),
  },
};

/** Sets of pictures in files, which are not kept in memory: `train/CLASS/*.JPEG` and `val/`, or shards in both. */
const pictureSets: Record<string, string> = {
  imagenet:
    "pictures in ImageNet's layout, train/CLASS/*.JPEG and val/ in class folders or flat, or shards of them (`data pack`); read while a network trains",
};

export const isPictureSet = (name: string) => Object.hasOwn(pictureSets, name);

export const datasetNames = [...Object.keys(sets), ...Object.keys(pictureSets)];

/** Where one's own pictures lie: the folder given, else LTH_DATA/NAME or the cache. */
export function pictureFolder(name: string, folder: string | null): string {
  const places = folder === null ? dataFolders(name) : [folder];
  const found = places.find((place) => existsSync(join(place, 'train')));
  if (found) return found;
  throw new LthError(
    'io',
    `Data set "${name}" is not in ${places.join(' nor ')}: expected train/CLASS/*.JPEG and val/ there, or shards of both. ImageNet is had from` +
      ' https://image-net.org by its own terms; tell where it is with --set data.folder=DIR, or set LTH_DATA to the folder' +
      ` that holds ${name}/.`,
  );
}

function setNamed(name: string): CatalogueSet {
  const set = Object.hasOwn(sets, name) ? sets[name] : undefined;
  if (set) return set;
  throw new LthError(
    'recipe',
    `There is no data set "${name}".${didYouMean(name, datasetNames)} Data sets: ${datasetNames.join(', ')}.`,
  );
}

/** @throws LthError "recipe" for a set that is not in the catalogue. */
export function checkSetName(name: string): void {
  if (!isPictureSet(name)) setNamed(name);
}

const fetchCommand = (name: string) => `lth-train data fetch ${name}`;

/**
 * What has to be fetched for a data set.
 * @throws LthError "recipe" for an unknown set, "invalid-argument" for one that comes with the package.
 */
export function datasetSource(name: string): Source {
  if (isPictureSet(name))
    throw new LthError(
      'invalid-argument',
      `${name} is had by its own terms from https://image-net.org, not by this command`,
    );
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
  /** The command that gets it where it is not there; null also where no command does. */
  get: string | null;
}

/** All data sets and where they would be read from; files are looked for, not read. */
export function datasetPlaces(): DatasetPlace[] {
  const pictures = Object.entries(pictureSets).map(([set, description]): DatasetPlace => {
    const folder = dataFolders(set).find((place) => existsSync(join(place, 'train'))) ?? null;
    return { set, description, folder, get: null };
  });
  const inMemory = Object.entries(sets).map(([set, { description, from, format }]) => {
    const places = 'folder' in from ? [from.folder] : dataFolders(set);
    // As `datasetFolder` does: the first that is there counts, also where files are missing in it.
    const first = places.find((place) => existsSync(place));
    const folder = first && format.isIn(first) ? first : null;
    const get = 'folder' in from ? 'npm rebuild lth-train' : fetchCommand(set);
    return { set, description, folder, get: folder ? null : get };
  });
  return [...inMemory, ...pictures];
}

/** Both parts of a data set, in native memory. */
export async function openDataset(
  name: string,
  folder: string | null,
): Promise<{ train: DatasetHandle; test: DatasetHandle }> {
  const where = datasetFolder(name, folder);
  const { from, format } = setNamed(name);
  return format.read(where, folder || 'folder' in from ? '' : `: run \`${fetchCommand(name)}\``);
}
