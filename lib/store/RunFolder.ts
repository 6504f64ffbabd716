import { existsSync, readdirSync } from 'node:fs';
import { readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { damage, ioError, makeFolder, readRecord, removeTemporaries, sealOf, writeRecord } from '../files.js';
import type { LockHandle, Tuning } from '../native/AddonTypes.js';
import { LthError } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { toYaml } from '../recipe/load.js';
import type { Recipe } from '../recipe/Recipe.js';
import { parseRecipe } from '../recipe/schema.js';
import { tuningName } from '../session/tuning.js';
import { isCheckpointFile, removeCheckpoints } from './Checkpoints.js';
import { pulseFile } from './Heartbeat.js';
import {
  type Analysis,
  type FailureRecord,
  FORMAT,
  failureRecord,
  parseRecord,
  type Request,
  requestsRecord,
  type UnitRecord,
  unitRecord,
} from './records.js';
import { readTuning, writeTuning } from './tuningFile.js';

/** `training.batch is 60 there, 128 here`: the first place where two plain values differ, or null. */
function firstDifference(there: unknown, here: unknown, place = ''): string | null {
  if (typeof there === 'object' && typeof here === 'object' && there !== null && here !== null) {
    for (const key of new Set([...Object.keys(there), ...Object.keys(here)])) {
      const inner = place ? `${place}.${key}` : key;
      const found = firstDifference(Reflect.get(there, key), Reflect.get(here, key), inner);
      if (found) return found;
    }
    return null;
  }
  const show = (value: unknown) => (value === undefined ? 'not given' : JSON.stringify(value));
  return there === here ? null : `${place} is ${show(there)} there, ${show(here)} here`;
}

/** @throws LthError "corrupt-file" with what helps. */
async function readAs<T>(path: string, schema: z.ZodType<T>, cure: string): Promise<T> {
  try {
    return parseRecord(schema, await readRecord(path));
  } catch (cause) {
    if (cause instanceof LthError && cause.code === 'io') throw cause;
    const { message } = cause as Error;
    const words = cause instanceof LthError ? message : `${path}: ${message}`;
    throw new LthError('corrupt-file', `${words}. ${cure}`, { cause });
  }
}

const anyExperiment = z.looseObject({ format: z.literal(FORMAT), fingerprint: z.string() });
/** An analysis is of the run it is given: it has no other folder to go to. */
export const cureOfBits = (ofAnalysis: boolean) =>
  ofAnalysis
    ? 'Mix them with --allow-different-bits.'
    : 'Choose another folder with --out, or mix them with --allow-different-bits.';

const experimentCure =
  'Remove it and give the same `lth-train run` again: finished units tell by their keys that they belong to it.';

export interface CreateOptions {
  /** Take the folder although its results were made under another fingerprint. Default false. */
  allowDifferentBits?: boolean;
  /** How far this command goes. */
  request: Request;
  /** What this command asks of the subnetworks. Default: nothing. */
  analysis?: Analysis;
  /** By which products are chosen. Default: the built-in table. */
  tuning?: Tuning;
  /** The folder's lock, where the caller holds it (Beginning). */
  lock?: LockHandle;
}

/** Does the first request include all of the second? */
function includes(a: Request, b: Request): boolean {
  return (
    a.levels >= b.levels &&
    a.replicates >= b.replicates &&
    b.rewind.every((k) => a.rewind.includes(k)) &&
    b.controls.every((control) => a.controls.includes(control))
  );
}

/** The name of the table in a fingerprint; null where that is the built-in one or none. */
const tuningWord = (fingerprint: string) => / tuning=([0-9a-f]{16})\b/.exec(fingerprint)?.[1] ?? null;

/** In which of their words two fingerprints differ, and what may be why. */
function otherWords(there: string, here: string): string {
  const words = here.split(' ');
  const others = there.split(' ').filter((word) => !words.includes(word));
  const forced = process.env.LTH_ISA && others.some((word) => word.startsWith('isa='));
  return others.length > 0 ? ` (not ${others.join(' ')}${forced ? '; LTH_ISA is set' : ''})` : '';
}

const otherData = (difference: string) =>
  difference.startsWith('data.figures') ? ' (there are other examples, or classes, than there were)' : '';

/** A run on disk: recipe.yaml and one folder a unit. Files are whole or not there; finished units are never touched. */
export class RunFolder {
  /** Files whose checksums were found right. */
  private readonly checked = new Set<string>();

  private constructor(readonly path: string) {}

  /**
   * Opens or creates the folder for a recipe.
   * @param experiment plain values that all commands on this folder must agree in.
   * @throws LthError "io" without permission, "other-experiment" where the folder holds another one, "different-bits"
   *   where it is the same under another fingerprint.
   */
  static async create(
    path: string,
    recipe: Recipe,
    experiment: { fingerprint: string },
    options: CreateOptions,
  ): Promise<RunFolder> {
    const folder = new RunFolder(path);
    const lock = options.lock ?? (await folder.ownLock());
    try {
      await folder.makeIt();
      await removeTemporaries(path);
      folder.refuseForeignRecipe();
      await folder.claim(experiment, options);
      await folder.addRequest(recipe, options.request, options.analysis);
      await loadAddon().fileWrite(folder.recipePath, Buffer.from(toYaml(recipe)));
    } finally {
      if (!options.lock) loadAddon().dispose(lock);
    }
    return folder;
  }

  /** What a run writes as recipe.yaml must not take the place of someone's own. */
  private refuseForeignRecipe(): void {
    const ours = existsSync(this.requestsPath) || existsSync(join(this.path, 'experiment.json'));
    if (ours || !existsSync(this.recipePath)) return;
    throw new LthError(
      'other-experiment',
      `${this.recipePath} is not from a run, and this run would write its own there. Choose another folder with --out.`,
    );
  }

  private async makeIt(): Promise<void> {
    try {
      await makeFolder(join(this.path, 'units'));
    } catch (cause) {
      throw ioError(this.path, cause);
    }
  }

  /**
   * Held until the run is there, or for moments only, so that two commands that create one folder cannot both think that it
   * is theirs.
   */
  private async ownLock(): Promise<LockHandle> {
    const patience = Date.now() + 60_000;
    for (;;) {
      // Whoever began a run here and found that there will be none took the folder away.
      await this.makeIt();
      try {
        const lock = loadAddon().lockTry(join(this.path, '.lock'));
        if (lock) return lock;
      } catch (error) {
        // It may be at it now.
        if (existsSync(this.path)) throw error;
      }
      if (Date.now() > patience)
        throw new LthError('io', `${this.path}/.lock: another process has held it for a minute`);
      await sleep(20);
    }
  }

  private async addRequest(recipe: Recipe, request: Request, analysis?: Analysis): Promise<void> {
    const there = existsSync(this.requestsPath) ? await this.asked() : { requests: [], analyses: [] };
    const before = there.requests;
    const isNew = !before.some((one) => includes(one, request));
    const requests = isNew ? [...before.filter((one) => !includes(request, one)), request] : before;
    const known = analysis === undefined || there.analyses.some((one) => isDeepStrictEqual(one, analysis));
    const analyses = known ? there.analyses : [...there.analyses, analysis];
    await writeRecord(this.requestsPath, { format: FORMAT, requests, analyses, recipe });
  }

  private async claim(experiment: { fingerprint: string }, options: CreateOptions): Promise<void> {
    const path = join(this.path, 'experiment.json');
    const here = { format: FORMAT, ...JSON.parse(JSON.stringify(experiment)) };
    if (!existsSync(path)) {
      // The table first: an experiment that has one is never without it.
      await this.keepTuning(experiment.fingerprint, options.tuning);
      await writeRecord(path, here);
      return;
    }
    const there = await readAs(path, anyExperiment, experimentCure);
    const difference = firstDifference({ ...there, fingerprint: null }, { ...here, fingerprint: null });
    if (difference) {
      throw new LthError(
        'other-experiment',
        `${this.path} holds another experiment: ${difference}${otherData(difference)}. Choose another folder with --out.`,
      );
    }
    if (there.fingerprint !== here.fingerprint && !options.allowDifferentBits) {
      throw new LthError(
        'different-bits',
        `${this.path} was made under "${there.fingerprint}", and this is "${here.fingerprint}": its trainings would ` +
          `get other bits here${otherWords(there.fingerprint, here.fingerprint)}. ` +
          cureOfBits(options.analysis !== undefined),
      );
    }
    if (there.fingerprint === here.fingerprint && !existsSync(this.tuningPath))
      await this.keepTuning(here.fingerprint, options.tuning);
  }

  private get tuningPath(): string {
    return join(this.path, 'tuning.json');
  }

  /** The table goes into the folder where the fingerprint has it; the built-in one is in none. */
  private async keepTuning(fingerprint: string, tuning: Tuning | undefined): Promise<void> {
    // What a killed command left may go, but no file of somebody else's.
    const there = existsSync(this.tuningPath);
    if (there)
      await readTuning(
        this.tuningPath,
        'This run would put its table there: choose another folder with --out',
      );
    if (tuning && tuningWord(fingerprint) !== null) await writeTuning(this.tuningPath, tuning, null);
    else if (there) await rm(this.tuningPath);
  }

  /**
   * The table by which the run's products are chosen, or null where that is the built-in one.
   * @throws LthError "corrupt-file" where the table is not the one that the run began with.
   */
  async tuning(): Promise<Tuning | null> {
    return RunFolder.tuningIn(this.path);
  }

  /** The same of a folder that may hold no run, or one whose first command was killed before it began. */
  static async tuningIn(path: string): Promise<Tuning | null> {
    const file = join(path, 'tuning.json');
    const experiment = join(path, 'experiment.json');
    const begun = existsSync(experiment)
      ? tuningWord((await readAs(experiment, anyExperiment, experimentCure)).fingerprint)
      : undefined;
    const other = 'or mix bits with --allow-different-bits';
    const cure = begun
      ? `Remove it and give the same \`lth-train run\` again with \`--tuning FILE\`, where FILE is the table ${begun} that the run began with, ${other}`
      : 'Remove it, or choose another folder with --out';
    if (!existsSync(file)) {
      if (!begun) return null;
      throw new LthError(
        'corrupt-file',
        `${file} is missing: the run chooses its products by table ${begun}. Give that one with \`lth-train run --tuning FILE\`, ${other}`,
      );
    }
    const { tuning } = await readTuning(file, cure);
    const name = tuningName(tuning);
    if (begun !== undefined && name !== begun)
      throw new LthError(
        'corrupt-file',
        `${file}: is table ${name ?? 'builtin'}, and the run began with ${begun ?? 'the built-in one'}. ${cure}`,
      );
    return tuning;
  }

  /** @throws LthError "io" where there is no run. */
  static open(path: string): RunFolder {
    const folder = new RunFolder(path);
    if (!RunFolder.is(path)) throw new LthError('io', `${path} is no run: it has no requests.json`);
    return folder;
  }

  /** Has a run begun there, even if one of its records is missing? */
  static begun(path: string): boolean {
    if (existsSync(join(path, 'experiment.json'))) return true;
    const units = join(path, 'units');
    return existsSync(units) && readdirSync(units).some((id) => existsSync(join(units, id, 'unit.json')));
  }

  static is(path: string): boolean {
    return existsSync(join(path, 'requests.json')) && existsSync(join(path, 'experiment.json'));
  }

  private get requestsPath(): string {
    return join(this.path, 'requests.json');
  }

  /** @throws LthError "corrupt-file". */
  private async asked(): Promise<{ requests: Request[]; analyses: Analysis[]; recipe: unknown }> {
    return readAs(
      this.requestsPath,
      requestsRecord,
      'Remove it and give the same `lth-train run` again: it says only what was asked for.',
    );
  }

  /** All that commands on this folder asked for. @throws LthError "corrupt-file". */
  async requests(): Promise<Request[]> {
    return (await this.asked()).requests;
  }

  /** What commands on this folder asked of its subnetworks. @throws LthError "corrupt-file". */
  async analyses(): Promise<Analysis[]> {
    return (await this.asked()).analyses;
  }

  /** What the last command on this folder asked for. @throws LthError "corrupt-file". */
  async recipe(): Promise<Recipe> {
    return parseRecipe((await this.asked()).recipe, this.requestsPath);
  }

  /** For people and for the next command's argument; the program itself does not read it. */
  private get recipePath(): string {
    return join(this.path, 'recipe.yaml');
  }

  /** What all commands on this folder agree in. */
  async experiment(): Promise<unknown> {
    return readAs(join(this.path, 'experiment.json'), anyExperiment, experimentCure);
  }

  /** Bytes of the files in all units' folders. */
  async bytes(): Promise<number> {
    let sum = 0;
    for (const id of await this.ids()) {
      for (const name of await readdir(this.unit(id))) {
        // Temporary files and old checkpoints go while one looks.
        const info = await stat(join(this.unit(id), name)).catch(() => null);
        sum += info?.size ?? 0;
      }
    }
    return sum;
  }

  /** When a unit was last finished or saved, in milliseconds since 1970; null before the first. */
  async lastChange(): Promise<number | null> {
    let last: number | null = null;
    for (const id of await this.ids()) last = Math.max(last ?? 0, (await stat(this.unit(id))).mtimeMs);
    return last;
  }

  unit(id: string): string {
    return join(this.path, 'units', id);
  }

  /** Every unit that has a folder, finished or not. */
  async ids(): Promise<string[]> {
    const folder = join(this.path, 'units');
    return existsSync(folder) ? (await readdir(folder)).sort() : [];
  }

  /** The lock of a unit, or null while another process works on it. A killed process leaves none. */
  async lock(id: string): Promise<LockHandle | null> {
    try {
      await makeFolder(this.unit(id));
    } catch (cause) {
      throw ioError(this.unit(id), cause);
    }
    return loadAddon().lockTry(join(this.unit(id), '.lock'));
  }

  /** Does somebody work on the unit now? */
  locked(id: string): boolean {
    return loadAddon().lockHeld(join(this.unit(id), '.lock'));
  }

  /** Removes what a killed process left of temporary files and of what it told. Call with the unit's lock held. */
  async clean(id: string): Promise<void> {
    await removeTemporaries(this.unit(id));
    await rm(join(this.unit(id), pulseFile), { force: true });
  }

  /** Removes what a process that was killed right after it had finished a unit left beside it. */
  async cleanFinished(id: string): Promise<void> {
    const names = await readdir(this.unit(id));
    if (!names.some((name) => name.endsWith('.tmp') || name === pulseFile || isCheckpointFile(name))) return;
    const lock = await this.lock(id);
    if (!lock) return;
    try {
      await this.clean(id);
      await removeCheckpoints(this.unit(id));
    } finally {
      loadAddon().dispose(lock);
    }
  }

  /** @throws LthError "corrupt-file" where unit.json is not what this version writes. */
  async record(id: string): Promise<UnitRecord | null> {
    const path = join(this.unit(id), 'unit.json');
    if (!existsSync(path)) return null;
    const record = await readAs(path, unitRecord, this.cure(id));
    if (record.id !== id)
      throw new LthError('corrupt-file', `${path}: is of unit ${record.id}. ${this.cure(id)}`);
    return record;
  }

  private cure(id: string): string {
    return `\`lth-train verify --repair ${this.path}\` puts unit ${id} aside; the next run makes it again.`;
  }

  /**
   * The path of a finished unit's file, after a look at whether it is what was written.
   * @throws LthError "corrupt-file".
   */
  async file(id: string, name: string): Promise<string> {
    const path = join(this.unit(id), name);
    if (this.checked.has(path)) return path;
    const listed = (await this.record(id))?.files[name];
    if (!listed) throw new LthError('corrupt-file', `${path}: the unit's record does not know it`);
    if (listed.removed)
      throw new LthError(
        'corrupt-file',
        `${path} was removed to save disk (--keep needed). ${this.cure(id)}`,
      );
    const wrong = await damage(path, listed);
    if (wrong) throw new LthError('corrupt-file', `${wrong}. ${this.cure(id)}`);
    this.checked.add(path);
    return path;
  }

  /** Writes unit.json with the checksums of the unit's files: from now on the unit is finished. */
  async finish(record: Omit<UnitRecord, 'format' | 'files'>, files: string[]): Promise<UnitRecord> {
    const listed: UnitRecord['files'] = {};
    for (const name of files) listed[name] = await sealOf(join(this.unit(record.id), name));
    const whole: UnitRecord = { format: FORMAT, ...record, files: listed };
    await writeRecord(join(this.unit(record.id), 'unit.json'), whole);
    await rm(join(this.unit(record.id), 'failure.json'), { force: true });
    return whole;
  }

  /**
   * Takes a finished unit's file away and notes it in its record.
   * @returns false where somebody works on the unit: nothing was done.
   */
  async remove(id: string, name: string): Promise<boolean> {
    const lock = await this.lock(id);
    if (!lock) return false;
    try {
      const record = await this.record(id);
      const listed = record?.files[name];
      if (!record || !listed || listed.removed) return true;
      listed.removed = true;
      // The note first: a file that is there although it is noted as removed is only a little disk.
      await writeRecord(join(this.unit(id), 'unit.json'), record);
      await rm(join(this.unit(id), name), { force: true });
      return true;
    } finally {
      loadAddon().dispose(lock);
    }
  }

  async fail(failure: Omit<FailureRecord, 'format' | 'time'>): Promise<void> {
    const record: FailureRecord = { format: FORMAT, ...failure, time: new Date().toISOString() };
    await writeRecord(join(this.unit(failure.id), 'failure.json'), record);
  }

  /** Why the unit could not be done last time; null where nothing is known of it. A note only: never an error itself. */
  async failure(id: string): Promise<FailureRecord | null> {
    const path = join(this.unit(id), 'failure.json');
    if (!existsSync(path)) return null;
    try {
      return parseRecord(failureRecord, await readRecord(path));
    } catch (error) {
      const message = `${path} is damaged: ${(error as Error).message}`;
      return { format: FORMAT, id, label: id, code: 'corrupt-file', message, command: 'unknown', time: '' };
    }
  }

  /** Moves a unit's folder to `damaged/`, so that the next run makes it again. @returns where it is now. */
  async putAside(id: string): Promise<string> {
    const aside = join(this.path, 'damaged');
    await makeFolder(aside);
    for (let n = 1; ; n++) {
      const target = join(aside, n === 1 ? id : `${id}.${n}`);
      if (existsSync(target)) continue;
      await rename(this.unit(id), target);
      return target;
    }
  }
}
