import { Command } from 'commander';
import { countsOf } from '../../experiment/summary.js';
import { watchRun } from '../../experiment/watch.js';
import { awaitRun } from '../awaitRun.js';
import { progressPrinter } from '../progress.js';

export function watchCommand(exit: (code: number) => void): Command {
  return new Command('watch')
    .description('follow a run that is going on elsewhere, until it is done')
    .argument('<run>', 'run folder')
    .action(async (run: string) => {
      await awaitRun(run);
      const found = await watchRun(run, { intervalMs: 1000, onEvent: progressPrinter(process.stderr) });
      const { done, impossible, total } = countsOf(found);
      const complete = done + impossible === total;
      process.stderr.write(
        complete ? '\nall is done\n' : `\nno more can be done: ${done} of ${total} units\n`,
      );
      exit(complete ? 0 : 1);
    });
}
