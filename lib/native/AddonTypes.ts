/**
 * The whole native surface, typed by hand in one file. Nothing else in `lib` may know what the addon
 * offers; nothing in `native/addon` may offer what is not written here.
 *
 * Every handle is a type-tagged external: passing one where another is wanted is an `LthError` with code
 * `wrong-handle`; using one after `dispose` is code `disposed`. Native errors are thrown as `Error` with
 * a string property `code` (see `ErrorCode` in errors.ts) and are turned into `LthError` by the loader.
 *
 * Shape letters: N batch, C features in, K features out.
 */

declare const handleTag: unique symbol;
type Handle<Tag extends string> = { readonly [handleTag]: Tag };

/** A compiled network: parameter layout and plan of operations. Immutable. */
export type NetworkHandle = Handle<'network'>;
/** Examples and labels in native memory. Immutable, may be shared by many sessions. */
export type DatasetHandle = Handle<'dataset'>;
/** An immutable copy of everything a training restores: parameters, optimiser state, step. */
export type SnapshotHandle = Handle<'snapshot'>;
/** One bit per prunable weight, packed least significant bit first. Immutable. */
export type MasksHandle = Handle<'masks'>;
/** A network in training: parameters, optimiser, data order, threads. */
export type SessionHandle = Handle<'session'>;
/** A training or evaluation that is going on on its own native thread. */
export type RunHandle = Handle<'run'>;
/** A kernel lock (flock) on a file; released by dispose and by the end of the process. */
export type LockHandle = Handle<'lock'>;
/** Labelled pictures in files, read when they are wanted. Immutable. */
export type PicturesHandle = Handle<'pictures'>;
/** Batches of pictures that native threads make ahead of time. */
export type PictureStreamHandle = Handle<'picture stream'>;

export type AnyHandle =
  | NetworkHandle
  | DatasetHandle
  | SnapshotHandle
  | MasksHandle
  | SessionHandle
  | RunHandle
  | LockHandle
  | PicturesHandle
  | PictureStreamHandle;

export interface BuildInfo {
  /** LibTorch's version, e.g. "2.13.0". */
  libtorch: string;
  /** The folder of the LibTorch this addon was built against (contains lib/ and include/). */
  libtorchPath: string;
  compiler: string;
  /** The instruction set the kernels run with now: what the CPU has, or what LTH_ISA forces. */
  isa: 'avx512_bf16' | 'avx512' | 'avx2' | 'portable';
  /** What the CPU offers, best first. */
  isaAvailable: ('avx512_bf16' | 'avx512' | 'avx2' | 'portable')[];
  /** Versions of the kernels: raised by whatever changes bits. */
  kernels: string;
  /** Hardware threads. */
  threads: number;
  cuda: {
    /** Was the addon built against a LibTorch with CUDA? */
    built: boolean;
    /** Is there a device that can be used now? */
    available: boolean;
    devices: string[];
    /** What each of them is, e.g. "NVIDIA H100 80GB HBM3". */
    names: string[];
    /** Why not, in a sentence; empty where available. */
    reason: string;
  };
  jpeg: {
    /** Were libjpeg-turbo and libpng there when the addon was built? */
    built: boolean;
    /** "libjpeg-turbo 2.1.5, libpng 1.6.39". */
    libraries: string;
    /** What decides the bytes of JPEGs that are written: "libjpeg-turbo 2.1.5, restart markers every 64 pixels". */
    encoder: string;
    /** Why not and what to do, in a sentence; empty where built. */
    reason: string;
  };
}

// ---------------------------------------------------------------------------------------- networks

export type WeightInitialisation =
  | 'glorot-normal'
  | 'glorot-uniform'
  | 'kaiming-normal'
  | 'variance-scaling'
  | 'normal'
  | 'truncated-normal';

export type LayerType =
  | 'flatten'
  | 'linear'
  | 'relu'
  | 'add'
  | 'concat'
  | 'conv'
  | 'batchnorm'
  | 'maxpool'
  | 'avgpool'
  | 'globalpool'
  | 'dropout';

