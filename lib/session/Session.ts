import { availableParallelism } from 'node:os';
import type { RecordBatch } from 'apache-arrow';
import type {
  Decayed,
  KernelChoice,
  KernelRule,
  OptimiserOptions,
  Precision,
  RunEnd,
  RunHandle,
  ScheduleOptions,
  ScoreMethod,
  SessionHandle,
  SessionInfo,
  SessionMemory,
  SessionOptions,
  Tuning,
} from '../native/AddonTypes.js';
import { checkInteger, checkNumber, checkOneOf, LthError, wrongValue } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { metricsBatch } from './arrow.js';
import { CompiledNetwork } from './CompiledNetwork.js';
import { Dataset } from './Dataset.js';
import { Masks } from './Masks.js';
import type { Pictures } from './Pictures.js';
import { checkResource, Resource } from './Resource.js';
import { Snapshot } from './Snapshot.js';
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

export interface Evaluation {
  /** Mean cross-entropy. */
  loss: number;
  /** Fraction in [0, 1]. */
  accuracy: number;
  examples: number;
}

const perClassOf = (options: { perClass?: number }) =>
  checkInteger(options.perClass ?? 10, 'perClass', 1, 2 ** 31 - 1);

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

/**
 * A network in training on a native thread of its own; the event loop is never blocked. One call at a time: until a
 * promise of the session settles or its training has ended, other calls throw or reject with LthError "busy".
 */
export class Session extends Resource<SessionHandle> {
  private constructor(
    handle: SessionHandle,
    private readonly options: OpenOptions,
  ) {
    super(handle);
  }

  /** @throws LthError "invalid-argument", "wrong-shape" (network and data do not fit), "no-cuda". */
  static async open(o: OpenOptions): Promise<Session> {
    if (typeof o !== 'object' || o === null) throw wrongValue('options', 'Session.open', o);
    checkResource(o.network, CompiledNetwork, 'network');
    checkResource(o.train, Dataset, 'train');
    if (o.test !== undefined) checkResource(o.test, Dataset, 'test');
    const validation = checkInteger(o.validation ?? 0, 'validation', 0, o.train.info.count - 1);
    if (o.subset !== undefined) checkInteger(o.subset, 'subset', 1, o.train.info.count - validation);
    checkInteger(o.batch, 'batch', 1, 1 << 20);
    const threads = checkInteger(o.threads ?? availableParallelism(), 'threads', 1, 1024);
    const { mean, std } = o.train.info;
    if (typeof o.normalise === 'object') {
      for (const [i, one] of o.normalise.mean.entries()) checkNumber(one, `normalise.mean[${i}]`, -1e6, 1e6);
      for (const [i, one] of o.normalise.std.entries()) checkNumber(one, `normalise.std[${i}]`, 1e-6, 1e6);
    }
    const normalise =
      o.normalise === false
        ? null
        : typeof o.normalise === 'object'
          ? o.normalise
          : { mean, std: std.map((s) => s || 1) };
    const handle = await loadAddon().sessionOpen({
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
      schedule: {
        learningRate: checkNumber(o.optimiser.learningRate, 'optimiser.learningRate', 0, 1e6),
        milestones: (o.schedule?.milestones ?? []).map((m, i) =>
          checkInteger(m, `schedule.milestones[${i}]`, 0, 2 ** 31 - 1),
        ),
        gamma: checkNumber(o.schedule?.gamma ?? 0.1, 'schedule.gamma', 0, 1),
        warmup: checkInteger(o.schedule?.warmup ?? 0, 'schedule.warmup', 0, 2 ** 31 - 1),
        linear: linearOf(o.schedule?.linear ?? null),
        exponential: exponentialOf(o.schedule?.exponential ?? null),
        constantAt:
          typeof o.schedule?.constantAt === 'number'
            ? checkInteger(o.schedule.constantAt, 'schedule.constantAt', 0, 2 ** 31 - 1)
            : null,
      },
      normalise,
      augment: o.augment
        ? { crop: checkInteger(o.augment.crop, 'augment.crop', 0, 16), flip: o.augment.flip }
        : null,
      device: o.device ?? 'cpu',
      kernels: checkOneOf(o.kernels ?? 'auto', 'kernels', ['auto', 'dense', 'sparse']),
      tuning: o.tuning === undefined ? loadAddon().tuningBuiltin() : checkTuning(o.tuning),
      precision: checkOneOf(o.precision ?? 'fp32', 'precision', ['fp32', 'bf16', 'fp64']),
      executor: checkOneOf(o.executor ?? 'direct', 'executor', ['direct', 'aten', 'autograd']),
      threads,
      workers: checkInteger(o.workers ?? workersFor(o.device ?? 'cpu', threads), 'workers', 1, 1024),
    });
    return new Session(handle, o);
  }

  get info(): SessionInfo {
    return loadAddon().sessionInfo(this.handle);
  }

  /** Updates done. */
  get step(): number {
    return this.info.step;
  }

