import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { damage, fromFileSystem } from '../files.js';
import { LthError } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { CompiledNetwork } from '../session/CompiledNetwork.js';
import { Masks } from '../session/Masks.js';
import { Snapshot } from '../session/Snapshot.js';
import { Checkpoints, readCheckpoint } from '../store/Checkpoints.js';
import { readMetrics } from '../store/metrics.js';
import type { RunFolder } from '../store/RunFolder.js';
import type { UnitRecord } from '../store/records.js';
import { accuraciesOf, samplesOf } from './compare.js';
import type { CopyUnit, DistanceUnit, Plan, PruneUnit, TrainUnit, Unit } from './plan.js';
import { remainingAfter } from './pruneByScores.js';
import { type Survey, survey } from './survey.js';

export interface VerifyProblem {
  id: string;
  /**
   * "unit": what it holds cannot be trusted. "checkpoint": the next run passes it over. "table": the run cannot be gone on
   * with before its table of costs is there again; `id` is the file's name. "unread": who knows.
   */
  kind: 'unit' | 'checkpoint' | 'table' | 'unread';
  message: string;
}

export interface Verification {
  run: string;
  /** Finished units, files and checkpoints that were looked at. */
  units: number;
  files: number;
  checkpoints: number;
  /** Units that somebody works on now: not looked at. */
  running: number;
  problems: VerifyProblem[];
  /** What makes the units with problems again, once they are put aside: the commands that made them, without options. */
  commands: string[];
}

/**
 * Looks at everything in a run folder: every checksum, every record; that masks hold exactly the weights that the rule
 * leaves, nested from level to level, random ones with IMP's counts; that pruned entries are exactly +0 in every
 * snapshot; that distances are those of the copies they were measured between; that masks follow from the weights they were made of,
 * where these were kept.
 * @throws LthError "io" where there is no run, "corrupt-file" for a damaged experiment.json or requests.json.
 */
export async function verifyRun(path: string): Promise<Verification> {
  const verifier = new Verifier(await survey(path));
  try {
    return await verifier.run();
  } finally {
    verifier.dispose();
  }
}

/** What was looked at in one unit, and what is wrong there. */
type Findings = Pick<Verification, 'units' | 'files' | 'checkpoints' | 'problems'>;
const nothingFound = (): Findings => ({ units: 0, files: 0, checkpoints: 0, problems: [] });

/** Looks at units of one run, each under its lock where there is something wrong. */
export class Verifier {
  private readonly folder: RunFolder;
  private readonly plan: Plan;
  private readonly network: CompiledNetwork;
  private readonly planned: Map<string, Unit>;
  private report = nothingFound();

  constructor(private readonly found: Survey) {
    this.folder = found.folder;
    this.plan = found.plan;
    this.planned = new Map(this.plan.units.map((unit) => [unit.id, unit]));
    this.network = CompiledNetwork.compile(found.recipe.network);
  }

  dispose(): void {
    this.network.dispose();
  }

  async run(): Promise<Verification> {
    const all: Verification = {
      run: this.folder.path,
      units: 0,
      files: 0,
      checkpoints: 0,
      running: 0,
      problems: [],
      commands: [],
    };
    all.problems.push(...(await this.table()));
    for (const id of await this.folder.ids()) {
      const findings = await this.look(id);
      if (!findings) {
        all.running++;
        continue;
      }
      for (const key of ['units', 'files', 'checkpoints'] as const) all[key] += findings[key];
      all.problems.push(...findings.problems);
    }
    all.commands = await this.commandsFor(all.problems);
    return all;
  }

  /** Is the table of costs the one that the run began with? */
  private async table(): Promise<VerifyProblem[]> {
    this.report = nothingFound();
    await this.noting('tuning.json', 'table', async () => void (await this.folder.tuning()));
    return this.report.problems;
  }

  private async commandsFor(problems: VerifyProblem[]): Promise<string[]> {
    const { path } = this.folder;
    const run = `lth-train run ${path}/recipe.yaml --out ${path}`;
    const analyses = new Set((await this.folder.analyses()).map(({ kind }) => `lth-train ${kind} ${path}`));
    const commands = new Set<string>();
    for (const { id } of problems.filter(({ kind }) => kind === 'unit')) {
      const kind = this.planned.get(id)?.kind;
      // Copies are of both analyses.
      if (kind === 'copy') for (const one of analyses) commands.add(one);
      else if (kind === 'distance') commands.add(`lth-train stability ${path}`);
      else if (kind === 'interpolation') commands.add(`lth-train connectivity ${path}`);
      else commands.add(run);
    }
    return [...commands];
  }

