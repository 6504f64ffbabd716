import type { ParameterInfo, Tuning } from '../native/AddonTypes.js';
import { LthError } from '../native/errors.js';
import { networkByName } from '../networks/catalogue.js';
import { resolveNetwork } from '../networks/validate.js';
import { didYouMean } from '../recipe/nearest.js';
import type { Recipe } from '../recipe/Recipe.js';
import { type Experiment, experimentOf, type Plan, planUnits, resolveSteps } from './plan.js';
import { Workplace } from './Workplace.js';

/**
 * Opens a recipe's network and data and plans its units; nothing is written. The caller disposes of the workplace.
 * @param tuning by which products are chosen, a matter of bits alone; null: the built-in table. A function is asked when
 *   network and data are there: a measurement is not for a recipe that cannot run.
 * @throws LthError "recipe", "io", "corrupt-file", "no-cuda".
 */
export async function openPlan(
  recipe: Recipe,
  tuning: Tuning | null | (() => Promise<Tuning>) = null,
): Promise<{ workplace: Workplace; plan: Plan; experiment: Experiment }> {
  const workplace = await Workplace.open(recipe);
  try {
    checkPruning(recipe, workplace.network.summary.parameters);
    workplace.tuning = typeof tuning === 'function' ? await tuning() : tuning;
    const session = await workplace.openSession(0, 1);
    const { updatesPerEpoch, fingerprint } = session.info;
    session.dispose();
    const network = resolveNetwork(
      typeof recipe.network === 'string' ? networkByName(recipe.network) : recipe.network,
    );
    const steps = resolveSteps(recipe, updatesPerEpoch);
    const experiment = experimentOf(recipe, steps, { network, data: workplace.dataFigures, fingerprint });
    return { workplace, plan: planUnits(recipe, steps, experiment), experiment };
  } catch (error) {
    workplace.dispose();
    throw error;
  }
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
