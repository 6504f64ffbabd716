import type { Branch } from '../recipe/branches.js';
import type { PaperFigures } from '../recipe/Recipe.js';
import type { MaskOverlap } from '../session/Masks.js';
import type { ReplacedPicture } from '../store/records.js';

/** One training's outcome: one line of `show`, one element of `results` in the JSON. */
export interface Result {
  branch: Branch;
  replicate: number;
  /** Rewind point k in updates. Level 0 of "imp" is the dense run, repeated for each k. */
  rewind: number;
  method: 'iterative' | 'oneshot';
  level: number;
  noise: number;
  /** Fraction of the prunable weights that remain. */
  densityPrunable: number;
  /** Fraction of all weights (conv and linear, biases not counted) that remain. */
  densityOverall: number;
  /** Accuracies in [0, 1] after the last update; null where the training diverged. */
  testAccuracy: number | null;
  validationAccuracy: number | null;
  testLoss: number | null;
  validationLoss: number | null;
  /** Update with the lowest validation loss (early stopping), and the test accuracy there; null where diverged. */
  earlyStop: number | null;
  earlyStopTestAccuracy: number | null;
  /** Updates made by this training: T for the dense run, T - k for the others. */
  updates: number;
  diverged: boolean;
  /**
   * How many different pictures could not be read, so that others of their batches stood in for them, in updates and in
   * evaluations; null of data in memory, and of trainings of before this was kept.
   */
  replacedPictures: { training: number; evaluation: number } | null;
  /** Wall-clock seconds. Never compared. */
  seconds: number;
}

/** Between two copies of one tensor. */
export interface TensorDistance {
  name: string;
  /** L2 norm of the difference. */
  distance: number;
  /** In degrees, within [0, 180]; null where one of the two is a zero vector. */
  angle: number | null;
}

/**
 * One sample of a stability (paper section 2): two copies trained from the same W_k to T, both masked by the same m.
 * "order": two copies of the subnetwork under different noise. "pruning": the dense network and the subnetwork under
 * the same noise. Low is stable. Not normalised, as in the paper: compare ratios.
 */
export interface StabilityResult {
  kind: 'order' | 'pruning';
  /** "reinit": IMP's masks on a fresh initialisation, which stands for W_k then, of the whole network too. */
  branch: 'imp' | 'random' | 'reinit';
  replicate: number;
  /** Rewind point k in updates. */
  rewind: number;
  method: Result['method'];
  level: number;
  /** Of the two copies; the same number twice for "pruning", where the first is the dense network. */
  noises: [number, number];
  /** Of the two copies at T; null in folders of before this was kept. */
  testAccuracies: [number | null, number | null];
  /**
   * What enters the norm. "masked": prunable tensors times m. "all": every trainable tensor (no running statistics),
   * masked where prunable. Each sample is there once for each scope.
   */
  scope: 'masked' | 'all';
  /** Fraction of the prunable weights that m keeps. */
  densityPrunable: number;
  distance: number;
  /** In degrees. */
  angle: number | null;
  /** By tensor, in the network's order. */
  layers: TensorDistance[];
}

/**
 * Errors on the straight line between two copies that were trained from the same (m *) W_k under different noise
 * (linear mode connectivity; paper 3.5).
 */
export interface ConnectivityResult {
  /** "dense": no masks, level 0. */
  branch: 'dense' | 'imp' | 'random' | 'reinit';
  replicate: number;
  rewind: number;
  method: Result['method'];
  level: number;
  noises: [number, number];
  /**
   * Running statistics of batch norm at alpha: interpolated as the weights are, or estimated anew on the training set
   * (then at the end points too). The same for networks without any.
   */
  statistics: 'interpolated' | 'reestimated';
  densityPrunable: number;
  /** From 0 (the first copy) to 1 (the second), evenly spaced, both ends included. */
  alphas: number[];
  /** Fraction of wrong predictions at each alpha. */
  testError: number[];
  /** Over `trainExamples` of the training set. */
  trainError: number[];
  trainExamples: number;
  /** Largest error on the line less the mean of those at its ends: stable below 0.02 (LMC section 3). */
  barrier: { test: number; train: number };
}

/** Masks that `maskOverlap` compares. */
export interface MaskPlace {
  replicate: number;
  rewind: number;
  level: number;
}

/** IMP's masks at two places of a run. Read from the masks of a run by `maskOverlap`; not part of RunSummary. */
export interface OverlapResult extends MaskOverlap {
  /** What differs between the two places. */
  between: 'replicates' | 'levels' | 'rewind';
  method: Result['method'];
  /** Where the masks of counts `a` and `b` are. */
  places: [MaskPlace, MaskPlace];
}

/** How many of a plan's units are where. */
export interface UnitCounts {
  total: number;
  done: number;
  /** Worked on now, by any process. */
  running: number;
  /** Not begun, or stopped at a checkpoint. */
  waiting: number;
  failed: number;
  /** Cannot be done, because a training that they need diverged. */
  impossible: number;
  damaged: number;
}

/** A unit that could not be done, or whose record cannot be read. */
export interface Problem {
  id: string;
  label: string;
  state: 'failed' | 'damaged';
  message: string;
}

/** What `show --json` and `run --json` print. */
export interface RunSummary {
  /** The run folder. */
  run: string;
  recipe: string;
  /** All is done that can be done. */
  complete: boolean;
  units: UnitCounts;
  problems: Problem[];
  /** Pictures that could not be read and were replaced, in whichever unit, each once, in order of split and name. */
  replacedPictures: ReplacedPicture[];
  /** Of LibTorch, device, instruction set, kernels and table of costs; more than one where --allow-different-bits mixed them. */
  fingerprints: string[];
  /** What a paper reports of the same experiment, where the recipe says it. */
  paper: PaperFigures | null;
  results: Result[];
  /** Of `lth-train stability`; each sample once for each scope. In the order rewind, level, kind, branch, replicate, noises. */
  stability: StabilityResult[];
  /** Of `lth-train connectivity`, in the order rewind, level, branch, replicate, noises. */
  connectivity: ConnectivityResult[];
}
