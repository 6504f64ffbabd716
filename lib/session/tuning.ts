import type { ProductCosts, Tuning } from '../native/AddonTypes.js';
import { checkInteger, checkNumber, LthError, wrongValue } from '../native/errors.js';
import { loadAddon } from '../native/load.js';

type Part = keyof Tuning;
type Cost = keyof ProductCosts;

/** The parts of a table: of one that older tables lack, the part whose costs its products had there. */
const parts = { fp32: null, bf16: null, linear: null, wide: 'linear' } as const satisfies Record<
  Part,
  Part | null
>;
const costs = {
  entryOfRun: true,
  entryOfPlace: true,
  gradientOfVector: true,
  gradientOfBand: true,
  splitOfVector: true,
} as const satisfies Record<Cost, true>;

/** Parts of a table, and costs of each. */
export const tuningParts = Object.keys(parts) as Part[];
export const costNames = Object.keys(costs) as Cost[];

export function ofEach<K extends string, V>(keys: K[], value: (key: K) => V): Record<K, V> {
  return Object.fromEntries(keys.map((key) => [key, value(key)])) as Record<K, V>;
}

/** May a table lack the part? */
export const isNewer = (part: Part): boolean => parts[part] !== null;

/** A table with the parts that it lacks. */
export function completeTuning<C>(table: Partial<Record<Part, C | undefined>>): Record<Part, C> {
  return ofEach(tuningParts, (part) => table[part] ?? (table[parts[part] ?? part] as C));
}

const MOST_COST = 1e6;
/** Of a measurement: fewer would round to other steps of the grid more often. */
const ROUNDS = 9;

/** A table that others made, without anything else that is in it. @throws LthError "invalid-argument". */
export function checkTuning(value: unknown): Tuning {
  if (typeof value !== 'object' || value === null) throw wrongValue('a table', 'tuning', value);
  const partOf = (part: Part): ProductCosts | undefined => {
    const given: unknown = Reflect.get(value, part);
    if (given === undefined && isNewer(part)) return undefined;
    if (typeof given !== 'object' || given === null) throw wrongValue('costs', `tuning.${part}`, given);
    return ofEach(costNames, (name) =>
      checkNumber(Reflect.get(given, name), `tuning.${part}.${name}`, 0, MOST_COST),
    );
  };
  return completeTuning(ofEach(tuningParts, partOf));
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
