import { availableParallelism } from 'node:os';
import type {
  Decayed,
  DeviceMode,
  KernelRule,
  TrainOptions as NativeTrainOptions,
  OptimiserOptions,
  Precision,
  ScheduleOptions,
  SessionOptions,
  Tuning,
} from '../native/AddonTypes.js';
import { checkInteger, checkNumber, checkOneOf, wrongValue } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { CompiledNetwork } from './CompiledNetwork.js';
import { Dataset } from './Dataset.js';
import { checkResource } from './Resource.js';
import { checkTuning } from './tuning.js';

export type SplitName = 'train' | 'validation' | 'test';

/** Formulas as in PyTorch; the mask is part of the fused step. */
export type Optimiser =
  | {
      type: 'sgd';
      learningRate: number;
      /** Default 0. */
      momentum?: number;
      /** Default false. */
      nesterov?: boolean;
      /** L2. Default 0. */
      weightDecay?: number;
      /** What weight decay is for. Default "all". */
      decayed?: Decayed;
    }
  | {
      type: 'adam';
      learningRate: number;
      /** Default 0.9. */
      beta1?: number;
      /** Default 0.999. */
      beta2?: number;
      /** Default 1e-8. */
      epsilon?: number;
      /** L2. Default 0. */
      weightDecay?: number;
      /** Default "all". */
      decayed?: Decayed;
    }
  | {
      /**
       * As TensorFlow's: s = decay s + (1 - decay) g^2, which begins at 1; m = momentum m + rate g / sqrt(s + epsilon);
       * w -= m. PyTorch's has epsilon beside the root, means that begin at 0, and the rate outside of m.
       */
      type: 'rmsprop';
      learningRate: number;
      /** Of means of squares. Default 0.9. */
      decay?: number;
      /** Default 0. */
      momentum?: number;
      /** Default 1e-10, TensorFlow's. */
      epsilon?: number;
      /** L2. Default 0. */
      weightDecay?: number;
      /** Default "all". */
      decayed?: Decayed;
    };

export interface OpenOptions {
  network: CompiledNetwork;
  train: Dataset;
  test?: Dataset;
  /** Examples of `train` to hold out, chosen by `seed`. Default 0. */
  validation?: number;
  /** Train on so many of the others alone, chosen by `seed`, in turns from the classes that have some left. Default: all. */
  subset?: number;
  /** Default 0. */
  seed?: number;
  /** Default 0. */
  replicate?: number;
  /** Examples per update; the last batch of an epoch holds what is left. */
  batch: number;
  /**
   * Of those, so many go through the network at once, so that large batches fit a device: the update is that of the whole
   * batch, but for statistics of batch norm, which are each part's own and move running ones once a part. Default: all.
   */
  microBatch?: number;
  optimiser: Optimiser;
  /**
   * Of training batches: targets are 1 - smoothing at the label, and smoothing spread over all classes. Their loss is
   * the smoothed one, that of evaluations is not. Default 0.
   */
  labelSmoothing?: number;
  /**
   * Exponential moving averages of all parameters, running statistics included, as TensorFlow's: after each update
   * average += (1 - decay) * (weights - average), where decay is at most (1 + t) / (10 + t) at update t with `warmup`
   * (TensorFlow's num_updates). Evaluations look at them, everything else at the weights; snapshots hold both, and loading one
   * that was made without averages starts them at its weights. Default: none.
   */
  average?: { decay: number; warmup?: boolean } | undefined;
  /** Milestones and warm-up in updates. Default: constant. */
  schedule?: Partial<Omit<ScheduleOptions, 'learningRate'>>;
  /** true: (x/255 - mean) / std with the training set's figures; false: x/255. Default true. */
  normalise?: boolean | { mean: number[]; std: number[] };
  /**
   * Of training batches alone: a random crop of the picture padded by `crop` pixels of 0 (0 to 16), and a horizontal
   * flip with probability 1/2, both a function of noise, epoch and example. Default: neither.
   */
  augment?: { crop: number; flip: boolean } | null;
  /** "cpu", "cuda" or "cuda:N". Default "cpu". */
  device?: string;
  /**
   * On CUDA: "deterministic" gives the same bits each time; "fast" has cuDNN time its algorithms and take the fastest, and
   * runs agree within noise. One mode for all sessions of a process. Default "deterministic".
   */
  deviceMode?: DeviceMode;
  /**
   * Of "direct" on the CPU: which products of pruned layers may be sparse. "auto" takes them where they are cheaper, "dense"
   * nowhere, "sparse" wherever they can be; the same training within rounding. Default "auto".
   */
  kernels?: KernelRule;
  /**
   * By what "auto" chooses, in fp32 and bf16: costs of sparse products, as `measureTuning` gives them. Another table is
   * another set of bits, and another fingerprint. Default: the built-in one.
   */
  tuning?: Tuning;
  /** bf16 is for networks with convolutions. Default "fp32". */
  precision?: Precision;
  /**
   * "direct" is the production executor, "autograd" LibTorch's autograd: the oracle. "aten" is what "direct" is on
   * CUDA; on the CPU it is for tests of that. Default "direct".
   */
  executor?: 'direct' | 'aten' | 'autograd';
  /** Of "direct" on the CPU; never changes a bit of the result. Default: all cores. */
  threads?: number;
  /**
   * Threads beside those that read pictures in files; nor does this. Default: all cores where a device trains, one for
   * every four threads on the CPU.
   */
  workers?: number;
}

