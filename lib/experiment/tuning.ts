import { existsSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cacheFolder } from '../data/folders.js';
import { ioError, makeFolder, sealOfValue } from '../files.js';
import type { LockHandle, Tuning } from '../native/AddonTypes.js';
import { LthError } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import type { Recipe } from '../recipe/Recipe.js';
import { builtinTuning, costNames, measureTuning, tuningParts } from '../session/tuning.js';
import { RunFolder } from '../store/RunFolder.js';
import type { TuningRecord } from '../store/records.js';
import { readTuning, writeTuning } from '../store/tuningFile.js';

/** What a table is about. */
export type Machine = NonNullable<TuningRecord['machine']>;

export function thisMachine(): Machine {
  const { isa, kernels } = loadAddon().info();
  return { cpu: cpus()[0]?.model.trim() || 'unknown', isa, kernels };
}

/** Where this machine's table is kept, with these kernels and the instruction set in use. */
export function machineTuningPath(): string {
  // A table with fewer parts than there are now was measured by an older version, and is measured again.
  return join(cacheFolder(), 'tuning', `${sealOfValue({ ...thisMachine(), tuningParts }).slice(0, 16)}.json`);
}

/** This machine's table, or null before it was measured. @throws LthError "corrupt-file". */
export async function machineTuning(): Promise<Tuning | null> {
  const path = machineTuningPath();
  if (!existsSync(path)) return null;
  const cure = '`lth-train tune` measures this machine again and puts its table there';
  const { machine, tuning } = await readTuning(path, cure);
  if (sealOfValue(machine) !== sealOfValue(thisMachine()))
    throw new LthError('corrupt-file', `${path}: is of another machine, ${machine?.cpu ?? 'none'}. ${cure}`);
  return tuning;
}

/** Seconds that a measurement takes, for people: it is said before. */
export const MEASURE_SECONDS = 7;
/** Steps of 2^(1/4), and a little for the rounding to three digits. */
const ONE_STEP = 2 ** 0.25 * 1.01;

interface Asked {
  signal?: AbortSignal | undefined;
  /** What is going on, for people. */
  onNotice: (message: string) => void;
}

/** Is no cost more than a step of the measurement's grid away from the other table's? */
function nearlySame(a: Tuning, b: Tuning): boolean {
  return tuningParts.every((part) =>
    costNames.every((name) => {
      const [x, y] = [a[part][name], b[part][name]];
      return x === y || (x <= y * ONE_STEP && y <= x * ONE_STEP);
    }),
  );
}

/**
 * Measures this machine and puts its table where runs look for it. A table that is there already stays where the new one is
 * within a step of the grid of it: measuring again does not change bits without a reason.
 * @returns the table that is there now; `replaced`: what was wrong with one that could not be read.
 * @throws LthError "io"; the signal's reason.
 */
export async function tuneMachine(
  options: Asked & { threads?: number },
): Promise<{ path: string; tuning: Tuning; kept: boolean; replaced: string | null }> {
  const lock = await lockCache(options);
  try {
    options.onNotice(`measuring for about ${MEASURE_SECONDS} seconds`);
    return await keepMeasured(await measureTuning(options));
  } finally {
    loadAddon().dispose(lock);
  }
}

async function keepMeasured(measured: Tuning): ReturnType<typeof tuneMachine> {
  const path = machineTuningPath();
  let before: Tuning | null = null;
  let replaced: string | null = null;
  try {
    before = await machineTuning();
  } catch (error) {
    if (!(error instanceof LthError) || error.code !== 'corrupt-file') throw error;
    replaced = error.message;
  }
  if (before && nearlySame(before, measured)) return { path, tuning: before, kept: true, replaced };
  await writeTuning(path, measured, thisMachine());
  return { path, tuning: measured, kept: false, replaced };
}

async function makeCache(): Promise<string> {
  const folder = join(cacheFolder(), 'tuning');
  try {
    await makeFolder(folder);
  } catch (cause) {
    throw ioError(folder, cause);
  }
  return folder;
}

const isIo = (error: unknown): error is LthError => error instanceof LthError && error.code === 'io';

/**
 * The lock of the cache's tables: two measurements side by side would have figures of each other. It is waited for.
 * @throws LthError "io"; the signal's reason.
 */
