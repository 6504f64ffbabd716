/**
 * `lth-train bench kernels`: the three products of one layer after another, dense and sparse, beside PyTorch's and beside
 * what the machine can do. What is timed is what an update does, values of the weights packed again included; that both
 * sides give the same is checked before.
 */
import type { LayerTimes, MachineLimits, Precision, ProductTimes } from '../lib/native/AddonTypes.js';
import { LthError, wrongValue } from '../lib/native/errors.js';
import { loadAddon } from '../lib/native/load.js';
import { columns } from '../lib/report/terminal.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Masks } from '../lib/session/Masks.js';
import { type BreakEven, breakEven, describeBreakEven } from './breakEven.js';
import {
  describe,
  measured,
  pythonWithTorch,
  type Setting,
  type Summary,
  setting,
  summary,
} from './helpers.js';
import { type BenchLayer, describeLayer, layersOf, networkOf, parseLayer } from './layers.js';
import { MaskFile } from './maskFile.js';
import type { SpeedLine, SpeedPlot } from './plot.js';
import { PythonScript } from './pytorch.js';

export const passes = ['forward', 'inputGradient', 'weightGradient'] as const;
export type Pass = (typeof passes)[number];
const words: Record<Pass, string> = { forward: 'forward', inputGradient: 'dX', weightGradient: 'dW' };

export interface KernelOptions {
  network: string;
  /** Instead of the network's: see parseLayer. */
  layers: string[];
  /** Fractions of the weights. */
  densities: number[];
  masks: 'uniform' | 'imp';
  /** Of a file of masks; default: that of the network which comes with the package. */
  maskFile?: string;
  precision: Precision;
  threads: number;
  batch: number;
  rounds: number;
  /** Seconds that a sample lasts at least. */
  sample: number;
  device: string;
  /** Ask PyTorch too. */
  reference: boolean;
  signal?: AbortSignal;
  onProgress?: (text: string) => void;
}

/** One product made in one way. */
export interface Side {
  ms: Summary;
  /** Multiply-adds x 2 of what is really multiplied, a second. */
  gflops: number;
  /** Fractions of what the machine does at most; null where that is not known. Bandwidth: of bytes that must move. */
  ofPeak: number | null;
  ofBandwidth: number | null;
}

export interface ProductRow {
  pass: Pass;
  /** Null on CUDA, where all products of ours are PyTorch's. */
  dense: Side | null;
  /** Null where there is none of so many weights. */
  sparse: Side | null;
  /** How many times as fast the sparse one is: of samples that were taken one after the other. */
  ratio: Summary | null;
  /** The largest difference between both results, where the largest value is 1. */
  difference: number | null;
  torchDense: (Side & { layout: string }) | null;
  /** In fp32 whatever the precision. */
  torchSparse: Side | null;
}

export interface LayerRow {
  /** What was asked for, and what it is. */
  asked: number;
  density: number;
  weights: number;
  remaining: number;
  denseOperations: number;
  sparseOperations: number;
  products: ProductRow[];
}

export interface LayerResult {
  layer: string;
  same: string[];
  description: string;
  /** What the machine did at most just before: of one that others share it changes. Shares of rows are of these. */
  limits: MachineLimits | null;
  rows: LayerRow[];
  breakEven: Partial<Record<Pass, BreakEven>>;
}

export interface KernelsResult {
  setting: Setting;
  torch: string | null;
  device: string;
  precision: Precision;
  threads: number;
  batch: number;
  masks: string;
  network: string | null;
  /** The best of all that were measured. */
  limits: MachineLimits | null;
  layers: LayerResult[];
  /** What torch.sparse could not do, by pass. */
  problems: Record<string, string>;
}

interface TorchAnswer {
  dense: Record<Pass, { ms: number[]; layout: string } | null>;
  sparse: Record<Pass, { ms: number[] } | null>;
  problems: Record<string, string>;
}

