import { LthError } from '../native/errors.js';
import type { Recipe } from '../recipe/Recipe.js';
import { RunFolder, type UnitRecord } from '../store/RunFolder.js';
import { type Experiment, resolveSteps } from './plan.js';
import type { Result, RunSummary } from './Result.js';

/** A unit's results: the dense run is level 0 of every rewind point and of the recipe's method. */
export function resultsOf(record: UnitRecord, rewinds: number[], method: Result['method']): Result[] {
  const { result } = record;
  if (!result) return [];
  if (record.rewind !== null && record.method !== null)
    return [{ ...result, rewind: record.rewind, method: record.method }];
  return rewinds.map((rewind) => ({ ...result, rewind, method }));
}

const branches = ['imp', 'random', 'reinit'];

/** Rewind points that a recipe asks for, in updates. */
async function rewindsOf(folder: RunFolder, recipe: Recipe): Promise<number[]> {
  const { updatesPerEpoch } = (await folder.experiment()) as Partial<Experiment>;
  if (typeof updatesPerEpoch !== 'number') {
    throw new LthError(
      'corrupt-file',
      `${folder.path}/experiment.json does not say how many updates an epoch has`,
    );
  }
  return resolveSteps(recipe, updatesPerEpoch).rewind;
}

/**
 * What a run folder holds, also while the run is going on elsewhere; results in the order method, rewind, replicate,
 * level, branch.
 * @param asked what completeness is judged by; default: what the last command on the folder asked for.
 * @throws LthError "io" where there is no run, "corrupt-file" for a damaged record.
 */
export async function summarise(path: string, asked?: Recipe): Promise<RunSummary> {
  const folder = RunFolder.open(path);
  const recipe = asked ?? folder.recipe();
  const records = await folder.records();
  const wanted = await rewindsOf(folder, recipe);
  const found = records.flatMap((record) => (record.rewind === null ? [] : [record.rewind]));
  const rewinds = [...new Set([...wanted, ...found])];
  const results = records.flatMap((record) => resultsOf(record, rewinds, recipe.pruning.method));
  results.sort(
    (a, b) =>
      a.method.localeCompare(b.method) ||
      a.rewind - b.rewind ||
      a.replicate - b.replicate ||
      a.level - b.level ||
      branches.indexOf(a.branch) - branches.indexOf(b.branch),
  );
  const complete = isComplete(recipe, wanted, results);
  return { run: path, recipe: recipe.name, complete, paper: recipe.paper, results };
}

/** All that the recipe asks for is there, but for what lies below a training that diverged: nothing can be pruned from it. */
function isComplete(recipe: Recipe, rewinds: number[], results: Result[]): boolean {
  const chains = rewinds.flatMap((rewind) =>
    Array.from({ length: recipe.replicates }, (_, replicate) =>
      results.filter((r) => r.rewind === rewind && r.replicate === replicate),
    ),
  );
  return chains.every((chain) => {
    const diverged = chain.filter((r) => r.branch === 'imp' && r.diverged).map((r) => r.level);
    const end = Math.min(recipe.pruning.levels, ...diverged);
    const has = (branch: string, level: number) =>
      chain.some((r) => r.branch === branch && r.level === level);
    const levels = Array.from({ length: end }, (_, i) => i + 1);
    return (
      has('imp', 0) &&
      ['imp', ...recipe.controls].every((branch) => levels.every((level) => has(branch, level)))
    );
  });
}
