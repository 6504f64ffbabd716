import { existsSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, resolve } from 'node:path';
import { Command } from 'commander';
import { machineTuning, measureAlone, thisMachine, tuneMachine } from '../../experiment/tuning.js';
import type { Tuning } from '../../native/AddonTypes.js';
import { wrongValue } from '../../native/errors.js';
import { costNames, tuningName, tuningParts } from '../../session/tuning.js';
import { writeTuning } from '../../store/tuningFile.js';
import { integer } from '../options.js';
import { table } from '../words.js';

interface Options {
  threads?: number;
  out?: string;
  json?: boolean;
}

const titles: Record<(typeof costNames)[number], string> = {
  entryOfRun: 'run',
  entryOfPlace: 'place',
  gradientOfVector: 'gradient: vector',
  gradientOfBand: 'band',
  splitOfVector: 'split',
};

function describe(tuning: Tuning): string {
  const rows = tuningParts.map((part) => [part, ...costNames.map((name) => tuning[part][name]), '']);
  return table([['', ...costNames.map((name) => titles[name]), ''], ...rows]);
}

/** Before seconds are spent on what could not be written. */
function checkTarget(out: string): void {
  if (existsSync(out) && statSync(out).isDirectory()) throw wrongValue('a file', '--out', out);
  if (!existsSync(dirname(resolve(out)))) throw wrongValue('a file in a folder that is there', '--out', out);
}

/** `lth-train tune`: measures this machine's table of costs, by which `--kernels auto` chooses. */
export function tuneCommand(): Command {
  return new Command('tune')
    .description('measure what sparse products cost on this machine; new runs choose by it')
    .option(
      '--threads <n>',
      "slices of a batch that are worked on at a time, on this machine's cores (default: 1)",
      integer(1, availableParallelism()),
    )
    .option('--out <file>', "write the table there, not where this machine's is kept")
    .option('--json', 'the table as one JSON object on stdout')
    .action(async ({ threads, out, json }: Options) => {
      if (out === '') throw wrongValue('a file', '--out', out);
      if (out !== undefined) checkTarget(out);
      const onNotice = (message: string) => process.stderr.write(`${message}\n`);
      const options = { onNotice, ...(threads === undefined ? {} : { threads }) };
      let tuning: Tuning;
      if (out !== undefined) {
        tuning = await measureAlone(options);
        await writeTuning(out, tuning, thisMachine());
        process.stderr.write(`written to ${out}\n`);
      } else {
        const found = await tuneMachine(options);
        tuning = found.tuning;
        if (found.replaced) process.stderr.write(`replaced what was there: ${found.replaced}\n`);
        process.stderr.write(
          found.kept
            ? `as before, within a step of rounding: ${found.path} stays\n`
            : `written to ${found.path}; runs that have begun keep theirs\n`,
        );
      }
      const name = tuningName(tuning) ?? 'builtin';
      process.stdout.write(
        json
          ? `${JSON.stringify({ name, machine: thisMachine(), tuning })}\n`
          : `table ${name}: costs of sparse products, where a dense one's vector costs 1\n${describe(tuning)}\n`,
      );
    });
}

/** What `doctor` says of this machine's table: never a reason to fail. */
export async function describeMachineTuning(): Promise<string> {
  try {
    const tuning = await machineTuning();
    return tuning
      ? `table ${tuningName(tuning) ?? 'builtin'}`
      : 'no table yet: `lth-train tune` or the first run measures it';
  } catch (error) {
    return (error as Error).message;
  }
}
