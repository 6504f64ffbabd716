import { Command } from 'commander';
import { maskOverlap } from '../../experiment/overlap.js';
import { renderOverlap } from '../../report/analyses.js';
import { awaitRun } from '../awaitRun.js';

export function overlapCommand(): Command {
  return new Command('overlap')
    .description("what IMP's masks of a run have in common: between replicates, rewind points and levels")
    .argument('<run>', 'run folder')
    .option('--json', 'as one JSON object, with every pair and tensor')
    .action(async (run: string, options: { json?: boolean }) => {
      await awaitRun(run);
      const overlap = await maskOverlap(run);
      process.stdout.write(`${options.json ? JSON.stringify({ run, overlap }) : renderOverlap(overlap)}\n`);
    });
}
