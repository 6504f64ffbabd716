import type { Result, RunSummary } from '../experiment/Result.js';
import { figure, items, percent, shortPercent, spreadCell, type Table } from './html.js';
import { type Markup, markup } from './markup.js';
import { type Curve, curves, type LevelRow, noteOf, type Spread } from './matching.js';
import { paperFiguresOf } from './paper.js';
import type { Axis, Chart, Point, Series } from './svg.js';
import { commonLevel, curveVerdicts } from './verdicts.js';

export const remainingAxis: Axis = {
  label: 'prunable weights remaining (%)',
  scale: 'falling-log',
  format: shortPercent,
  include: [1],
};

const accuracyAxis = (label: string): Axis => ({
  label,
  scale: 'linear',
  format: (value) => String(Number((value * 100).toFixed(4))),
  limits: { low: 0, high: 1 },
});

export const updatesAxis: Axis = { label: 'rewind point k (updates)', scale: 'updates', format: String };

/** Places in the palette; other branches come after these. */
const known = ['imp', 'random', 'reinit'];
export const lookOf = (branch: string, branches: string[]) =>
  known.includes(branch)
    ? known.indexOf(branch)
    : known.length + branches.filter((one) => !known.includes(one)).indexOf(branch);

export const placeOf = ({ rewind, method }: Pick<Curve, 'rewind' | 'method'>) =>
  `rewinding to ${rewind}, ${method === 'oneshot' ? 'one-shot' : 'iterative'}`;

export const wordsOfLevel = (row: LevelRow) =>
  `level ${row.level}, ${percent(row.densityPrunable)} % remaining`;

export function pointOf(
  x: number,
  s: Spread | null | undefined,
  words: string,
  show: (v: number) => string,
): Point {
  if (!s) return { x, y: null, words };
  const point = { x, y: s.mean, words: `${words}: ${show(s.mean)}` };
  return s.n > 1 ? { ...point, low: s.min, high: s.max } : point;
}

const show = (value: number) => `${percent(value)} %`;

function measured(curve: Curve, branch: Result['branch'], what: 'accuracy' | 'earlyStop'): Series {
  const words = what === 'accuracy' ? show : (value: number) => value.toFixed(0);
  const rows = curve.rows.filter((row) => branch === 'imp' || row.level > 0);
  return {
    label: branch,
    look: lookOf(branch, curve.branches),
    kind: 'measured',
    points: rows.map((row) =>
      pointOf(row.densityPrunable, row[what][branch], `${branch}, ${wordsOfLevel(row)}`, words),
    ),
  };
}

/** The paper's own curves, at the levels' densities here, or at those that it says itself. */
function paperSeries(summary: RunSummary, curve: Curve): Series[] {
  const figures = paperFiguresOf(summary.paper, curve);
  return [...new Set(figures.map(({ branch }) => branch))].map((branch) => {
    const points = figures.flatMap((one): Point[] => {
      const x = one.densityPrunable ?? curve.rows.find((row) => row.level === one.level)?.densityPrunable;
      if (one.branch !== branch || x === undefined) return [];
      return [{ x, y: one.accuracy, words: `paper, ${branch}, level ${one.level}: ${show(one.accuracy)}` }];
    });
    points.sort((a, b) => b.x - a.x);
    return { label: `${branch}, paper`, look: lookOf(branch, curve.branches), kind: 'paper', points };
  });
}

export const denseOf = (curve: Curve) => curve.rows.find((row) => row.level === 0)?.accuracy.imp;

const idOf = (curve: Curve, id: string) => `${id}-k${curve.rewind}-${curve.method}`;

