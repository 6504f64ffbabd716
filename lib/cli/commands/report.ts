import { Command } from 'commander';
import type { RunSummary } from '../../experiment/Result.js';
import { summarise } from '../../experiment/summary.js';
import { writeOutput } from '../../files.js';
import { type ReportExtras, reportExtras } from '../../report/extras.js';
import { renderReport } from '../../report/report.js';
import { awaitRun } from '../awaitRun.js';

export function reportCommand(): Command {
  return new Command('report')
    .description(
      'one HTML page about one or several runs: figures, numbers, what was found, how to make it again',
    )
    .argument('<runs...>', 'run folders')
    .option('--out <file>', 'where the page is written; - for stdout', 'report.html')
    .option('--no-masks', 'do not read masks: nothing of layers and overlap, but quicker for large networks')
    .action(async (runs: string[], options: { out: string; masks: boolean }) => {
      const summaries: RunSummary[] = [];
      const extras: ReportExtras[] = [];
      for (const run of runs) {
        await awaitRun(run);
        summaries.push(await summarise(run));
        extras.push(await reportExtras(run, { masks: options.masks }));
      }
      const page = renderReport(summaries, extras);
      if (options.out === '-') {
        process.stdout.write(page);
        return;
      }
      await writeOutput(options.out, Buffer.from(page));
      process.stderr.write(`${options.out}: ${runs.length === 1 ? 'one run' : `${runs.length} runs`}\n`);
    });
}
