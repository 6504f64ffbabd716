import type { Plan, TrainUnit, Unit } from './plan.js';

/**
 * Which final weights stay on disk. "all": every unit's. "needed": those of rewind points, of the dense training and
 * of the last level of iterative IMP and of whatever else iterates, from which everything that a later command may add
 * (levels, rewind points, controls) can start; those of the other controls and of the levels between go when nothing of
 * the plan reads them any more. Masks and metrics always stay, and so do copies: more orders, and lines between them,
 * start from those.
 */
export type Keep = 'all' | 'needed';

/** Do the unit's weights go, once all that needs them is done? */
export function isPassing(unit: Unit, plan: Plan): unit is TrainUnit {
  if (unit.kind !== 'train') return false;
  // One-shot levels all start from the dense training.
  return unit.rule.masks !== 'own' || unit.method === 'oneshot' || readersOf(unit, plan).length > 0;
}

function readersOf(unit: Unit, plan: Plan): Unit[] {
  return plan.units.filter((other) =>
    other.kind === 'prune' ? other.weights === unit.id : other.kind === 'train' && other.start === unit.id,
  );
}

/** Units whose weights nobody reads any more. */
export function removable(plan: Plan, isFinished: (id: string) => boolean): string[] {
  return plan.units
    .filter((unit) => isFinished(unit.id) && isPassing(unit, plan))
    .filter((unit) => readersOf(unit, plan).every((reader) => isFinished(reader.id)))
    .map((unit) => unit.id);
}
