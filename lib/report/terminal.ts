import type { LevelKernels } from '../experiment/kernels.js';
import type { Result, RunSummary } from '../experiment/Result.js';
import { type Curve, curves, matchingRule, noteOf, type Spread, savingOf, verdicts } from './matching.js';
import { paperLines } from './paper.js';
import { replacedLines } from './replaced.js';

const percent = (value: number, digits = 2) => (value * 100).toFixed(digits);

function accuracyCell(s: Spread | undefined): string {
  if (!s) return '-';
  return s.n > 1 ? `${percent(s.mean)} [${percent(s.min)}-${percent(s.max)}]` : percent(s.mean);
}

export function columns(rows: string[][]): string[] {
  const widths = rows[0]?.map((_, c) => Math.max(...rows.map((row) => (row[c] ?? '').length))) ?? [];
  return rows.map((row) =>
    row
      .map((cell, c) => (c === row.length - 1 ? cell : cell.padStart(widths[c] ?? 0)))
      .join('  ')
      .trimEnd(),
  );
}

function table(curve: Curve): string[] {
  const head = [
    'level',
    'prunable %',
    'overall %',
    ...curve.branches.map((branch) => `${branch} acc %`),
    ...curve.branches.map((branch) => `${branch} stop`),
    'imp ms',
    '',
  ];
  const rows = curve.rows.map((row) => [
    String(row.level),
    percent(row.densityPrunable),
    percent(row.densityOverall),
    ...curve.branches.map((branch) => accuracyCell(row.accuracy[branch])),
    ...curve.branches.map((branch) => row.earlyStop[branch]?.mean.toFixed(0) ?? '-'),
    row.milliseconds.imp?.mean.toPrecision(3) ?? '-',
    noteOf(row),
  ]);
  return columns([head, ...rows]);
}

/** `not complete: 12 of 96 units done, 2 running, 1 failed`. */
function progressOf({ units }: RunSummary): string {
  const parts = (['running', 'failed', 'damaged'] as const)
    .filter((state) => units[state] > 0)
    .map((state) => `${units[state]} ${state}`);
  return [`not complete: ${units.done} of ${units.total} units done`, ...parts].join(', ');
}

/** Levels x branches: weights remaining, test accuracy, early-stopping iteration, what matches. */
export function renderTable(summary: RunSummary): string {
  const lines = [`${summary.recipe}: ${summary.run}${summary.complete ? '' : ` (${progressOf(summary)})`}`];
  for (const curve of curves(summary.results)) {
    lines.push(
      '',
      `rewind to ${curve.rewind}, ${curve.method}; test accuracy mean [min-max] over replicates; stop: iteration of lowest validation loss; ms: of an update`,
    );
    const saving = savingOf(curve);
    lines.push(
      ...table(curve),
      ...verdicts(curve),
      ...(saving ? [saving] : []),
      ...paperLines(summary.paper, curve),
    );
  }
  if (summary.results.length === 0) lines.push('no training has finished yet');
  else lines.push('', matchingRule);
  const { stability, connectivity } = summary;
  const samples = stability.filter(({ scope }) => scope === 'masked').length;
  if (samples + connectivity.length > 0)
    lines.push(
      `${samples} stability samples and ${connectivity.length} lines between copies are here: \`lth-train show ${summary.run} --analyses\``,
    );
  if (summary.units.impossible > 0)
    lines.push(`${summary.units.impossible} units cannot be done: a training that they need diverged`);
  if (summary.fingerprints.length > 1)
    lines.push(`bits of ${summary.fingerprints.length} kinds are mixed here:`, ...summary.fingerprints);
  lines.push(...replacedLines(summary));
  for (const { id, label, state, message } of summary.problems)
    lines.push(`${state}: ${label} (${id}): ${message}`);
  return lines.join('\n');
}

const knownMarks: Partial<Record<Result['branch'], string>> = { imp: 'o', random: 'x', reinit: '+' };
const otherMarks = '*#@%&=~^abcdefghijklmnpqrstuvwyz';

/** A character for each branch of a picture, the same for IMP and its first controls in all. */
function marksOf(branches: Result['branch'][]): Map<Result['branch'], string> {
  const others = branches.filter((branch) => !knownMarks[branch]);
  return new Map(branches.map((one) => [one, knownMarks[one] ?? otherMarks[others.indexOf(one)] ?? '?']));
}

