import type { NetworkSummary } from '../native/AddonTypes.js';
import type { Recipe } from '../recipe/Recipe.js';
import type { Plan, Unit } from './plan.js';
import { isPassing, type Keep } from './retention.js';

/** JSON, headers of safetensors and Arrow files, file system blocks. */
const OVERHEAD = 20_000;
/** Bytes of one row in metrics.arrow and times.arrow. */
const ROW = 51;

/**
 * Bytes that a plan takes on disk, within a few per cent: when all is done, and at most while `trainings` are going on
 * side by side, each with two checkpoints and a third that is being written.
 */
export function diskBytes(
  plan: Plan,
  recipe: Recipe,
  counts: NetworkSummary['counts'],
  how: { keep: Keep; trainings: number },
): { bytes: number; peakBytes: number } {
  const element = recipe.training.precision === 'fp64' ? 8 : 4;
  const { optimiser } = recipe.training;
  const states = optimiser.type === 'adam' ? 2 : optimiser.momentum > 0 ? 1 : 0;
  const weights = counts.parameters * element;
  const { metricsEvery, evaluateEvery } = plan.steps;
  const rowsPerUpdate = (metricsEvery ? 1 / metricsEvery : 0) + (evaluateEvery ? 2 / evaluateEvery : 0);
  const fixed = (unit: Unit) => {
    if (unit.kind === 'prune') return counts.prunable;
    const ownMasks = unit.kind === 'train' && unit.branch === 'random' ? counts.prunable : 0;
    return unit.updates * rowsPerUpdate * ROW + ownMasks;
  };
  let bytes = 0;
  let passing = 0;
  for (const unit of plan.units) {
    bytes += fixed(unit) + OVERHEAD;
    if (unit.kind === 'prune') continue;
    const rewindPoint = unit.kind === 'dense' && !unit.last;
    const snapshot = weights * (rewindPoint ? 1 + states : 1);
    if (how.keep === 'needed' && isPassing(unit, plan)) passing = Math.max(passing, snapshot);
    else bytes += snapshot;
  }
  // A chain's weights go as soon as the next level's masks are made: one set for each training at a time.
  const going = how.trainings * (3 * weights * (1 + states) + 2 * passing);
  return { bytes, peakBytes: bytes + going };
}
