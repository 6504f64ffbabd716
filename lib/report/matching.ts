import type { Result } from '../experiment/Result.js';
import { branchNames } from '../recipe/branches.js';

/** Mean and range over replicates; `n` counts those that did not diverge. */
export interface Spread {
  n: number;
  mean: number;
  min: number;
  max: number;
}

export function spread(values: (number | null)[]): Spread | null {
  const known = values.filter((value) => value !== null);
  if (known.length === 0) return null;
  return {
    n: known.length,
    mean: known.reduce((a, b) => a + b, 0) / known.length,
    min: Math.min(...known),
    max: Math.max(...known),
  };
}

/** One row of the table: a level of one rewind point and method. */
export interface LevelRow {
  level: number;
  densityPrunable: number;
  densityOverall: number;
  accuracy: Partial<Record<Result['branch'], Spread>>;
  /** Mean early-stopping iteration, counted in updates of the schedule (k + updates of this training). */
  earlyStop: Partial<Record<Result['branch'], Spread>>;
  /** Wall-clock milliseconds of an update, evaluation included. */
  milliseconds: Partial<Record<Result['branch'], Spread>>;
  diverged: Result[];
  /** Fewer weights remain than a level before: at a few weights floor(fraction * remaining) is 0. */
  pruned: boolean;
  /** imp only: by `matchingRule`. */
  matching: boolean;
  winning: boolean;
}

export interface Curve {
  method: Result['method'];
  rewind: number;
  branches: Result['branch'][];
  rows: LevelRow[];
}

/** LMC section 4.4: a drop below 0.2 percentage points is none. */
const SMALLEST_TOLERANCE = 0.002;

export const matchingRule =
  'matching: mean test accuracy of imp at least the dense mean less one standard deviation of the dense replicates, or less 0.2 points if that is more (so it holds for one replicate too); winning ticket: matching at k = 0, and its mean early-stopping iteration no later than the dense one';

function deviation(values: number[]): number {
  if (values.length < 2) return 0;
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
}

/** In the order of tables. */
const branchesOf = (results: Result[]) => {
  const there = new Set(results.map((r) => r.branch));
  return branchNames.filter((branch) => there.has(branch));
};

/** Results grouped into one curve for each rewind point and method. */
export function curves(results: Result[]): Curve[] {
  const keys = [...new Set(results.map((r) => `${r.method} ${r.rewind}`))];
  return keys.map((key) => {
    const of = results.filter((r) => `${r.method} ${r.rewind}` === key);
    const { method, rewind } = of[0] as Result;
    const denseOnes = of.filter((r) => r.level === 0 && r.testAccuracy !== null);
    const dense = spread(denseOnes.map((r) => r.testAccuracy));
    const denseStop = spread(denseOnes.map((r) => r.earlyStop));
    const tolerance = Math.max(deviation(denseOnes.map((r) => r.testAccuracy as number)), SMALLEST_TOLERANCE);
    const branches = branchesOf(of);
    const levels = [...new Set(of.map((r) => r.level))].sort((a, b) => a - b);
    const rows = levels.map((level): LevelRow => {
      const here = of.filter((r) => r.level === level);
      const accuracy: LevelRow['accuracy'] = {};
      const earlyStop: LevelRow['earlyStop'] = {};
      const milliseconds: LevelRow['milliseconds'] = {};
      for (const branch of branches) {
        const mine = here.filter((r) => r.branch === branch);
        const [a, e] = [spread(mine.map((r) => r.testAccuracy)), spread(mine.map((r) => r.earlyStop))];
        if (a) accuracy[branch] = a;
        if (e) earlyStop[branch] = e;
        const ms = spread(mine.map((r) => (r.updates > 0 ? (r.seconds * 1e3) / r.updates : null)));
        if (ms) milliseconds[branch] = ms;
      }
      const imp = accuracy.imp;
      // As many as the dense mean was taken over: those that diverged, above or here, must not raise a mean by leaving it.
      const allThere = imp?.n === dense?.n;
      const { densityPrunable, densityOverall } = here[0] as Result;
      const pruned = of.every((r) => r.level !== level - 1 || r.densityPrunable > densityPrunable);
      const matching =
        pruned && level > 0 && allThere && !!imp && !!dense && imp.mean >= dense.mean - tolerance;
      const soonEnough = !!earlyStop.imp && !!denseStop && earlyStop.imp.mean <= denseStop.mean;
      return {
        level,
        densityPrunable,
        densityOverall,
        accuracy,
        earlyStop,
        milliseconds,
        diverged: here.filter((r) => r.diverged),
        pruned,
        matching,
        winning: rewind === 0 && matching && soonEnough,
      };
    });
    return { method, rewind, branches, rows };
  });
}

/** At the sparsest level: how far IMP's mean is from each control's, and whether that is more than the widest spread. */
export function verdicts(curve: Curve): string[] {
  const last = curve.rows.at(-1);
  const imp = last?.accuracy.imp;
  if (!last || last.level === 0 || !imp) return [];
  return curve.branches.flatMap((branch) => {
    const control = branch === 'imp' ? undefined : last.accuracy[branch];
    if (!control) return [];
    const gap = (imp.mean - control.mean) * 100;
    const widest = Math.max(imp.max - imp.min, control.max - control.min) * 100;
    const by = `${Math.abs(gap).toFixed(2)} points ${gap >= 0 ? 'above' : 'below'} ${branch} on the mean`;
    const than =
      imp.n > 1
        ? `, ${Math.abs(gap) > widest ? 'more' : 'less'} than the widest spread of ${widest.toFixed(2)}`
        : '';
    return [`level ${last.level}: imp is ${by}${than}`];
  });
}

/**
 * What all trainings of IMP cost beside as many dense ones, update by update; null where there is no level to compare.
 * Measured as they ran: other work on the machine is in it.
 */
export function savingOf({ rows }: Curve): string | null {
  const times = rows.map(({ milliseconds }) => milliseconds.imp?.mean);
  const [dense, ...levels] = times;
  if (!dense || levels.length === 0 || levels.includes(undefined)) return null;
  const sum = times.reduce<number>((total, one) => total + (one ?? 0), 0);
  const saved = 1 - sum / (dense * times.length);
  const words = `time: ${times.length} trainings of imp took as long as ${(sum / dense).toFixed(1)} dense ones of as many updates`;
  return saved > 0 ? `${words}, ${(100 * saved).toFixed(0)} % saved` : words;
}

/** What a level is, in words: dense, matching, a winning ticket; nothing left to prune; what diverged. */
export function noteOf(row: LevelRow): string {
  const words = [row.level === 0 ? 'dense' : row.winning ? 'winning ticket' : row.matching ? 'matching' : ''];
  if (!row.pruned) words.push('nothing was left to prune');
  if (row.diverged.length > 0)
    words.push(`diverged: ${row.diverged.map((r) => `${r.branch} of replicate ${r.replicate}`).join(', ')}`);
  return words.filter(Boolean).join('; ');
}
