/**
 * `lth-train bench kernels`: the three products of one layer after another, dense and sparse, beside PyTorch's and beside
 * what the machine can do. What is timed is what an update does, values of the weights packed again included; that both
 * sides give the same is checked before.
 */
import type { LayerTimes, MachineLimits, Precision, ProductTimes } from '../lib/native/AddonTypes.js';
import { LthError, wrongValue } from '../lib/native/errors.js';
import { loadAddon } from '../lib/native/load.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Masks } from '../lib/session/Masks.js';
import { type BreakEven, breakEven } from './breakEven.js';
import { measured, pythonWithTorch, type Setting, type Summary, setting, summary } from './helpers.js';
import { type BenchLayer, describeLayer, layersOf, networkOf, parseLayer } from './layers.js';
import { MaskFile } from './maskFile.js';
import { PythonScript } from './pytorch.js';

export const passes = ['forward', 'inputGradient', 'weightGradient'] as const;
export type Pass = (typeof passes)[number];
export const passWords: Record<Pass, string> = {
  forward: 'forward',
  inputGradient: 'dX',
  weightGradient: 'dW',
};

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
  density: number,
  layer: BenchLayer,
  times: LayerTimes | null,
  theirs: TorchAnswer | null,
  limits: MachineLimits | null,
): LayerRow {
  const weights = layer.shape.reduce((a, b) => a * b, 1);
  const remaining = times?.remaining ?? Math.round(density * weights);
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

/** What all layers have in common. */
interface Bench {
  options: KernelOptions;
  network: CompiledNetwork | null;
  file: MaskFile | null;
  torch: Torch | null;
  problems: Record<string, string>;
}

const isCuda = ({ device }: KernelOptions) => device !== 'cpu';

function check(o: KernelOptions, layers: BenchLayer[]): void {
  if (!/^(cpu|cuda(:\d{1,3})?)$/.test(o.device)) throw wrongValue('cpu, cuda or cuda:N', 'device', o.device);
  const { cuda } = loadAddon().info();
  if (isCuda(o) && !cuda.available)
    throw new LthError('no-cuda', `Device ${o.device} cannot be used: ${cuda.reason}`);
  if (o.masks === 'imp' && o.layers.length > 0)
    throw new LthError(
      'invalid-argument',
      'Masks of IMP are those of a network: --masks imp goes with --network',
    );
  if (o.precision === 'bf16' && layers.some(({ type }) => type === 'linear') && !isCuda(o))
    throw new LthError('invalid-argument', 'Linear layers are multiplied in fp32: bf16 is for convolutions');
}

/** Null where there is none and it need not be. */
async function startTorch(o: KernelOptions): Promise<Torch | null> {
  if (!o.reference && !isCuda(o)) return null;
  const { python, why } = pythonWithTorch();
  if (python) return PythonScript.start(python, 'kernels.py', { threads: o.threads, device: o.device });
  if (isCuda(o)) throw new LthError('unsupported', `On CUDA both sides are PyTorch's: ${why}`);
  o.onProgress?.(`PyTorch's columns are left out: ${why}`);
  return null;
}

async function measureLimits({ options: o, torch }: Bench): Promise<MachineLimits | null> {
  if (!isCuda(o)) return measured(loadAddon().benchLimits(o.threads), o.signal);
  return torch ? torch.ask<MachineLimits>({ limits: true }) : null;
}

async function measureRow(
  { options: o, network, file, torch, problems }: Bench,
  layer: BenchLayer,
  asked: number,
  limits: MachineLimits | null,
): Promise<LayerRow> {
  const one = networkOf(layer);
  const whole = file && network ? await file.at(network, file.nearest(asked)) : null;
  const masks = whole ? masksOfLayer(one, layer, whole) : await uniformMasks(one, asked);
  const density = masks.density.prunable;
  const { batch, precision, threads, rounds, sample, signal } = o;
  try {
    const options = { batch, bf16: precision === 'bf16', threads, rounds, sample };
    const ours = isCuda(o)
      ? null
      : await measured(loadAddon().benchLayer(one.handle, masks.handle, options), signal);
    const request = { ...layer, batch, density, precision, rounds, sample };
    const theirs = torch ? await torch.ask<TorchAnswer>(request) : null;
    Object.assign(problems, theirs?.problems);
    return rowOf(o, asked, density, layer, ours, theirs, limits);
  } finally {
    for (const resource of [whole, masks, one]) resource?.dispose();
  }
}

/** @throws LthError "invalid-argument", "io" and "corrupt-file" of masks, "no-cuda", "native" where a kernel is wrong; the signal's reason. */
export async function benchKernels(o: KernelOptions): Promise<KernelsResult> {
  const network = o.layers.length > 0 ? null : CompiledNetwork.compile(o.network);
  const layers = network ? layersOf(network, o.masks === 'imp') : o.layers.map(parseLayer);
  check(o, layers);
  const file = o.masks === 'imp' ? await MaskFile.open(o.network, o.maskFile) : null;
  const torch = await startTorch(o);
  const bench: Bench = { options: o, network, file, torch, problems: {} };
  const stop = () => torch?.stop();
  o.signal?.addEventListener('abort', stop);
  try {
    const results: LayerResult[] = [];
    for (const layer of layers) {
      const limits = await measureLimits(bench);
      const rows: LayerRow[] = [];
      for (const asked of o.densities) {
        o.signal?.throwIfAborted();
        const row = await measureRow(bench, layer, asked, limits);
        rows.push(row);
        o.onProgress?.(`${layer.layer}, ${(row.density * 100).toPrecision(3)} %: ${progressOf(row)}`);
      }
      const { layer: name, same } = layer;
      results.push({
        layer: name,
        same,
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
      problems: bench.problems,
    };
  } catch (error) {
    // What was stopped fails in a way of its own.
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
      return `${passWords[one.pass]} ${one.ratio ? `${one.ratio.median.toFixed(2)} times as fast` : '-'}`;
    })
    .join(', ');