export interface TrainOptions {
  /** Absolute number of updates to reach; `until - step` are made. */
  until: number;
  /** Which data order. Default 0. */
  noise?: number;
  /** A "train" row (mean over the updates since the one before) every so many updates, and at the end. Default 100. */
  metricsEvery?: number;
  /** Evaluations at every multiple of this many updates, and at the end. Default 0: only at the end. */
  evaluateEvery?: number;
  /** Also evaluate before the first update. Default false. */
  evaluateAtStart?: boolean;
  /** false: the training goes on in a later call, so no rows at this one's end beside the multiples. Default true. */
  ends?: boolean;
  /** This call goes on with a training that was cut: rows come as if it had not been. Default false. */
  continues?: boolean;
  /** Ends at this update with state "paused", for a later call that continues. */
  pauseAt?: number;
  /** Ends after the update and evaluation at hand, but at least one, with state "paused". */
  pause?: AbortSignal;
  /** Default: whatever of validation and test the session has. */
  evaluate?: readonly ('validation' | 'test')[];
  /** Stops at the next step; the iteration then throws the signal's reason. */
  signal?: AbortSignal;
}

function optimiserOf(o: Optimiser): OptimiserOptions {
  checkOneOf(o?.type, 'optimiser.type', ['sgd', 'adam', 'rmsprop']);
  const decay = {
    weightDecay: checkNumber(o.weightDecay ?? 0, 'optimiser.weightDecay', 0, 1),
    decayed: checkOneOf(o.decayed ?? 'all', 'optimiser.decayed', ['all', 'without-norms', 'weights']),
  };
  if (o.type === 'sgd') {
    const momentum = checkNumber(o.momentum ?? 0, 'optimiser.momentum', 0, 0.999999);
    const nesterov = o.nesterov ?? false;
    if (nesterov && momentum === 0)
      throw wrongValue('false without a momentum', 'optimiser.nesterov', nesterov);
    return { type: 'sgd', momentum, nesterov, ...decay };
  }
  if (o.type === 'rmsprop')
    return {
      type: 'rmsprop',
      decay: checkNumber(o.decay ?? 0.9, 'optimiser.decay', 0, 0.999999999),
      momentum: checkNumber(o.momentum ?? 0, 'optimiser.momentum', 0, 0.999999),
      epsilon: checkNumber(o.epsilon ?? 1e-10, 'optimiser.epsilon', 0, 1),
      ...decay,
    };
  return {
    type: 'adam',
    beta1: checkNumber(o.beta1 ?? 0.9, 'optimiser.beta1', 0, 0.999999),
    beta2: checkNumber(o.beta2 ?? 0.999, 'optimiser.beta2', 0, 0.999999999),
    epsilon: checkNumber(o.epsilon ?? 1e-8, 'optimiser.epsilon', 1e-300, 1),
    ...decay,
  };
}

const workersFor = (device: string, threads: number) =>
  device === 'cpu' ? Math.ceil(threads / 4) : availableParallelism();

function linearOf(linear: ScheduleOptions['linear']): ScheduleOptions['linear'] {
  if (linear === null) return null;
  return {
    to: checkNumber(linear.to, 'schedule.linear.to', 0, 1e6),
    steps: checkInteger(linear.steps, 'schedule.linear.steps', 1, 2 ** 31 - 1),
  };
}

function averageOf(average: OpenOptions['average']): SessionOptions['average'] {
  if (average === undefined) return null;
  return {
    decay: checkNumber(average.decay, 'average.decay', 1e-9, 0.999999999),
    warmup: average.warmup ?? false,
  };
}

function exponentialOf(exponential: ScheduleOptions['exponential']): ScheduleOptions['exponential'] {
  if (exponential === null) return null;
  return {
    factor: checkNumber(exponential.factor, 'schedule.exponential.factor', 0, 1),
    every: checkInteger(exponential.every, 'schedule.exponential.every', 1, 2 ** 31 - 1),
    floor: checkNumber(exponential.floor, 'schedule.exponential.floor', 0, 1),
  };
}

