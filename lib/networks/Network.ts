/** What the output layer, a control or a report may know of a layer. See `validate.ts` for the rules. */
export type Initialisation =
  /** Gaussian or uniform, of variance 2 / (fan in + fan out) (Glorot & Bengio 2010). */
  | 'glorot-normal'
  | 'glorot-uniform'
  /** Gaussian, of variance 2 / fan in (He et al. 2015). */
  | 'kaiming-normal'
  /** Of variance 1 / fan in, or as many times that: a Gaussian that is cut off at two deviations (TensorFlow's default). */
  | 'variance-scaling'
  | { varianceScaling: number }
  /** A Gaussian of this deviation. */
  | { normal: number }
  /** The same before it is cut off at two deviations. */
  | { truncatedNormal: number };

interface LayerBase {
  /** Unique; parameters are named `${name}.weight` and `${name}.bias` as in PyTorch. */
  name: string;
  /** The layer this one reads; the layer before it if not given; "input" is the example. */
  input?: string;
}

/** (N, ...) -> (N, C): all features of an example in a row. */
export interface Flatten extends LayerBase {
  type: 'flatten';
}

/** (N, C) -> (N, units): y = x W^T + b, W (units, C). */
export interface Linear extends LayerBase {
  type: 'linear';
  units: number;
  /** Default true. */
  bias?: boolean;
  /** May IMP prune the weight? Default true. Biases are never pruned. */
  prunable?: boolean;
  /** Default: the network's. */
  initialisation?: Initialisation;
}

/** max(x, 0). */
export interface Relu extends LayerBase {
  type: 'relu';
}

/**
 * (N, C, H, W) -> (N, channels, H', W'), H' = floor((H + 2 padding - kernel) / stride) + 1: weight
 * (channels, C, kernel, kernel), no bias unless asked for, since batch norm usually follows.
 */
export interface Conv extends LayerBase {
  type: 'conv';
  channels: number;
  /** One number for both, or [height, width]; so are stride and padding. */
  kernel: Extent;
  /** Default 1. */
  stride?: Extent;
  /** Default 0. */
  padding?: Extent;
  /** Default false. */
  bias?: boolean;
  /** May IMP prune the weight? Default true. */
  prunable?: boolean;
  /** Default: the network's. */
  initialisation?: Initialisation;
}

/**
 * Batch normalisation (Ioffe & Szegedy 2015) per channel of (N, C, H, W) or (N, C), as PyTorch's: batch statistics in
 * training, running ones (unbiased variance) in evaluation. Parameters weight (ones) and bias (zeros), buffers
 * running_mean and running_var; none is prunable.
 */
export interface BatchNorm extends LayerBase {
  type: 'batchnorm';
  /** Default 1e-5. */
  epsilon?: number;
  /** running = (1 - momentum) * running + momentum * batch. Default 0.1. */
  momentum?: number;
  /** The weight begins as 0 and not as 1: a residual block begins as its shortcut. Default false. */
  zeroScale?: boolean;
}

/** Largest of each window; padding never wins. */
export interface MaxPool extends LayerBase {
  type: 'maxpool';
  kernel: Extent;
  /** Default: the kernel. */
  stride?: Extent;
  /** Default 0. */
  padding?: Extent;
  /** Round sizes up: a last window may overhang, if it begins inside. Default false. */
  ceil?: boolean;
}

/** Mean of each window, in which padding counts as 0 (PyTorch's count_include_pad). */
export interface AveragePool extends LayerBase {
  type: 'avgpool';
  kernel: Extent;
  /** Default: the kernel. */
  stride?: Extent;
  /** Default 0. */
  padding?: Extent;
}

/**
 * In training an element becomes 0 with this probability, and x / (1 - probability) otherwise; else nothing changes. What
 * is dropped is a function of seed, replicate, noise, epoch and example.
 */
export interface Dropout extends LayerBase {
  type: 'dropout';
  probability: number;
}

/** (N, C, H, W) -> (N, C): mean over all positions. */
export interface GlobalPool extends LayerBase {
  type: 'globalpool';
}

export type Extent = number | [number, number];

/** Sum of layers of the same shape (residual connection). */
export interface Add {
  name: string;
  type: 'add';
  inputs: string[];
}

/** Channels of its inputs behind one another: their other extents are the same. */
export interface Concat {
  name: string;
  type: 'concat';
  inputs: string[];
}

export type Layer =
  | Flatten
  | Linear
  | Relu
  | Conv
  | BatchNorm
  | MaxPool
  | AveragePool
  | GlobalPool
  | Dropout
  | Add
  | Concat;

/**
 * A network as a value: a DAG of layers in topological order whose last layer gives the logits (N, classes).
 * Write your own the same way; nothing needs recompiling.
 */
export interface Network {
  name: string;
  /** Shape of one example without the batch: [channels, height, width] or [features]. */
  input: number[];
  classes: number;
  /** Of weights; biases start at zero. Default "glorot-normal" (paper Figure 2). */
  initialisation?: Initialisation;
  layers: Layer[];
  /**
   * Layers that give logits too. In training their loss, times the weight, is added; evaluation leaves them out, and with
   * them what nothing else reads. Their weights are pruned like others.
   */
  auxiliary?: { layer: string; weight: number }[];
}
