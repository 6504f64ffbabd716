import { Command } from 'commander';
import { kernelsOf } from '../../experiment/kernels.js';
import type { RunSummary } from '../../experiment/Result.js';
import { summarise } from '../../experiment/summary.js';
import { LthError } from '../../native/errors.js';
import { renderConnectivity, renderStability } from '../../report/analyses.js';
import { curves } from '../../report/matching.js';
import { renderCurve, renderKernels, renderTable } from '../../report/terminal.js';
import { awaitRun } from '../awaitRun.js';

/** The JSON of `show` and `run`: the results, and which levels are matching or winning tickets. */
export function summaryOf(summary: RunSummary) {
  const levels = curves(summary.results).flatMap(({ method, rewind, rows }) =>
    rows.map(({ level, matching, winning }) => ({ method, rewind, level, matching, winning })),
  );
  return { ...summary, levels };
}

export function showCommand(): Command {
  return new Command('show')
    .description('what a run has found so far')
    .argument('<run>', 'run folder')
    .option('--analyses', 'stability and connectivity that were measured, too')
    .option('--kernels', "which products of each layer are sparse here, for the masks of IMP's levels")
    .option('--json', 'as one JSON object')
    .action(async (run: string, options: { analyses?: boolean; kernels?: boolean; json?: boolean }) => {
      await awaitRun(run);
      const summary = await summarise(run);
      // What else the run has found does not need its table of costs, nor its data.
      let kernelsProblem: LthError | undefined;
      const kernels = options.kernels
        ? await kernelsOf(run).catch((error) => {
            if (!(error instanceof LthError)) throw error;
            kernelsProblem = error;
            return undefined;
          })
        : undefined;
      if (options.json) process.stdout.write(`${JSON.stringify({ ...summaryOf(summary), kernels })}\n`);
      else
        process.stdout.write(
          `${renderTable(summary)}\n${summary.results.length > 0 ? `\n${renderCurve(summary)}\n` : ''}`,
        );
      if (kernels && !options.json) process.stdout.write(`\n${renderKernels(kernels)}\n`);
      if (options.analyses && !options.json) {
        const stability = renderStability(summary.stability, { scope: 'masked', layers: false });
        process.stdout.write(`\n${stability}\n\n${renderConnectivity(summary.connectivity)}\n`);
      }
      if (kernelsProblem) throw kernelsProblem;
    });
}
