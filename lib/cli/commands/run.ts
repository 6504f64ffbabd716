import { join } from 'node:path';
import { Command } from 'commander';
import { runExperiment } from '../../experiment/run.js';
import { wrongValue } from '../../native/errors.js';
import { loadRecipe } from '../../recipe/load.js';
import { renderCurve, renderTable } from '../../report/terminal.js';
import { integer, list, repeated } from '../options.js';
import { progressPrinter } from '../progress.js';
import { abortOnSignal } from '../signals.js';
import { summaryOf } from './show.js';

interface Options {
  set?: string[];
  levels?: number;
  replicates?: number;
  rewind?: string[];
  seed?: number;
  device?: string;
  threads?: number;
  out?: string;
  json?: boolean;
}

/** Saved and stopped: requeue me. */
const STOPPED = 75;

export function runCommand(exit: (code: number) => void): Command {
  return new Command('run')
    .description('run an experiment; the same command continues it')
    .argument('<recipe>', 'name of a built-in recipe, or a YAML or JSON file')
    .option(
      '--set <key=value>',
      'change any value of the recipe, e.g. training.batch=128 (repeatable)',
      repeated,
    )
    .option('--levels <n>', 'pruning levels', integer(0, 1000))
    .option('--replicates <n>', 'replicates', integer(1, 10_000))
    .option('--rewind <steps>', 'rewind points, e.g. 0it,500it,1.7% (repeatable)', list)
    .option('--seed <n>', 'seed of everything random', integer(0))
    .option('--device <device>', 'cpu, cuda or cuda:N')
    .option('--threads <n>', 'threads; never changes a result (default: all cores)', integer(1, 1024))
    .option('--out <folder>', 'run folder (default: runs/<recipe>)')
    .option('--json', 'the results as one JSON object on stdout; everything else on stderr')
    .action(async (name: string, options: Options) => {
      const recipe = loadRecipe(name, options);
      if (options.out === '') throw wrongValue('a folder', '--out', options.out);
      const out = options.out ?? join('runs', recipe.name);
      const signal = abortOnSignal((which) =>
        process.stderr.write(`\n${which}: saving and stopping; the same command goes on\n`),
      );
      const { stopped, ...summary } = await runExperiment(recipe, {
        out,
        signal,
        onEvent: progressPrinter(process.stderr),
        ...(options.threads === undefined ? {} : { threads: options.threads }),
      });
      const human = `\n${renderTable(summary)}\n\n${renderCurve(summary)}\n\n`;
      if (options.json) {
        process.stderr.write(human);
        process.stdout.write(`${JSON.stringify(summaryOf(summary))}\n`);
      } else {
        process.stdout.write(human);
      }
      exit(stopped ? STOPPED : 0);
    });
}
