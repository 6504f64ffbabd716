/**
 * `lth-train bench loader`: pictures a second from files to batches, decoded, cropped by RandomResizedCrop, mirrored; beside
 * the raw limit (libjpeg-turbo decoding whole pictures out of memory, and nothing else) and PyTorch's DataLoader with
 * torchvision's decoder and with Pillow. All take turns over the same files, whose bytes the system keeps in memory.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { isShardFolder } from '../lib/data/shards.js';
import { LthError } from '../lib/native/errors.js';
import { loadAddon } from '../lib/native/load.js';
import { columns } from '../lib/report/terminal.js';
import { Pictures } from '../lib/session/Pictures.js';
import {
  describe,
  measured,
  pythonWithTorch,
  type Setting,
  type Summary,
  setting,
  summary,
} from './helpers.js';
import { PythonScript } from './pytorch.js';

export interface LoaderOptions {
  /** Class folders or shards, or what holds them as `train`. */
  folder: string;
  /** The same of the originals, where `folder` is shards of them: what PyTorch reads. */
  against?: string;
  workers: number;
  batch: number;
  /** Side of what comes out. */
  size: number;
  /** Of all sides in turn. */
  rounds: number;
  /** Over all files, in each round. */
  passes: number;
  /** Measure PyTorch's loaders too, where there are some. */
  reference: boolean;
  signal?: AbortSignal;
  onProgress?: (text: string) => void;
}

export interface LoaderSide {
  name: string;
  /** Pictures a second in all, and for each worker. */
  rate: Summary;
  perWorker: number;
  /** Of lth-train's rate to this one's, round by round. */
  ratio: Summary;
}

export interface LoaderResult {
  setting: Setting;
  folder: string;
  /** The originals; null where the pictures of `folder` are what all sides read. */
  against: string | null;
  images: number;
  megapixels: number;
  workers: number;
  batch: number;
  size: number;
  rounds: number;
  passes: number;
  /** Files that could not be read, once each. */
  failures: { path: string; why: string }[];
  jpeg: string;
  /** Versions of the other side; null where it was left out. */
  versions: Record<string, string> | null;
  sides: LoaderSide[];
}

interface Started {
  variants: string[];
  versions: Record<string, string>;
}

/** A Python with torchvision, whatever version of PyTorch it has: nothing of it is compared but its speed. */
function pythonWithTorchvision(): string | null {
  const candidates = [process.env.LTH_PYTHON, pythonWithTorch().python, 'python3'];
  const has = (python: string) =>
    spawnSync(python, ['-c', 'import torch, torchvision'], { stdio: 'ignore' }).status === 0;
  return candidates.find((python) => python && has(python)) ?? null;
}

