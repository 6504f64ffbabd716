import { Command } from 'commander';
import { measureConnectivity } from '../../experiment/analyse.js';
import type { ConnectivityResult } from '../../experiment/Result.js';
import { renderConnectivity } from '../../report/analyses.js';
import { type AnalysisFlags, analysisOptions, finish, takesRun } from '../analysisOptions.js';
import { awaitRun } from '../awaitRun.js';
import { STOPPED } from '../exitCodes.js';
import { choice, choices, integer } from '../options.js';
import { unlessStopped } from '../signals.js';

interface Flags extends AnalysisFlags {
  branches?: ConnectivityResult['branch'][];
  alphas?: number;
  trainExamples?: number;
  statistics: ConnectivityResult['statistics'];
}

export function connectivityCommand(exit: (code: number) => void): Command {
  return takesRun(
    new Command('connectivity').description(
      "the error on straight lines between copies of a run's networks that were trained under other data orders",
    ),
    2,
  )
    .option(
      '--branches <list>',
      'dense, imp, random, reinit (default: dense,imp,random)',
      choices('dense', 'imp', 'random', 'reinit'),
    )
    .option('--alphas <n>', 'points on each line, both ends included (default: 30)', integer(2, 10_000))
    .option('--train-examples <n>', 'of the training set, evenly spaced over it (default: all)', integer(1))
    .option(
      '--statistics <how>',
      'of batch norm on the line: interpolated as the weights are, or reestimated on the training set',
      choice('interpolated', 'reestimated'),
      'interpolated',
    )
    .action(async (run: string, flags: Flags) => {
      const options = analysisOptions(flags);
      if (!(await awaitRun(run, options.signal))) return exit(STOPPED);
      const work = measureConnectivity(run, {
        ...options,
        statistics: flags.statistics,
        ...(flags.branches === undefined ? {} : { branches: flags.branches }),
        ...(flags.alphas === undefined ? {} : { alphas: flags.alphas }),
        ...(flags.trainExamples === undefined ? {} : { trainExamples: flags.trainExamples }),
      });
      const found = await unlessStopped(options.signal, work);
      if (!found) return exit(STOPPED);
      const { results, ...summary } = found;
      const json = flags.json ? { ...summary, connectivity: results } : null;
      exit(finish(found, renderConnectivity(results), json));
    });
}