async function lockCache({ signal, onNotice }: Asked): Promise<LockHandle> {
  const folder = await makeCache();
  for (let first = true; ; first = false) {
    signal?.throwIfAborted();
    const lock = loadAddon().lockTry(join(folder, '.lock'));
    if (lock) return lock;
    if (first) onNotice('another process measures this machine, waiting for it');
    await sleep(50);
  }
}

/** The measurement for a file of the user's, which needs no cache of tables. @throws the signal's reason. */
export async function measureAlone(options: Asked & { threads?: number }): Promise<Tuning> {
  const lock = await lockCache(options).catch((error) => {
    if (!isIo(error)) throw error;
    return null;
  });
  try {
    options.onNotice(`measuring for about ${MEASURE_SECONDS} seconds`);
    return await measureTuning(options);
  } finally {
    if (lock) loadAddon().dispose(lock);
  }
}

/** This machine's table, measured first where there is none; of several processes that want one, one measures. */
async function machineTuningOrMeasure({ signal, onNotice }: Asked): Promise<Tuning> {
  const there = await machineTuning();
  if (there) return there;
  let lock: LockHandle | null = null;
  // A home that cannot be written to is normal on a cluster, and the run keeps its own copy.
  let notKept: string | null = null;
  try {
    try {
      lock = await lockCache({ signal, onNotice });
    } catch (error) {
      if (!isIo(error)) throw error;
      notKept = error.message;
    }
    const meanwhile = await machineTuning();
    if (meanwhile) return meanwhile;
    onNotice(
      `measuring once what sparse products cost on this machine: about ${MEASURE_SECONDS} seconds (\`lth-train tune\` does it again)`,
    );
    const tuning = await measureTuning({ ...(signal && { signal }) });
    try {
      if (notKept === null) await writeTuning(machineTuningPath(), tuning, thisMachine());
    } catch (error) {
      if (!isIo(error)) throw error;
      notKept = error.message;
    }
    if (notKept !== null) onNotice(`this machine's table is in the run folder alone: ${notKept}`);
    return tuning;
  } finally {
    if (lock) loadAddon().dispose(lock);
  }
}

/** Do bits of the recipe's trainings depend on a table? */
export function dependsOnTuning({ device, kernels, training }: Recipe): boolean {
  const { executor, precision } = training;
  return device === 'cpu' && kernels === 'auto' && executor === 'direct' && precision !== 'fp64';
}

/** A table by its name: "builtin", or a file of `lth-train tune` or of a run. @throws LthError "io", "corrupt-file". */
export async function tuningByName(name: string, where = '--tuning'): Promise<Tuning> {
  if (name === 'builtin') return builtinTuning();
  try {
    return (await readTuning(name)).tuning;
  } catch (cause) {
    if (!(cause instanceof LthError)) throw cause;
    const words = `${where} takes builtin or a file of \`lth-train tune --out\`: ${cause.message}`;
    throw new LthError(cause.code, words, { cause });
  }
}

/**
 * The table of a run: what is asked for; else the one in its folder, which is the built-in one where a run has begun there
 * and has none, also where one of its records is missing; else `tuningForMachine`, also where the folder's cannot be read and
 * other bits are allowed.
 * @throws LthError "io", "corrupt-file"; the signal's reason.
 */
export async function tuningForRun(
  recipe: Recipe,
  out: string,
  how: Asked & { asked?: Tuning | undefined; allowDifferentBits: boolean },
): Promise<Tuning> {
  if (!dependsOnTuning(recipe)) return builtinTuning();
  if (how.asked) return how.asked;
  try {
    const there = await RunFolder.tuningIn(out);
    if (there) return there;
    if (RunFolder.begun(out)) return builtinTuning();
  } catch (error) {
    if (!how.allowDifferentBits || !(error instanceof LthError) || error.code !== 'corrupt-file') throw error;
    how.onNotice(`going on by the table that a new run would have: ${error.message}`);
  }
  return tuningForMachine(how.signal, how.onNotice);
}

/**
 * What LTH_TUNING names; else this machine's table, measured first where there is none.
 * @throws LthError "io", "corrupt-file"; the signal's reason.
 */
export async function tuningForMachine(
  signal: AbortSignal | undefined,
  onNotice: (message: string) => void,
): Promise<Tuning> {
  const named = process.env.LTH_TUNING;
  return named ? tuningByName(named, 'LTH_TUNING') : machineTuningOrMeasure({ signal, onNotice });
}
