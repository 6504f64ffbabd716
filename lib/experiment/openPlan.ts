import type { Tuning } from '../native/AddonTypes.js';
import { LthError } from '../native/errors.js';
import { networkByName } from '../networks/catalogue.js';
import { resolveNetwork } from '../networks/validate.js';
import { didYouMean } from '../recipe/nearest.js';
import type { Recipe } from '../recipe/Recipe.js';
import type { CompiledNetwork } from '../session/CompiledNetwork.js';
import { type Experiment, experimentOf, type Plan, planUnits, resolveSteps } from './plan.js';
import { remainingAfter } from './pruneByScores.js';
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
    checkPruning(recipe, workplace.network);
    workplace.tuning = typeof tuning === 'function' ? await tuning() : tuning;
    const session = await workplace.openSession(0, 1).catch((error) => {
      throw asRecipeError(recipe, error);
    });
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

/** A network that does not fit the data is a mistake in the recipe; one that does not fit the memory may fit in parts. */
function asRecipeError({ network, data }: Recipe, error: unknown): unknown {
  if (!(error instanceof LthError)) return error;
  if (error.message.startsWith('[memory]'))
    return new LthError(
      error.code,
      `${error.message}. --set training.microBatch=N, which takes a batch through the network N examples at a time, wants less`,
      { cause: error },
    );
  if (error.code !== 'wrong-shape') return error;
  if (!error.message.startsWith('[session] network'))
    return new LthError('recipe', error.message.replace('[session] ', ''), { cause: error });
  const hint =
    typeof network === 'string' && data.crop
      ? '. Pictures become what data.crop says, and network=NAME-sSIZE-cCLASSES, e.g. resnet18-s64-c10, is for such'
      : '';
  return new LthError('recipe', `network: ${error.message}${hint}`, { cause: error });
}

function checkPruning({ pruning }: Recipe, network: CompiledNetwork): void {
  const { parameters } = network.summary;
  const prunable = parameters.filter((parameter) => parameter.prunable).map((parameter) => parameter.name);
  if (prunable.length === 0 && pruning.levels > 0) {
    throw new LthError('recipe', 'pruning.levels: the network has nothing prunable; expected 0');
  }
  for (const name of Object.keys(pruning.rates)) {
    if (prunable.includes(name)) continue;
    throw new LthError(
      'recipe',
      `pruning.rates: the network has no prunable parameter "${name}".${didYouMean(name, prunable)}` +
        ` Prunable: ${prunable.join(', ') || 'none'}.`,
    );
  }
}

/**
 * What a new run cannot mean, and one of before may: it goes on.
 * @throws LthError "recipe".
 */
export function checkNewRun({ training: { batch }, pruning }: Recipe, workplace: Workplace): void {
  const examples = workplace.trainExamples;
  if (batch > examples)
    throw new LthError(
      'recipe',
      `training.batch: expected at most the ${examples} examples that are trained on but received ${batch}`,
    );
  const left = (levels: number) => remainingAfter(workplace.network, pruning, levels);
  /** Does the level prune something? Where one does not, none after it does. */
  const prunes = (level: number) => left(level) < left(level - 1);
  if (pruning.levels === 0 || prunes(pruning.levels)) return;
  let [most, idle] = [0, pruning.levels];
  while (idle - most > 1) {
    const middle = Math.floor((most + idle) / 2);
    if (prunes(middle)) most = middle;
    else idle = middle;
  }
  throw new LthError(
    'recipe',
    `pruning.levels: expected at most ${most} but received ${pruning.levels}: from level ${idle} on nothing is pruned (weights left: ${left(most)})`,
  );
}