  /** Draws all parameters anew (0: the network's initialisation, 1 and up: reinitialisations); step and optimiser state are forgotten. */
  async initialise(draw = 0): Promise<void> {
    await loadAddon().sessionInitialise(this.handle, checkInteger(draw, 'draw', 0, Number.MAX_SAFE_INTEGER));
  }

  /** Rewinds to a snapshot: parameters, step (and so the schedule), optimiser state unless it is to be zeroed. */
  async load(snapshot: Snapshot, options: { optimiser?: 'restore' | 'zero' } = {}): Promise<void> {
    const optimiser = checkOneOf(options.optimiser ?? 'restore', 'optimiser', ['restore', 'zero']);
    await loadAddon().sessionLoad(this.handle, checkResource(snapshot, Snapshot, 'snapshot').handle, {
      optimiser,
    });
  }

  /** Pruned weights and their optimiser state become +0 at once and stay so; null: dense. */
  async setMasks(masks: Masks | null): Promise<void> {
    await loadAddon().sessionSetMasks(
      this.handle,
      masks === null ? null : checkResource(masks, Masks, 'masks').handle,
    );
  }

  /** Moves the step alone, and with it schedule and data order (a reinitialised network that starts at k). */
  setStep(step: number): void {
    loadAddon().sessionSetStep(this.handle, checkInteger(step, 'step', 0, 2 ** 31 - 1));
  }

  /** An immutable copy of parameters, optimiser state and step. */
  async snapshot(): Promise<Snapshot> {
    return new Snapshot(await loadAddon().sessionSnapshot(this.handle));
  }

  /** Rows of the training set that update `step` (0-based) trains on. */
  batchIndices(step: number, noise = 0): Int32Array {
    return loadAddon().sessionBatch(this.handle, checkInteger(step, 'step', 0, 2 ** 31 - 1), noise);
  }

  /** Mean loss and all gradients on the batch of update `step`, without updating; gradients by parameter name. */
  async gradients(step: number, noise = 0): Promise<{ loss: number; correct: number; gradients: Snapshot }> {
    const { loss, correct, gradients } = await loadAddon().sessionGradients(
      this.handle,
      checkInteger(step, 'step', 0, 2 ** 31 - 1),
      noise,
    );
    return { loss, correct, gradients: new Snapshot(gradients) };
  }

  /**
   * Scores of the prunable weights as they are now (paper 4.2), in double precision by parameter name: "magnitude" |w|,
   * "snip" |w g|, "grasp" -w (H g), whose highest are pruned, "grasp-abs" |w (H g)|, "synflow" one step of SynFlow. H g
   * with temperature 200, g on the same batch; absolute values per batch, batches of the training's size averaged.
   * Examples are not augmented, and batch norm takes the batch's statistics. SynFlow takes it as evaluation does, with
   * absolute values of scales, shifts and running statistics too, as its authors' code (Tanaka et al. 2020): at
   * initialisation that is a division by sqrt(1 + epsilon). Biases, running statistics and whatever else is not prunable
   * have 0. The session stays as it is.
   * @param options.perClass examples of each class, chosen by seed and replicate. Default 10.
   * @throws LthError "invalid-argument" where the training set has fewer.
   */
  async scores(method: ScoreMethod, options: { perClass?: number } = {}): Promise<Snapshot> {
    checkOneOf(method, 'method', ['magnitude', 'snip', 'grasp', 'grasp-abs', 'synflow']);
    return new Snapshot(await loadAddon().sessionScores(this.handle, method, perClassOf(options)));
  }

  /**
   * How the products of each convolution and linear layer are made with the masks at hand, in the order of the layers;
   * empty where there is no choice: on CUDA and by the oracle.
   */
  kernels(): KernelChoice[] {
    return loadAddon().sessionKernels(this.handle);
  }

  /**
   * Pictures in files that could not be read since the last call, each once, and what took their places: the next one of
   * their batch that could be read.
   */
  replacedPictures(): { path: string; by: string; why: string }[] {
    return loadAddon()
      .sessionReplaced(this.handle)
      .map(({ test, row, taken, why }) => {
        const pictures = (test ? this.options.test : this.options.train)?.pictures as Pictures;
        return { path: pictures.path(row), by: pictures.path(taken), why };
      });
  }

  /** Bytes held of weights, gradients, optimiser state and averages: of gradients and state, in pruned tensors, only what is left. */
  memory(): SessionMemory {
    return loadAddon().sessionMemory(this.handle);
  }

  /**
   * Rows of the training set that `scores` looks at, in the order in which they make up batches.
   * @throws LthError as scores.
   */
  scoreIndices(options: { perClass?: number } = {}): Int32Array {
    return loadAddon().sessionScoreExamples(this.handle, perClassOf(options));
  }

