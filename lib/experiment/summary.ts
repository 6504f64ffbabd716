import type { Recipe } from '../recipe/Recipe.js';
import { RunFolder, type UnitRecord } from '../store/RunFolder.js';
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

/** All results of a run folder, in the order method, rewind, replicate, level, branch. */
export async function collectResults(folder: RunFolder, recipe: Recipe): Promise<Result[]> {
  const records = await folder.records();
  const rewinds = [...new Set(records.flatMap((record) => (record.rewind === null ? [] : [record.rewind])))];
  const results = records.flatMap((record) =>
    resultsOf(record, rewinds.length > 0 ? rewinds : [0], recipe.pruning.method),
  );
  return results.sort(
    (a, b) =>
      a.method.localeCompare(b.method) ||
      a.rewind - b.rewind ||
      a.replicate - b.replicate ||
      a.level - b.level ||
      branches.indexOf(a.branch) - branches.indexOf(b.branch),
  );
}

/**
 * What a run folder holds, also while the run is going on elsewhere.
 * @throws LthError "io" where there is no run, "corrupt-file" for a damaged record.
 */
export async function summarise(path: string): Promise<RunSummary> {
  const folder = RunFolder.open(path);
  const recipe = folder.recipe();
  const results = await collectResults(folder, recipe);
  return { run: path, recipe: recipe.name, complete: isComplete(recipe, results), results };
}

/** All levels of all branches are there, but for those below a training that diverged: nothing can be pruned from it. */
function isComplete(recipe: Recipe, results: Result[]): boolean {
  const chains = new Map<string, Result[]>();
  for (const r of results)
    chains.set(`${r.replicate} ${r.rewind}`, [...(chains.get(`${r.replicate} ${r.rewind}`) ?? []), r]);
  if (chains.size < recipe.replicates * recipe.rewind.length) return false;
  return [...chains.values()].every((chain) => {
    const end = Math.min(
      recipe.pruning.levels,
      ...chain.filter((r) => r.branch === 'imp' && r.diverged).map((r) => r.level),
    );
    const has = (branch: string, level: number) =>
      chain.some((r) => r.branch === branch && r.level === level);
    if (!has('imp', 0)) return false;
    return ['imp', ...recipe.controls].every((branch) =>
      Array.from({ length: end }, (_, i) => i + 1).every((level) => has(branch, level)),
    );
  });
}
