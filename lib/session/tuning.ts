import type { ProductCosts, Tuning } from '../native/AddonTypes.js';
import { checkInteger, checkNumber, LthError, wrongValue } from '../native/errors.js';
import { loadAddon } from '../native/load.js';

/** Parts of a table, and costs of each. */
export const tuningParts = ['fp32', 'bf16', 'linear', 'wide'] as const;
export const costNames = [
  'entryOfRun',
  'entryOfPlace',
  'gradientOfVector',
  'gradientOfBand',
  'splitOfVector',
] as const;

const MOST_COST = 1e6;
/** Of a measurement: fewer would round to other steps of the grid more often. */
const ROUNDS = 9;

/** A table that others made, without anything else that is in it. @throws LthError "invalid-argument". */
export function checkTuning(value: unknown): Tuning {
  if (typeof value !== 'object' || value === null) throw wrongValue('a table', 'tuning', value);
  const partOf = (part: (typeof tuningParts)[number]): ProductCosts => {
    const costs: unknown = Reflect.get(value, part);
    if (typeof costs !== 'object' || costs === null) throw wrongValue('costs', `tuning.${part}`, costs);
    const of = (name: keyof ProductCosts) =>
      checkNumber(Reflect.get(costs, name), `tuning.${part}.${name}`, 0, MOST_COST);
    return {
      entryOfRun: of('entryOfRun'),
      entryOfPlace: of('entryOfPlace'),
      gradientOfVector: of('gradientOfVector'),
      gradientOfBand: of('gradientOfBand'),
      splitOfVector: of('splitOfVector'),
    };
  };
  const [fp32, bf16, linear] = [partOf('fp32'), partOf('bf16'), partOf('linear')];
  // Tables from before wide layers had costs of their own.
  const wide = Reflect.get(value, 'wide') === undefined ? linear : partOf('wide');
  return { fp32, bf16, linear, wide };
}

/** The table of sessions and runs that are given none. */
export function builtinTuning(): Tuning {
  return loadAddon().tuningBuiltin();
}

/** 16 hexadecimal digits, a table's word in fingerprints; null for the built-in one. @throws LthError "invalid-argument". */
export function tuningName(tuning: Tuning): string | null {
  return loadAddon().tuningName(checkTuning(tuning));
}

/**
 * Measures what sparse products cost beside dense ones on this machine, with the instruction set in use: some seconds on a
 * native thread of its own. Costs are rounded to steps of 2^(1/4): a machine that is measured twice has the same ones, or a
 * few that are a step apart, which make another table. Aborting throws the signal's reason.
 * @param options.threads slices of a batch that are worked on at a time. Default 1.
 * @throws LthError "invalid-argument".
 */
export async function measureTuning(
  options: { threads?: number; signal?: AbortSignal } = {},
): Promise<Tuning> {
  const { signal } = options;
  const threads = checkInteger(options.threads ?? 1, 'threads', 1, 1024);
  signal?.throwIfAborted();
  const addon = loadAddon();
  const { run, end } = addon.tuningMeasure(threads, ROUNDS);
  const abort = () => addon.runAbort(run);
  signal?.addEventListener('abort', abort);
  try {
    const tuning = await end;
    if (!tuning) {
      signal?.throwIfAborted();
      throw new LthError('disposed', 'The measurement was stopped with all else that was going on');
    }
    return tuning;
  } finally {
    signal?.removeEventListener('abort', abort);
    addon.dispose(run);
  }
}