  /** What a unit holds; null where somebody works on it. */
  private async look(id: string): Promise<Findings | null> {
    if (this.folder.locked(id)) return null;
    const first = await this.inspect(id);
    if (first.problems.length === 0) return first;
    // A run that goes on may have changed something under our eyes: again, while nobody can.
    const lock = await this.folder.lock(id);
    if (!lock) return null;
    try {
      return await this.inspect(id);
    } finally {
      loadAddon().dispose(lock);
    }
  }

  async inspect(id: string): Promise<Findings> {
    this.report = nothingFound();
    await this.checkpoints(id);
    await this.noting(id, 'unit', () => this.unit(id, this.planned.get(id)));
    return this.report;
  }

  /** Errors of damaged files become problems; one that cannot be read is not damaged for that. */
  private async noting(id: string, kind: VerifyProblem['kind'], look: () => Promise<void>): Promise<void> {
    try {
      await look();
    } catch (error) {
      const known = error instanceof LthError ? error : fromFileSystem(error);
      if (!known) throw error;
      this.problem(id, known.message, known.code === 'io' ? 'unread' : kind);
    }
  }

  private problem(id: string, message: string, kind: VerifyProblem['kind'] = 'unit'): void {
    this.report.problems.push({ id, kind, message });
  }

  private async checkpoints(id: string): Promise<void> {
    const folder = this.folder.unit(id);
    for (const step of await Checkpoints.steps(folder)) {
      this.report.checkpoints++;
      await this.noting(id, 'checkpoint', async () => {
        const { snapshot } = await readCheckpoint(folder, step);
        (await Snapshot.read(this.network, join(folder, snapshot.name))).dispose();
      });
    }
  }

  private async unit(id: string, unit: Unit | undefined): Promise<void> {
    const record = await this.folder.record(id);
    if (!record) return; // not finished
    this.report.units++;
    if (unit && record.key !== unit.key)
      return this.problem(
        id,
        `${this.folder.unit(id)}/unit.json has another key than this experiment gives it`,
      );
    if (!(await this.files(record))) return;
    if (unit?.kind === 'prune') await this.masks(unit);
    if (unit?.kind === 'train') await this.training(unit, record);
    if (unit?.kind === 'copy') await this.copy(unit, record);
    if (unit?.kind === 'distance') await this.distance(unit, record);
    if (unit && unit.updates > 0) await readMetrics(join(this.folder.unit(id), 'metrics.arrow'));
  }

  /** Are the files what was written? */
  private async files({ id, files }: UnitRecord): Promise<boolean> {
    let whole = true;
    for (const [name, seal] of Object.entries(files)) {
      const path = join(this.folder.unit(id), name);
      if (seal.removed && !existsSync(path)) continue;
      this.report.files++;
      const wrong = await damage(path, seal);
      if (!wrong) continue;
      whole = false;
      this.problem(id, wrong);
    }
    return whole;
  }

  private readMasks(id: string): Promise<Masks> {
    return Masks.read(this.network, join(this.folder.unit(id), 'masks.safetensors'));
  }

  private async isWhole(id: string, name: string): Promise<boolean> {
    const record = await this.folder.record(id).catch(() => null);
    const seal = record?.files[name];
    return !!seal && !seal.removed && (await damage(join(this.folder.unit(id), name), seal)) === null;
  }

  /** Masks of one level: nested in the level before, exactly as many as the rule says, of the smallest weights. */
  private async masks(unit: PruneUnit): Promise<void> {
    const masks = await this.readMasks(unit.id);
    const usable = unit.masks === null || (await this.isWhole(unit.masks, 'masks.safetensors'));
    const before = !usable ? null : unit.masks ? await this.readMasks(unit.masks) : Masks.ones(this.network);
    try {
      if (!before) return; // the level before is a problem of its own
      if (!masks.nestedIn(before))
        this.problem(unit.id, 'its masks are not nested in those of the level before');
      const wrong =
        unit.by === 'weights'
          ? this.wrongCounts(before, masks, unit.levels)
          : this.wrongTotal(masks, unit.levels);
      if (wrong) this.problem(unit.id, wrong);
      // Scores look at data, which a run folder does not hold.
      if (unit.by === 'weights' && (await this.isWhole(unit.weights, 'snapshot.safetensors'))) {
        const { fraction, pooling, rates } = this.found.recipe.pruning;
        const weights = await Snapshot.read(
          this.network,
          join(this.folder.unit(unit.weights), 'snapshot.safetensors'),
        );
        const again = await before.prune(weights, {
          fraction,
          pooling,
          rates,
          levels: unit.levels,
          highest: unit.inverted,
        });
        if (!same(masks, again))
          this.problem(
            unit.id,
            `its masks are not those of the ${unit.inverted ? 'largest' : 'smallest'} weights`,
          );
        weights.dispose();
        again.dispose();
      }
    } finally {
      before?.dispose();
      masks.dispose();
    }
  }

