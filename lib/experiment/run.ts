import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import type { ParameterInfo } from '../native/AddonTypes.js';
import { checkInteger, LthError } from '../native/errors.js';
import { networkByName } from '../networks/catalogue.js';
import { resolveNetwork } from '../networks/validate.js';
import { didYouMean } from '../recipe/nearest.js';
import type { Recipe } from '../recipe/Recipe.js';
import { parseRecipe } from '../recipe/schema.js';
import { RunFolder } from '../store/RunFolder.js';
import type { ExperimentEvent } from './Event.js';
import { type Experiment, experimentOf, type Plan, planUnits, resolveSteps } from './plan.js';
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
  asked: Recipe,
  options: RunOptions,
): Promise<RunSummary & { stopped: boolean }> {
  // A recipe made in JavaScript is checked as one in a file is; its folder may be read from another place later.
  const recipe = parseRecipe(asked, 'recipe');
  if (recipe.data.folder) recipe.data.folder = resolve(recipe.data.folder);
  const threads = checkInteger(options.threads ?? availableParallelism(), 'threads', 1, 1024);
  // Everything that can be wrong with the recipe is found before the folder is touched.
  const workplace = await Workplace.open(recipe);
  try {
    const { plan, experiment } = await planOf(recipe, workplace);
    workplace.folder = await RunFolder.create(options.out, recipe, experiment);
    await runPlan(plan, workplace, {
      threads,
      fingerprint: experiment.fingerprint,
      signal: options.signal,
      onEvent: options.onEvent ?? (() => {}),
    });
  } finally {
    workplace.dispose();
  }
  const summary = await summarise(options.out, recipe);
  return { ...summary, stopped: options.signal?.aborted === true && !summary.complete };
}

async function planOf(recipe: Recipe, workplace: Workplace): Promise<{ plan: Plan; experiment: Experiment }> {
  checkPruning(recipe, workplace.network.summary.parameters);
  const session = await workplace.openSession(0, 1);
  const { updatesPerEpoch, fingerprint } = session.info;
  session.dispose();
  const network = resolveNetwork(
    typeof recipe.network === 'string' ? networkByName(recipe.network) : recipe.network,
  );
  const steps = resolveSteps(recipe, updatesPerEpoch);
  const experiment = experimentOf(recipe, steps, { network, data: workplace.dataFigures, fingerprint });
  return { plan: planUnits(recipe, steps, experiment), experiment };
}

function checkPruning(recipe: Recipe, parameters: ParameterInfo[]): void {
  const prunable = parameters.filter((parameter) => parameter.prunable).map((parameter) => parameter.name);
  if (prunable.length === 0 && recipe.pruning.levels > 0) {
    throw new LthError('recipe', 'pruning.levels: the network has nothing prunable; expected 0');
  }
  for (const name of Object.keys(recipe.pruning.rates)) {
    if (prunable.includes(name)) continue;
    throw new LthError(
      'recipe',
      `pruning.rates: the network has no prunable parameter "${name}".${didYouMean(name, prunable)}` +
        ` Prunable: ${prunable.join(', ') || 'none'}.`,
    );
  }
}
