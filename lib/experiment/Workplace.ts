import { join } from 'node:path';
import type { Tuning } from '../native/AddonTypes.js';
import { LthError } from '../native/errors.js';
import type { Recipe } from '../recipe/Recipe.js';
import { CompiledNetwork } from '../session/CompiledNetwork.js';
import { Dataset } from '../session/Dataset.js';
import { Masks } from '../session/Masks.js';
import { Session } from '../session/Session.js';
import { Snapshot } from '../session/Snapshot.js';
import { Checkpoints } from '../store/Checkpoints.js';
import { type MetricRow, readMetrics, writeMetrics } from '../store/metrics.js';
import type { RunFolder } from '../store/RunFolder.js';
import type { ReplacedPicture, UnitRecord } from '../store/records.js';
import { measureDistance, measureLine } from './compare.js';
import {
  type CopyUnit,
  type DenseUnit,
  drawOf,
  type InterpolationUnit,
  type Plan,
  type PruneUnit,
  type ResolvedSteps,
  type TrainUnit,
  type Unit,
} from './plan.js';
import { pruneByScores, remainingAfter } from './pruneByScores.js';
import type { ConnectivityResult } from './Result.js';
import { countReplaced, Replacements } from './replacements.js';
import { resultOf } from './resultOf.js';
import { type Cadence, trainWithCheckpoints } from './training.js';

export interface UnitContext {
  threads: number;
  fingerprint: string;
  allowDifferentBits: boolean;
  cadence: Cadence;
  signal: AbortSignal | undefined;
  onStart: (step: number) => void;
  onStep: (step: number) => void;
  onNotice: (message: string) => void;
}

type Outcome = Pick<
  UnitRecord,
  | 'diverged'
  | 'updates'
  | 'result'
  | 'rewind'
  | 'method'
  | 'fingerprints'
  | 'seconds'
  | 'replacedPictures'
  | 'stability'
  | 'connectivity'
> & {
  files: string[];
};

/** How a training ended, its metrics written. */
type Trained = Pick<Outcome, 'diverged' | 'seconds' | 'fingerprints' | 'replacedPictures'> & { step: number };

/** A network of the recipe's own that is no network is a mistake in the recipe. */
function compiled(recipe: Recipe): CompiledNetwork {
  try {
    return CompiledNetwork.compile(recipe.network);
  } catch (error) {
    if (error instanceof LthError && error.code === 'wrong-shape')
      throw new LthError('recipe', `${recipe.name}: network: ${error.message}`);
    throw error;
  }
}

const notAResult = { result: null, rewind: null, method: null };

/** Carries units out: the three verbs of the method, train, prune and rewind, on one network and data set. */
export class Workplace {
  private home: RunFolder | undefined;
  /** By which products are chosen; null: the built-in table. */
  tuning: Tuning | null = null;

  private constructor(
    readonly recipe: Recipe,
    readonly network: CompiledNetwork,
    private readonly data: { train: Dataset; test: Dataset },
  ) {}

  static async open(recipe: Recipe): Promise<Workplace> {
    const network = compiled(recipe);
    const { set, folder, crop, groundTruth, upright } = recipe.data;
    const data = await Dataset.open(set, folder, {
      ...(crop && { crop }),
      ...(groundTruth !== undefined && { groundTruth }),
      ...(upright && { upright }),
    });
    return new Workplace(recipe, network, data);
  }

  /** Where units are read and written. */
  get folder(): RunFolder {
    if (!this.home) throw new Error('the workplace has no run folder yet');
    return this.home;
  }

  set folder(folder: RunFolder) {
    this.home = folder;
  }

  dispose(): void {
    this.network.dispose();
    this.data.train.dispose();
    this.data.test.dispose();
  }

  /** Training and test set. */
  get examples(): Dataset[] {
    return [this.data.train, this.data.test];
  }

  /** Figures of the data that enter the units' keys. */
  get dataFigures(): unknown {
    return [this.data.train.info, this.data.test.info];
  }

  /** Examples that are trained on. */
  get trainExamples(): number {
    const { subset, validation } = this.recipe.data;
    return subset ?? this.data.train.info.count - validation;
  }

