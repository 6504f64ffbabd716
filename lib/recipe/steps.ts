import { LthError } from '../native/errors.js';

/** What a step count is counted against. `total` is needed for percentages, `updatesPerEpoch` for epochs. */
export interface StepScale {
  updatesPerEpoch: number;
  total?: number;
}

const GRAMMAR = 'expected updates as 500it, 2ep, 2ep50it, 1.7% or a whole number';

/**
 * A number of updates from what people write: `500it`, `2ep`, `2ep50it`, `1.7%` (of the training, rounded to the
 * nearest update) or `500`.
 * @throws LthError "recipe" naming the field.
 */
export function toUpdates(text: string, name: string, scale: StepScale): number {
  const fail = (why: string) => new LthError('recipe', `${name}: ${why} but received "${text}"`);
  const percent = /^(\d+(?:\.\d+)?)%$/.exec(text);
  if (percent) {
    if (scale.total === undefined)
      throw fail('a percentage of itself makes no sense; expected 500it, 2ep or 2ep50it');
    if (Number(percent[1]) > 100) throw fail('expected at most 100%');
    return Math.round((Number(percent[1]) / 100) * scale.total);
  }
  const match = /^(?:(\d+)ep)?(?:(\d+)(?:it)?)?$/.exec(text);
  if (!match || text === '' || (match[1] !== undefined && match[2] !== undefined && !text.endsWith('it')))
    throw fail(GRAMMAR);
  const updates = Number(match[1] ?? 0) * scale.updatesPerEpoch + Number(match[2] ?? 0);
  if (updates > 2 ** 31 - 1) throw fail(`expected at most ${2 ** 31 - 1} updates`);
  return updates;
}

/** Does the text follow the grammar? Whether the number makes sense is for `toUpdates`. */
export function isSteps(text: string): boolean {
  try {
    toUpdates(text, '', { updatesPerEpoch: 1, total: 1 });
    return true;
  } catch {
    return false;
  }
}
