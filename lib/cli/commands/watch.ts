import { Command } from 'commander';
import { watchRun } from '../../experiment/watch.js';
import { progressPrinter } from '../progress.js';

export function watchCommand(): Command {
  return new Command('watch')
    .description('follow a run that is going on elsewhere, until it is done')
    .argument('<run>', 'run folder')
    .action(async (run: string) => {
      await watchRun(run, { intervalMs: 1000, onEvent: progressPrinter(process.stderr) });
      process.stderr.write('\nall is done\n');
    });
}