  openSession(replicate: number, threads: number, steps?: ScheduleSteps): Promise<Session> {
    const { recipe } = this;
    return Session.open({
      network: this.network,
      ...this.data,
      validation: recipe.data.validation,
      ...(recipe.data.subset === null ? {} : { subset: recipe.data.subset }),
      seed: recipe.seed,
      replicate,
      batch: recipe.training.batch,
      ...(recipe.training.microBatch !== undefined && { microBatch: recipe.training.microBatch }),
      ...(recipe.training.labelSmoothing !== undefined && { labelSmoothing: recipe.training.labelSmoothing }),
      ...(recipe.training.average && { average: recipe.training.average }),
      optimiser: recipe.training.optimiser,
      schedule: {
        gamma: recipe.training.schedule.gamma,
        ...(steps && {
          milestones: steps.milestones,
          warmup: steps.warmup,
          linear: steps.linear,
          exponential: steps.exponential,
          constantAt: steps.constantAt ?? null,
        }),
      },
      normalise: recipe.data.normalise,
      augment: recipe.data.augment,
      device: recipe.device,
      deviceMode: recipe.deviceMode,
      kernels: recipe.kernels,
      ...(this.tuning && { tuning: this.tuning }),
      precision: recipe.training.precision,
      executor: recipe.training.executor,
      threads,
    });
  }

  async run(unit: Unit, plan: Plan, context: UnitContext): Promise<Outcome> {
    if (unit.kind === 'prune') return this.prune(unit, context);
    if (unit.kind === 'distance') return { ...notAResult, ...(await measureDistance(this, unit, context)) };
    const lastRate = unit.kind === 'train' && unit.rule.rate === 'last';
    const steps = lastRate ? atLastRate(plan.steps) : plan.steps;
    const session = await this.openSession(unit.replicate, context.threads, steps);
    try {
      switch (unit.kind) {
        case 'dense':
          return await this.dense(session, unit, plan, context);
        case 'train':
          return await this.train(session, unit, plan, context);
        case 'copy':
          return await this.copy(session, unit, plan, context);
        case 'interpolation':
          return await this.interpolation(session, unit, context);
      }
    } finally {
      session.dispose();
    }
  }

  /** @param before those that the unit had before this session, which may not be known. */
  private replacements(
    session: Session,
    { onNotice }: UnitContext,
    before: ReplacedPicture[] | undefined,
  ): Replacements {
    const { train, test } = this.data;
    return new Replacements(session, train.pictures || test.pictures ? before : undefined, onNotice);
  }

  async snapshot(id: string): Promise<Snapshot> {
    return Snapshot.read(this.network, await this.folder.file(id, 'snapshot.safetensors'));
  }

  async masks(id: string): Promise<Masks> {
    return Masks.read(this.network, await this.folder.file(id, 'masks.safetensors'));
  }

  /** The masks of a branch: IMP's, or as many weights at random places; all ones for a network that is not pruned. */
  async masksOf(unit: {
    branch: ConnectivityResult['branch'];
    masks: string | null;
    replicate: number;
  }): Promise<Masks> {
    if (!unit.masks) return Masks.ones(this.network);
    const imp = await this.masks(unit.masks);
    if (unit.branch !== 'random') return imp;
    const random = await imp.random(this.recipe.seed, unit.replicate);
    imp.dispose();
    return random;
  }

  /**
   * Trains a unit from its newest checkpoint, or from where `begin` puts the session, to `until`, and writes its
   * metrics; the rows of a training that was cut are as if it had not been.
   */
  private async advance(
    session: Session,
    unit: DenseUnit | TrainUnit | CopyUnit,
    { steps }: Plan,
    context: UnitContext,
    how: { until: number; noise: number; continues: boolean; ends: boolean; begin: () => Promise<void> },
  ): Promise<Trained> {
    const { id, key } = unit;
    const { fingerprint, allowDifferentBits } = context;
    const folder = this.folder.unit(id);
    const start = unit.kind === 'dense' ? unit.to - unit.updates : unit.rewind;
    const owner = { id, key, start, fingerprint, allowDifferentBits };
    const checkpoints = new Checkpoints(folder, owner, (what) =>
      context.onNotice(`${unit.label}: passed over a checkpoint: ${what}`),
    );
    const checkpoint = await checkpoints.newest(this.network);
    if (checkpoint) {
      await session.load(checkpoint);
      checkpoint.dispose();
    } else {
      await how.begin();
    }
    const replacements = this.replacements(session, context, checkpoint ? checkpoints.replacedPictures : []);
    context.onStart(session.step);
    const { end, rows, seconds } = await trainWithCheckpoints(session, checkpoints, replacements, {
      until: how.until,
      noise: how.noise,
      continues: how.continues,
      ends: how.ends,
      metricsEvery: steps.metricsEvery,
      evaluateEvery: steps.evaluateEvery,
      cadence: context.cadence,
      signal: context.signal,
      onStep: context.onStep,
    });
    await writeMetrics(folder, rows);
    return {
      step: end.step,
      diverged: end.state === 'diverged',
      seconds,
      fingerprints: checkpoints.fingerprints,
      replacedPictures: replacements.pictures(),
    };
  }

