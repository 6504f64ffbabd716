import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { RecordBatch } from 'apache-arrow';
import { listClassFolders, listFlatFolder, type PictureList } from '../data/pictureFolder.js';
import { isShardFolder, listShards, type ShardList } from '../data/shards.js';
import type { NativeCrop, NativePictureBatch, PicturesHandle } from '../native/AddonTypes.js';
import { checkInteger, checkNumber, checkOneOf, LthError, wrongValue } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { pictureRecords, pinned } from './arrow.js';
import { Resource } from './Resource.js';

/**
 * How colours are distorted once the square is made, of values in [0, 1] that are clipped to it at the end. "inception", as
 * TensorFlow-slim's distort_color (Szegedy et al. 2016): brightness plus at most 32/255, saturation times 0.5 to 1.5, hue
 * turned by at most 0.2 of the circle, contrast times 0.5 to 1.5, in one of its four orders. "brightness-chroma", as what
 * Google's code for TPUs does instead unless told otherwise: brightness plus at most 32/255, Cb and Cr plus at most 0.1.
 */
export type ColourDistortion = 'brightness-chroma' | 'inception';

/** How a picture becomes a square of `size` pixels; `filter` is antialiased as Pillow's. Default: bilinear. */
export type PictureCrop = { size: number; filter?: 'bilinear' | 'bicubic' } & (
  | {
      /** A share of the area at a random aspect ratio (Szegedy et al. 2015), as torchvision's RandomResizedCrop. */
      kind: 'random-resized';
      /** Default: [0.08, 1]. */
      area?: [number, number];
      /** Of width over height. Default: [3/4, 4/3]. */
      aspect?: [number, number];
      /** Mirrored with probability 1/2. Default: true. */
      flip?: boolean;
      /** Default: as they are. */
      colour?: ColourDistortion | undefined;
    }
  | {
      /** The short side becomes one of a range, then a random square (SqueezeNet). */
      kind: 'scaled-random';
      /** Default: [256, 512]. */
      shortSide?: [number, number];
      flip?: boolean;
      colour?: ColourDistortion | undefined;
    }
  /** The short side becomes `resize`, then the square in the middle. */
  | { kind: 'centre'; resize: number }
  /** A share of both sides, as TensorFlow's central_crop. Default: 0.875. */
  | { kind: 'central'; fraction?: number }
);

/** An example that could not be read: the next one of its batch that could stands in its place. */
export interface PictureFailure {
  /** In the batch. */
  position: number;
  row: number;
  path: string;
  /** The row of what stands there. */
  taken: number;
  why: string;
}

export interface PictureBatch {
  step: number;
  /** (N,3,S,S), or (N,S,S,3) with `channelsLast`: a view over native memory. */
  images: Uint8Array;
  shape: [number, number, number, number];
  labels: Int32Array;
  /** Rows of the set that are there. */
  rows: Int32Array;
  failures: PictureFailure[];
  /** Pictures in which a decoder found something wrong and went on, as Pillow does. */
  warnings: number;
  /** The same memory as Arrow columns: image (fixed-size binary), label, row (int32). */
  records(): RecordBatch;
}

export interface BatchesOptions {
  crop: PictureCrop;
  /** The last batch of an epoch holds what is left. */
  batch: number;
  /** Steps of the batches: from (default 0) on, before until (default: one epoch). */
  from?: number;
  until?: number;
  /** By the data order of (seed, replicate, noise), as trainings have it; false: in the order of the rows. Default: true. */
  shuffle?: boolean;
  seed?: number;
  replicate?: number;
  noise?: number;
  /** Default: all. */
  rows?: Int32Array;
  /**
   * Where several processes share the work: this one is `rank` (from 0) of `ranks`, and has its part of each batch, in which
   * all of them have each example once. `batch` is that of all together. Default: one.
   */
  rank?: number;
  ranks?: number;
  /** Threads that make batches. Never changes a byte. Default: as many as the machine has. */
  workers?: number;
  /** Batches that are made or wait at most, beside those that the caller holds. Default: 3. */
  ahead?: number;
  channelsLast?: boolean;
  /** Apply EXIF's orientation, which Pillow, torchvision and the published recipes ignore. Default: false. */
  upright?: boolean;
  signal?: AbortSignal;
}

const most = Number.MAX_SAFE_INTEGER;

/** A range within [low, high]. */
function rangeOf(value: [number, number], name: string, low: number, high: number): [number, number] {
  const first = checkNumber(value[0], `${name}[0]`, low, high);
  return [first, checkNumber(value[1], `${name}[1]`, first, high)];
}

