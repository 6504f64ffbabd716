import type { Branch } from '../recipe/branches.js';
import type { PaperFigures } from '../recipe/Recipe.js';

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
  /** Wall-clock seconds. Never compared. */
  seconds: number;
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
  /** Of LibTorch, device, instruction set and kernels; more than one where --allow-different-bits mixed them. */
  fingerprints: string[];
  /** What a paper reports of the same experiment, where the recipe says it. */
  paper: PaperFigures | null;
  results: Result[];
}