  /**
   * Trains to update `until` and yields metrics as Arrow RecordBatches over native memory (see metricsSchema), as
   * they come, at most some 20 a second. Leaving the loop stops the training at the next step; so does `signal`, and a
   * later call with `continues` makes up for an evaluation that was stopped. Returns how it ended: "done", "paused" or
   * "diverged" (a loss or weight that is not finite).
   */
  async *train(o: TrainOptions): AsyncGenerator<RecordBatch, RunEnd, void> {
    o.signal?.throwIfAborted();
    const addon = loadAddon();
    let wake = () => {};
    let settled = false;
    const { run, end } = addon.sessionTrain(
      this.handle,
      {
        until: checkInteger(o.until, 'until', 0, 2 ** 31 - 1),
        noise: checkInteger(o.noise ?? 0, 'noise', 0, Number.MAX_SAFE_INTEGER),
        metricsEvery: checkInteger(o.metricsEvery ?? 100, 'metricsEvery', 0, 2 ** 31 - 1),
        evaluateEvery: checkInteger(o.evaluateEvery ?? 0, 'evaluateEvery', 0, 2 ** 31 - 1),
        evaluateAtStart: o.evaluateAtStart ?? false,
        ends: o.ends ?? true,
        continues: o.continues ?? false,
        pauseAt: checkInteger(o.pauseAt ?? 0, 'pauseAt', 0, 2 ** 31 - 1),
        evaluate: [...(o.evaluate ?? this.defaultEvaluations())],
      },
      () => wake(),
    );
    const ended = end.then(
      (result) => ({ result }),
      (error: unknown) => ({ error }),
    );
    const done = ended.then(() => {
      settled = true;
      wake();
    });
    const abort = () => addon.runAbort(run);
    o.signal?.addEventListener('abort', abort);
    const pause = () => addon.runPause(run);
    o.pause?.addEventListener('abort', pause);
    if (o.pause?.aborted) pause();
    try {
      for (;;) {
        const woken = new Promise<void>((resolve) => {
          wake = resolve;
        });
        const last = settled;
        const columns = addon.runDrain(run);
        if (columns) yield metricsBatch(columns);
        else if (last) break;
        else if (!settled) await woken;
      }
      const outcome = await ended;
      if ('error' in outcome) throw outcome.error;
      if (outcome.result.state === 'aborted') o.signal?.throwIfAborted();
      return outcome.result;
    } finally {
      o.signal?.removeEventListener('abort', abort);
      o.pause?.removeEventListener('abort', pause);
      abort();
      await done; // whoever leaves the loop may use the session at once
      addon.dispose(run);
    }
  }

  /** `train` for who wants the end and all batches at once. */
  async trainToEnd(options: TrainOptions): Promise<{ end: RunEnd; batches: RecordBatch[] }> {
    const batches: RecordBatch[] = [];
    const iterator = this.train(options);
    for (;;) {
      const next = await iterator.next();
      if (next.done) return { end: next.value, batches };
      batches.push(next.value);
    }
  }

  /**
   * Mean loss and accuracy over a split, of the moving averages where they are kept. Aborting throws the signal's reason.
   * @param options.examples only so many, evenly spaced over the split. Default: all.
   */
  async evaluate(
    split: SplitName,
    options: { signal?: AbortSignal; examples?: number } = {},
  ): Promise<Evaluation> {
    options.signal?.throwIfAborted();
    const { examples: wanted } = options;
    if (wanted !== undefined) checkInteger(wanted, 'examples', 1, 2 ** 31 - 1);
    const { loss, accuracy, examples } = await this.toEnd(
      loadAddon().sessionEvaluate(
        this.handle,
        checkOneOf(split, 'split', ['train', 'validation', 'test']),
        wanted ?? 0,
      ),
      options.signal,
    );
    return { loss, accuracy, examples };
  }

  /**
   * Sets the running statistics of batch norm to the mean of the batch statistics of `batches` batches of the training
   * set, without augmentation, at the weights as they are: what a point between two snapshots needs, whose statistics
   * are no mean of theirs. Where moving averages are kept, all this is about them. Nothing else changes. Aborting throws the signal's reason and leaves them half done.
   */
  async reestimateStatistics(batches: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    options.signal?.throwIfAborted();
    checkInteger(batches, 'batches', 1, 2 ** 31 - 1);
    await this.toEnd(loadAddon().sessionReestimate(this.handle, batches), options.signal);
  }

  private async toEnd(
    { run, end }: { run: RunHandle; end: Promise<RunEnd> },
    signal: AbortSignal | undefined,
  ): Promise<RunEnd> {
    const addon = loadAddon();
    const abort = () => addon.runAbort(run);
    signal?.addEventListener('abort', abort);
    try {
      const ended = await end;
      if (ended.state === 'aborted') {
        signal?.throwIfAborted();
        throw new LthError('disposed', 'The session was disposed of while it worked');
      }
      return ended;
    } finally {
      signal?.removeEventListener('abort', abort);
      addon.dispose(run);
    }
  }

  private defaultEvaluations(): ('validation' | 'test')[] {
    return [
      ...(this.options.validation ? (['validation'] as const) : []),
      ...(this.options.test ? (['test'] as const) : []),
    ];
  }
}