/** As Figure 5: accuracy over weights remaining. */
function accuracyFigure(summary: RunSummary, curve: Curve, id: string): Markup {
  const dense = denseOf(curve);
  const paper = paperSeries(summary, curve);
  const chart: Chart = {
    id: `${idOf(curve, id)}-accuracy`,
    title: `Test accuracy, ${placeOf(curve)}`,
    description: `Test accuracy after the last update over prunable weights remaining, logarithmic and falling to the right. Lines are means over replicates, bands reach from the smallest to the largest. Branches: ${curve.branches.join(', ')}${dense ? `; the dense network has ${show(dense.mean)}` : ''}. The table has the numbers.`,
    x: remainingAxis,
    y: accuracyAxis('test accuracy (%)'),
    series: [...curve.branches.map((branch) => measured(curve, branch, 'accuracy')), ...paper],
    rules: dense ? [{ label: `dense, ${show(dense.mean)}`, y: dense.mean }] : [],
  };
  const figures = paperFiguresOf(summary.paper, curve);
  const papers = [...new Set(figures.map((one) => one.branch))];
  const unrun = [...new Set(figures.map((one) => one.level))]
    .filter((level) => !curve.rows.some((row) => row.level === level))
    .sort((a, b) => a - b);
  const numbers: Table = {
    caption: `Test accuracy in %, mean [min-max] over replicates${papers.length > 0 ? `; paper: ${summary.paper?.source}` : ''}`,
    head: ['level', 'prunable %', 'overall %', ...curve.branches, ...papers.map((b) => `${b}, paper`), ''],
    rows: [...curve.rows.map((row) => row.level), ...unrun].map((level) => {
      const row = curve.rows.find((one) => one.level === level);
      const theirs = figures.find((f) => f.level === level)?.densityPrunable;
      return [
        level,
        row ? percent(row.densityPrunable) : theirs === undefined ? '-' : percent(theirs),
        row ? percent(row.densityOverall) : '-',
        ...curve.branches.map((branch) => spreadCell(row?.accuracy[branch], percent)),
        ...papers.map((branch) => {
          const one = figures.find((f) => f.branch === branch && f.level === level);
          return one ? percent(one.accuracy) : '-';
        }),
        row ? noteOf(row) : 'paper only',
      ];
    }),
  };
  numbers.words = [numbers.head.length - 1];
  return figure(chart, numbers);
}

function earlyStopFigure(curve: Curve, id: string): Markup {
  const dense = curve.rows.find((row) => row.level === 0)?.earlyStop.imp;
  const updates = (value: number) => value.toFixed(0);
  const chart: Chart = {
    id: `${idOf(curve, id)}-stop`,
    title: `Early-stopping iteration, ${placeOf(curve)}`,
    description:
      'Update with the lowest validation loss over prunable weights remaining, logarithmic and falling to the right; means over replicates with bands from the smallest to the largest. The table has the numbers.',
    x: remainingAxis,
    y: {
      label: 'early-stopping iteration (updates)',
      scale: 'linear',
      format: String,
      include: [0],
      limits: { low: 0 },
    },
    series: curve.branches.map((branch) => measured(curve, branch, 'earlyStop')),
    rules: dense ? [{ label: `dense, ${updates(dense.mean)}`, y: dense.mean }] : [],
  };
  return figure(chart, {
    caption: 'Update of the lowest validation loss, mean [min-max] over replicates',
    head: ['level', 'prunable %', ...curve.branches],
    rows: curve.rows.map((row) => [
      row.level,
      percent(row.densityPrunable),
      ...curve.branches.map((branch) => spreadCell(row.earlyStop[branch], updates)),
    ]),
  });
}

