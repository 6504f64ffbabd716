import { cpus } from 'node:os';
import { join } from 'node:path';
import type { BuildInfo } from '../lib/index.js';
import type { RunHandle } from '../lib/native/AddonTypes.js';
import { LthError } from '../lib/native/errors.js';
import { loadAddon } from '../lib/native/load.js';
import { packageRoot } from '../lib/package.js';

/** What a figure was measured on: printed by every benchmark. */
export interface Setting {
  date: string;
  cpu: string;
  cores: number;
  node: string;
  libtorch: string;
  isa: BuildInfo['isa'];
}

export function setting(): Setting {
  const { libtorch, isa } = loadAddon().info();
  const date = new Date().toISOString().slice(0, 10);
  return {
    date,
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    node: process.version,
    libtorch,
    isa,
  };
}

export function describe(s: Setting): string {
  return `${s.date}, ${s.cpu} (${s.cores} cores), ${s.isa}, LibTorch ${s.libtorch}, Node ${s.node}`;
}

/** The middle of many, and how far the middle half of them reaches. */
export interface Summary {
  median: number;
  low: number;
  high: number;
  n: number;
}

/** Median and quartiles. */
export function summary(values: number[]): Summary {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => {
    const place = share * (sorted.length - 1);
    const [below, above] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]] as [number, number];
    return below + (above - below) * (place - Math.floor(place));
  };
  return { median: at(0.5), low: at(0.25), high: at(0.75), n: sorted.length };
}

/** Three digits that count, and never an exponent for large values: `0.0364`, `36.4`, `1680`. */
export function threeDigits(value: number): string {
  return Math.abs(value) < 1000 ? value.toPrecision(3) : value.toFixed(0);
}

export const show = (s: Summary, digits = 3) =>
  `${s.median.toFixed(digits)} [${s.low.toFixed(digits)}-${s.high.toFixed(digits)}]`;

const { findPython } = (await import(join(packageRoot, 'scripts', 'python.mjs'))) as {
  findPython(torch: string): { python: string | null; looked: string[] };
};

/** The Python of the other side: its PyTorch is the LibTorch that the addon uses. Null where there is none, and why. */
export function pythonWithTorch(): { python: string | null; why: string } {
  const { python, looked } = findPython(loadAddon().info().libtorch);
  return { python, why: `${looked.join('; ')}: name one with LTH_PYTHON` };
}

/** Waits for what runs on a thread of the addon; a signal stops it and is thrown. */
export async function measured<T>(
  { run, end }: { run: RunHandle; end: Promise<T | null> },
  signal: AbortSignal | undefined,
): Promise<T> {
  const addon = loadAddon();
  const abort = () => addon.runAbort(run);
  signal?.addEventListener('abort', abort);
  if (signal?.aborted) abort();
  try {
    const result = await end;
    signal?.throwIfAborted();
    if (result === null) throw new LthError('disposed', 'The measurement was stopped');
    return result;
  } finally {
    signal?.removeEventListener('abort', abort);
    addon.dispose(run);
  }
}
