import type { RecordBatch } from 'apache-arrow';
import type {
  KernelChoice,
  RunEnd,
  RunHandle,
  ScoreMethod,
  SessionHandle,
  SessionInfo,
  SessionMemory,
  SnapshotHandle,
} from '../native/AddonTypes.js';
import { checkInteger, checkOneOf, LthError } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { metricsBatch } from './arrow.js';
import { Masks } from './Masks.js';
import type { Pictures } from './Pictures.js';
import { checkResource, Resource } from './Resource.js';
import { Snapshot } from './Snapshot.js';
import {
  nativeOptions,
  nativeTrainOptions,
  type OpenOptions,
  type SplitName,
  type TrainOptions,
} from './sessionOptions.js';

export type { OpenOptions, Optimiser, SplitName, TrainOptions } from './sessionOptions.js';

export interface Evaluation {
  /** Mean cross-entropy. */
  loss: number;
  /** Fraction in [0, 1]. */
  accuracy: number;
  examples: number;
}

const perClassOf = (options: { perClass?: number }) =>
  checkInteger(options.perClass ?? 10, 'perClass', 1, 2 ** 31 - 1);

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
    const handle = await loadAddon().sessionOpen(nativeOptions(o));
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
   * with temperature 200, g on the same batch; absolute values per batch, batches of the training's size, or of
   * its micro-batches, averaged. Examples are not augmented, pictures in files by the evaluation's crop; batch norm takes the
   * batch's statistics. SynFlow takes it as evaluation does, with absolute values of scales, shifts and running statistics
   * too, as its authors' code (Tanaka et al. 2020): at initialisation that is a division by sqrt(1 + epsilon). Biases,
   * running statistics and whatever else is not prunable have 0. The session stays as it is. Aborting throws the signal's
   * reason, once the batch at hand is done.
   * @param options.perClass examples of each class, chosen by seed and replicate. Default 10.
   * @throws LthError "invalid-argument" where the training set has fewer.
   */
  async scores(
    method: ScoreMethod,
    options: { perClass?: number; signal?: AbortSignal } = {},
  ): Promise<Snapshot> {
    options.signal?.throwIfAborted();
    checkOneOf(method, 'method', ['magnitude', 'snip', 'grasp', 'grasp-abs', 'synflow']);
    const work = loadAddon().sessionScores(this.handle, method, perClassOf(options));
    const isStopped = (scores: SnapshotHandle | null) => scores === null;
    return new Snapshot((await this.whole(work, isStopped, options.signal)) as SnapshotHandle);
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
   * their batch that could be read. Of batches that the network saw; `name` is below the folder of the data set, and
   * "validation" is held out of the training set.
   */
  replacedPictures(): { split: SplitName; name: string; path: string; by: string; why: string }[] {
    return loadAddon()
      .sessionReplaced(this.handle)
      .map(({ split, row, taken, why }) => {
        const pictures = (split === 'test' ? this.options.test : this.options.train)?.pictures as Pictures;
        return { split, name: pictures.name(row), path: pictures.path(row), by: pictures.path(taken), why };
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
      nativeTrainOptions(o, this.defaultEvaluations()),
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
   * are no mean of theirs. Where moving averages are kept, all this is about them. Nothing else changes. Aborting throws the
   * signal's reason and leaves them half done.
   */
  async reestimateStatistics(batches: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    options.signal?.throwIfAborted();
    checkInteger(batches, 'batches', 1, 2 ** 31 - 1);
    await this.toEnd(loadAddon().sessionReestimate(this.handle, batches), options.signal);
  }

  private toEnd(work: { run: RunHandle; end: Promise<RunEnd> }, signal: AbortSignal | undefined) {
    return this.whole(work, ({ state }) => state === 'aborted', signal);
  }

  /** What the work comes to. @throws the signal's reason where that stopped it. */
  private async whole<Result>(
    { run, end }: { run: RunHandle; end: Promise<Result> },
    isStopped: (result: Result) => boolean,
    signal: AbortSignal | undefined,
  ): Promise<Result> {
    const addon = loadAddon();
    const abort = () => addon.runAbort(run);
    signal?.addEventListener('abort', abort);
    try {
      const ended = await end;
      if (isStopped(ended)) {
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
