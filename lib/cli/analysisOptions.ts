import type { Command } from 'commander';
import type { AnalysisOptions, AnalysisSummary } from '../experiment/analyse.js';
import { FAILED, STOPPED } from './exitCodes.js';
import { integer, integers, list } from './options.js';
import { progressPrinter } from './progress.js';
import { takesWork, type WorkFlags, workOptions } from './recipeOptions.js';
import { abortOnSignal } from './signals.js';

export interface AnalysisFlags extends WorkFlags {
  rewind?: string[];
  levels?: number[];
  orders?: number;
  allowDifferentBits?: boolean;
  json?: boolean;
}

/** The argument and options of commands that train and compare copies of a run's networks. */
export function takesRun(command: Command, orders: number): Command {
  const described = command
    .argument('<run>', 'run folder')
    .option('--levels <list>', 'levels, e.g. 4,8 (default: the last one)', integers(1, 1000))
    .option('--rewind <steps>', 'rewind points of the run, e.g. 0it,500it (default: all)', list)
    .option(
      '--orders <n>',
      `copies of each network, each under a data order of its own (default: ${orders})`,
      integer(2, 1000),
    )
    .option('--allow-different-bits', 'go on where another LibTorch, instruction set, device or table began')
    .option('--json', 'every sample as one JSON object on stdout; everything else on stderr');
  return takesWork(described, ', and always those of copies');
}

export function analysisOptions(flags: AnalysisFlags): AnalysisOptions & { signal: AbortSignal } {
  const signal = abortOnSignal((which) =>
    process.stderr.write(`\n${which}: saving and stopping; the same command goes on\n`),
  );
  return {
    signal,
    onEvent: progressPrinter(process.stderr),
    allowDifferentBits: flags.allowDifferentBits ?? false,
    ...(flags.rewind === undefined ? {} : { rewind: flags.rewind }),
    ...(flags.levels === undefined ? {} : { levels: flags.levels }),
    ...(flags.orders === undefined ? {} : { orders: flags.orders }),
    ...workOptions(flags),
  };
}

/** Prints what was found. @returns the exit code. */
export function finish(found: AnalysisSummary<unknown>, table: string, json: object | null): number {
  const { run, recipe, complete, stopped, units, problems } = found;
  const lines = [
    '',
    `${recipe}: ${run}${complete ? '' : ` (not complete: ${units.done} of ${units.total} units done)`}`,
    table,
    ...(units.impossible > 0
      ? [`${units.impossible} units cannot be done: a training that they need diverged`]
      : []),
    ...problems.map(({ id, label, state, message }) => `${state}: ${label} (${id}): ${message}`),
  ];
  (json ? process.stderr : process.stdout).write(`${lines.join('\n')}\n`);
  if (json) process.stdout.write(`${JSON.stringify(json)}\n`);
  return stopped ? STOPPED : complete ? 0 : FAILED;
}