/** What crosses to `networkCompile`: a resolved description (no optional fields). */
export interface NativeLayer {
  name: string;
  type: LayerType;
  /** Names of the layers this one reads; "input" is the example. */
  inputs: string[];
  /** linear: features out; conv: channels out. 0 for other types. */
  units: number;
  bias: boolean;
  prunable: boolean;
  initialisation: WeightInitialisation;
  /** variance-scaling: factor of the variance; normal and truncated-normal: the deviation. Default 1. */
  initialisationScale?: number;
  /** conv, maxpool and avgpool only, as are stride and padding: [height, width]. */
  kernel?: [number, number];
  stride?: [number, number];
  padding?: [number, number];
  /** maxpool only: a last window may overhang. Default false. */
  ceil?: boolean;
  /** batchnorm only: running = (1 - momentum) * running + momentum * batch. */
  epsilon?: number;
  momentum?: number;
  /** batchnorm only: its weight begins as 0. Default false. */
  zeroScale?: boolean;
  /** dropout only: of an element to be dropped. */
  probability?: number;
}

export interface NativeNetwork {
  name: string;
  /** Shape of one example, without the batch: [channels, height, width] or [features]. */
  input: number[];
  classes: number;
  layers: NativeLayer[];
  /** Heads whose loss times `weight` is added in training, and which evaluation leaves out. */
  auxiliary?: { layer: string; weight: number }[];
}

export interface ParameterInfo {
  /** As in PyTorch: "fc1.weight" (K,C), "fc1.bias" (K), "conv1.weight" (K,C,R,S), "bn1.running_mean" (C). */
  name: string;
  shape: number[];
  size: number;
  prunable: boolean;
  /** Is this a weight (conv or linear)? Overall density counts weights, not biases (paper Figure 5). */
  weight: boolean;
  /** False for running statistics of batch norm: part of snapshots, without gradient and optimiser state. */
  trainable: boolean;
}

export interface NetworkSummary {
  name: string;
  parameters: ParameterInfo[];
  /** Elements of all trainable parameters, of all weights (conv and linear), of the prunable weights. */
  counts: { parameters: number; weights: number; prunable: number };
  /** Multiply-adds x 2 of one forward of one example. */
  flops: number;
  /** The plan, one line per operation, for people. */
  operations: string[];
  /** Convolutions and linear layers, in their order. */
  products: ProductLayer[];
}

/** A layer whose work is products with weights. */
export interface ProductLayer {
  layer: string;
  /** Its weight's name. */
  weight: string;
  type: 'conv' | 'linear';
  /** Of the weight: (K,C,R,S) or (K,C). */
  shape: number[];
  /** Of one example: [channels, height, width], or [features]. */
  input: number[];
  output: number[];
  /** [height, width]; zeros of linear layers. */
  stride: [number, number];
  padding: [number, number];
  /** Does anything want the gradient of its input? Not of a layer that reads the examples. */
  inputGradient: boolean;
}

// -------------------------------------------------------------------------------------------- data

export interface DatasetInfo {
  count: number;
  /** Shape of one example, e.g. [1, 28, 28]. */
  shape: number[];
  /** SHA-256 of its unpacked files, or of CIFAR's binary records: what makes it this data set and no other. */
  digest: string;
  classes: number;
  /** Per channel mean and standard deviation of x/255 over the whole set. */
  mean: number[];
  std: number[];
}

/** How a picture becomes a square of `size`; each kind looks at its own fields. */
export interface NativeCrop {
  kind: 'random-resized' | 'scaled-random' | 'centre' | 'central';
  size: number;
  filter: 'bilinear' | 'bicubic';
  flip: boolean;
  /** random-resized and scaled-random: how colours are distorted. */
  colour: 'none' | 'brightness-chroma' | 'inception';
  /** random-resized: range of the share of the area, and of width over height. */
  area: [number, number];
  aspect: [number, number];
  /** scaled-random: range that the short side is drawn from. */
  shortSide: [number, number];
  /** centre: what the short side becomes. */
  resize: number;
  /** central: share of both sides. */
  fraction: number;
}

export interface PictureStreamOptions {
  crop: NativeCrop;
  /** (N,S,S,3) instead of (N,3,S,S). */
  channelsLast: boolean;
  /** Apply EXIF's orientation. */
  upright: boolean;
  workers: number;
  /** Batches that are made or wait at most. */
  ahead: number;
  /** Of the set, which batches are made of. */
  rows: Int32Array;
  batch: number;
  /** By the data order; else as `rows` has them. */
  shuffle: boolean;
  seed: number;
  replicate: number;
  noise: number;
  /** Of each batch the part of one process among so many. */
  rank: number;
  ranks: number;
  /** Batches of the steps from `from` on, before `until`. */
  from: number;
  until: number;
}

