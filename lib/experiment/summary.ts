import { LthError } from '../native/errors.js';
import { branchNames } from '../recipe/branches.js';
import type { Recipe } from '../recipe/Recipe.js';
import type { RunFolder } from '../store/RunFolder.js';
import type { UnitRecord } from '../store/records.js';
import type {
  ConnectivityResult,
  Problem,
  Result,
  RunSummary,
  StabilityResult,
  UnitCounts,
} from './Result.js';
import { distinctPictures } from './replacements.js';
import { type Survey, survey } from './survey.js';

/** A unit's results: the dense run is level 0 of every rewind point and of the recipe's method. */
export function resultsOf(record: UnitRecord, rewinds: number[], method: Result['method']): Result[] {
  const { result } = record;
  if (!result) return [];
  if (record.rewind !== null && record.method !== null)
    return [{ ...result, rewind: record.rewind, method: record.method }];
  return rewinds.map((rewind) => ({ ...result, rewind, method }));
}

/** rewind, level, kind, branch, replicate, noises, scope. */
function byPlace(a: StabilityResult | ConnectivityResult, b: typeof a): number {
  const word = (one: typeof a, what: 'kind' | 'scope') => String(Reflect.get(one, what) ?? '');
  return (
    a.method.localeCompare(b.method) ||
    a.rewind - b.rewind ||
    a.level - b.level ||
    word(a, 'kind').localeCompare(word(b, 'kind')) ||
    a.branch.localeCompare(b.branch) ||
    a.replicate - b.replicate ||
    a.noises[0] - b.noises[0] ||
    a.noises[1] - b.noises[1] ||
    word(a, 'scope').localeCompare(word(b, 'scope'))
  );
}

/** Every record of the folder that can be read, of units that the recipe does not ask for as well. */
async function recordsOf(folder: RunFolder): Promise<UnitRecord[]> {
  const records: UnitRecord[] = [];
  for (const id of await folder.ids()) {
    try {
      const record = await folder.record(id);
      if (record) records.push(record);
    } catch (error) {
      // The survey tells of it.
      if (!(error instanceof LthError) || error.code !== 'corrupt-file') throw error;
    }
  }
  return records;
}

export function countsOf({ units }: Survey): UnitCounts {
  const counts: UnitCounts = {
    total: units.length,
    done: 0,
    running: 0,
    waiting: 0,
    failed: 0,
    impossible: 0,
    damaged: 0,
  };
  for (const { state } of units) counts[state]++;
  return counts;
}

export function problemsOf({ units }: Survey): Problem[] {
  return units.flatMap(({ unit: { id, label }, state, message }): Problem[] =>
    state === 'failed' || state === 'damaged' ? [{ id, label, state, message: message ?? '' }] : [],
  );
}

/**
 * What a run folder holds, also while the run is going on elsewhere; results in the order method, rewind, replicate,
 * level, branch.
 * @param asked what completeness is judged by; default: what all commands on the folder asked for together.
 * @throws LthError "io" where there is no run, "corrupt-file" for a damaged experiment.json or recipe.yaml.
 */
export async function summarise(path: string, asked?: Recipe): Promise<RunSummary> {
  const found = await survey(path, asked);
  const { folder, recipe, plan } = found;
  const records = await recordsOf(folder);
  const others = records.flatMap((record) => (record.rewind === null ? [] : [record.rewind]));
  const rewinds = [...new Set([...plan.steps.rewind, ...others])];
  const results = records.flatMap((record) => resultsOf(record, rewinds, recipe.pruning.method));
  results.sort(
    (a, b) =>
      a.method.localeCompare(b.method) ||
      a.rewind - b.rewind ||
      a.replicate - b.replicate ||
      a.level - b.level ||
      branchNames.indexOf(a.branch) - branchNames.indexOf(b.branch),
  );
  const units = countsOf(found);
  return {
    run: path,
    recipe: recipe.name,
    complete: units.done + units.impossible === units.total,
    units,
    problems: problemsOf(found),
    replacedPictures: distinctPictures(records.flatMap((record) => record.replacedPictures ?? [])),
    fingerprints: [...new Set(records.flatMap((record) => record.fingerprints))],
    paper: recipe.paper,
    results,
    stability: records.flatMap((record) => record.stability ?? []).sort(byPlace),
    connectivity: records.flatMap((record) => record.connectivity ?? []).sort(byPlace),
  };
}