  private async dense(session: Session, unit: DenseUnit, plan: Plan, context: UnitContext): Promise<Outcome> {
    const { step, ...trained } = await this.advance(session, unit, plan, context, {
      until: unit.to,
      noise: 0,
      continues: unit.from !== null,
      ends: unit.last,
      begin: async () => {
        if (!unit.from) return;
        const start = await this.snapshot(unit.from);
        await session.load(start);
        start.dispose();
      },
    });
    const { diverged, seconds, replacedPictures } = trained;
    const folder = this.folder.unit(unit.id);
    // A rewind point needs what the optimiser remembers; the end of the training is only pruned and evaluated.
    const snapshot = await session.snapshot();
    await snapshot.write(join(folder, 'snapshot.safetensors'), { unit: unit.id }, { optimiser: !unit.last });
    snapshot.dispose();
    const files = ['snapshot.safetensors', 'metrics.arrow', 'times.arrow'];
    const updates = step - (unit.to - unit.updates);
    const outcome = { files, updates, ...trained, ...notAResult };
    if (!unit.last && !diverged) return outcome;
    const earlier = await this.earlier(unit.from);
    const rows = [...earlier.rows, ...(await readMetrics(join(folder, 'metrics.arrow')))];
    const result = resultOf(
      rows,
      { branch: 'imp', replicate: unit.replicate, level: 0, noise: 0 },
      { prunable: 1, overall: 1 },
      step,
      diverged,
      countReplaced(earlier.replacedPictures, replacedPictures),
      earlier.seconds + seconds,
    );
    return { ...outcome, result };
  }

  /** The dense run up to where a unit went on: its metrics, how long it took, and what was replaced. */
  private async earlier(
    id: string | null,
  ): Promise<{ rows: MetricRow[]; seconds: number; replacedPictures: ReplacedPicture[] | undefined }> {
    if (!id) return { rows: [], seconds: 0, replacedPictures: [] };
    const record = await this.folder.record(id);
    const before = await this.earlier(record?.from ?? null);
    const rows = await readMetrics(await this.folder.file(id, 'metrics.arrow'));
    return {
      rows: [...before.rows, ...rows],
      seconds: before.seconds + (record?.seconds ?? 0),
      replacedPictures:
        before.replacedPictures && record?.replacedPictures
          ? [...before.replacedPictures, ...record.replacedPictures]
          : undefined,
    };
  }

  private async prune(unit: PruneUnit, context: UnitContext): Promise<Outcome> {
    const start = performance.now();
    context.onStart(0);
    const { fraction, pooling, rates } = this.recipe.pruning;
    const weights = await this.snapshot(unit.weights);
    let after: Masks;
    let replacedPictures: ReplacedPicture[] | undefined;
    if (unit.by === 'weights') {
      const before = unit.masks ? await this.masks(unit.masks) : Masks.ones(this.network);
      const { levels, inverted } = unit;
      after = await before.prune(weights, { fraction, pooling, rates, levels, highest: inverted });
      before.dispose();
    } else {
      ({ after, replacedPictures } = await this.pruneByScores(unit, unit.by, weights, context));
    }
    await after.write(join(this.folder.unit(unit.id), 'masks.safetensors'), { unit: unit.id });
    for (const resource of [weights, after]) resource.dispose();
    const seconds = (performance.now() - start) / 1000;
    const fingerprints = [context.fingerprint];
    return {
      files: ['masks.safetensors'],
      diverged: false,
      updates: 0,
      seconds,
      fingerprints,
      replacedPictures,
      ...notAResult,
    };
  }

  private async pruneByScores(
    unit: PruneUnit,
    by: Exclude<PruneUnit['by'], 'weights'>,
    weights: Snapshot,
    context: UnitContext,
  ): Promise<{ after: Masks; replacedPictures: ReplacedPicture[] | undefined }> {
    const { replicate, inverted } = unit;
    const session = await this.openSession(replicate, context.threads);
    try {
      await session.load(weights, { optimiser: 'zero' });
      const remaining = remainingAfter(this.network, this.recipe.pruning, unit.levels);
      const random = { seed: this.recipe.seed, replicate };
      const how = { by, inverted, remaining };
      const replacements = this.replacements(session, context, []);
      const after = await pruneByScores(session, this.network, how, random, context.signal);
      return { after, replacedPictures: replacements.pictures() };
    } finally {
      session.dispose();
    }
  }