export interface NativePackedShard {
  pictures: number;
  /** Of the file. */
  bytes: number;
  warnings: number;
  /** Could not be decoded: their rows hold the files' own bytes, or none of a file that is too large (`kept` is false). */
  broken: { row: number; why: string; kept: boolean }[];
}

export interface ShardPacker {
  run: RunHandle;
  /**
   * Packs pictures from row `from` on into an Arrow file: as many as `bytes` hold. One shard at a time. `done()` tells pictures
   * meanwhile. `end` is null where runAbort stopped it, or the packer. "io" where a picture's file cannot be read or the shard
   * not be written.
   */
  pack(shard: { path: string; from: number; bytes: number; metadata: Record<string, string> }): {
    run: RunHandle;
    done: () => number;
    end: Promise<NativePackedShard | null>;
  };
  end: Promise<RunEnd>;
}

/** A picture that could not be read: the next one of its batch that could stands in its place. */
export interface NativePictureFailure {
  position: number;
  row: number;
  taken: number;
  why: string;
}

/** Views over native memory, handed over once. */
export interface NativePictureBatch {
  step: number;
  images: Uint8Array;
  labels: Int32Array;
  rows: Int32Array;
  warnings: number;
  failures: NativePictureFailure[];
}

/** (height,width,3) in RGB. */
export interface NativePicture {
  height: number;
  width: number;
  warnings: number;
  pixels: Uint8Array;
  /** Of `pictureCrop`: what became the square, whether pixels outside of it counted, whether it was mirrored. */
  box: { top: number; left: number; height: number; width: number };
  cut: boolean;
  flip: boolean;
}

// ----------------------------------------------------------------------------------------- session

/**
 * What weight decay is for: all parameters, all but those of normalisation, or weights of convolutions and linear layers
 * alone, without biases.
 */
export type Decayed = 'all' | 'without-norms' | 'weights';

export type OptimiserOptions = { weightDecay: number; decayed: Decayed } & (
  | { type: 'sgd'; momentum: number; nesterov: boolean }
  | { type: 'adam'; beta1: number; beta2: number; epsilon: number }
  | { type: 'rmsprop'; decay: number; momentum: number; epsilon: number }
);

export interface ScheduleOptions {
  learningRate: number;
  /** Updates at which the rate is multiplied by gamma; at update index == milestone it already is. */
  milestones: number[];
  gamma: number;
  /** Linear warm-up over this many updates: update i has rate * i / warmup (update 0 has rate 0). */
  warmup: number;
  /** In a line from learningRate to `to` at update `steps`, and that from there on. */
  linear: { to: number; steps: number } | null;
  /** Times `factor` every so many updates, but never below learningRate * floor. */
  exponential: { factor: number; every: number; floor: number } | null;
  /** The rate of that update for all of them. */
  constantAt: number | null;
}

export interface SessionOptions {
  network: NetworkHandle;
  train: DatasetHandle;
  test: DatasetHandle | null;
  /** Examples of `train` held out for validation, chosen by `seed` (same for all replicates). */
  validation: number;
  /** Examples of the others that are trained on, balanced over classes, chosen by `seed`; 0: all. */
  subset: number;
  seed: number;
  replicate: number;
  /** Examples per update; the last batch of an epoch holds what is left. */
  batch: number;
  /** Of those, so many go through the network at once; 0: all. */
  microBatch: number;
  optimiser: OptimiserOptions;
  schedule: ScheduleOptions;
  /** Of training batches: targets are 1 - smoothing at the label, and smoothing spread over all classes. */
  labelSmoothing: number;
  /** Moving averages of all parameters, which evaluations look at; null: none. */
  average: { decay: number; warmup: boolean } | null;
  /** Per-channel normalisation (x/255 - mean) / std; null: x/255. */
  normalise: { mean: number[]; std: number[] } | null;
  /** Of training batches alone: crops of the picture padded by `crop` pixels of 0, and flips. */
  augment: { crop: number; flip: boolean } | null;
  device: string;
  /** Of CUDA devices. */
  deviceMode: DeviceMode;
  kernels: KernelRule;
  /** Of kernels "auto", executor "direct" on the CPU, fp32 and bf16; others do not look at it. */
  tuning: Tuning;
  precision: Precision;
  executor: 'direct' | 'aten' | 'autograd';
  /** Threads of this session. Never changes a bit of the result. */
  threads: number;
  /** Threads beside those that read pictures in files. Nor does this. */
  workers: number;
}