/** IMP of several curves in one picture: of all rewind points of a run, or of several runs. */
export function impFigure(title: string, parts: { label: string; curve: Curve }[], id: string): Markup {
  const chart: Chart = {
    id,
    title,
    description:
      'Test accuracy of IMP subnetworks over prunable weights remaining, logarithmic and falling to the right: one line for each curve, means over replicates with bands from the smallest to the largest. The table has the numbers.',
    x: remainingAxis,
    y: accuracyAxis('test accuracy of imp (%)'),
    series: parts.map(({ label, curve }, look) => ({
      ...measured(curve, 'imp', 'accuracy'),
      label,
      look,
    })),
    rules: [],
  };
  const levels = [...new Set(parts.flatMap(({ curve }) => curve.rows.map((row) => row.level)))];
  levels.sort((a, b) => a - b);
  return figure(chart, {
    caption: 'Test accuracy of imp in %, mean [min-max] over replicates; * matching',
    head: ['level', ...parts.map(({ label }) => label)],
    rows: levels.map((level) => [
      level,
      ...parts.map(({ curve }) => {
        const row = curve.rows.find((one) => one.level === level);
        return [spreadCell(row?.accuracy.imp, percent), row?.matching ? '*' : ''];
      }),
    ]),
  });
}

/** As Figure 4, upper half: accuracy over the rewind point, at one level. */
function accuracyOverRewind(of: Curve[], level: number, id: string): Markup {
  const places = of.flatMap((curve) => {
    const row = curve.rows.find((one) => one.level === level);
    return row ? [{ curve, row }] : [];
  });
  const branches = [...new Set(of.flatMap((curve) => curve.branches))];
  const dense = of[0] && denseOf(of[0]);
  const method = of[0]?.method ?? 'iterative';
  const chart: Chart = {
    id: `${id}-over-k-${method}-l${level}`,
    title: `Test accuracy over the rewind point, level ${level}, ${method === 'oneshot' ? 'one-shot' : 'iterative'}`,
    description: `Test accuracy at level ${level} over the rewind point k; means over replicates with bands from the smallest to the largest. The table has the numbers.`,
    x: updatesAxis,
    y: accuracyAxis('test accuracy (%)'),
    series: branches.map((branch) => ({
      label: branch,
      look: lookOf(branch, branches),
      kind: 'measured',
      points: places.map(({ curve, row }) =>
        pointOf(curve.rewind, row.accuracy[branch], `${branch}, k = ${curve.rewind}`, show),
      ),
    })),
    rules: dense ? [{ label: `dense, ${show(dense.mean)}`, y: dense.mean }] : [],
  };
  return figure(chart, {
    caption: `Test accuracy in % at level ${level}, mean [min-max] over replicates`,
    head: ['k', 'prunable %', ...branches, ''],
    rows: places.map(({ curve, row }) => [
      curve.rewind,
      percent(row.densityPrunable),
      ...branches.map((branch) => spreadCell(row.accuracy[branch], percent)),
      row.matching ? 'matching' : '',
    ]),
    words: [branches.length + 2],
  });
}

/** All figures of trainings: each rewind point and method, then what compares them. */
export function trainingFigures(summary: RunSummary, id: string): Markup[] {
  const all = curves(summary.results).filter((curve) => curve.rows.some((row) => row.accuracy.imp));
  // What all curves' first sentences say stands at the head of the run.
  const parts = all.flatMap((curve) => [
    items(curveVerdicts(curve).slice(1)) ?? markup``,
    accuracyFigure(summary, curve, id),
    ...(curve.rows.some((row) => row.earlyStop.imp) ? [earlyStopFigure(curve, id)] : []),
  ]);
  if (all.length > 1)
    parts.unshift(
      impFigure(
        'IMP of all rewind points',
        all.map((curve) => ({
          label: `k = ${curve.rewind}${curve.method === 'oneshot' ? ', one-shot' : ''}`,
          curve,
        })),
        `${id}-rewinds`,
      ),
    );
  for (const method of ['iterative', 'oneshot'] as const) {
    const mine = all.filter((curve) => curve.method === method);
    if (mine.length < 2) continue;
    // Where stability was measured, so that both are seen at the same places; else the sparsest level.
    const levels = [...new Set(summary.stability.filter((s) => s.method === method).map((s) => s.level))];
    const common = commonLevel(mine);
    if (common !== null && !levels.includes(common)) levels.push(common);
    for (const level of levels.sort((a, b) => a - b)) parts.push(accuracyOverRewind(mine, level, id));
  }
  return parts;
}
