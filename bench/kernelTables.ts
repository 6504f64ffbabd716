/** What `bench kernels` prints and draws. */
import type { MachineLimits } from '../lib/native/AddonTypes.js';
import { columns } from '../lib/report/terminal.js';
import { breakEven, describeBreakEven } from './breakEven.js';
import { describe, threeDigits } from './helpers.js';
import {
  type KernelsResult,
  type LayerResult,
  type Pass,
  type ProductRow,
  passes,
  type Side,
  passWords as words,
} from './kernels.js';
import type { SpeedLine, SpeedPlot } from './plot.js';

/** The two sides that are compared: ours, or on CUDA PyTorch's, which are all that is there. */
const sidesOf = ({ dense, sparse, torchDense, torchSparse }: ProductRow): [Side | null, Side | null] =>
  dense ? [dense, sparse] : [torchDense, torchSparse];
const percent = (value: number) => threeDigits(value * 100);
/** Milliseconds with three digits that count. */
const shown = (side: Side | null) => (side ? threeDigits(side.ms.median) : '-');
const share = (value: number | null | undefined) =>
  value === null || value === undefined ? '-' : (value * 100).toFixed(0);

function tableOf(result: KernelsResult, layer: LayerResult): string[] {
  const reference = result.torch !== null;
  const ours = result.device === 'cpu';
  const head = [
    'product',
    'weights %',
    ...(ours ? ['dense ms', 'sparse ms', 'times as fast', 'GFLOP/s', '% peak', '% bandwidth'] : []),
    ...(reference ? ['torch dense ms', 'torch CSR ms'] : []),
    ...(ours ? [] : ['times as fast', 'GFLOP/s', '% peak']),
    '',
  ];
  const rows = passes.flatMap((pass) => {
    const found = layer.rows.flatMap((row) => {
      const product = row.products.find((one) => one.pass === pass);
      return product ? [{ row, product }] : [];
    });
    const [first] = found;
    if (!first) return [];
    const [dense] = sidesOf(first.product);
    const numbers = (side: Side | null) => [
      side?.gflops.toFixed(side.gflops < 10 ? 1 : 0) ?? '-',
      share(side?.ofPeak),
    ];
    const torchCells = ({ torchDense, torchSparse }: ProductRow) =>
      reference ? [shown(torchDense), shown(torchSparse)] : [];
    const denseRow = [
      words[pass],
      'dense',
      ...(ours ? [shown(dense), '-', '1.00', ...numbers(dense), share(dense?.ofBandwidth)] : []),
      ...(reference ? [shown(first.product.torchDense), '-'] : []),
      ...(ours ? [] : ['1.00', ...numbers(dense)]),
      '',
    ];
    return [
      denseRow,
      ...found.map(({ row, product }) => {
        const [, sparse] = sidesOf(product);
        const ratio = product.ratio?.median.toFixed(2) ?? '-';
        return [
          words[pass],
          percent(row.density),
          ...(ours
            ? [
                shown(product.dense),
                shown(product.sparse),
                ratio,
                ...numbers(sparse),
                share(sparse?.ofBandwidth),
              ]
            : []),
          ...torchCells(product),
          ...(ours ? [] : [ratio, ...numbers(sparse)]),
          '',
        ];
      }),
    ];
  });
  return columns([head, ...rows]);
}

const giga = (value: number) => threeDigits(value / 1e9);

export function describeLimits(limits: MachineLimits | null): string[] {
  if (!limits) return [];
  const bf16 = limits.bf16 === null ? 'none in bf16' : `${giga(limits.bf16)} in bf16`;
  return [`limits: ${giga(limits.fp32)} GFLOP/s in fp32, ${bf16}; ${giga(limits.bandwidth)} GB/s of memory`];
}

interface Total {
  pass: Pass;
  /** Of all layers together, as is the time; each as often as the network has it. */
  density: number;
  dense: number;
  sparse: number;
}