/** bf16: images and what convolutions multiply; weights, gradients, optimiser state and sums are fp32. */
export type Precision = 'fp32' | 'bf16' | 'fp64';

/** How the three products of a layer are made in an update: through all weights, or through those that are left. */
export interface KernelChoice {
  layer: string;
  forward: 'dense' | 'sparse';
  /** null where nothing wants it: of a layer that reads the examples. */
  inputGradient: 'dense' | 'sparse' | null;
  weightGradient: 'dense' | 'sparse';
}

/**
 * What sparse products cost, where a dense one costs 1 for each vector: of a convolution a place, a unit and a channel (in
 * bf16 two) for 16 examples, of a linear layer a weight for 16 examples. Numbers from 0 to 1e6.
 */
export interface ProductCosts {
  /** Forward and gradient of the input, of each weight that is left (in bf16, pair of channels): for each run of places. */
  entryOfRun: number;
  /** And for each place of these. */
  entryOfPlace: number;
  /** Gradient of each weight that is left: for each vector of places. */
  gradientOfVector: number;
  /** And for each band of rows; a linear layer has one. */
  gradientOfBand: number;
  /** Before that, each vector that is split into rows. */
  splitOfVector: number;
}

/** The table by which "auto" chooses between dense and sparse products: another one is another set of bits. */
export interface Tuning {
  /** Convolutions by precision. fp64 always has the built-in costs. */
  fp32: ProductCosts;
  bf16: ProductCosts;
  /** Linear layers, which are multiplied in fp32 beside images in bf16 too. */
  linear: ProductCosts;
  /** Those of which a batch's inputs or outputs have more than 1 MiB. */
  wide: ProductCosts;
}

/** Bytes that a session holds of its parameters, beside the values of a batch. */
export interface SessionMemory {
  weights: number;
  /** Of pruned tensors of the weights that are left, as `optimiser`; of all after a call of `gradients`. */
  gradients: number;
  optimiser: number;
  /** Of moving averages; 0 where none are kept. */
  average: number;
}

/** How cuDNN's algorithms are chosen: by rule, the same bits each time, or by the clock. */
export type DeviceMode = 'deterministic' | 'fast';
/** Which products may be sparse: those where that is cheaper, none, or all that can be. */
export type KernelRule = 'auto' | 'dense' | 'sparse';

export interface SessionInfo {
  /** Updates done. */
  step: number;
  /** Examples trained on per epoch, held out for validation, in the test set. */
  examples: { train: number; validation: number; test: number };
  /** Updates per epoch, the last smaller batch included. */
  updatesPerEpoch: number;
  /** What decides bits beside recipe and seed: LibTorch, instruction set, precision, device. */
  fingerprint: string;
}

export interface TrainOptions {
  /** Absolute number of updates to reach; the call makes `until - step` updates. */
  until: number;
  /** Which data order (and, later, augmentation and dropout): a noise id. */
  noise: number;
  /** A "train" row (mean loss and accuracy since the row before) every so many updates, and at the end. 0: only at the end. */
  metricsEvery: number;
  /** "validation" and "test" rows at every multiple of this, and at the end. 0: only at the end. */
  evaluateEvery: number;
  /** Also evaluate before the first update of this call. */
  evaluateAtStart: boolean;
  /** The training ends with this call: "train", "validation" and "test" rows at its end too, not only at multiples. */
  ends: boolean;
  /** What was due at the session's step goes on (the "train" row being summed up, a stopped evaluation): rows as if the training was never cut. */
  continues: boolean;
  /** Ends at this update with state "paused", for a later call that continues. 0: nowhere. */
  pauseAt: number;
  evaluate: ('validation' | 'test')[];
}

/** Rows that waited in native memory; each column is a view over native memory, handed over once. */
export interface MetricColumns {
  rows: number;
  /** Updates done when the row was made. */
  step: Int32Array;
  /** 0 train, 1 validation, 2 test. */
  split: Int8Array;
  loss: Float64Array;
  /** Fraction in [0, 1]. */
  accuracy: Float64Array;
  learningRate: Float64Array;
  examples: Float64Array;
  /** Seconds since the call began. A time: never compared between runs. */
  seconds: Float64Array;
}