function scheduleOf({ optimiser, schedule = {} }: OpenOptions): ScheduleOptions {
  const { milestones = [], gamma = 0.1, warmup = 0, linear, exponential, constantAt } = schedule;
  return {
    learningRate: checkNumber(optimiser.learningRate, 'optimiser.learningRate', 0, 1e6),
    milestones: milestones.map((m, i) => checkInteger(m, `schedule.milestones[${i}]`, 0, 2 ** 31 - 1)),
    gamma: checkNumber(gamma, 'schedule.gamma', 0, 1),
    warmup: checkInteger(warmup, 'schedule.warmup', 0, 2 ** 31 - 1),
    linear: linearOf(linear ?? null),
    exponential: exponentialOf(exponential ?? null),
    constantAt:
      typeof constantAt === 'number' ? checkInteger(constantAt, 'schedule.constantAt', 0, 2 ** 31 - 1) : null,
  };
}

function normaliseOf({ normalise = true, train }: OpenOptions): SessionOptions['normalise'] {
  if (normalise === false) return null;
  if (normalise === true) {
    const { mean, std } = train.info;
    return { mean, std: std.map((s) => s || 1) };
  }
  const { mean, std } = normalise;
  for (const [i, one] of mean.entries()) checkNumber(one, `normalise.mean[${i}]`, -1e6, 1e6);
  for (const [i, one] of std.entries()) checkNumber(one, `normalise.std[${i}]`, 1e-6, 1e6);
  return normalise;
}

/** With all defaults. @throws LthError "invalid-argument". */
export function nativeOptions(o: OpenOptions): SessionOptions {
  if (typeof o !== 'object' || o === null) throw wrongValue('options', 'Session.open', o);
  checkResource(o.network, CompiledNetwork, 'network');
  checkResource(o.train, Dataset, 'train');
  if (o.test !== undefined) checkResource(o.test, Dataset, 'test');
  const validation = checkInteger(o.validation ?? 0, 'validation', 0, o.train.info.count - 1);
  if (o.subset !== undefined) checkInteger(o.subset, 'subset', 1, o.train.info.count - validation);
  checkInteger(o.batch, 'batch', 1, 1 << 20);
  const threads = checkInteger(o.threads ?? availableParallelism(), 'threads', 1, 1024);
  return {
    network: o.network.handle,
    train: o.train.handle,
    test: o.test?.handle ?? null,
    validation,
    subset: o.subset ?? 0,
    seed: checkInteger(o.seed ?? 0, 'seed', 0, Number.MAX_SAFE_INTEGER),
    replicate: checkInteger(o.replicate ?? 0, 'replicate', 0, 2 ** 32 - 1),
    batch: o.batch,
    microBatch: o.microBatch === undefined ? 0 : checkInteger(o.microBatch, 'microBatch', 1, 1 << 20),
    optimiser: optimiserOf(o.optimiser),
    labelSmoothing: checkNumber(o.labelSmoothing ?? 0, 'labelSmoothing', 0, 1),
    average: averageOf(o.average),
    schedule: scheduleOf(o),
    normalise: normaliseOf(o),
    augment: o.augment
      ? { crop: checkInteger(o.augment.crop, 'augment.crop', 0, 16), flip: o.augment.flip }
      : null,
    device: o.device ?? 'cpu',
    deviceMode: checkOneOf(o.deviceMode ?? 'deterministic', 'deviceMode', ['deterministic', 'fast']),
    kernels: checkOneOf(o.kernels ?? 'auto', 'kernels', ['auto', 'dense', 'sparse']),
    tuning: o.tuning === undefined ? loadAddon().tuningBuiltin() : checkTuning(o.tuning),
    precision: checkOneOf(o.precision ?? 'fp32', 'precision', ['fp32', 'bf16', 'fp64']),
    executor: checkOneOf(o.executor ?? 'direct', 'executor', ['direct', 'aten', 'autograd']),
    threads,
    workers: checkInteger(o.workers ?? workersFor(o.device ?? 'cpu', threads), 'workers', 1, 1024),
  };
}

/** With all defaults. @throws LthError "invalid-argument". */
export function nativeTrainOptions(
  o: TrainOptions,
  evaluations: readonly ('validation' | 'test')[],
): NativeTrainOptions {
  return {
    until: checkInteger(o.until, 'until', 0, 2 ** 31 - 1),
    noise: checkInteger(o.noise ?? 0, 'noise', 0, Number.MAX_SAFE_INTEGER),
    metricsEvery: checkInteger(o.metricsEvery ?? 100, 'metricsEvery', 0, 2 ** 31 - 1),
    evaluateEvery: checkInteger(o.evaluateEvery ?? 0, 'evaluateEvery', 0, 2 ** 31 - 1),
    evaluateAtStart: o.evaluateAtStart ?? false,
    ends: o.ends ?? true,
    continues: o.continues ?? false,
    pauseAt: checkInteger(o.pauseAt ?? 0, 'pauseAt', 0, 2 ** 31 - 1),
    evaluate: [...(o.evaluate ?? evaluations)],
  };
}