  /**
   * Rewind and train. The subnetwork starts from m * W_k (imp, random), or from a fresh initialisation at step k
   * (reinit; the paper leaves open whether it gets T or T - k updates: it gets the T - k updates and the schedule
   * that the rewound network gets, as open_lth's default). Learning-rate rewinding and fine-tuning start from the final
   * weights at step k, their optimiser with no memory: what it remembers is of the end of another schedule.
   */
  private async train(session: Session, unit: TrainUnit, plan: Plan, context: UnitContext): Promise<Outcome> {
    const { branch, replicate, level, noise, rewind, method, rule } = unit;
    const given = await this.masks(unit.masks);
    const masks = rule.shuffled ? await given.random(this.recipe.seed, replicate) : given;
    await session.setMasks(masks);
    const { step, ...trained } = await this.advance(session, unit, plan, context, {
      until: plan.steps.total,
      noise,
      continues: false,
      ends: true,
      begin: async () => {
        if (rule.weights === 'fresh') {
          await session.initialise(drawOf({ noise, level }));
          session.setStep(rewind);
          return;
        }
        const start = await this.snapshot(unit.start);
        const final = rule.weights === 'final';
        await session.load(start, { optimiser: final ? 'zero' : this.recipe.rewindOptimiser });
        if (final) session.setStep(rewind);
        start.dispose();
      },
    });
    const folder = this.folder.unit(unit.id);
    const snapshot = await session.snapshot();
    await snapshot.write(join(folder, 'snapshot.safetensors'), { unit: unit.id }, { optimiser: false });
    const files = ['snapshot.safetensors', 'metrics.arrow', 'times.arrow'];
    if (rule.shuffled) {
      await masks.write(join(folder, 'masks.safetensors'), { unit: unit.id });
      files.push('masks.safetensors');
    }
    const updates = step - rewind;
    const result = resultOf(
      await readMetrics(join(folder, 'metrics.arrow')),
      { branch, replicate, level, noise },
      masks.density,
      updates,
      trained.diverged,
      countReplaced(trained.replacedPictures),
      trained.seconds,
    );
    for (const resource of new Set([snapshot, given, masks])) resource.dispose();
    return { files, updates, ...trained, result, rewind, method };
  }

  /** A^(T-k)(m * W_k, u) for one more u, or of the dense network (paper section 2); reinit starts as its control. */
  private async copy(session: Session, unit: CopyUnit, plan: Plan, context: UnitContext): Promise<Outcome> {
    const masks = await this.masksOf(unit);
    if (unit.masks) await session.setMasks(masks);
    masks.dispose();
    const { step, ...trained } = await this.advance(session, unit, plan, context, {
      until: plan.steps.total,
      noise: unit.noise,
      continues: false,
      ends: true,
      begin: async () => {
        if (unit.draw !== null) {
          await session.initialise(unit.draw);
          session.setStep(unit.rewind);
          return;
        }
        const start = await this.snapshot(unit.start);
        await session.load(start, { optimiser: this.recipe.rewindOptimiser });
        start.dispose();
      },
    });
    const snapshot = await session.snapshot();
    const path = join(this.folder.unit(unit.id), 'snapshot.safetensors');
    await snapshot.write(path, { unit: unit.id }, { optimiser: false });
    snapshot.dispose();
    const files = ['snapshot.safetensors', 'metrics.arrow', 'times.arrow'];
    return { files, updates: step - unit.rewind, ...trained, ...notAResult };
  }

  private async interpolation(
    session: Session,
    unit: InterpolationUnit,
    context: UnitContext,
  ): Promise<Outcome> {
    const replacements = this.replacements(session, context, []);
    const line = await measureLine(this, session, unit, context);
    return { ...notAResult, ...line, replacedPictures: replacements.pictures() };
  }
}

/** What a session's schedule is made of; `constantAt`: the rate of that update for all. */
type ScheduleSteps = Pick<ResolvedSteps, 'milestones' | 'warmup' | 'linear' | 'exponential'> & {
  constantAt?: number;
};

/** A constant rate, that of the schedule's last update; the warm-up has ended before the training does. */
function atLastRate(steps: ResolvedSteps): ScheduleSteps {
  return { ...steps, constantAt: steps.total - 1 };
}
