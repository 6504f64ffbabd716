/** What the output layer, a control or a report may know of a layer. See `validate.ts` for the rules. */
export type Initialisation = 'glorot-normal' | 'kaiming-normal';

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

/** Sum of layers of the same shape (residual connection). */
export interface Add {
  name: string;
  type: 'add';
  inputs: string[];
}

export type Layer = Flatten | Linear | Relu | Add;

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
}