/** A picture that could not be read, and the row that took its place; "validation" is of the training set's rows. */
export interface NativeReplacedPicture {
  split: 'train' | 'validation' | 'test';
  row: number;
  taken: number;
  why: string;
}

export interface RunEnd {
  /** "paused": by pauseAt or runPause. "aborted": stopped by runAbort. "diverged": the loss or a weight is not finite. */
  state: 'done' | 'paused' | 'aborted' | 'diverged';
  step: number;
  /** Wall-clock seconds of the call. */
  seconds: number;
  /** Results of sessionEvaluate; NaN / 0 for training. */
  loss: number;
  accuracy: number;
  examples: number;
}

// -------------------------------------------------------------------------------------- benchmarks

export interface LayerBenchOptions {
  batch: number;
  /** Convolutions alone; else fp32. */
  bf16: boolean;
  threads: number;
  /** Samples of each side. */
  rounds: number;
  /** Seconds that a sample lasts at least. */
  sample: number;
}

/** One of a layer's three products, dense and sparse in turn. */
export interface ProductTimes {
  /** Seconds of one product, a number a sample. */
  dense: number[];
  /** null where there is no sparse product of so many weights. */
  sparse: number[] | null;
  /** Bytes that must be read or written at least: what is multiplied and what comes out, once each. */
  denseBytes: number;
  sparseBytes: number;
  /** The largest between the results of both, where the dense one's largest value is 1. */
  difference: number;
}

export interface LayerTimes {
  weights: number;
  remaining: number;
  /** Of each product: multiply-adds x 2 of all weights, and of those that remain, at places inside the image. */
  denseOperations: number;
  sparseOperations: number;
  forward: ProductTimes;
  /** null for a layer that reads the examples. */
  inputGradient: ProductTimes | null;
  weightGradient: ProductTimes;
}

/** What the CPU does at most on so many threads. */
export interface MachineLimits {
  /** Operations a second, multiply-adds x 2, of loops in registers; bf16 null where there is no instruction for it. */
  fp32: number;
  bf16: number | null;
  /** Bytes a second of out = a + b over arrays that no cache holds, three arrays counted. */
  bandwidth: number;
}

// ------------------------------------------------------------------------------- snapshots and masks

export interface SnapshotTensor {
  /** "fc1.weight", or "momentum.fc1.weight", "exp_avg.fc1.weight", "exp_avg_sq.fc1.weight", "average.fc1.weight". */
  name: string;
  role: 'parameter' | 'optimiser' | 'buffer' | 'average';
  shape: number[];
  dtype: 'fp32' | 'fp64';
  /** External memory of the snapshot; the caller must mark it untransferable. */
  data: ArrayBuffer;
}

export interface MaskTensor {
  name: string;
  shape: number[];
  size: number;
  remaining: number;
  /** Arrow Bool layout: bit i of the tensor is bit (i % 8) of byte i / 8; padded with zeros to 8 bytes. */
  bits: ArrayBuffer;
}

export interface PruneOptions {
  /** Fraction of the remaining weights to remove, in (0, 1). */
  fraction: number;
  /** Apply the count floor(fraction * remaining) this many times before choosing: 1 is iterative, n is one-shot to level n. */
  levels: number;
  pooling: 'global' | 'layerwise';
  /** layerwise only: another fraction for a parameter by name. */
  rates: Record<string, number>;
  /** The largest |w| go instead. */
  highest: boolean;
}

/** Of pruning at initialisation (paper 4.2). */
export type ScoreMethod = 'magnitude' | 'snip' | 'grasp' | 'grasp-abs' | 'synflow';

/** Between two snapshots. */
export interface DistanceResult {
  /** L2 norm of the difference. */
  distance: number;
  /** Degrees in [0, 180]; null where one of the two is a zero vector. */
  angle: number | null;
}

/** Between two masks. */
export interface OverlapResult {
  /** Weights, and how many of them each mask keeps. */
  size: number;
  a: number;
  b: number;
  intersection: number;
  union: number;
  /** Expected intersection of independent random masks that keep as many of each tensor. */
  chance: number;
}

export interface Addon {
  info(): BuildInfo;
  /** Idempotent. On a session: aborts and joins what is running. Snapshot and mask memory lives on until its views are collected. */
  dispose(handle: AnyHandle): void;