  /** floor(fraction * remaining) go per level, of each tensor or of all together. */
  private wrongCounts(before: Masks, after: Masks, levels: number): string | null {
    const { fraction, pooling, rates } = this.found.recipe.pruning;
    const left = (remaining: number, rate: number) => {
      for (let level = 0; level < levels; level++) remaining -= loadAddon().prunedCount(rate, remaining);
      return remaining;
    };
    const tensors = [...before.tensors()].map(([name, { remaining }]) => ({
      name,
      before: remaining,
      after: after.tensors().get(name)?.remaining ?? -1,
    }));
    if (pooling === 'layerwise') {
      const wrong = tensors.find((one) => one.after !== left(one.before, rates[one.name] ?? fraction));
      if (!wrong) return null;
      return `${wrong.name} keeps ${wrong.after} of ${wrong.before} weights, expected ${left(wrong.before, rates[wrong.name] ?? fraction)}`;
    }
    const sum = (what: 'before' | 'after') => tensors.reduce((total, one) => total + one[what], 0);
    const expected = left(sum('before'), fraction);
    return sum('after') === expected
      ? null
      : `its masks keep ${sum('after')} of ${sum('before')} weights, expected ${expected}`;
  }

  /** Masks by scores leave as many weights as IMP's rule, in one pool. */
  private wrongTotal(masks: Masks, levels: number): string | null {
    const kept = [...masks.tensors().values()].reduce((sum, { remaining }) => sum + remaining, 0);
    const expected = remainingAfter(this.network, this.found.recipe.pruning, levels);
    return kept === expected ? null : `its masks keep ${kept} weights, expected ${expected}`;
  }

  /** A training's weights are +0 where they are pruned; random masks are the control's own. */
  private async training(unit: TrainUnit, record: UnitRecord): Promise<void> {
    if (!(await this.isWhole(unit.masks, 'masks.safetensors'))) return;
    const imp = await this.readMasks(unit.masks);
    const masks = unit.rule.shuffled ? await this.readMasks(unit.id) : imp;
    if (unit.rule.shuffled) {
      const expected = await imp.random(this.found.recipe.seed, unit.replicate);
      if (!same(masks, expected)) this.problem(unit.id, 'its masks are not the permuted ones');
      expected.dispose();
    }
    await this.zeros(unit.id, record, masks);
    for (const one of new Set([imp, masks])) one.dispose();
  }

  private async zeros(id: string, record: UnitRecord, masks: Masks): Promise<void> {
    if (record.files['snapshot.safetensors']?.removed) return;
    const path = join(this.folder.unit(id), 'snapshot.safetensors');
    const snapshot = await Snapshot.read(this.network, path);
    const wrong = await masks.violations(snapshot);
    if (wrong > 0) this.problem(id, `${path}: ${wrong} pruned entries are not +0`);
    snapshot.dispose();
  }

  /** The masks of a comparison's branch; null where IMP's are a problem of their own. */
  private async branchMasks(unit: CopyUnit | DistanceUnit): Promise<Masks | null> {
    if (unit.masks === null) return Masks.ones(this.network);
    if (!(await this.isWhole(unit.masks, 'masks.safetensors'))) return null;
    const imp = await this.readMasks(unit.masks);
    if (unit.branch !== 'random') return imp;
    const random = await imp.random(this.found.recipe.seed, unit.replicate);
    imp.dispose();
    return random;
  }

  private async copy(unit: CopyUnit, record: UnitRecord): Promise<void> {
    const masks = await this.branchMasks(unit);
    if (!masks) return;
    await this.zeros(unit.id, record, masks);
    masks.dispose();
  }

  /** Distances are those of the copies that lie there. */
  private async distance(unit: DistanceUnit, record: UnitRecord): Promise<void> {
    const masks = await this.branchMasks(unit);
    const whole = await Promise.all(unit.copies.map((id) => this.isWhole(id, 'snapshot.safetensors')));
    if (!masks || whole.includes(false)) return;
    const [a, b] = await Promise.all(
      unit.copies.map((id) =>
        Snapshot.read(this.network, join(this.folder.unit(id), 'snapshot.safetensors')),
      ),
    );
    const kept = record.stability?.[0]?.testAccuracies ?? [null, null];
    const accuracies = kept.includes(null) ? kept : await accuraciesOf(this.folder, unit);
    const samples = await samplesOf(unit, a as Snapshot, b as Snapshot, masks, accuracies);
    if (!isDeepStrictEqual(samples, record.stability))
      this.problem(unit.id, 'its distances and accuracies are not those of its copies');
    for (const one of [a, b, masks]) one?.dispose();
  }
}

function same(a: Masks, b: Masks): boolean {
  return a.nestedIn(b) && b.nestedIn(a);
}
