import type { ConnectivityResult, OverlapResult, RunSummary, StabilityResult } from '../experiment/Result.js';
import { groups, STABLE_BELOW } from './analyses.js';
import { placeOf, pointOf, updatesAxis } from './figures.js';
import { figure, percent, spreadCell } from './html.js';
import { type Markup, markup, type Piece } from './markup.js';
import { type Spread, spread } from './matching.js';
import type { Chart, Series } from './svg.js';

const unique = <T>(values: T[]) => [...new Set(values)];
const kinds = { order: 'data order', pruning: 'pruning' };
const scopes = {
  masked: 'prunable weights, both copies masked',
  all: 'all trainable parameters, masked where prunable',
};
const three = (value: number) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));

const pairLook = ({ kind, branch }: StabilityResult) =>
  (kind === 'order' ? 0 : 2) + (branch === 'imp' ? 0 : 1);

/** As Figure 4, lower half: distance or angle over the rewind point, of one method, level and scope. */
function stabilityFigure(mine: StabilityResult[], what: 'distance' | 'angle', id: string): Markup {
  const { method, level, scope } = mine[0] as StabilityResult;
  const lines = groups(mine, ({ kind, branch }) => `${kind} ${branch}`);
  const rewinds = unique(mine.map(({ rewind }) => rewind)).sort((a, b) => a - b);
  const at = (line: StabilityResult[], k: number): Spread | null =>
    spread(line.filter((one) => one.rewind === k).map((one) => one[what]));
  const label = ({ kind, branch }: StabilityResult) => `${branch}, ${kinds[kind]}`;
  const chart: Chart = {
    id: `${id}-${what}-${method}-l${level}-${scope}`,
    title: `Stability: ${what === 'angle' ? 'angle' : 'L2 distance'} over the rewind point, level ${level}, ${scope}`,
    description: `How far two copies end from one another (${scopes[scope]}) over the rewind point k; means over samples with bands from the smallest to the largest; low is stable. The table has the numbers.`,
    x: updatesAxis,
    y: {
      label: what === 'angle' ? 'angle (degrees)' : 'L2 distance',
      scale: 'linear',
      format: String,
      include: [0],
      limits: { low: 0 },
    },
    series: lines.map((line): Series => {
      const [first] = line as [StabilityResult];
      return {
        label: label(first),
        look: first.branch === 'reinit' ? (first.kind === 'order' ? 4 : 5) : pairLook(first),
        kind: 'measured',
        points: rewinds.map((k) => pointOf(k, at(line, k), `${label(first)}, k = ${k}`, three)),
      };
    }),
    rules: [],
  };
  return figure(chart, {
    caption: `${what === 'angle' ? 'Angle in degrees' : 'L2 distance'}, mean [min-max] over samples (${scopes[scope]})`,
    head: ['k', ...lines.map((line) => label(line[0] as StabilityResult))],
    rows: rewinds.map((k) => [k, ...lines.map((line) => spreadCell(at(line, k), three))]),
  });
}

export function stabilityFigures({ stability }: RunSummary, id: string): Markup[] {
  // As in the paper first: the masked weights alone.
  const sorted = [...stability].sort((a, b) => b.scope.localeCompare(a.scope));
  return groups(sorted, ({ method, level, scope }) => `${method} ${level} ${scope}`).flatMap((mine) => [
    stabilityFigure(mine, 'distance', id),
    ...(mine.some(({ angle }) => angle !== null) ? [stabilityFigure(mine, 'angle', id)] : []),
  ]);
}

const colours = { imp: 0, random: 1, reinit: 2, dense: 3 };
const rule = { label: `stable below ${STABLE_BELOW * 100} points`, y: STABLE_BELOW };
const errorAxis = (label: string) =>
  ({ label, scale: 'linear', format: (v: number) => String(Number((v * 100).toFixed(4))) }) as const;

/** Of one place: lines with the same points, so that they have a mean at each. */
function curveFigure(mine: ConnectivityResult[], id: string): Markup {
  const { method, rewind, level, alphas, trainExamples, statistics } = mine[0] as ConnectivityResult;
  const lines = groups(mine, ({ branch }) => branch).flatMap((line) =>
    (['testError', 'trainError'] as const).map((what) => ({ line, what })),
  );
  const label = ({ line, what }: (typeof lines)[0]) =>
    `${line[0]?.branch}, ${what === 'testError' ? 'test' : 'train'}`;
  const at = ({ line, what }: (typeof lines)[0], i: number) =>
    spread(line.map((one) => one[what][i] ?? null));
  // The 2 % stand above the ends' mean of the line that the chart is about.
  const ends = spread(mine.flatMap(({ testError }) => [testError[0] ?? null, testError.at(-1) ?? null]));
  const chart: Chart = {
    id: `${id}-line-k${rewind}-${method}-l${level}-a${alphas.length}-t${trainExamples}-${statistics}`,
    title: `Error on the line between two copies, level ${level}, ${placeOf({ rewind, method })}`,
    description: `Fraction of wrong predictions on the test set and on ${trainExamples} training examples at ${alphas.length} points of the straight line between copies that were trained under different data orders; means over lines with bands from the smallest to the largest. The table has the numbers.`,
    x: {
      label: 'alpha: 0 is the first copy, 1 the second',
      scale: 'linear',
      format: String,
      include: [0, 1],
    },
    y: { ...errorAxis('error (%)'), limits: { low: 0, high: 1 } },
    series: lines.map(
      (one): Series => ({
        label: label(one),
        look: (colours[one.line[0]?.branch ?? 'dense'] as number) + (one.what === 'testError' ? 0 : 4),
        kind: 'curve',
        points: alphas.map((alpha, i) => pointOf(alpha, at(one, i), label(one), (v) => `${percent(v)} %`)),
      }),
    ),
    rules: ends
      ? [{ label: `mean test error at the ends + ${STABLE_BELOW * 100} points`, y: ends.mean + STABLE_BELOW }]
      : [],
  };
  return figure(chart, {
    caption: 'Error in %, mean [min-max] over lines',
    head: ['alpha', ...lines.map(label)],
    rows: alphas.map((alpha, i) => [
      alpha.toFixed(3),
      ...lines.map((one) => spreadCell(at(one, i), percent)),
    ]),
  });
}

