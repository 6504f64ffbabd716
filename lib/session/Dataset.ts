import { openDataset } from '../data/catalogue.js';
import { readIdxDataset } from '../data/idx.js';
import type { DatasetHandle, DatasetInfo } from '../native/AddonTypes.js';
import { wrongValue } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { Resource } from './Resource.js';

/** Labelled examples (bytes) in native memory; any number of sessions may share one. Immutable. */
export class Dataset extends Resource<DatasetHandle> {
  readonly info: DatasetInfo;

  private constructor(handle: DatasetHandle) {
    super(handle);
    this.info = loadAddon().datasetInfo(handle);
  }

  /**
   * A data set of the catalogue, e.g. "mnist-10k", which comes with the package.
   * @param folder where its files are. Default: LTH_DATA/NAME, else where `lth-train data fetch` puts them.
   * @throws LthError "recipe" (unknown name), "io", "corrupt-file".
   */
  static async open(name: string, folder: string | null = null): Promise<{ train: Dataset; test: Dataset }> {
    if (folder !== null && typeof folder !== 'string') throw wrongValue('path', 'folder', folder);
    const { train, test } = await openDataset(name, folder);
    return { train: new Dataset(train), test: new Dataset(test) };
  }

  /** Images (N,H,W) and labels (N) in IDX files, plain or gzip. */
  static async fromIdx(images: string, labels: string, classes: number): Promise<Dataset> {
    return new Dataset(await readIdxDataset(images, labels, classes));
  }
}