  /** The table of who has none: as measured once on an AMD EPYC with AVX512_BF16, and never changed. */
  tuningBuiltin(): Tuning;
  /** 16 hexadecimal digits, a table's word in fingerprints; null for the built-in one. */
  tuningName(tuning: Tuning): string | null;
  /**
   * Measures this machine's costs with the instruction set in use, `threads` slices at a time, on a native thread. At most
   * so many rounds, fewer where kernels are slow; their lower quartile counts.
   */
  tuningMeasure(threads: number, rounds: number): { run: RunHandle; end: Promise<Tuning | null> };

  networkCompile(network: NativeNetwork): NetworkHandle;
  networkSummary(network: NetworkHandle): NetworkSummary;

  /** Unpacked IDX bytes of images (N,H,W) and labels (N), both unsigned bytes; names are used in errors. Copies. */
  datasetFromIdx(
    images: Uint8Array,
    labels: Uint8Array,
    options: { classes: number; imagesName: string; labelsName: string; digest: string },
  ): Promise<DatasetHandle>;
  /** Examples one behind another, each of `shape` (one to three numbers). "wrong-shape", "invalid-argument". Copies. */
  datasetFromBytes(
    images: Uint8Array,
    labels: Int32Array,
    options: { shape: number[]; classes: number; digest: string },
  ): Promise<DatasetHandle>;
  /** Files of CIFAR's binary layout: per record a coarse label byte where `coarse` is above 0, the label, (3,32,32). Copies. */
  datasetFromCifar(
    files: Uint8Array[],
    options: { names: string[]; classes: number; coarse: number; digest: string },
  ): Promise<DatasetHandle>;
  /** The records of that layout out of a pickle of CIFAR's Python layout; nothing in it is ever called. */
  cifarRecords(
    pickle: Uint8Array,
    options: { name: string; classes: number; coarse: number },
  ): Promise<Uint8Array>;
  datasetInfo(dataset: DatasetHandle): DatasetInfo;

  /** `names` of files below `root`, each with a zero byte behind it, as many as labels; the files are not looked at. */
  picturesOpen(
    names: Uint8Array,
    labels: Int32Array,
    options: { root: string; classes: number; digest: string },
  ): Promise<PicturesHandle>;
  /**
   * Pictures that lie in files one behind another: `begins` (whole numbers) and `lengths` of each, `rows` of each file. `names`
   * are for people. The files stay open. "corrupt-file" where a picture would not lie in its file.
   */
  picturesOpenShards(
    names: Uint8Array,
    labels: Int32Array,
    options: {
      files: string[];
      rows: number[];
      begins: Float64Array;
      lengths: Uint32Array;
      classes: number;
      digest: string;
    },
  ): Promise<PicturesHandle>;
  /**
   * Starts threads that make pictures for shards, one after another of a part. `shortSide` 0 keeps the files' bytes. Goes on
   * until runAbort. "io" where a thread cannot be started.
   */
  shardPacker(
    pictures: PicturesHandle,
    options: { shortSide: number; quality: number; threads: number },
  ): ShardPacker;
  /**
   * A data set of pictures in files, each read when it is wanted. "invalid-argument" where the crops' sizes differ.
   * `mean` and `std`: three numbers each, of x/255.
   */
  datasetOfPictures(
    pictures: PicturesHandle,
    options: {
      training: NativeCrop;
      evaluation: NativeCrop;
      upright: boolean;
      mean: number[];
      std: number[];
    },
  ): DatasetHandle;
  /** Starts the threads that make batches; `notify` is called when one is there to be taken. Goes on until runAbort. */
  picturesStream(
    pictures: PicturesHandle,
    options: PictureStreamOptions,
    notify: () => void,
  ): { run: RunHandle; stream: PictureStreamHandle; end: Promise<RunEnd> };
  /** The next batch where it is made, else null. "corrupt-file" where none of its pictures can be read. */
  picturesTake(stream: PictureStreamHandle): NativePictureBatch | null;
  /** A JPEG or PNG file's pixels; `name` is what errors call it. */
  pictureDecode(file: Uint8Array, name: string): Promise<NativePicture>;
  /** The square that an example of an epoch becomes. */
  pictureCrop(
    file: Uint8Array,
    name: string,
    options: {
      crop: NativeCrop;
      upright: boolean;
      seed: number;
      replicate: number;
      noise: number;
      epoch: number;
      example: number;
    },
  ): Promise<NativePicture>;

