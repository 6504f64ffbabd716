import type { Result, RunSummary } from '../experiment/Result.js';
import { groups, rangeOf, STABLE_BELOW } from './analyses.js';
import { percent } from './html.js';
import { type Curve, curves, type LevelRow, verdicts } from './matching.js';

/** `1-4, 6`. */
export function rangesOf(levels: number[]): string {
  const parts: [number, number][] = [];
  for (const level of levels) {
    const last = parts.at(-1);
    if (last && last[1] === level - 1) last[1] = level;
    else parts.push([level, level]);
  }
  return parts.map(([a, b]) => (a === b ? String(a) : `${a}-${b}`)).join(', ');
}

const plural = (rows: LevelRow[]) => (rows.length === 1 ? 'level' : 'levels');
const levelsOf = (rows: LevelRow[]) => `${plural(rows)} ${rangesOf(rows.map((row) => row.level))}`;

/** `3 trainings of imp diverged at level 4 (replicates 0-2)`. */
function divergedWords(mine: Result[]): string {
  const [{ branch, level }] = mine as [Result];
  const replicates = mine.map(({ replicate }) => replicate).sort((a, b) => a - b);
  return mine.length === 1
    ? `1 training of ${branch} diverged at level ${level} (replicate ${replicates[0]})`
    : `${mine.length} trainings of ${branch} diverged at level ${level} (replicates ${rangesOf(replicates)})`;
}

/** What is to be said of one rewind point and method. */
export function curveVerdicts(curve: Curve): string[] {
  const where = `k = ${curve.rewind}, ${curve.method === 'oneshot' ? 'one-shot' : 'iterative'}`;
  const measured = curve.rows.filter((row) => row.level > 0 && row.accuracy.imp);
  if (measured.length === 0) return [`${where}: no level was trained yet.`];
  const matching = measured.filter((row) => row.matching);
  const winning = measured.filter((row) => row.winning);
  const down = matching.at(-1);
  const diverged = groups(
    curve.rows.flatMap((row) => row.diverged),
    (r) => `${r.branch} ${r.level}`,
  ).map(divergedWords);
  return [
    down
      ? `${where}: IMP matches the dense network at ${levelsOf(matching)} of ${measured.length}, down to ${percent(down.densityPrunable)} % of the prunable weights.`
      : `${where}: IMP matches the dense network at no level.`,
    ...(curve.rewind === 0
      ? [
          winning.length > 0
            ? `${where}: winning tickets (matching from initialisation, and as early) at ${levelsOf(winning)}.`
            : measured.every((row) => row.earlyStop.imp)
              ? `${where}: no winning ticket.`
              : `${where}: whether there are winning tickets is not known, as nothing was held out to tell the early-stopping iteration by.`,
        ]
      : []),
    ...verdicts(curve).map((words) => `${where}, ${words}.`),
    ...diverged.map((words) => `${where}: ${words}.`),
  ];
}

/** Levels that IMP has at every rewind point, the sparsest first. */
function commonLevels(of: Curve[]): number[] {
  const levels = of.map((curve) =>
    curve.rows.filter((r) => r.level > 0 && r.accuracy.imp).map((r) => r.level),
  );
  return (levels[0] ?? []).filter((level) => levels.every((some) => some.includes(level))).reverse();
}

/** The sparsest level that IMP has at every rewind point. */
export const commonLevel = (of: Curve[]): number | null => commonLevels(of)[0] ?? null;

/** From which rewind point on IMP matches, at the sparsest level that all of them have, or the sparsest where one does. */
function rewindVerdict(of: Curve[]): string[] {
  const levels = commonLevels(of);
  if (of.length < 2 || levels[0] === undefined) return [];
  const rowsAt = (level: number) =>
    of
      .map((curve) => ({ k: curve.rewind, row: curve.rows.find((one) => one.level === level) as LevelRow }))
      .sort((a, b) => a.k - b.k);
  const words = (level: number) =>
    `level ${level} (${percent(rowsAt(level)[0]?.row.densityPrunable ?? 0)} % of the prunable weights)`;
  const level = levels.find((one) => rowsAt(one).some(({ row }) => row.matching));
  if (level === undefined) return ['No rewind point matches at any level that all of them have.'];
  const rows = rowsAt(level);
  const first = rows.findIndex(({ row }) => row.matching);
  const later = rows.slice(first).filter(({ row }) => !row.matching);
  const but = later.length > 0 ? `; later ones that do not: ${later.map(({ k }) => k).join(', ')}` : '';
  const none = level === levels[0] ? [] : [`No rewind point matches at ${words(levels[0])}.`];
  return [...none, `Rewinding starts to match at k = ${rows[first]?.k} at ${words(level)}${but}.`];
}

function barrierVerdicts({ connectivity }: RunSummary): string[] {
  return groups(connectivity, (c) => `${c.method} ${c.branch} ${c.level} ${c.statistics}`).map((mine) => {
    const [{ branch, level, statistics }] = mine as [(typeof mine)[0]];
    const stable = groups(mine, (c) => String(c.rewind)).flatMap((here) => {
      const mean = rangeOf(here.map((c) => c.barrier.test))?.mean ?? 1;
      return mean < STABLE_BELOW ? [here[0]?.rewind] : [];
    });
    const anew = statistics === 'reestimated' ? ', running statistics estimated anew' : '';
    const which = `Linear mode connectivity of ${branch}, level ${level}${anew}`;
    return stable.length > 0
      ? `${which}: stable (test barrier below ${STABLE_BELOW * 100} points) at k = ${stable.join(', ')}.`
      : `${which}: not stable at any k measured.`;
  });
}

function stabilityVerdicts({ stability }: RunSummary): string[] {
  const masked = stability.filter(({ scope }) => scope === 'masked');
  return groups(masked, (s) => `${s.method} ${s.level} ${s.kind}`).flatMap((mine) => {
    const [{ level, kind }] = mine as [(typeof mine)[0]];
    const ratios = groups(mine, (s) => String(s.rewind)).flatMap((here) => {
      const [imp, random] = (['imp', 'random'] as const).map((branch) =>
        rangeOf(here.filter((s) => s.branch === branch).map((s) => s.distance)),
      );
      if (!imp || !random || imp.mean === 0) return [];
      return [`${(random.mean / imp.mean).toFixed(1)} at k = ${here[0]?.rewind}`];
    });
    if (ratios.length === 0) return [];
    const word = kind === 'order' ? 'data order' : 'pruning';
    return [
      `Stability to ${word}, level ${level}: distance of random subnetworks over that of IMP's: ${ratios.join(', ')}.`,
    ];
  });
}

/** What the run found, in sentences: of each curve the first, and what follows of several. */
export function findings(summary: RunSummary): string[] {
  const all = curves(summary.results);
  return [
    ...all.flatMap((curve) => curveVerdicts(curve).slice(0, 1)),
    ...(['iterative', 'oneshot'] as const).flatMap((method) =>
      rewindVerdict(all.filter((curve) => curve.method === method)),
    ),
    ...stabilityVerdicts(summary),
    ...barrierVerdicts(summary),
  ];
}
