import { existsSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { readRecord, sealOfValue } from '../files.js';
import { BINARY, FlatTable, INT, long, MAGIC, RECORD_BATCH, UTF8 } from '../flatTable.js';
import { LthError } from '../native/errors.js';
import type { PictureList } from './pictureFolder.js';
import { withRegularFile } from './regularFile.js';

/** What makes a folder one of shards: its list of them. */
export const MANIFEST = 'shards.json';
export const isShardFolder = (folder: string) => existsSync(join(folder, MANIFEST));

const count = z.int().min(0);
const hash = z.string().regex(/^[0-9a-f]{64}$/);

const shardSchema = z.strictObject({
  file: z.string().regex(/^shard-\d{5,}\.arrow$/),
  /** Its first picture, in the order of the folder. */
  from: count,
  pictures: z.int().min(1),
  bytes: count,
  sha256: hash,
  /** Pictures in which a decoder found something wrong and went on. */
  warnings: count,
  /** Pictures that could not be decoded: their rows hold the files' own bytes, or none where a file was too large to read. */
  broken: z.array(z.strictObject({ name: z.string(), why: z.string() })),
});
export type Shard = z.infer<typeof shardSchema>;

const manifestSchema = z.strictObject({
  format: z.literal('lth-train picture shards'),
  version: z.literal(1),
  /** What decides the bytes, beside the pictures. */
  settings: z.strictObject({
    /** In pixels, at most; null: the files' own bytes were kept, by no encoder. */
    shortSide: z.int().min(1).nullable(),
    quality: z.int().min(1).max(100).nullable(),
    encoder: z.string().nullable(),
    /** Bytes of the pictures in a shard, at most. */
    shardSize: z.int().min(1),
  }),
  part: z.enum(['train', 'val']).nullable(),
  classes: z.array(z.string()).min(1),
  /** SHA-256 of the names and labels in the folder that was packed. */
  source: hash,
  /** In that folder. */
  pictures: z.int().min(1),
  complete: z.boolean(),
  shards: z.array(shardSchema),
});
export type Manifest = z.infer<typeof manifestSchema>;

/** Identifies a packed set: by what it was made of and the bytes of all shards. */
export const digestOf = ({ settings, classes, source, shards }: Manifest) =>
  sealOfValue({ settings, classes, source, shards: shards.map(({ sha256 }) => sha256) });

/** @throws LthError "io", "corrupt-file" where the list of shards is not what this program wrote. */
export async function readManifest(folder: string): Promise<Manifest> {
  const path = join(folder, MANIFEST);
  const record = await readRecord(path);
  const { success, data, error } = manifestSchema.safeParse(record);
  if (!success)
    throw new LthError(
      'corrupt-file',
      `${path}: ${error.issues[0]?.path.join('.')}: ${error.issues[0]?.message}`,
    );
  let row = 0;
  for (const { file, from, pictures } of data.shards) {
    if (from !== row)
      throw new LthError('corrupt-file', `${path}: ${file} begins with picture ${from}, expected ${row}`);
    row += pictures;
  }
  if (data.complete !== (row === data.pictures) || row > data.pictures)
    throw new LthError('corrupt-file', `${path}: ${row} of ${data.pictures} pictures are in its shards`);
  return data;
}

/** Where the pictures of a shard lie in it. */
export interface ShardLayout {
  /** Of the file. */
  bytes: number;
  rows: number;
  /** Of each picture: where it begins in the file, and its bytes. */
  begins: Float64Array<ArrayBuffer>;
  lengths: Uint32Array<ArrayBuffer>;
  labels: Int32Array<ArrayBuffer>;
  /** Each with a zero byte behind it. */
  names: Buffer;
}

/** More than anything in a shard ever has but the pictures. */
const LARGEST_HEAD = 64 * 2 ** 20;
const COLUMNS = [
  ['image', BINARY],
  ['label', INT],
  ['name', UTF8],
] as const;

/** Bytes of the file, all of which must be there. */
async function part(file: FileHandle, size: number, at: number, length: number): Promise<DataView> {
  if (!(at >= 0 && length >= 0 && at + length <= size))
    throw new Error(`truncated or damaged: bytes ${at} to ${at + length} of ${size} are wanted`);
  if (length > LARGEST_HEAD) throw new Error(`${length} bytes of what is no picture`);
  const bytes = new Uint8Array(length);
  for (let got = 0; got < length; ) {
    const { bytesRead } = await file.read(bytes, got, length - got, at + got);
    if (bytesRead === 0) throw new Error('became shorter while it was read');
    got += bytesRead;
  }
  return new DataView(bytes.buffer);
}

interface Block {
  at: number;
  head: number;
  body: number;
}

/** The batches that the footer lists. */
async function blocksOf(file: FileHandle, size: number): Promise<Block[]> {
  const ends = (view: DataView, at: number) =>
    Buffer.from(view.buffer).toString('latin1', at, at + MAGIC.length) === MAGIC;
  if (size < 2 * MAGIC.length + 8 || !ends(await part(file, size, 0, 8), 0))
    throw new Error('is no Arrow file');
  const tail = await part(file, size, size - 10, 10);
  if (!ends(tail, 4))
    throw new Error('has no end of an Arrow file: it is truncated, or was not written to its end');
  const length = tail.getInt32(0, true);
  if (length <= 0) throw new Error(`a footer of ${length} bytes`);
  const view = await part(file, size, size - 10 - length, length);
  const footer = FlatTable.behind(view, 0);
  const fields = footer.table(1)?.vector(1, COLUMNS.length);
  if (fields?.count !== COLUMNS.length) throw new Error(`has not ${COLUMNS.length} columns`);
  COLUMNS.forEach(([name, type], i) => {
    const field = FlatTable.behind(view, fields.first + 4 * i);
    const details = field.table(3);
    const fits = type !== INT || (details?.int(0) === 32 && details.byte(1) === 1);
    if (field.text(0) !== name || field.byte(2) !== type || !fits || field.table(4))
      throw new Error(`column ${i} is not ${name} as this program writes it`);
  });
  if (footer.vector(2, 1).count !== 0) throw new Error('has dictionaries');
  const { first, count } = footer.vector(3, Math.floor(length / 24));
  let end = 0;
  return Array.from({ length: count }, (_, i) => {
    const place = first + 24 * i;
    const block = {
      at: long(view, place),
      head: view.getInt32(place + 8, true),
      body: long(view, place + 16),
    };
    // No part of the file counts twice: what is taken of memory is bounded by its size.
    if (block.at < end) throw new Error(`batch ${i} begins in the one before it`);
    end = block.at + block.head + block.body;
    return block;
  });
}

/** The offsets of a column's values: as many as rows and one, none below the one before, the last one within the data. */
function offsetsOf(view: DataView, rows: number, data: number): Int32Array {
  const offsets = new Int32Array(rows + 1);
  for (let i = 0; i <= rows; i++) {
    offsets[i] = view.getInt32(4 * i, true);
    if ((offsets[i] as number) < (i === 0 ? 0 : (offsets[i - 1] as number)))
      throw new Error(`value ${i} of a column begins before the one before it`);
  }
  if ((offsets[rows] as number) > data) throw new Error('a column has more bytes than its buffer');
  return offsets;
}

interface Batch {
  rows: number;
  images: Int32Array;
  /** Where the bytes of the images begin in the file. */
  at: number;
  labels: DataView;
  names: Int32Array;
  text: Buffer;
}

async function readBatch(file: FileHandle, size: number, block: Block): Promise<Batch> {
  if (block.head < 8 || block.head > LARGEST_HEAD)
    throw new Error(`a batch with a head of ${block.head} bytes`);
  const view = await part(file, size, block.at, block.head);
  const body = block.at + block.head;
  if (body + block.body > size)
    throw new Error(`truncated: a batch ends at byte ${body + block.body} of ${size}`);
  const message = FlatTable.behind(view, view.getInt32(0, true) === -1 ? 8 : 4);
  const batch = message.table(2);
  if (message.byte(1) !== RECORD_BATCH || !batch) throw new Error('a batch is not what the footer says');
  if (batch.table(3)) throw new Error('is compressed');
  const rows = batch.long(0);
  const nodes = batch.vector(1, 3);
  const buffers = batch.vector(2, 8);
  if (nodes.count !== 3 || buffers.count !== 8) throw new Error('a batch has not three columns');
  for (let i = 0; i < 3; i++) {
    if (long(view, nodes.first + 16 * i) !== rows || long(view, nodes.first + 16 * i + 8) !== 0)
      throw new Error(`column ${i} has another length than the batch, or nulls`);
  }
  // Of image: validity, offsets, data; of label: validity, data; of name: validity, offsets, data.
  const buffer = (i: number, least: number) => {
    const [at, length] = [long(view, buffers.first + 16 * i), long(view, buffers.first + 16 * i + 8)];
    if (at + length > block.body) throw new Error(`buffer ${i} of a batch goes beyond its end`);
    if (length < least) throw new Error(`${length} bytes for ${rows} rows`);
    return { at: body + at, length };
  };
  const read = async (i: number, bytes: number) => part(file, size, buffer(i, bytes).at, bytes);
  const [images, text] = [buffer(2, 0), buffer(7, 0)];
  return {
    rows,
    images: offsetsOf(await read(1, 4 * (rows + 1)), rows, images.length),
    at: images.at,
    labels: await read(4, 4 * rows),
    names: offsetsOf(await read(6, 4 * (rows + 1)), rows, text.length),
    text: Buffer.from((await part(file, size, text.at, text.length)).buffer as ArrayBuffer),
  };
}

function layoutOf(batches: Batch[], bytes: number, classes: number): ShardLayout {
  const rows = batches.reduce((sum, batch) => sum + batch.rows, 0);
  const layout = {
    bytes,
    rows,
    begins: new Float64Array(rows),
    lengths: new Uint32Array(rows),
    labels: new Int32Array(rows),
    names: Buffer.alloc(batches.reduce((sum, { text }) => sum + text.length, 0) + rows),
  };
  let [row, at] = [0, 0];
  for (const batch of batches) {
    for (let i = 0; i < batch.rows; i++, row++) {
      const [begin, end] = [batch.images[i] as number, batch.images[i + 1] as number];
      layout.begins[row] = batch.at + begin;
      layout.lengths[row] = end - begin;
      const label = batch.labels.getInt32(4 * i, true);
      if (label < 0 || label >= classes)
        throw new Error(`the label of picture ${row} is ${label}, expected 0 to ${classes - 1}`);
      layout.labels[row] = label;
      const name = batch.text.subarray(batch.names[i], batch.names[i + 1]);
      if (name.length === 0 || name.includes(0)) throw new Error(`picture ${row} has no name`);
      at += name.copy(layout.names, at) + 1;
    }
  }
  layout.names = layout.names.subarray(0, at);
  return layout;
}

/**
 * Where the pictures of a shard lie, of its footer and the heads of its batches; the pictures are not read. Every count is
 * compared with what is there before memory is taken for it.
 * @throws LthError "io", "corrupt-file" naming the file.
 */
export function readShard(path: string, classes: number): Promise<ShardLayout> {
  return withRegularFile(path, async (file, size) => {
    try {
      const batches: Batch[] = [];
      for (const block of await blocksOf(file, size)) batches.push(await readBatch(file, size, block));
      return layoutOf(batches, size, classes);
    } catch (cause) {
      if (cause instanceof Error && 'syscall' in cause) throw cause;
      const why =
        cause instanceof RangeError ? 'damaged: a number in it leads outside' : (cause as Error).message;
      throw new LthError('corrupt-file', `${path}: ${why}`, { cause });
    }
  });
}

/** Pictures of a folder of shards as the addon takes them. */
export interface ShardList extends PictureList {
  files: string[];
  /** Of each file. */
  rows: number[];
  begins: Float64Array<ArrayBuffer>;
  lengths: Uint32Array<ArrayBuffer>;
}

/** Shards whose footers are read at a time: their disk may be far away. */
const AT_ONCE = 8;

/**
 * @param known classes of the training set, where this is another part.
 * @throws LthError "io", "corrupt-file" naming the shard; "invalid-argument" where it is not packed to its end.
 */
export async function listShards(folder: string, known?: string[]): Promise<ShardList> {
  const manifest = await readManifest(folder);
  const { classes, shards } = manifest;
  if (!manifest.complete) {
    const packed = shards.reduce((sum, { pictures }) => sum + pictures, 0);
    throw new LthError(
      'invalid-argument',
      `${folder}: ${packed} of ${manifest.pictures} pictures are packed: the same \`lth-train data pack\` goes on with it`,
    );
  }
  if (known && JSON.stringify(known) !== JSON.stringify(classes))
    throw new LthError('io', `${folder}: was packed with other classes than those of the training set`);
  const layouts: ShardLayout[] = [];
  for (let at = 0; at < shards.length; at += AT_ONCE) {
    const some = shards.slice(at, at + AT_ONCE).map(async ({ file, pictures, bytes }) => {
      const path = join(folder, file);
      const layout = await readShard(path, classes.length);
      if (layout.rows !== pictures || layout.bytes !== bytes)
        throw new LthError(
          'corrupt-file',
          `${path}: holds ${layout.rows} pictures in ${layout.bytes} bytes, ${MANIFEST} says ${pictures} in ${bytes}`,
        );
      return layout;
    });
    layouts.push(...(await Promise.all(some)));
  }
  const rows = layouts.map((layout) => layout.rows);
  const total = rows.reduce((a, b) => a + b, 0);
  const list: ShardList = {
    root: folder,
    classes,
    digest: digestOf(manifest),
    files: shards.map(({ file }) => join(folder, file)),
    rows,
    names: Buffer.concat(layouts.map(({ names }) => names)),
    begins: new Float64Array(total),
    lengths: new Uint32Array(total),
    labels: new Int32Array(total),
  };
  let row = 0;
  for (const layout of layouts) {
    for (const name of ['begins', 'lengths', 'labels'] as const) list[name].set(layout[name], row);
    row += layout.rows;
  }
  return list;
}