/** All fields of a crop, with what the kind does not look at left at its default. */
export function nativeCrop(crop: PictureCrop): NativeCrop {
  const kind = checkOneOf(crop.kind, 'crop.kind', ['random-resized', 'scaled-random', 'centre', 'central']);
  const size = checkInteger(crop.size, 'crop.size', 1, 4096);
  const full: NativeCrop = {
    kind,
    size,
    filter: checkOneOf(crop.filter ?? 'bilinear', 'crop.filter', ['bilinear', 'bicubic']),
    flip: false,
    colour: 'none',
    area: [0.08, 1],
    aspect: [3 / 4, 4 / 3],
    shortSide: [256, 512],
    resize: size,
    fraction: 0.875,
  };
  if (crop.kind === 'random-resized' || crop.kind === 'scaled-random') {
    full.flip = crop.flip ?? true;
    full.colour = checkOneOf(crop.colour ?? 'none', 'crop.colour', [
      'none',
      'brightness-chroma',
      'inception',
    ]);
  }
  if (crop.kind === 'random-resized') {
    full.area = rangeOf(crop.area ?? full.area, 'crop.area', 1e-6, 1);
    full.aspect = rangeOf(crop.aspect ?? full.aspect, 'crop.aspect', 0.1, 10);
  } else if (crop.kind === 'scaled-random') {
    full.shortSide = rangeOf(crop.shortSide ?? full.shortSide, 'crop.shortSide', size, 8192);
    for (const [i, side] of full.shortSide.entries()) checkInteger(side, `crop.shortSide[${i}]`, size, 8192);
  } else if (crop.kind === 'centre') {
    full.resize = checkInteger(crop.resize, 'crop.resize', size, 8192);
  } else {
    full.fraction = checkNumber(crop.fraction ?? full.fraction, 'crop.fraction', 1e-6, 1);
  }
  return full;
}

/** Labelled pictures, JPEG or PNG, in files of their own or in shards, each read when it is wanted. Immutable. */
export class Pictures extends Resource<PicturesHandle> {
  readonly count: number;
  /** Names of the classes; a label is a place in here. */
  readonly classes: string[];
  readonly labels: Int32Array;
  /** SHA-256 of names and labels, the files' bytes are not looked at; of shards it says their bytes too. */
  readonly digest: string;
  /** Where each name begins, once somebody asks. */
  private begins: Float64Array | undefined;

  private constructor(
    handle: PicturesHandle,
    private readonly list: PictureList | ShardList,
  ) {
    super(handle);
    this.count = list.labels.length;
    this.classes = list.classes;
    this.labels = list.labels;
    this.digest = list.digest;
  }

  /**
   * Pictures in class folders (`CLASS/*.JPEG`), or flat in one with a ground-truth file of lines `NAME CLASS`. Classes and
   * files are in the order of their names. The files themselves are not looked at yet. Or shards that `lth-train data pack`
   * made of such a folder, with its classes, in its order.
   * @param options.classes those of the training set, where this is another part.
   * @throws LthError "io", "corrupt-file" (of the ground truth or a shard), naming the place.
   */
  static async open(
    folder: string,
    options: { classes?: string[]; groundTruth?: string } = {},
  ): Promise<Pictures> {
    if (typeof folder !== 'string') throw wrongValue('path', 'folder', folder);
    const { classes, groundTruth } = options;
    if (groundTruth !== undefined && classes === undefined)
      throw new LthError('invalid-argument', 'A ground-truth file wants the classes of the training set too');
    if (isShardFolder(folder)) {
      if (groundTruth !== undefined)
        throw new LthError(
          'invalid-argument',
          `${folder}: shards have their labels: leave out the ground truth`,
        );
      const list = await listShards(folder, classes);
      const { files, rows, begins, lengths, digest } = list;
      const where = { files, rows, begins, lengths, digest, classes: list.classes.length };
      return new Pictures(await loadAddon().picturesOpenShards(list.names, list.labels, where), list);
    }
    const list =
      groundTruth !== undefined && classes !== undefined
        ? await listFlatFolder(folder, groundTruth, classes)
        : await listClassFolders(folder, classes);
    const { root, digest } = list;
    const handle = await loadAddon().picturesOpen(list.names, list.labels, {
      root,
      classes: list.classes.length,
      digest,
    });
    return new Pictures(handle, list);
  }

  /** `FOLDER/train/CLASS/*.JPEG` and `FOLDER/val`, in class folders or flat with a ground-truth file; or shards in both. */
  static async openParts(
    folder: string,
    options: { groundTruth?: string } = {},
  ): Promise<{ train: Pictures; validation: Pictures }> {
    const train = await Pictures.open(join(folder, 'train'));
    const validation = await Pictures.open(join(folder, 'val'), { classes: train.classes, ...options });
    return { train, validation };
  }