/** Barriers over k, of one method, level and way to measure. */
function barrierFigure(mine: ConnectivityResult[], id: string): Markup {
  const { method, level, statistics, alphas, trainExamples } = mine[0] as ConnectivityResult;
  const rewinds = unique(mine.map(({ rewind }) => rewind)).sort((a, b) => a - b);
  const lines = groups(mine, ({ branch }) => branch).flatMap((line) =>
    (['test', 'train'] as const).map((what) => ({ line, what })),
  );
  const label = ({ line, what }: (typeof lines)[0]) => `${line[0]?.branch}, ${what}`;
  const at = ({ line, what }: (typeof lines)[0], k: number) =>
    spread(line.filter((one) => one.rewind === k).map((one) => one.barrier[what]));
  const test = lines.filter(({ what }) => what === 'test');
  const stable = (k: number): Piece =>
    test
      .filter((one) => (at(one, k)?.mean ?? 1) < STABLE_BELOW)
      .map(({ line }) => line[0]?.branch)
      .join(', ');
  const chart: Chart = {
    id: `${id}-barrier-${method}-l${level}-a${alphas.length}-t${trainExamples}-${statistics}`,
    title: `Error barrier over the rewind point, level ${level}`,
    description: `Largest error on the line between two copies less the mean of the errors at its ends, over the rewind point k; below ${STABLE_BELOW * 100} points is stable. Means over lines with bands from the smallest to the largest. The table has the numbers.`,
    x: updatesAxis,
    y: errorAxis('error barrier (points)'),
    series: lines.map(
      (one): Series => ({
        label: label(one),
        look: (colours[one.line[0]?.branch ?? 'dense'] as number) + (one.what === 'test' ? 0 : 4),
        kind: 'measured',
        points: rewinds.map((k) => pointOf(k, at(one, k), `${label(one)}, k = ${k}`, percent)),
      }),
    ),
    rules: [rule],
  };
  return figure(chart, {
    caption: `Error barrier in points, mean [min-max] over lines; stable: mean test barrier below ${STABLE_BELOW * 100}`,
    head: ['k', ...lines.map(label), 'stable'],
    rows: rewinds.map((k) => [k, ...lines.map((one) => spreadCell(at(one, k), percent)), stable(k)]),
    words: [lines.length + 1],
  });
}

export function connectivityFigures({ connectivity }: RunSummary, id: string): Markup[] {
  const how = (one: ConnectivityResult) =>
    `${one.method} ${one.level} ${one.alphas.length} ${one.trainExamples} ${one.statistics}`;
  return [
    ...groups(connectivity, how).map((mine) => barrierFigure(mine, id)),
    ...groups(connectivity, (one) => `${how(one)} ${one.rewind}`).map((mine) => curveFigure(mine, id)),
  ];
}

/** Jaccard indices by level, darker where masks share more; means over pairs, chance beneath. */
export function overlapTables(overlap: OverlapResult[]): Markup[] {
  // All masks of an iterative run are nested from level to level: only one step says something.
  const shown = overlap.filter(
    ({ between, places: [a, b] }) => between !== 'levels' || b.level === a.level + 1,
  );
  return groups(shown, ({ method, between }) => `${method} ${between}`).map((mine) => {
    const { between, method } = mine[0] as OverlapResult;
    const column = ({ places: [a, b] }: OverlapResult) =>
      a.rewind === b.rewind ? `k = ${a.rewind}` : `k = ${a.rewind}, ${b.rewind}`;
    const rowOf = ({ places: [a, b] }: OverlapResult) =>
      a.level === b.level ? String(a.level) : `${a.level}, ${b.level}`;
    const columns = unique(mine.map(column));
    const rows = groups(
      [...mine].sort((a, b) => a.places[0].level - b.places[0].level),
      rowOf,
    );
    const cell = (here: OverlapResult[]): Piece => {
      const [jaccard, chance] = [spread(here.map((o) => o.jaccard)), spread(here.map((o) => o.chance))];
      if (!jaccard) return markup`<td>-</td>`;
      return markup`<td style="--h:${jaccard.mean.toFixed(3)}">${jaccard.mean.toFixed(3)} <span class="range">[chance ${chance?.mean.toFixed(3) ?? '-'}]</span></td>`;
    };
    const words = `Overlap of IMP masks between ${between === 'rewind' ? 'rewind points' : between} (${method}): Jaccard index, mean over pairs; chance: of random masks with as many weights in each tensor`;
    return markup`<div class="scroll heat" tabindex="0" role="region" aria-label="${words}"><table><caption>${words}</caption><thead><tr><th scope="col">level</th>${columns.map(
      (one) => markup`<th scope="col">${one}</th>`,
    )}</tr></thead><tbody>${rows.map(
      (row) =>
        markup`<tr><th scope="row">${rowOf(row[0] as OverlapResult)}</th>${columns.map((one) => cell(row.filter((o) => column(o) === one)))}</tr>\n`,
    )}</tbody></table></div>`;
  });
}