const WIDTH = 60;
const HEIGHT = 14;

/** A small picture: test accuracy over weights remaining (logarithmic, falling to the right). */
export function renderCurve(summary: RunSummary): string {
  return curves(summary.results)
    .filter((curve) => curve.rows.some((row) => Object.keys(row.accuracy).length > 0))
    .map((curve) => picture(curve, curves(summary.results).length > 1))
    .join('\n\n');
}

function picture(curve: Curve, titled: boolean): string {
  const marks = marksOf(curve.branches);
  const points = curve.rows.flatMap((row) =>
    curve.branches.flatMap((branch) => {
      const s = row.accuracy[branch];
      return s
        ? [{ branch, x: -Math.log(row.densityPrunable), y: s.mean, percent: row.densityPrunable }]
        : [];
    }),
  );
  const right = Math.max(...points.map((p) => p.x), 1e-9);
  const [low, high] = [Math.min(...points.map((p) => p.y)), Math.max(...points.map((p) => p.y))];
  // Half a point at least: labels have one digit behind the point.
  const height = Math.max(high - low, 5e-3);
  const grid = Array.from({ length: HEIGHT }, () => Array<string>(WIDTH).fill(' '));
  // imp last, so that it is seen where marks fall together.
  for (const p of [...points].sort((a, b) => Number(a.branch === 'imp') - Number(b.branch === 'imp'))) {
    const column = Math.round((p.x / right) * (WIDTH - 1));
    const line = Math.round(((high - p.y) / height) * (HEIGHT - 1));
    (grid[line] as string[])[column] = marks.get(p.branch) ?? '?';
  }
  const labels = grid.map((_, line) =>
    line % 4 === 0 || line === HEIGHT - 1 ? percent(high - (line / (HEIGHT - 1)) * height, 1) : '',
  );
  const body = grid.map((row, line) => `${(labels[line] ?? '').padStart(6)} |${row.join('').trimEnd()}`);
  const axis = Array<string>(WIDTH + 8).fill(' ');
  for (const share of [1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005]) {
    if (-Math.log(share) > right + 1e-9) continue;
    const text = `${share * 100}%`;
    const at = Math.min(8 + Math.round((-Math.log(share) / right) * (WIDTH - 1)), axis.length - text.length);
    [...text].forEach((c, i) => {
      axis[at + i] = c;
    });
  }
  return [
    ...(titled ? [`rewind to ${curve.rewind}, ${curve.method}`] : []),
    'test accuracy %',
    ...body,
    `       +${'-'.repeat(WIDTH)}`,
    axis.join('').trimEnd(),
    ...legend(curve.branches.map((branch) => `${marks.get(branch)} ${branch}`)),
  ].join('\n');
}

/** What the axis and the marks mean, in lines no wider than the picture. */
function legend(marks: string[]): string[] {
  const lines = ['        prunable weights remaining'];
  for (const mark of marks) {
    const line = `${lines.at(-1)}   ${mark}`;
    if (line.length <= WIDTH + 8) lines[lines.length - 1] = line;
    else lines.push(`        ${mark}`);
  }
  return lines;
}

/** Layers x levels: how forward, gradient of the input and gradient of the weights are made. */
export function renderKernels(levels: LevelKernels[]): string {
  const [first] = levels;
  if (!first || first.layers.length === 0)
    return 'kernels: no choice here: on CUDA, and by the executors aten and autograd, all products are dense';
  const letter = (choice: 'dense' | 'sparse' | null) => choice?.[0] ?? '-';
  const rows = first.layers.map(({ layer }, i) => [
    layer,
    ...levels.map(({ layers }) => {
      const one = layers[i];
      return one ? `${letter(one.forward)}${letter(one.inputGradient)}${letter(one.weightGradient)}` : '?';
    }),
  ]);
  return [
    'kernels by level, first replicate and rewind point: d dense, s sparse, of forward, input gradient, weight gradient (- none)',
    ...columns([
      ['level', ...levels.map(({ level }) => String(level))],
      ['prunable %', ...levels.map(({ densityPrunable }) => percent(densityPrunable))],
      ...rows,
    ]),
  ].join('\n');
}