  /** Its name in the folder, or in the one that was packed. */
  name(row: number): string {
    checkInteger(row, 'row', 0, this.count - 1);
    const { names } = this.list;
    if (!this.begins) {
      this.begins = new Float64Array(this.count + 1);
      for (let i = 0; i < this.count; i++) this.begins[i + 1] = names.indexOf(0, this.begins[i]) + 1;
    }
    const [begin, end] = [this.begins[row] as number, this.begins[row + 1] as number];
    return names.toString('utf8', begin, end - 1);
  }

  /** The file of a row; of a packed one the shard, a colon and its name. */
  path(row: number): string {
    const name = this.name(row);
    if (!('files' in this.list)) return join(this.list.root, name);
    const { files, rows } = this.list;
    let [shard, end] = [0, rows[0] as number];
    while (row >= end) end += rows[++shard] as number;
    return `${files[shard]}: ${name}`;
  }

  /**
   * Batches that native threads make while the caller looks at those before. Each is a function of crop, seed, replicate,
   * noise, step and files alone. Leaving the loop stops the threads; so does `signal`, whose reason is thrown. A batch of
   * which no picture can be read is LthError "corrupt-file".
   */
  async *batches(o: BatchesOptions): AsyncGenerator<PictureBatch, void, void> {
    o.signal?.throwIfAborted();
    const crop = nativeCrop(o.crop);
    const batch = checkInteger(o.batch, 'batch', 1, 1 << 20);
    const rows = o.rows ?? Int32Array.from({ length: this.count }, (_, i) => i);
    for (const row of rows) checkInteger(row, 'rows', 0, this.count - 1);
    const from = checkInteger(o.from ?? 0, 'from', 0, 2 ** 31 - 1);
    const until = checkInteger(o.until ?? from + Math.ceil(rows.length / batch), 'until', from, 2 ** 31 - 1);
    const ranks = checkInteger(o.ranks ?? 1, 'ranks', 1, batch);
    const addon = loadAddon();
    let wake = () => {};
    const { run, stream, end } = addon.picturesStream(
      this.handle,
      {
        ...{ crop, batch, rows, from, until, ranks },
        rank: checkInteger(o.rank ?? 0, 'rank', 0, ranks - 1),
        channelsLast: o.channelsLast ?? false,
        upright: o.upright ?? false,
        workers: checkInteger(o.workers ?? availableParallelism(), 'workers', 1, 1024),
        ahead: checkInteger(o.ahead ?? 3, 'ahead', 1, 1024),
        shuffle: o.shuffle ?? true,
        seed: checkInteger(o.seed ?? 0, 'seed', 0, most),
        replicate: checkInteger(o.replicate ?? 0, 'replicate', 0, 2 ** 32 - 1),
        noise: checkInteger(o.noise ?? 0, 'noise', 0, most),
      },
      () => wake(),
    );
    let ended: { error?: unknown } | undefined;
    const done = end
      .then(
        () => ({}),
        (error: unknown) => ({ error }),
      )
      .then((how) => {
        ended = how;
        wake();
      });
    const abort = () => addon.runAbort(run);
    o.signal?.addEventListener('abort', abort);
    try {
      for (let step = from; step < until; ) {
        const woken = new Promise<void>((resolve) => {
          wake = resolve;
        });
        o.signal?.throwIfAborted();
        if (ended !== undefined) {
          throw (ended as { error?: unknown }).error ?? new LthError('disposed', 'The batches were stopped');
        }
        const made = addon.picturesTake(stream);
        if (made === null) {
          await woken;
          continue;
        }
        step += 1;
        yield this.batchOf(made, crop.size, o.channelsLast ?? false);
      }
    } finally {
      o.signal?.removeEventListener('abort', abort);
      abort();
      await done;
      addon.dispose(run);
      addon.dispose(stream);
    }
  }

  private batchOf(made: NativePictureBatch, size: number, channelsLast: boolean): PictureBatch {
    const { step, images, labels, rows, warnings } = made;
    for (const one of [images, labels, rows]) pinned(one.buffer as ArrayBuffer);
    const failures = made.failures.map((failure) => ({ ...failure, path: this.path(failure.row) }));
    const shape: PictureBatch['shape'] = channelsLast
      ? [rows.length, size, size, 3]
      : [rows.length, 3, size, size];
    const records = () => pictureRecords({ images, labels, rows });
    return { step, images, shape, labels, rows, failures, warnings, records };
  }
}
