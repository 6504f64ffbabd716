import type { Decayed, DeviceMode } from '../native/AddonTypes.js';
import type { Network } from '../networks/Network.js';
import type { PictureCrop } from '../session/Pictures.js';
import type { Branch, Control, Retraining } from './branches.js';

/** A number of updates as written by people: "500it", "2ep", "2ep50it", "1.7%" (of training.steps), or a bare integer of updates. */
export type Steps = string;

/** What a paper reports of the experiment that a recipe repeats: shown beside what was measured, and nothing else. */
export interface PaperFigures {
  /** Title and place, e.g. "Stabilizing the Lottery Ticket Hypothesis, Figures 2 and 3". */
  source: string;
  figures: PaperFigure[];
}

/** One test accuracy at the end of training, mean over the paper's replicates. */
export interface PaperFigure {
  branch: Branch;
  /** 0 is the dense network, of branch "imp". */
  level: number;
  /** Fraction of the prunable weights that remained, in (0, 1], where the paper says it. */
  densityPrunable?: number;
  /** In updates, as "500it": an epoch of the paper need not be one of the recipe. Not given: of all rewind points. */
  rewind?: Steps;
  /** In [0, 1], as is the spread (what the paper prints behind +-). */
  accuracy: number;
  spread?: number;
}

/**
 * A recipe with all defaults filled in: everything that says what an experiment is. What only says how it is
 * carried out (threads, jobs, output folder) is not in here.
 */
export interface Recipe {
  /** Built-in name such as "quickstart" or "mnist/lenet-300-100", or the file's own. */
  name: string;
  description: string;
  /** A catalogue name ("lenet-300-100") or a description of one's own. */
  network: string | Network;
  data: {
    /** Catalogue name: "mnist-10k", "mnist", "fashion-mnist". */
    set: string;
    /** Folder of the files, for sets that do not come with the package. */
    folder: string | null;
    /** Examples held out of the training set. */
    validation: number;
    /** Train on so many of the others alone, chosen by the seed, balanced over classes; null: on all. */
    subset: number | null;
    /** (x/255 - mean) / std with the training set's figures (of pictures in files: ImageNet's) or these, or x/255. */
    normalise: boolean | { mean: number[]; std: number[] };
    /** Of pictures in files, which must have them: what they become for training and for evaluation. */
    crop?: { training: PictureCrop; evaluation: PictureCrop };
    /** Of pictures in files whose val/ has no class folders: the file of lines NAME CLASS. */
    groundTruth?: string;
    /** Of pictures in files: apply EXIF's orientation. */
    upright?: boolean;
    /** Of training batches: a crop of the picture padded by so many pixels, and a flip with probability 1/2. */
    augment: { crop: number; flip: boolean } | null;
  };
  training: {
    steps: Steps;
    batch: number;
    /** Of those, so many go through the network at once: see Session.open. Not given: all. */
    microBatch?: number;
    /** See Session.open. Not given: 0. */
    labelSmoothing?: number;
    /** Moving averages of the weights, which evaluations look at: see Session.open. Not given: none. */
    average?: { decay: number; warmup: boolean };
    optimiser:
      | {
          type: 'sgd';
          learningRate: number;
          momentum: number;
          nesterov: boolean;
          weightDecay: number;
          /** What weight decay is for; not given: all parameters. */
          decayed?: Exclude<Decayed, 'all'>;
        }
      | {
          type: 'adam';
          learningRate: number;
          beta1: number;
          beta2: number;
          epsilon: number;
          weightDecay: number;
          decayed?: Exclude<Decayed, 'all'>;
        }
      | {
          /** As TensorFlow's: see Session.open. */
          type: 'rmsprop';
          learningRate: number;
          decay: number;
          momentum: number;
          epsilon: number;
          weightDecay: number;
          decayed?: Exclude<Decayed, 'all'>;
        };
    schedule: {
      milestones: Steps[];
      gamma: number;
      warmup: Steps;
      /** In a line from the learning rate to `to` at the end of training.steps. */
      linear?: { to: number };
      /** Times `factor` every so many updates, but never below the learning rate times `floor`. */
      exponential?: { factor: number; every: Steps; floor: number };
    };
    /** bf16: images and what convolutions multiply; everything else is fp32. */
    precision: 'fp32' | 'bf16' | 'fp64';
    executor: 'direct' | 'autograd';
    /** Cadence of validation and test evaluations. */
    evaluateEvery: Steps;
    /** Cadence of training-loss rows. */
    metricsEvery: Steps;
  };
  pruning: {
    levels: number;
    /** Fraction of the remaining weights per level. */
    fraction: number;
    pooling: 'global' | 'layerwise';
    /** layerwise: other fractions by parameter name, e.g. { "fc3.weight": 0.1 }. */
    rates: Record<string, number>;
    /** "iterative": prune, rewind, train, level after level. "oneshot": each level pruned once from level 0. */
    method: 'iterative' | 'oneshot';
  };
  /** Rewind points k; one experiment each, sharing the dense run. */
  rewind: Steps[];
  /** Optimiser state at k: restored with the weights, or zeroed. */
  rewindOptimiser: 'restore' | 'zero';
  /** "fresh": each training after level 0 gets a noise id of its own; "same": all carry on the dense run's. */
  noise: 'fresh' | 'same';
  /**
   * What follows pruning (paper 4.1): "rewind" to the weights of k; "lr-rewind", the final weights with the schedule from
   * k on; "finetune", the final weights at the schedule's last rate. T - k updates each.
   */
  retraining: Retraining;
  /** Controls and baselines beside "imp". */
  controls: Control[];
  replicates: number;
  seed: number;
  device: string;
  /** Of CUDA devices, see Session.open. Not part of the experiment, but of its bits. */
  deviceMode: DeviceMode;
  /** Which products of pruned layers may be sparse, see Session.open. Not part of the experiment, but of its bits. */
  kernels: 'auto' | 'dense' | 'sparse';
  /** Figures to compare with. They decide nothing of the experiment. */
  paper: PaperFigures | null;
}
