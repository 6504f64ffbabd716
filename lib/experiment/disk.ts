import type { NetworkSummary } from '../native/AddonTypes.js';
import type { Recipe } from '../recipe/Recipe.js';
import type { Plan, Unit } from './plan.js';
import { isPassing, type Keep } from './retention.js';

/** JSON, headers of safetensors and Arrow files. */
const OVERHEAD = 6_000;
/** Bytes of one row in metrics.arrow and times.arrow. */
const ROW = 51;

type Counts = NetworkSummary['counts'];

function stateBytes(recipe: Recipe, counts: Counts): { weights: number; withOptimiser: number } {
  const { optimiser, precision, average } = recipe.training;
  const momentum = optimiser.type !== 'adam' && optimiser.momentum > 0 ? 1 : 0;
  const states = { sgd: momentum, adam: 2, rmsprop: 1 + momentum }[optimiser.type];
  const one = counts.parameters * (precision === 'fp64' ? 8 : 4);
  const weights = one * (average ? 2 : 1);
  return { weights, withOptimiser: weights + one * states };
}

/** Bytes that a finished unit takes on disk, within a few per cent. */
export function unitBytes(unit: Unit, plan: Plan, recipe: Recipe, counts: Counts, keep: Keep): number {
  if (unit.kind === 'prune') return counts.prunable + OVERHEAD;
  if (unit.kind === 'distance' || unit.kind === 'interpolation') return OVERHEAD;
  const { metricsEvery, evaluateEvery } = plan.steps;
  const rows =
    unit.updates * ((metricsEvery ? 1 / metricsEvery : 0) + (evaluateEvery ? 2 / evaluateEvery : 0)) + 3;
  const ownMasks = unit.kind === 'train' && unit.rule.shuffled ? counts.prunable : 0;
  const { weights, withOptimiser } = stateBytes(recipe, counts);
  const rewindPoint = unit.kind === 'dense' && !unit.last;
  const snapshot = keep === 'needed' && isPassing(unit, plan) ? 0 : rewindPoint ? withOptimiser : weights;
  return snapshot + ownMasks + rows * ROW + OVERHEAD;
}

/**
 * Bytes that a plan takes on disk, within a few per cent: when all is done, and at most while `trainings` are going on
 * side by side, each with two checkpoints, a third that is being written, and weights that are about to go.
 */
export function diskBytes(
  plan: Plan,
  recipe: Recipe,
  counts: Counts,
  how: { keep: Keep; trainings: number },
): { bytes: number; peakBytes: number } {
  const bytes = plan.units.reduce((sum, unit) => sum + unitBytes(unit, plan, recipe, counts, how.keep), 0);
  const { weights, withOptimiser } = stateBytes(recipe, counts);
  const passing = how.keep === 'needed' ? 2 * weights : 0;
  return { bytes, peakBytes: bytes + how.trainings * (3 * withOptimiser + passing) };
}