/** Where one layer has no sparse product of so many weights, there is no total. */
function totals(result: KernelsResult): Total[] {
  const [first] = result.layers;
  if (!first) return [];
  return passes.flatMap((pass) =>
    first.rows.flatMap((_, i) => {
      let [dense, sparse, weights, remaining] = [0, 0, 0, 0];
      for (const { rows, same } of result.layers) {
        const row = rows[i];
        weights += (row?.weights ?? 0) * same.length;
        remaining += (row?.remaining ?? 0) * same.length;
        const product = row?.products.find((one) => one.pass === pass);
        if (!product) continue;
        const [, side] = sidesOf(product);
        if (!side || !product.ratio) return [];
        // Of the ratio, which drifts of the machine do not touch.
        dense += side.ms.median * product.ratio.median * same.length;
        sparse += side.ms.median * same.length;
      }
      return dense > 0 ? [{ pass, density: remaining / weights, dense, sparse }] : [];
    }),
  );
}

const titleOf = (result: KernelsResult) =>
  `${result.network ?? result.layers.map(({ layer }) => layer).join(', ')}, batch ${result.batch}, ${result.precision}, ${result.device === 'cpu' ? `${result.threads} threads` : result.device}: products of layers, masks ${result.masks}`;

export function renderKernelBench(result: KernelsResult): string {
  const lines = [
    titleOf(result),
    `${describe(result.setting)}${result.torch ? `, PyTorch ${result.torch}` : ''}; medians`,
  ];
  for (const layer of result.layers) {
    const others = layer.same.length > 1 ? `; ${layer.same.length} of this shape` : '';
    const name =
      layer.description && layer.layer !== layer.description
        ? `${layer.layer} ${layer.description}`
        : layer.layer;
    lines.push('', `${name}${others}`, ...describeLimits(layer.limits), ...tableOf(result, layer));
    const evens = Object.entries(layer.breakEven).map(
      ([pass, even]) => `${words[pass as Pass]} ${describeBreakEven(even)}`,
    );
    lines.push(`sparse is faster: ${evens.length > 0 ? evens.join(', ') : 'there is no sparse side here'}`);
  }
  const sums = totals(result);
  if (result.layers.length > 1 && sums.length > 0) {
    lines.push('', 'all layers together', ...totalTable(sums));
    for (const line of plotLines(result))
      lines.push(`sparse is faster: ${line.label} ${describeBreakEven(breakEven(line.points))}`);
  }
  const problems = Object.entries(result.problems).map(
    ([pass, why]) => `torch.sparse has no ${words[pass as Pass]}: ${why}`,
  );
  if (problems.length > 0) lines.push('', ...problems);
  lines.push('', ...legend(result));
  return lines.join('\n');
}

function legend(result: KernelsResult): string[] {
  return [
    'GFLOP/s: of what is really multiplied, two operations a weight that is left, place and example; % peak: of the best loop in registers at that time; % bandwidth:',
    'of the bytes that must move at least (a layer that stays in the caches may have more than 100).',
    ...(result.torch
      ? [
          'torch dense: the faster of NCHW and NHWC, spared the mask; torch CSR: torch.sparse in fp32, of convolutions with unfold, spared its own making.',
        ]
      : []),
  ];
}

function totalTable(sums: Total[]): string[] {
  return columns([
    ['product', 'weights %', 'dense ms', 'sparse ms', 'times as fast', ''],
    ...sums.map(({ pass, density, dense, sparse }) => [
      words[pass],
      percent(density),
      threeDigits(dense),
      threeDigits(sparse),
      (dense / sparse).toFixed(2),
      '',
    ]),
  ]);
}

function plotLines(result: KernelsResult): SpeedLine[] {
  const sums = totals(result);
  return passes.flatMap((pass) => {
    const points = sums
      .filter((one) => one.pass === pass)
      .map(({ density, dense, sparse }) => ({
        density,
        speedUp: dense / sparse,
        words: `${words[pass]}, ${percent(density)} %: ${threeDigits(dense)} ms dense, ${threeDigits(sparse)} ms sparse`,
      }));
    return points.length > 0 ? [{ label: words[pass], points }] : [];
  });
}

export function plotKernels(result: KernelsResult, command: string): SpeedPlot {
  return {
    title: `${result.network ?? result.layers.map(({ layer }) => layer).join(', ')}: sparse products of layers`,
    unit: 'dense',
    lines: plotLines(result),
    notes: [titleOf(result), describe(result.setting), ...describeLimits(result.limits), command],
  };
}