type Torch = PythonScript<{ torch: string }>;

/** As many of a layer's weights as the density says, at random places of the layer. */
async function uniformMasks(network: CompiledNetwork, density: number): Promise<Masks> {
  const remaining = Math.max(1, Math.round(density * network.summary.counts.prunable));
  const scores = await Masks.randomScores(network, 0, 0);
  try {
    return await Masks.ones(network).pruneByScores(scores, { remaining });
  } finally {
    scores.dispose();
  }
}

/** The masks of one layer, out of those of its network. */
function masksOfLayer(network: CompiledNetwork, layer: BenchLayer, whole: Masks): Masks {
  const bits = whole.tensors().get(layer.weight)?.vector.data[0]?.values;
  return Masks.fromBits(network, { 'layer.weight': bits as Uint8Array });
}

function bestOf(all: MachineLimits[]): MachineLimits | null {
  if (all.length === 0) return null;
  const bf16 = all.flatMap((one) => one.bf16 ?? []);
  return {
    fp32: Math.max(...all.map((one) => one.fp32)),
    bf16: bf16.length > 0 ? Math.max(...bf16) : null,
    bandwidth: Math.max(...all.map((one) => one.bandwidth)),
  };
}

const peakOf = (limits: MachineLimits | null, precision: Precision) =>
  limits === null ? null : precision === 'bf16' ? (limits.bf16 ?? limits.fp32) : limits.fp32;

function sideOf(
  milliseconds: number[],
  operations: number,
  bytes: number | null,
  limits: MachineLimits | null,
  precision: Precision,
): Side {
  const ms = summary(milliseconds);
  const seconds = ms.median / 1e3;
  const peak = peakOf(limits, precision);
  return {
    ms,
    gflops: operations / seconds / 1e9,
    ofPeak: peak === null ? null : operations / seconds / peak,
    ofBandwidth: limits === null || bytes === null ? null : bytes / seconds / limits.bandwidth,
  };
}

/** Of pairs of samples, as far as there are such. */
function ratioOf(dense: number[] | undefined, sparse: number[] | null | undefined): Summary | null {
  if (!dense || !sparse) return null;
  const pairs = Math.min(dense.length, sparse.length);
  return summary(dense.slice(0, pairs).map((time, i) => time / (sparse[i] as number)));
}

const inMs = (seconds: number[]) => seconds.map((one) => one * 1e3);

/** Multiply-adds x 2 of all weights at all places, those outside of the image too: what PyTorch's sides are counted as. */
function denseOperations({ type, shape, output }: BenchLayer, batch: number): number {
  const places = type === 'linear' ? 1 : (output[1] as number) * (output[2] as number);
  return 2 * batch * places * shape.reduce((a, b) => a * b, 1);
}

function rowOf(
  o: KernelOptions,
  asked: number,
  layer: BenchLayer,
  times: LayerTimes | null,
  theirs: TorchAnswer | null,
  limits: MachineLimits | null,
): LayerRow {
  const weights = layer.shape.reduce((a, b) => a * b, 1);
  const remaining = times?.remaining ?? Math.round(asked * weights);
  const all = times?.denseOperations ?? denseOperations(layer, o.batch);
  const left = times?.sparseOperations ?? (all * remaining) / weights;
  const products = passes.flatMap((pass): ProductRow[] => {
    if (pass === 'inputGradient' && !layer.inputGradient) return [];
    const mine: ProductTimes | null = times?.[pass] ?? null;
    const [dense, sparse] = [theirs?.dense[pass], theirs?.sparse[pass]];
    return [
      {
        pass,
        dense: mine && sideOf(inMs(mine.dense), all, mine.denseBytes, limits, o.precision),
        sparse: mine?.sparse ? sideOf(inMs(mine.sparse), left, mine.sparseBytes, limits, o.precision) : null,
        ratio: ratioOf(mine?.dense ?? dense?.ms, mine ? mine.sparse : sparse?.ms),
        difference: mine?.sparse ? mine.difference : null,
        torchDense: dense
          ? { ...sideOf(dense.ms, all, null, limits, o.precision), layout: dense.layout }
          : null,
        torchSparse: sparse ? sideOf(sparse.ms, left, null, limits, 'fp32') : null,
      },
    ];
  });
  return {
    asked,
    density: remaining / weights,
    weights,
    remaining,
    denseOperations: all,
    sparseOperations: left,
    products,
  };
}

