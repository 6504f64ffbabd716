import { createHash } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Result } from '../experiment/Result.js';
import type { LockHandle } from '../native/AddonTypes.js';
import { LthError } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { loadRecipe, toYaml } from '../recipe/load.js';
import type { Recipe } from '../recipe/Recipe.js';

const FORMAT = 1;

/** What `unit.json` says: written last, so a unit is finished exactly when it is there. */
export interface UnitRecord {
  format: number;
  id: string;
  kind: 'dense' | 'prune' | 'train';
  label: string;
  /** Hash of all that decides the unit's bits. */
  key: string;
  fingerprint: string;
  files: Record<string, { bytes: number; sha256: string }>;
  /** dense: the unit it went on from, whose metrics come before its own. */
  from: string | null;
  diverged: boolean;
  /** Updates made by this unit. */
  updates: number;
  /** One per training that is a result: of each rewind point for the dense run. */
  result: Omit<Result, 'rewind' | 'method'> | null;
  rewind: number | null;
  method: Result['method'] | null;
  seconds: number;
}

function ioError(path: string, cause: unknown): LthError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const why =
    code === 'EACCES' || code === 'EPERM' || code === 'EROFS' ? 'no permission to write here' : message;
  return new LthError('io', `${path}: ${why}`, { cause });
}

/** @throws LthError "corrupt-file". */
async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    throw new LthError('corrupt-file', `${path}: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
    });
  }
}

/** @throws LthError "io": Node's own error of a failed read does not name the file. */
async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  try {
    await pipeline(createReadStream(path), hash);
  } catch (cause) {
    throw new LthError('io', `${path}: ${(cause as Error).message}`, { cause });
  }
  return hash.digest('hex');
}

/** Node's own recursive mkdir never ends where a parent exists in which nothing can be made (/proc). */
async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST' && (await stat(path)).isDirectory()) return;
    if (code !== 'ENOENT' || existsSync(dirname(path))) throw error;
    await makeFolder(dirname(path));
    await makeFolder(path);
  }
}

/** @throws LthError "io". */
async function removeTemporary(folder: string): Promise<void> {
  try {
    for (const name of await readdir(folder)) {
      if (name.endsWith('.tmp')) await rm(join(folder, name), { force: true });
    }
  } catch (cause) {
    throw ioError((cause as NodeJS.ErrnoException).path ?? folder, cause);
  }
}

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

/** A run on disk: recipe.yaml and one folder a unit. Files are whole or not there; finished units are never touched. */
export class RunFolder {
  /** Files whose checksums were found right. */
  private readonly checked = new Set<string>();

  private constructor(readonly path: string) {}

  /**
   * Opens or creates the folder for a recipe.
   * @param experiment plain values that all commands on this folder must agree in.
   * @throws LthError "io" without permission, "other-experiment" where the folder holds another one.
   */
  static async create(path: string, recipe: Recipe, experiment: object): Promise<RunFolder> {
    try {
      await makeFolder(join(path, 'units'));
    } catch (cause) {
      throw ioError(path, cause);
    }
    const folder = new RunFolder(path);
    const addon = loadAddon();
    const lock = await folder.ownLock();
    try {
      await removeTemporary(path);
      await folder.claim(experiment);
      await addon.fileWrite(folder.recipePath, Buffer.from(toYaml(recipe)));
    } finally {
      addon.dispose(lock);
    }
    return folder;
  }

  /** Held for moments only, so that two commands that create one folder cannot both think that it is theirs. */
  private async ownLock(): Promise<LockHandle> {
    for (;;) {
      const lock = loadAddon().lockTry(join(this.path, '.lock'));
      if (lock) return lock;
      await sleep(20);
    }
  }

  private async claim(experiment: object): Promise<void> {
    const path = join(this.path, 'experiment.json');
    const here = { format: FORMAT, ...JSON.parse(JSON.stringify(experiment)) };
    if (!existsSync(path)) {
      await loadAddon().fileWrite(path, Buffer.from(`${JSON.stringify(here, null, 2)}\n`));
      return;
    }
    const difference = firstDifference(await readJson(path), here);
    if (difference) {
      throw new LthError(
        'other-experiment',
        `${this.path} holds another experiment: ${difference}. Choose another folder with --out.`,
      );
    }
  }

  /** @throws LthError "io" where there is no run. */
  static open(path: string): RunFolder {
    const folder = new RunFolder(path);
    if (!existsSync(folder.recipePath)) throw new LthError('io', `${path} is no run: it has no recipe.yaml`);
    return folder;
  }

  private get recipePath(): string {
    return join(this.path, 'recipe.yaml');
  }

  /** What all commands on this folder agree in. */
  async experiment(): Promise<unknown> {
    return readJson(join(this.path, 'experiment.json'));
  }

  recipe(): Recipe {
    return loadRecipe(this.recipePath);
  }

  unit(id: string): string {
    return join(this.path, 'units', id);
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

  /** Removes what a killed process left of temporary files. Call with the unit's lock held. */
  async clean(id: string): Promise<void> {
    await removeTemporary(this.unit(id));
  }

  /** @throws LthError "corrupt-file" where unit.json is not what this version writes. */
  async record(id: string): Promise<UnitRecord | null> {
    const path = join(this.unit(id), 'unit.json');
    if (!existsSync(path)) return null;
    const record = (await readJson(path)) as UnitRecord;
    if (record?.format !== FORMAT || record.id !== id) {
      throw new LthError('corrupt-file', `${path}: format ${record?.format} of unit ${record?.id}`);
    }
    return record;
  }

  async records(): Promise<UnitRecord[]> {
    const folder = join(this.path, 'units');
    const ids = existsSync(folder) ? (await readdir(folder)).sort() : [];
    const all = await Promise.all(ids.map((id) => this.record(id)));
    return all.filter((record) => record !== null);
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
    const found = existsSync(path) ? await sha256(path) : 'no such file';
    if (found !== listed.sha256) {
      throw new LthError('corrupt-file', `${path}: its SHA-256 is ${found}, unit.json says ${listed.sha256}`);
    }
    this.checked.add(path);
    return path;
  }

  /** Writes unit.json with the checksums of the unit's files: from now on the unit is finished. */
  async finish(record: Omit<UnitRecord, 'format' | 'files'>, files: string[]): Promise<UnitRecord> {
    const listed: UnitRecord['files'] = {};
    for (const name of files) {
      const path = join(this.unit(record.id), name);
      listed[name] = { bytes: (await stat(path)).size, sha256: await sha256(path) };
    }
    const whole: UnitRecord = { format: FORMAT, ...record, files: listed };
    await loadAddon().fileWrite(
      join(this.unit(record.id), 'unit.json'),
      Buffer.from(`${JSON.stringify(whole, null, 2)}\n`),
    );
    return whole;
  }
}