  /** Allocates and draws the initial weights. From here on to sessionGradients: passes over all parameters, on libuv's pool. */
  sessionOpen(options: SessionOptions): Promise<SessionHandle>;
  /** Pictures that were replaced since the last call, each once; also while a run is going on. */
  sessionReplaced(session: SessionHandle): NativeReplacedPicture[];
  sessionInfo(session: SessionHandle): SessionInfo;
  /**
   * Draws all parameters anew, clears optimiser state and step. `draw` 0 is the network's initialisation,
   * 1 and up are reinitialisations (control "reinit").
   */
  sessionInitialise(session: SessionHandle, draw: number): Promise<void>;
  /** Restores parameters, step and optimiser state (or zeroes it), and applies the session's masks. */
  sessionLoad(
    session: SessionHandle,
    snapshot: SnapshotHandle,
    options: { optimiser: 'restore' | 'zero' },
  ): Promise<void>;
  /** null: dense. Pruned weights and their optimiser state become +0 at once. */
  sessionSetMasks(session: SessionHandle, masks: MasksHandle | null): Promise<void>;
  sessionSetStep(session: SessionHandle, step: number): void;
  sessionSnapshot(session: SessionHandle): Promise<SnapshotHandle>;
  /** Indices into the training set (after the split) of the batch of update `step` (0-based). */
  sessionBatch(session: SessionHandle, step: number, noise: number): Int32Array;
  /** Loss and gradients (as a snapshot's "parameter" tensors) on the batch of update `step`, without updating. */
  sessionGradients(
    session: SessionHandle,
    step: number,
    noise: number,
  ): Promise<{ loss: number; correct: number; gradients: SnapshotHandle }>;

  /**
   * Scores of the prunable weights as they are, as a snapshot's fp64 "parameter" tensors (zeros for the others).
   * `perClass` examples of each class for the methods that look at data; nothing of the session changes. On a native
   * thread; null where runAbort stopped it.
   */
  sessionScores(
    session: SessionHandle,
    method: ScoreMethod,
    perClass: number,
  ): { run: RunHandle; end: Promise<SnapshotHandle | null> };
  /** Indices into the training set of the examples that scores look at, in the order in which they make up batches. */
  sessionScoreExamples(session: SessionHandle, perClass: number): Int32Array;
  sessionKernels(session: SessionHandle): KernelChoice[];
  sessionMemory(session: SessionHandle): SessionMemory;

  /** Starts training on a native thread. `notify` is called (rate-limited, at most one call pending) when rows wait. */
  sessionTrain(
    session: SessionHandle,
    options: TrainOptions,
    notify: () => void,
  ): { run: RunHandle; end: Promise<RunEnd> };
  sessionEvaluate(
    session: SessionHandle,
    split: 'train' | 'validation' | 'test',
    /** So many, evenly spaced over the split; 0: all. */
    examples: number,
  ): { run: RunHandle; end: Promise<RunEnd> };
  /**
   * Sets running statistics to the mean of the batch statistics of the first `batches` batches of the data order of
   * noise 0, without augmentation, at the weights as they are. Nothing else changes.
   */
  sessionReestimate(session: SessionHandle, batches: number): { run: RunHandle; end: Promise<RunEnd> };
  /** Takes the rows that wait, or null. Training blocks when 65,536 rows wait. */
  runDrain(run: RunHandle): MetricColumns | null;
  /** Stops at the next step; the promise then resolves with state "aborted". */
  runAbort(run: RunHandle): void;
  /** Ends a training after at least one update and what belongs to it, with state "paused". */
  runPause(run: RunHandle): void;
  /** Stops and joins all that is going on in this environment: for the end of the process. */
  stopRuns(): void;

  snapshotInfo(snapshot: SnapshotHandle): { step: number; bytes: number };
  snapshotTensors(snapshot: SnapshotHandle): SnapshotTensor[];
  /** safetensors under a temporary name, synced, renamed. `metadata` values are strings. */
  snapshotWrite(
    snapshot: SnapshotHandle,
    path: string,
    metadata: Record<string, string>,
    optimiser: boolean,
  ): Promise<void>;
  snapshotRead(network: NetworkHandle, path: string): Promise<SnapshotHandle>;
  /** A PyTorch state dict as safetensors, by name; at step 0, without optimiser state. */
  snapshotFromStateDict(network: NetworkHandle, path: string): Promise<SnapshotHandle>;
  /**
   * || m*a - m*b || and the angle between the two, summed up in double in a fixed order. "masked": prunable parameters;
   * "all": every trainable one. By parameter in `layers`.
   */
  snapshotDistance(
    a: SnapshotHandle,
    b: SnapshotHandle,
    masks: MasksHandle,
    scope: 'masked' | 'all',
  ): Promise<DistanceResult & { layers: (DistanceResult & { name: string })[] }>;
  /** (1 - alpha) * a + alpha * b over all parameters, and averages where both have them, alpha in [0, 1]; without optimiser state. */
  snapshotInterpolate(a: SnapshotHandle, b: SnapshotHandle, alpha: number): Promise<SnapshotHandle>;

