import { Command } from 'commander';
import { runExperiment } from '../../experiment/run.js';
import { renderCurve, renderTable } from '../../report/terminal.js';
import { FAILED, STOPPED } from '../exitCodes.js';
import { progressPrinter } from '../progress.js';
import { type RecipeOptions, recipeOf, takesRecipe, workOptions } from '../recipeOptions.js';
import { abortOnSignal, unlessStopped } from '../signals.js';
import { summaryOf } from './show.js';

interface Options extends RecipeOptions {
  allowDifferentBits?: boolean;
  tuning?: string;
  json?: boolean;
}

export function runCommand(exit: (code: number) => void): Command {
  return takesRecipe(new Command('run').description('run an experiment; the same command continues it'))
    .option('--allow-different-bits', 'go on where another LibTorch, instruction set, device or table began')
    .option(
      '--tuning <table>',
      "costs by which kernels auto chooses: builtin, or a file of `tune --out` (default: the run's, of a new one this machine's)",
    )
    .option('--json', 'the results as one JSON object on stdout; everything else on stderr')
    .action(async (name: string, options: Options) => {
      const { recipe, out } = recipeOf(name, options);
      const signal = abortOnSignal((which) =>
        process.stderr.write(`\n${which}: saving and stopping; the same command goes on\n`),
      );
      const work = runExperiment(recipe, {
        out,
        signal,
        onEvent: progressPrinter(process.stderr),
        allowDifferentBits: options.allowDifferentBits ?? false,
        ...(options.tuning === undefined ? {} : { tuning: options.tuning }),
        ...workOptions(options),
      });
      const found = await unlessStopped(signal, work);
      if (!found) return exit(STOPPED);
      const { stopped, ...summary } = found;
      const human = `\n${renderTable(summary)}\n\n${renderCurve(summary)}\n\n`;
      if (options.json) {
        process.stderr.write(human);
        process.stdout.write(`${JSON.stringify(summaryOf(summary))}\n`);
      } else {
        process.stdout.write(human);
      }
      exit(stopped ? STOPPED : summary.complete ? 0 : FAILED);
    });
}
