import { availableParallelism } from 'node:os';
import { checkInteger } from '../native/errors.js';
import { networkByName } from '../networks/catalogue.js';
import { resolveNetwork } from '../networks/validate.js';
import type { Recipe } from '../recipe/Recipe.js';
import { RunFolder } from '../store/RunFolder.js';
import type { ExperimentEvent } from './Event.js';
import { planUnits, resolveSteps } from './plan.js';
import type { RunSummary } from './Result.js';
import { runPlan } from './scheduler.js';
import { summarise } from './summary.js';
import { Workplace } from './Workplace.js';

export interface RunOptions {
  /** The run folder; created if missing. Finished units in it are not done again. */
  out: string;
  /** Default: all cores. Never changes a bit of the results. */
  threads?: number;
  /** Stops after the step at hand; finished units stay. */
  signal?: AbortSignal;
  onEvent?: (event: ExperimentEvent) => void;
}

/**
 * Runs an experiment: IMP with rewinding and its controls, for all replicates and rewind points of the recipe.
 * @returns the results so far; `stopped` where the signal ended it before all was done.
 * @throws LthError "recipe", "io", "corrupt-file", "other-experiment", "no-cuda".
 */
export async function runExperiment(
  recipe: Recipe,
  options: RunOptions,
): Promise<RunSummary & { stopped: boolean }> {
  const threads = checkInteger(options.threads ?? availableParallelism(), 'threads', 1, 1024);
  // Everything that can be wrong with the recipe is found before the folder is touched.
  const workplace = await Workplace.open(recipe);
  try {
    const { plan, fingerprint } = planOf(recipe, workplace);
    workplace.folder = await RunFolder.create(options.out, recipe);
    await runPlan(plan, workplace, {
      threads,
      fingerprint,
      signal: options.signal,
      onEvent: options.onEvent ?? (() => {}),
    });
  } finally {
    workplace.dispose();
  }
  const summary = await summarise(options.out);
  return { ...summary, stopped: options.signal?.aborted === true && !summary.complete };
}

function planOf(recipe: Recipe, workplace: Workplace) {
  const session = workplace.openSession(0, 1);
  const { updatesPerEpoch, fingerprint } = session.info;
  session.dispose();
  const network = resolveNetwork(
    typeof recipe.network === 'string' ? networkByName(recipe.network) : recipe.network,
  );
  const steps = resolveSteps(recipe, updatesPerEpoch);
  return {
    plan: planUnits(recipe, steps, { network, data: workplace.dataFigures, fingerprint }),
    fingerprint,
  };
}
