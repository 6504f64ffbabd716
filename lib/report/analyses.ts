import type { ConnectivityResult, OverlapResult, StabilityResult } from '../experiment/Result.js';
import { columns } from './terminal.js';

/** LMC section 3: a barrier below this much error is none. */
export const STABLE_BELOW = 0.02;

interface Range {
  mean: number;
  min: number;
  max: number;
  n: number;
}

/** Error bars of the paper are the smallest and the largest sample. Values that are null do not count. */
export function rangeOf(values: (number | null)[]): Range | null {
  const known = values.filter((value): value is number => value !== null);
  if (known.length === 0) return null;
  const mean = known.reduce((a, b) => a + b, 0) / known.length;
  return { mean, min: Math.min(...known), max: Math.max(...known), n: known.length };
}

const number = (value: number) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));
const percent = (value: number) => (value * 100).toFixed(2);

function cell(range: Range | null, show: (value: number) => string): string {
  if (!range) return '-';
  return range.n === 1 ? show(range.mean) : `${show(range.mean)} [${show(range.min)}-${show(range.max)}]`;
}

function ratio(imp: Range | null, control: Range | null): string {
  return imp && control && imp.mean > 0 ? (control.mean / imp.mean).toFixed(1) : '-';
}

/** Groups in the order in which they first come. */
export function groups<T>(values: T[], keyOf: (value: T) => string): T[][] {
  const found = new Map<string, T[]>();
  for (const value of values) {
    const group = found.get(keyOf(value));
    if (group) group.push(value);
    else found.set(keyOf(value), [value]);
  }
  return [...found.values()];
}

const scopeWords = {
  masked: 'prunable weights, both copies masked',
  all: 'all trainable parameters, masked where prunable',
};
const kindWords = { order: 'data order', pruning: 'pruning' };

/** The columns of the paper's Figures 3 and 10: of one place and kind, IMP against its controls. */
function stabilityRow(
  here: StabilityResult[],
  controls: string[],
  of: (one: StabilityResult) => StabilityResult['layers'][number],
) {
  const range = (branch: string, what: 'distance' | 'angle') =>
    rangeOf(here.filter((one) => one.branch === branch).map((one) => of(one)[what]));
  return (['distance', 'angle'] as const).flatMap((what) => {
    const imp = range('imp', what);
    return [
      cell(imp, number),
      ...controls.flatMap((control) => [
        cell(range(control, what), number),
        ratio(imp, range(control, what)),
      ]),
    ];
  });
}

/** Test accuracies of the copies that are subnetworks, and of those that are not pruned. */
function accuracyRow(here: StabilityResult[], branches: string[]) {
  const ofBranch = (branch: string) =>
    here
      .filter((one) => one.branch === branch)
      .flatMap(({ kind, testAccuracies: [a, b] }) => (kind === 'order' ? [a, b] : [b]));
  const dense = here
    .filter(({ kind, branch }) => kind === 'pruning' && branch !== 'reinit')
    .map(({ testAccuracies: [a] }) => a);
  return [...branches.map(ofBranch), dense].map((all) => cell(rangeOf(all), percent));
}

/**
 * A table as the paper's Figures 3 and 10: stability to data order and to pruning, mean [min-max] over samples, IMP
 * beside its controls, how many times as far apart these end, and the copies' test accuracies.
 */
export function renderStability(
  results: StabilityResult[],
  options: { scope: StabilityResult['scope']; layers: boolean },
): string {
  const { scope } = options;
  const mine = results.filter((one) => one.scope === scope);
  if (mine.length === 0) return 'no stability was measured yet';
  const controls = ['random', ...(mine.some(({ branch }) => branch === 'reinit') ? ['reinit'] : [])];
  const branches = ['imp', ...controls];
  const figures = ['distance', 'angle'].flatMap((what) => [
    `imp ${what}`,
    ...controls.flatMap((control) => [`${control} ${what}`, 'ratio']),
  ]);
  const accuracies = [...branches, 'dense'].map((branch) => `${branch} test %`);
  const rows = [['rewind', 'level', 'prunable %', 'stability to', 'samples', ...figures, ...accuracies]];
  const layers = [['rewind', 'level', 'stability to', 'tensor', ...figures]];
  for (const here of groups(mine, (one) => `${one.method} ${one.rewind} ${one.level} ${one.kind}`)) {
    const { rewind, level, kind, densityPrunable } = here[0] as StabilityResult;
    const place = [String(rewind), String(level)];
    const samples = Math.max(...branches.map((branch) => here.filter((one) => one.branch === branch).length));
    rows.push([
      ...place,
      percent(densityPrunable),
      kindWords[kind],
      String(samples),
      ...stabilityRow(here, controls, (one) => ({ name: '', ...one })),
      ...accuracyRow(here, branches),
    ]);
    for (const [i, { name }] of (here[0] as StabilityResult).layers.entries())
      layers.push([
        ...place,
        kindWords[kind],
        name,
        ...stabilityRow(here, controls, (one) => one.layers[i] as StabilityResult['layers'][number]),
      ]);
  }
  return [
    `stability, scope ${scope} (${scopeWords[scope]}): L2 distance and angle in degrees, mean [min-max] over samples;`,
    'ratio: control / imp; low is stable; test %: accuracy of the copies, dense: of those that are not pruned',
    ...columns(rows),
    ...(options.layers ? ['', 'by tensor', ...columns(layers)] : []),
  ].join('\n');
}