/** @throws LthError as Pictures.open; "unsupported" where the addon has no JPEG; the signal's reason. */
export async function benchLoader(o: LoaderOptions): Promise<LoaderResult> {
  const { jpeg } = loadAddon().info();
  if (!jpeg.built) throw new LthError('unsupported', jpeg.reason);
  const partOf = (whole: string) => (existsSync(join(whole, 'train')) ? join(whole, 'train') : whole);
  const folder = partOf(o.folder);
  const against = o.against === undefined ? null : partOf(o.against);
  const pictures = await Pictures.open(folder);
  const originals =
    against === null
      ? null
      : await Pictures.open(against).catch((error) => {
          pictures.dispose();
          throw error;
        });
  const readable = originals !== null || !isShardFolder(folder);
  if (o.reference && !readable)
    o.onProgress?.('PyTorch does not read shards: --against names the folder of their originals');
  const python = o.reference && readable ? pythonWithTorchvision() : null;
  if (o.reference && readable && !python)
    o.onProgress?.('no Python with torchvision: name one with LTH_PYTHON');
  const failures = new Map<string, string>();

  const read = async (set: Pictures, passes: number): Promise<number> => {
    const start = performance.now();
    let images = 0;
    const until = passes * Math.ceil(set.count / o.batch);
    const { batch, workers, signal } = o;
    const options = { batch, workers, until, crop: { kind: 'random-resized', size: o.size } as const };
    for await (const made of set.batches(signal ? { ...options, signal } : options)) {
      images += made.rows.length;
      for (const { path, why } of made.failures) failures.set(path, why);
    }
    return images / ((performance.now() - start) / 1e3);
  };
  const ours = (passes: number) => read(pictures, passes);
  // Reads the files into the system's memory, and finds those that are broken.
  await ours(1);
  if (originals) await read(originals, 1);
  const broken = new Set(failures.keys());
  const sound = (set: Pictures) =>
    Array.from({ length: set.count }, (_, i) => i).filter((row) => !broken.has(set.path(row)));
  const rows = Int32Array.from(sound(pictures));
  let megapixels = 0;
  const raw = async (passes: number): Promise<number> => {
    let seconds = 0;
    for (let pass = 0; pass < passes; pass++) {
      const one = await measured(loadAddon().benchDecode(pictures.handle, rows, o.workers), o.signal);
      seconds += one.seconds;
      megapixels = one.pixels / 1e6;
    }
    return (rows.length * passes) / seconds;
  };
  const other = originals ?? pictures;
  const files = sound(other).map((row) => other.path(row));
  const script = python
    ? await PythonScript.start<Started>(python, 'loader.py', {
        ...{ files, size: o.size, batch: o.batch, workers: o.workers },
      })
    : null;
  try {
    const sides = new Map<string, (passes: number) => Promise<number>>([
      ['lth-train', ours],
      ['libjpeg-turbo alone', raw],
    ]);
    if (originals) sides.set('lth-train, originals', (passes) => read(originals, passes));
    const of = originals ? ', originals' : '';
    for (const variant of script?.first.variants ?? [])
      sides.set(`DataLoader, ${variant}${of}`, async (passes) => {
        const { seconds, images } = await (script as PythonScript<Started>).ask<{
          seconds: number;
          images: number;
        }>({ variant, passes });
        return images / seconds;
      });
    const rates = new Map([...sides.keys()].map((name) => [name, [] as number[]]));
    for (const side of sides.values()) await side(1);
    for (let round = 0; round < o.rounds; round++) {
      for (const [name, side] of sides) {
        o.signal?.throwIfAborted();
        (rates.get(name) as number[]).push(await side(o.passes));
      }
      o.onProgress?.(
        `round ${round + 1} of ${o.rounds}: ${[...rates].map(([name, all]) => `${name} ${all.at(-1)?.toFixed(0)}`).join(', ')}`,
      );
    }
    const own = rates.get('lth-train') as number[];
    return {
      setting: setting(),
      ...{
        folder,
        against,
        images: rows.length,
        megapixels,
        failures: [...failures].map(([path, why]) => ({ path, why })),
      },
      ...{ workers: o.workers, batch: o.batch, size: o.size, rounds: o.rounds, passes: o.passes },
      jpeg: jpeg.libraries,
      versions: script?.first.versions ?? null,
      sides: [...rates].map(([name, all]) => ({
        name,
        rate: summary(all),
        perWorker: summary(all).median / o.workers,
        ratio: summary(all.map((rate, i) => (own[i] as number) / rate)),
      })),
    };
  } finally {
    script?.stop();
    pictures.dispose();
    originals?.dispose();
  }
}

const whole = ({ median, low, high }: Summary) =>
  `${median.toFixed(0)} [${low.toFixed(0)}-${high.toFixed(0)}]`;
const ratio = ({ median, low, high }: Summary) =>
  `${median.toFixed(2)} [${low.toFixed(2)}-${high.toFixed(2)}]`;

export function renderLoaderBench(result: LoaderResult): string {
  const { versions, workers, failures } = result;
  const others = versions
    ? `; ${Object.entries(versions)
        .map((one) => one.join(' '))
        .join(', ')}`
    : '';
  return [
    `${result.images} pictures of ${((result.megapixels / result.images) * 1e3).toFixed(0)} kpixel on average, RandomResizedCrop to ${result.size} and flip, batches of ${result.batch}, ${workers} workers`,
    `${describe(result.setting)}, ${result.jpeg}${others}; median [quartiles] of ${result.rounds} rounds of ${result.passes} passes`,
    '',
    ...columns([
      ['', 'pictures/s', 'per worker', 'lth-train is times as fast', ''],
      ...result.sides.map((side) => [
        side.name,
        whole(side.rate),
        side.perWorker.toFixed(0),
        side.name === 'lth-train' ? '' : ratio(side.ratio),
        '',
      ]),
    ]),
    ...failures.map(({ path, why }) => `could not be read: ${path}: ${why}`),
  ].join('\n');
}