/** The two sides that are compared: ours, or on CUDA PyTorch's, which are all that is there. */
const sidesOf = ({ dense, sparse, torchDense, torchSparse }: ProductRow): [Side | null, Side | null] =>
  dense ? [dense, sparse] : [torchDense, torchSparse];

function breakEvens(rows: LayerRow[]): LayerResult['breakEven'] {
  const found: LayerResult['breakEven'] = {};
  for (const pass of passes) {
    const points = rows.flatMap(({ density, products }) => {
      const row = products.find((one) => one.pass === pass);
      return row?.ratio ? [{ density, speedUp: row.ratio.median }] : [];
    });
    if (points.length > 0) found[pass] = breakEven(points);
  }
  return found;
}

/** @throws LthError "invalid-argument", "io" and "corrupt-file" of masks, "no-cuda", "native" where a kernel is wrong; the signal's reason. */
export async function benchKernels(o: KernelOptions): Promise<KernelsResult> {
  if (!/^(cpu|cuda(:\d{1,3})?)$/.test(o.device)) throw wrongValue('cpu, cuda or cuda:N', 'device', o.device);
  const cuda = o.device !== 'cpu';
  const info = loadAddon().info();
  if (cuda && !info.cuda.available)
    throw new LthError('no-cuda', `Device ${o.device} cannot be used: ${info.cuda.reason}`);
  if (o.masks === 'imp' && o.layers.length > 0)
    throw new LthError(
      'invalid-argument',
      'Masks of IMP are those of a network: --masks imp goes with --network',
    );
  const network = o.layers.length > 0 ? null : CompiledNetwork.compile(o.network);
  const layers = network ? layersOf(network, o.masks === 'imp') : o.layers.map(parseLayer);
  if (o.precision === 'bf16' && layers.some(({ type }) => type === 'linear') && !cuda)
    throw new LthError('invalid-argument', 'Linear layers are multiplied in fp32: bf16 is for convolutions');
  const file = o.masks === 'imp' ? await MaskFile.open(o.network, o.maskFile) : null;
  let torch: Torch | null = null;
  const problems: Record<string, string> = {};
  if (o.reference || cuda) {
    const { python, why } = pythonWithTorch();
    if (!python && cuda) throw new LthError('unsupported', `On CUDA both sides are PyTorch's: ${why}`);
    if (python)
      torch = await PythonScript.start<{ torch: string }>(python, 'kernels.py', {
        threads: o.threads,
        device: o.device,
      });
    else o.onProgress?.(`PyTorch's columns are left out: ${why}`);
  }
  const stop = () => torch?.stop();
  o.signal?.addEventListener('abort', stop);
  try {
    const results: LayerResult[] = [];
    for (const layer of layers) {
      const limits = cuda
        ? ((await torch?.ask<MachineLimits>({ limits: true })) ?? null)
        : await measured(loadAddon().benchLimits(o.threads), o.signal);
      const rows: LayerRow[] = [];
      for (const asked of o.densities) {
        o.signal?.throwIfAborted();
        const level = file?.nearest(asked);
        const one = networkOf(layer);
        const whole = file && network ? await file.at(network, level as number) : null;
        const masks = whole ? masksOfLayer(one, layer, whole) : await uniformMasks(one, asked);
        whole?.dispose();
        const density = masks.density.prunable;
        const times = cuda
          ? null
          : await measured(
              loadAddon().benchLayer(one.handle, masks.handle, {
                batch: o.batch,
                bf16: o.precision === 'bf16',
                threads: o.threads,
                rounds: o.rounds,
                sample: o.sample,
              }),
              o.signal,
            );
        masks.dispose();
        one.dispose();
        const theirs = torch
          ? await torch.ask<TorchAnswer>({
              ...layer,
              batch: o.batch,
              density,
              precision: o.precision,
              rounds: o.rounds,
              sample: o.sample,
            })
          : null;
        Object.assign(problems, theirs?.problems);
        const row = rowOf(o, cuda ? density : asked, layer, times, theirs, limits);
        rows.push(row);
        o.onProgress?.(`${layer.layer}, ${(row.density * 100).toPrecision(3)} %: ${progressOf(row)}`);
      }
      results.push({
        layer: layer.layer,
        same: layer.same,
        description: describeLayer(layer),
        limits,
        rows,
        breakEven: breakEvens(rows),
      });
    }
    return {
      setting: setting(),
      torch: torch?.first.torch ?? null,
      device: o.device,
      precision: o.precision,
      threads: o.threads,
      batch: o.batch,
      masks: file ? `imp (${file.header.made.command})` : 'uniform',
      network: network?.summary.name ?? null,
      limits: bestOf(results.flatMap(({ limits }) => limits ?? [])),
      layers: results,
      problems,
    };
  } catch (error) {
    o.signal?.throwIfAborted();
    throw error;
  } finally {
    o.signal?.removeEventListener('abort', stop);
    stop();
    network?.dispose();
  }
}

