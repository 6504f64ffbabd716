import { Command } from 'commander';
import { measureStability } from '../../experiment/analyse.js';
import type { StabilityResult } from '../../experiment/Result.js';
import { renderStability } from '../../report/analyses.js';
import { type AnalysisFlags, analysisOptions, finish, takesRun } from '../analysisOptions.js';
import { awaitRun } from '../awaitRun.js';
import { STOPPED } from '../exitCodes.js';
import { choice, choices, integer } from '../options.js';
import { unlessStopped } from '../signals.js';

interface Flags extends AnalysisFlags {
  samples?: number;
  branches?: StabilityResult['branch'][];
  scope: StabilityResult['scope'];
  layers?: boolean;
}

export function stabilityCommand(exit: (code: number) => void): Command {
  return takesRun(
    new Command('stability').description(
      "how far copies of a run's subnetworks end from one another: under other data orders, and without pruning",
    ),
    4,
  )
    .option(
      '--samples <n>',
      'data orders for stability to pruning, per replicate (default: 1)',
      integer(0, 1000),
    )
    .option(
      '--branches <list>',
      'imp, random, reinit (default: imp,random)',
      choices('imp', 'random', 'reinit'),
    )
    .option(
      '--scope <scope>',
      'masked: prunable weights; all: every trainable one',
      choice('masked', 'all'),
      'masked',
    )
    .option('--layers', 'a table by tensor too')
    .action(async (run: string, flags: Flags) => {
      const { scope } = flags;
      const options = analysisOptions(flags);
      if (!(await awaitRun(run, options.signal))) return exit(STOPPED);
      const work = measureStability(run, {
        ...options,
        ...(flags.samples === undefined ? {} : { samples: flags.samples }),
        ...(flags.branches === undefined ? {} : { branches: flags.branches }),
      });
      const found = await unlessStopped(options.signal, work);
      if (!found) return exit(STOPPED);
      const { results, ...summary } = found;
      const stability = results.filter((one) => one.scope === scope);
      const human = renderStability(results, { scope, layers: flags.layers ?? false });
      exit(finish(found, human, flags.json ? { ...summary, scope, stability } : null));
    });
}