  /** All ones over the prunable weights. */
  masksOnes(network: NetworkHandle): MasksHandle;
  /** Magnitude pruning of |w|: exact counts floor(p * remaining), ties broken by position (lower goes first). */
  masksPrune(masks: MasksHandle, weights: SnapshotHandle, options: PruneOptions): Promise<MasksHandle>;
  /** Lowest scores (or the highest) go, in one pool, until `remaining` weights are left; ties broken by position. */
  masksPruneByScores(
    masks: MasksHandle,
    scores: SnapshotHandle,
    remaining: number,
    highest: boolean,
  ): Promise<MasksHandle>;
  /** U(0,1) for each prunable weight, of (seed, replicate). */
  masksRandomScores(network: NetworkHandle, seed: number, replicate: number): Promise<SnapshotHandle>;
  /** Same counts per tensor at random places, by one permutation per tensor keyed by (seed, replicate): nested over levels. */
  masksRandom(masks: MasksHandle, seed: number, replicate: number): Promise<MasksHandle>;
  /** From packed bits by name, e.g. an Arrow Bool vector's buffer. Missing names are an error. */
  masksFromBits(network: NetworkHandle, bits: Record<string, Uint8Array>): MasksHandle;
  /** Of nested masks of levels 1, 2, ...: a byte per prunable weight, the level at which it goes; 0: at none. */
  masksLevels(masks: MasksHandle[]): Promise<Uint8Array>;
  /** The masks of a level out of these bytes; 0: all ones. */
  masksAtLevel(network: NetworkHandle, levels: Uint8Array, level: number): Promise<MasksHandle>;
  masksTensors(masks: MasksHandle): MaskTensor[];
  /** Is every weight of `inner` also in `outer`? */
  masksNested(inner: MasksHandle, outer: MasksHandle): boolean;
  /** Entries of pruned places, in weights, optimiser state and averages, that are not exactly +0. */
  masksViolations(masks: MasksHandle, snapshot: SnapshotHandle): Promise<number>;
  /** Counts over all prunable parameters, and by parameter in `layers`. */
  masksOverlap(
    a: MasksHandle,
    b: MasksHandle,
  ): OverlapResult & { layers: (OverlapResult & { name: string })[] };
  /** floor(fraction * remaining), for the decimal that the fraction was written as. */
  prunedCount(fraction: number, remaining: number): number;
  /** safetensors BOOL tensors. */
  masksWrite(masks: MasksHandle, path: string, metadata: Record<string, string>): Promise<void>;
  masksRead(network: NetworkHandle, path: string): Promise<MasksHandle>;

  /**
   * Times the three products of the only layer with weights of a network, on a thread of its own. `end` is null where
   * runAbort stopped it. "native": dense and sparse results do not agree.
   */
  benchLayer(
    network: NetworkHandle,
    masks: MasksHandle,
    options: LayerBenchOptions,
  ): { run: RunHandle; end: Promise<LayerTimes | null> };
  benchLimits(threads: number): { run: RunHandle; end: Promise<MachineLimits | null> };
  /** Decodes these pictures whole, once each; their files are in memory before the clock starts. */
  benchDecode(
    pictures: PicturesHandle,
    rows: Int32Array,
    threads: number,
  ): { run: RunHandle; end: Promise<{ seconds: number; pixels: number } | null> };

  /** Non-blocking exclusive flock on `path` (created if missing); null if another process or handle holds it. */
  lockTry(path: string): LockHandle | null;
  /** Does another process or handle hold the lock? Never creates the file. */
  lockHeld(path: string): boolean;
  /** Writes bytes under a temporary name, fsync, read back, rename, fsync of the folder. */
  fileWrite(path: string, bytes: Uint8Array): Promise<void>;
}
