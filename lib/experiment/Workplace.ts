import { join } from 'node:path';
import type { RecordBatch } from 'apache-arrow';
import type { RunEnd } from '../native/AddonTypes.js';
import type { Recipe } from '../recipe/Recipe.js';
import { CompiledNetwork } from '../session/CompiledNetwork.js';
import { Dataset } from '../session/Dataset.js';
import { Masks } from '../session/Masks.js';
import { Session } from '../session/Session.js';
import { Snapshot } from '../session/Snapshot.js';
import { type MetricRow, readMetrics, writeMetrics } from '../store/metrics.js';
import type { RunFolder, UnitRecord } from '../store/RunFolder.js';
import type { DenseUnit, Plan, PruneUnit, ResolvedSteps, TrainUnit, Unit } from './plan.js';
import type { Result } from './Result.js';

export interface UnitContext {
  threads: number;
  signal: AbortSignal | undefined;
  onStep: (step: number) => void;
}

type Outcome = Pick<UnitRecord, 'diverged' | 'updates' | 'result' | 'rewind' | 'method'> & {
  files: string[];
};

const notAResult = { result: null, rewind: null, method: null };

/** Carries units out: the three verbs of the method, train, prune and rewind, on one network and data set. */
export class Workplace {
  private home: RunFolder | undefined;

  private constructor(
    readonly recipe: Recipe,
    readonly network: CompiledNetwork,
    private readonly data: { train: Dataset; test: Dataset },
  ) {}