/** Barriers: mean [min-max] over the lines of one place, in points of error. */
export function renderConnectivity(results: ConnectivityResult[]): string {
  if (results.length === 0) return 'no line between copies was measured yet';
  const rows = [
    [
      'rewind',
      'branch',
      'level',
      'prunable %',
      'lines',
      'test ends %',
      'test barrier %',
      'train barrier %',
      'statistics',
      '',
    ],
  ];
  const keyOf = (one: ConnectivityResult) =>
    `${one.method} ${one.rewind} ${one.branch} ${one.level} ${one.alphas.length} ${one.trainExamples} ${one.statistics}`;
  for (const here of groups(results, keyOf)) {
    const { rewind, branch, level, densityPrunable, statistics } = here[0] as ConnectivityResult;
    const ends = rangeOf(here.flatMap(({ testError }) => [testError[0] ?? null, testError.at(-1) ?? null]));
    const test = rangeOf(here.map(({ barrier }) => barrier.test));
    rows.push([
      String(rewind),
      branch,
      String(level),
      percent(densityPrunable),
      String(here.length),
      cell(ends, percent),
      cell(test, percent),
      cell(rangeOf(here.map(({ barrier }) => barrier.train)), percent),
      statistics,
      test && test.mean < STABLE_BELOW ? 'stable' : '',
    ]);
  }
  const { alphas, trainExamples } = results[0] as ConnectivityResult;
  const same = results.every(
    (one) => one.alphas.length === alphas.length && one.trainExamples === trainExamples,
  );
  const how = same
    ? `${alphas.length} points with both ends, train error of ${trainExamples} examples`
    : 'several numbers of points or examples';
  return [
    `error on lines between copies trained under different noise: ${how};`,
    "barrier: largest error less the mean of the ends', mean [min-max] over lines;",
    `stable: mean test barrier below ${percent(STABLE_BELOW)} points`,
    ...columns(rows),
  ].join('\n');
}

/** What masks share: mean [min-max] over pairs, beside chance. */
export function renderOverlap(results: OverlapResult[]): string {
  const rows = [['between', 'rewind', 'level', 'pairs', 'jaccard', 'chance', 'times chance']];
  // All pairs of levels are in the JSON; one step apart says enough.
  const shown = results.filter(
    ({ between, places: [a, b] }) => between !== 'levels' || b.level === a.level + 1,
  );
  const both = (a: number, b: number) => (a === b ? String(a) : `${a}, ${b}`);
  const keyOf = ({ between, method, places: [a, b] }: OverlapResult) =>
    `${between} ${method} ${a.rewind} ${b.rewind} ${a.level} ${b.level}`;
  const order = ['replicates', 'rewind', 'levels'];
  const sorted = [...shown].sort((a, b) => order.indexOf(a.between) - order.indexOf(b.between));
  for (const here of groups(sorted, keyOf)) {
    const { between, places } = here[0] as OverlapResult;
    const [jaccard, chance] = [
      rangeOf(here.map((one) => one.jaccard)),
      rangeOf(here.map((one) => one.chance)),
    ];
    rows.push([
      between,
      both(places[0].rewind, places[1].rewind),
      both(places[0].level, places[1].level),
      String(here.length),
      cell(jaccard, (value) => value.toFixed(3)),
      chance ? chance.mean.toFixed(3) : '-',
      jaccard && chance && chance.mean > 0 ? (jaccard.mean / chance.mean).toFixed(2) : '-',
    ]);
  }
  if (rows.length === 1)
    return 'no two masks to compare: one replicate, one rewind point and one level at most';
  return [
    'overlap of IMP masks: Jaccard index, mean [min-max] over pairs; chance: of random masks that keep as many weights',
    'of each tensor; levels of one iterative run are nested',
    ...columns(rows),
  ].join('\n');
}
