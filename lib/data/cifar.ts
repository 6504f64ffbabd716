import { createHash } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { DatasetHandle } from '../native/AddonTypes.js';
import { LthError } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { sha256 } from './idx.js';
import { readRegularFile } from './regularFile.js';
import { readTarGz } from './tar.js';

const IMAGE_BYTES = 3 * 32 * 32;
/** Of a record in a pickle: its label, its file name and the opcodes around them; of the whole file: keys and shapes. */
const PICKLE_BYTES = { record: 128, file: 1 << 16 };

/** A file of a set: some thousand pictures, under the name that it has in either layout. */
export interface CifarBatch {
  binary: string;
  python: string;
  records: number;
}

export interface CifarSet {
  classes: number;
  /** Coarse classes, whose label each record has too; 0: none. */
  coarse: number;
  train: CifarBatch[];
  test: CifarBatch[];
  /** What the official archives are called, and the folder in them. */
  archives: Record<Layout, string>;
  folders: Record<Layout, string>;
}

type Layout = 'binary' | 'python';
const layouts: Layout[] = ['binary', 'python'];

export const cifar10: CifarSet = {
  classes: 10,
  coarse: 0,
  train: [1, 2, 3, 4, 5].map((n) => ({
    binary: `data_batch_${n}.bin`,
    python: `data_batch_${n}`,
    records: 10_000,
  })),
  test: [{ binary: 'test_batch.bin', python: 'test_batch', records: 10_000 }],
  archives: { binary: 'cifar-10-binary.tar.gz', python: 'cifar-10-python.tar.gz' },
  folders: { binary: 'cifar-10-batches-bin', python: 'cifar-10-batches-py' },
};

export const cifar100: CifarSet = {
  classes: 100,
  coarse: 20,
  train: [{ binary: 'train.bin', python: 'train', records: 50_000 }],
  test: [{ binary: 'test.bin', python: 'test', records: 10_000 }],
  archives: { binary: 'cifar-100-binary.tar.gz', python: 'cifar-100-python.tar.gz' },
  folders: { binary: 'cifar-100-binary', python: 'cifar-100-python' },
};

const isFile = (path: string) => statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
const batchesOf = ({ train, test }: CifarSet) => [...train, ...test];

/** Where a set lies in a folder: in files of one layout, or in an archive. */
export interface CifarPlace {
  layout: Layout;
  /** Folder of the files, or path of the archive. */
  path: string;
  archive: boolean;
  /** Files that are not there although others are. */
  missing: string[];
}

/** The binary layout before Python's, files before archives; null where there is nothing of the set. */
export function findCifar(set: CifarSet, folder: string): CifarPlace | null {
  for (const layout of layouts) {
    for (const path of [folder, join(folder, set.folders[layout])]) {
      const missing = batchesOf(set)
        .map((batch) => batch[layout])
        .filter((name) => !isFile(join(path, name)));
      if (missing.length < batchesOf(set).length) return { layout, path, archive: false, missing };
    }
  }
  for (const layout of layouts) {
    const path = join(folder, set.archives[layout]);
    if (isFile(path)) return { layout, path, archive: true, missing: [] };
  }
  return null;
}

/** Bytes that a batch may have: as many as its records need in the binary layout, about as many in Python's. */
function atMost({ coarse }: CifarSet, batch: CifarBatch, layout: Layout): number {
  const record = (coarse > 0 ? 2 : 1) + IMAGE_BYTES;
  if (layout === 'binary') return batch.records * record;
  return batch.records * (record + PICKLE_BYTES.record) + PICKLE_BYTES.file;
}

interface Records {
  bytes: Uint8Array;
  name: string;
}

/** The records of a batch, whatever layout it is in; exactly as many as it should have. */
async function recordsOf(
  set: CifarSet,
  batch: CifarBatch,
  layout: Layout,
  { bytes, name }: Records,
): Promise<Records> {
  const { classes, coarse } = set;
  const records =
    layout === 'binary'
      ? bytes
      : await loadAddon().cifarRecords(bytes, { name: basename(name), classes, coarse });
  const wanted = atMost(set, batch, 'binary');
  if (records.length !== wanted)
    throw new LthError(
      'corrupt-file',
      `${name}: holds ${records.length} bytes of records, ${batch.records} of them need ${wanted}`,
    );
  return { bytes: records, name };
}

async function datasetOf({ classes, coarse }: CifarSet, parts: Records[]): Promise<DatasetHandle> {
  const digest = createHash('sha256');
  for (const { bytes } of parts) digest.update(await sha256(bytes));
  return loadAddon().datasetFromCifar(
    parts.map(({ bytes }) => bytes),
    { names: parts.map(({ name }) => basename(name)), classes, coarse, digest: digest.digest('hex') },
  );
}

/**
 * Both parts of a CIFAR set, (3,32,32), from any of its layouts; the digest is that of the records, so the same for all.
 * @throws LthError "io" where the folder has none, "corrupt-file" naming file and record.
 */
export async function readCifar(
  set: CifarSet,
  folder: string,
  hint = '',
): Promise<{ train: DatasetHandle; test: DatasetHandle }> {
  const place = findCifar(set, folder);
  if (!place && !existsSync(folder)) throw new LthError('io', `${folder}: there is no such folder${hint}`);
  if (!place)
    throw new LthError(
      'io',
      `${folder} holds neither ${set.archives.binary} nor ${set.archives.python} nor the files of one${hint}`,
    );
  const { layout, path } = place;
  if (place.missing.length > 0)
    throw new LthError(
      'io',
      `${path} holds no ${place.missing.join(', ')}, but other files of the set${hint}`,
    );
  const members = place.archive
    ? await readTarGz(path, new Map(batchesOf(set).map((one) => [one[layout], atMost(set, one, layout)])))
    : null;
  const read = async (batch: CifarBatch): Promise<Records> => {
    const name = join(path, batch[layout]);
    const bytes = members
      ? members.get(batch[layout])
      : await readRegularFile(name, atMost(set, batch, layout));
    if (!bytes) throw new LthError('corrupt-file', `${path}: holds no ${batch[layout]}`);
    return recordsOf(set, batch, layout, { bytes, name });
  };
  const part = async (batches: CifarBatch[]) => {
    const records: Records[] = [];
    for (const batch of batches) records.push(await read(batch));
    return datasetOf(set, records);
  };
  return { train: await part(set.train), test: await part(set.test) };
}