  static async open(recipe: Recipe): Promise<Workplace> {
    const network = CompiledNetwork.compile(recipe.network);
    return new Workplace(recipe, network, await Dataset.open(recipe.data.set, recipe.data.folder));
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

  /** Figures of the data that enter the units' keys. */
  get dataFigures(): unknown {
    return [this.data.train.info, this.data.test.info];
  }

  openSession(replicate: number, threads: number, steps?: ResolvedSteps): Promise<Session> {
    const { recipe } = this;
    return Session.open({
      network: this.network,
      ...this.data,
      validation: recipe.data.validation,
      seed: recipe.seed,
      replicate,
      batch: recipe.training.batch,
      optimiser: recipe.training.optimiser,
      schedule: {
        milestones: steps?.milestones ?? [],
        gamma: recipe.training.schedule.gamma,
        warmup: steps?.warmup ?? 0,
      },
      normalise: recipe.data.normalise,
      device: recipe.device,
      precision: recipe.training.precision,
      executor: recipe.training.executor,
      threads,
    });
  }

  /** Bytes that the plan's units will take on disk, within a few per cent. */
  diskBytes(plan: Plan): number {
    const { parameters, prunable } = this.network.summary.counts;
    const element = this.recipe.training.precision === 'fp64' ? 8 : 4;
    const { optimiser } = this.recipe.training;
    const states = optimiser.type === 'adam' ? 2 : optimiser.momentum > 0 ? 1 : 0;
    const bytes = (unit: Unit) => {
      if (unit.kind === 'prune') return prunable;
      const rewindPoint = unit.kind === 'dense' && !unit.last;
      return parameters * element * (rewindPoint ? 1 + states : 1) + 20_000;
    };
    return plan.units.reduce((sum, unit) => sum + bytes(unit), 0);
  }

  async run(unit: Unit, plan: Plan, context: UnitContext): Promise<Outcome> {
    if (unit.kind === 'prune') return this.prune(unit);
    const session = await this.openSession(unit.replicate, context.threads, plan.steps);
    try {
      return unit.kind === 'dense'
        ? await this.dense(session, unit, plan, context)
        : await this.train(session, unit, plan, context);
    } finally {
      session.dispose();
    }
  }

  private async snapshot(id: string): Promise<Snapshot> {
    return Snapshot.read(this.network, await this.folder.file(id, 'snapshot.safetensors'));
  }

  private async masks(id: string): Promise<Masks> {
    return Masks.read(this.network, await this.folder.file(id, 'masks.safetensors'));
  }

  /** Updates from..to with the rows it makes; the rows of a training that was cut are as if it had not been. */
  private async advance(
    session: Session,
    steps: ResolvedSteps,
    context: UnitContext,
    to: number,
    noise: number,
    cut: { continues: boolean; ends: boolean },
  ): Promise<{ end: RunEnd; batches: RecordBatch[] }> {
    const batches: RecordBatch[] = [];
    const iterator = session.train({
      until: to,
      noise,
      metricsEvery: steps.metricsEvery,
      evaluateEvery: steps.evaluateEvery,
      ...cut,
      ...(context.signal ? { signal: context.signal } : {}),
    });
    for (;;) {
      const next = await iterator.next();
      if (next.done) return { end: next.value, batches };
      batches.push(next.value);
      context.onStep(Number(next.value.getChildAt(0)?.get(next.value.numRows - 1)));
    }
  }

  private async dense(session: Session, unit: DenseUnit, plan: Plan, context: UnitContext): Promise<Outcome> {
    if (unit.from) await session.load(await this.snapshot(unit.from));
    const cut = { continues: unit.from !== null, ends: unit.last };
    const { end, batches } = await this.advance(session, plan.steps, context, unit.to, 0, cut);
    const diverged = end.state === 'diverged';
    const folder = this.folder.unit(unit.id);
    await writeMetrics(folder, batches);
    // A rewind point needs what the optimiser remembers; the end of the training is only pruned and evaluated.
    const snapshot = await session.snapshot();
    await snapshot.write(join(folder, 'snapshot.safetensors'), { unit: unit.id }, { optimiser: !unit.last });
    const files = ['snapshot.safetensors', 'metrics.arrow', 'times.arrow'];
    const updates = end.step - (unit.to - unit.updates);
    if (!unit.last && !diverged) return { files, diverged, updates, ...notAResult };
    const earlier = await this.earlier(unit.from);
    const rows = [...earlier.rows, ...(await readMetrics(join(folder, 'metrics.arrow')))];
    const result = resultOf(
      rows,
      { branch: 'imp', replicate: unit.replicate, level: 0, noise: 0 },
      { prunable: 1, overall: 1 },
      end.step,
      diverged,
      earlier.seconds + end.seconds,
    );
    return { files, diverged, updates, result, rewind: null, method: null };
  }

  /** The dense run up to where a unit went on: its metrics, and how long it took. */
  private async earlier(id: string | null): Promise<{ rows: MetricRow[]; seconds: number }> {
    if (!id) return { rows: [], seconds: 0 };
    const record = await this.folder.record(id);
    const before = await this.earlier(record?.from ?? null);
    const rows = await readMetrics(await this.folder.file(id, 'metrics.arrow'));
    return { rows: [...before.rows, ...rows], seconds: before.seconds + (record?.seconds ?? 0) };
  }

  private async prune(unit: PruneUnit): Promise<Outcome> {
    const { fraction, pooling, rates } = this.recipe.pruning;
    const before = unit.masks ? await this.masks(unit.masks) : Masks.ones(this.network);
    const weights = await this.snapshot(unit.weights);
    const after = await before.prune(weights, { fraction, pooling, rates, levels: unit.levels });
    await after.write(join(this.folder.unit(unit.id), 'masks.safetensors'), { unit: unit.id });
    for (const resource of [before, weights, after]) resource.dispose();
    return { files: ['masks.safetensors'], diverged: false, updates: 0, ...notAResult };
  }

  /**
   * Rewind and train. The subnetwork starts from m * W_k (imp, random), or from a fresh initialisation at step k
   * (reinit; the paper leaves open whether it gets T or T - k updates: it gets the T - k updates and the schedule
   * that the rewound network gets, as open_lth's default).
   */
  private async train(session: Session, unit: TrainUnit, plan: Plan, context: UnitContext): Promise<Outcome> {
    const imp = await this.masks(unit.masks);
    const masks = unit.branch === 'random' ? await imp.random(this.recipe.seed, unit.replicate) : imp;
    await session.setMasks(masks);
    if (unit.branch === 'reinit') {
      await session.initialise(unit.noise === 0 ? unit.level : unit.noise);
      session.setStep(unit.rewind);
    } else {
      const start = await this.snapshot(unit.start);
      await session.load(start, { optimiser: this.recipe.rewindOptimiser });
      start.dispose();
    }
    const { end, batches } = await this.advance(session, plan.steps, context, plan.steps.total, unit.noise, {
      continues: false,
      ends: true,
    });
    const diverged = end.state === 'diverged';
    const folder = this.folder.unit(unit.id);
    await writeMetrics(folder, batches);
    const snapshot = await session.snapshot();
    await snapshot.write(join(folder, 'snapshot.safetensors'), { unit: unit.id }, { optimiser: false });
    const files = ['snapshot.safetensors', 'metrics.arrow', 'times.arrow'];
    if (unit.branch === 'random') {
      await masks.write(join(folder, 'masks.safetensors'), { unit: unit.id });
      files.push('masks.safetensors');
    }
    const { branch, replicate, level, noise, rewind, method } = unit;
    const updates = end.step - rewind;
    const result = resultOf(
      await readMetrics(join(folder, 'metrics.arrow')),
      { branch, replicate, level, noise },
      masks.density,
      updates,
      diverged,
      end.seconds,
    );
    return { files, diverged, updates, result, rewind, method };
  }
}

type What = Pick<Result, 'branch' | 'replicate' | 'level' | 'noise'>;

/** Early stopping: the update with the lowest validation loss, the earliest of equals (LTH section 1). */
function resultOf(
  rows: MetricRow[],
  what: What,
  density: { prunable: number; overall: number },
  updates: number,
  diverged: boolean,
  seconds: number,
): NonNullable<UnitRecord['result']> {
  const last = (split: string) => (diverged ? undefined : rows.findLast((row) => row.split === split));
  const [test, validation] = [last('test'), last('validation')];
  let best: MetricRow | undefined;
  for (const row of diverged ? [] : rows) {
    if (row.split === 'validation' && (!best || row.loss < best.loss)) best = row;
  }
  return {
    ...what,
    densityPrunable: density.prunable,
    densityOverall: density.overall,
    testAccuracy: test?.accuracy ?? null,
    validationAccuracy: validation?.accuracy ?? null,
    testLoss: test?.loss ?? null,
    validationLoss: validation?.loss ?? null,
    earlyStop: best?.step ?? null,
    earlyStopTestAccuracy:
      rows.find((row) => row.split === 'test' && row.step === best?.step)?.accuracy ?? null,
    updates,
    diverged,
    seconds,
  };
}