const progressOf = (row: LayerRow) =>
  row.products
    .map((one) => {
      return `${words[one.pass]} ${one.ratio ? `${one.ratio.median.toFixed(2)} times as fast` : '-'}`;
    })
    .join(', ');

const percent = (value: number) => (value * 100).toPrecision(3);
/** Milliseconds with three digits that count. */
const shown = (side: Side | null) => (side ? side.ms.median.toPrecision(3) : '-');
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

const giga = (value: number) => (value / 1e9).toPrecision(3);

export function describeLimits(limits: MachineLimits | null): string[] {
  if (!limits) return [];
  const bf16 = limits.bf16 === null ? 'none in bf16' : `${giga(limits.bf16)} in bf16`;
  return [`limits: ${giga(limits.fp32)} GFLOP/s in fp32, ${bf16}; ${giga(limits.bandwidth)} GB/s of memory`];
}

/** All layers together, each as often as the network has it. */
function totals(result: KernelsResult): { pass: Pass; asked: number; dense: number; sparse: number }[] {
  const [first] = result.layers;
  if (!first) return [];
  return passes.flatMap((pass) =>
    first.rows.flatMap(({ asked }, i) => {
      let [dense, sparse] = [0, 0];
      for (const { rows, same } of result.layers) {
        const product = rows[i]?.products.find((one) => one.pass === pass);
        if (!product) continue;
        const [, b] = sidesOf(product);
        if (!b) return [];
        // Of the ratio, which drifts of the machine do not touch.
        dense += b.ms.median * (product.ratio?.median ?? Number.NaN) * same.length;
        sparse += b.ms.median * same.length;
      }
      return dense > 0 ? [{ pass, asked, dense, sparse }] : [];
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

function totalTable(sums: ReturnType<typeof totals>): string[] {
  return columns([
    ['product', 'asked %', 'dense ms', 'sparse ms', 'times as fast', ''],
    ...sums.map(({ pass, asked, dense, sparse }) => [
      words[pass],
      percent(asked),
      dense.toPrecision(3),
      sparse.toPrecision(3),
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
      .map(({ asked, dense, sparse }) => ({
        density: asked,
        speedUp: dense / sparse,
        words: `${words[pass]}, ${percent(asked)} %: ${dense.toPrecision(3)} ms dense, ${sparse.toPrecision(3)} ms sparse`,
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
