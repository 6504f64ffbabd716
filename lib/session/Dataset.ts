import { createHash } from 'node:crypto';
import { checkSetName, isPictureSet, openDataset, pictureFolder } from '../data/catalogue.js';
import { readIdxDataset, sha256 } from '../data/idx.js';
import type { DatasetHandle, DatasetInfo } from '../native/AddonTypes.js';
import { checkInteger, checkNumber, LthError, wrongValue } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { nativeCrop, type PictureCrop, Pictures } from './Pictures.js';
import { Resource } from './Resource.js';

/** What pictures in files become before a network reads them. */
export interface PictureOptions {
  /** Of training batches, and of evaluations; both of one size. */
  crop: { training: PictureCrop; evaluation: PictureCrop };
  /** Per channel, of x/255. Default: ImageNet's. */
  mean?: [number, number, number];
  std?: [number, number, number];
  /** Apply EXIF's orientation. Default false. */
  upright?: boolean;
}

/** Bytes that webcrypto takes at a time: less than 2 GiB. */
const MOST_HASHED = 2 ** 30;

const imagenet = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

/** Labelled examples (bytes), in native memory or in files; any number of sessions may share one. Immutable. */
export class Dataset extends Resource<DatasetHandle> {
  readonly info: DatasetInfo;

  private constructor(
    handle: DatasetHandle,
    /** Where the examples are pictures in files. */
    readonly pictures: Pictures | null = null,
  ) {
    super(handle);
    this.info = loadAddon().datasetInfo(handle);
  }

  /**
   * Pictures in files, read by threads of the session's own while it trains: each update has the same ones for any number
   * of threads, and after a resume.
   * @throws LthError "invalid-argument" where the crops' sizes differ.
   */
  static ofPictures(pictures: Pictures, options: PictureOptions): Dataset {
    if (!(pictures instanceof Pictures)) throw wrongValue('Pictures', 'pictures', pictures);
    const { crop, mean = imagenet.mean, std = imagenet.std, upright = false } = options ?? {};
    if (!crop?.training || !crop.evaluation)
      throw wrongValue('{ training, evaluation }', 'crop', JSON.stringify(crop));
    for (const [i, one] of mean.entries()) checkNumber(one, `mean[${i}]`, 0, 1);
    for (const [i, one] of std.entries()) checkNumber(one, `std[${i}]`, 1e-6, 1);
    const [training, evaluation] = [nativeCrop(crop.training), nativeCrop(crop.evaluation)];
    return new Dataset(
      loadAddon().datasetOfPictures(pictures.handle, { training, evaluation, upright, mean, std }),
      pictures,
    );
  }

  /**
   * A data set of the catalogue, e.g. "mnist-10k", which comes with the package.
   * @param folder where its files are. Default: LTH_DATA/NAME, else where `lth-train data fetch` puts them.
   * @param options of "imagenet", which must have `crop`.
   * @throws LthError "recipe" (unknown name), "io", "corrupt-file".
   */
  static async open(
    name: string,
    folder: string | null = null,
    options: Partial<PictureOptions> & { groundTruth?: string } = {},
  ): Promise<{ train: Dataset; test: Dataset }> {
    if (folder !== null && typeof folder !== 'string') throw wrongValue('path', 'folder', folder);
    const { crop, groundTruth, ...rest } = options;
    if (isPictureSet(name)) {
      if (!crop) throw new LthError('recipe', `data.crop: ${name} is pictures in files, which need it`);
      const { train, validation } = await Pictures.openParts(
        pictureFolder(name, folder),
        groundTruth === undefined ? {} : { groundTruth },
      );
      const as = { crop, ...rest };
      return { train: Dataset.ofPictures(train, as), test: Dataset.ofPictures(validation, as) };
    }
    checkSetName(name);
    if (crop || groundTruth !== undefined || rest.upright)
      throw new LthError(
        'recipe',
        `data: crop, groundTruth and upright are for pictures in files, not for ${name}`,
      );
    const { train, test } = await openDataset(name, folder);
    return { train: new Dataset(train), test: new Dataset(test) };
  }

  /**
   * Examples in memory, which are copied: leave the bytes as they are until this has come.
   * @param images (N, shape...), one behind another.
   * @param labels (N), each in [0, classes).
   * @param options shape of one example, e.g. [3, 224, 224] for channels, height, width; the first extent is what
   * `normalise` has a mean and a deviation for each of.
   * @throws LthError "wrong-shape" where these are not N examples, "invalid-argument" (a label, another type).
   */
  static async fromBytes(
    images: Uint8Array,
    labels: Int32Array,
    options: { shape: number[]; classes: number },
  ): Promise<Dataset> {
    if (!(images instanceof Uint8Array)) throw wrongValue('a Uint8Array', 'images', images);
    if (!(labels instanceof Int32Array)) throw wrongValue('an Int32Array', 'labels', labels);
    for (const [name, { buffer }] of Object.entries({ images, labels }))
      if (!(buffer instanceof ArrayBuffer)) throw wrongValue('memory that is not shared', name, buffer);
    const { shape, classes } = options ?? {};
    if (!Array.isArray(shape)) throw wrongValue('one to three numbers', 'shape', shape);
    checkInteger(classes, 'classes', 1, 2 ** 24);
    const digest = createHash('sha256').update(JSON.stringify(shape));
    const bytes = new Uint8Array(labels.buffer, labels.byteOffset, labels.byteLength);
    for (const all of [images, bytes])
      for (let at = 0; at < all.length; at += MOST_HASHED)
        digest.update(await sha256(all.subarray(at, at + MOST_HASHED)));
    return new Dataset(
      await loadAddon().datasetFromBytes(images, labels, { shape, classes, digest: digest.digest('hex') }),
    );
  }

  /** Images (N,H,W) and labels (N) in IDX files, plain or gzip. */
  static async fromIdx(images: string, labels: string, classes: number): Promise<Dataset> {
    return new Dataset(await readIdxDataset(images, labels, classes));
  }
}
