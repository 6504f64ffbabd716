import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { LthError } from '../native/errors.js';

/** The place of scripts/libtorch.mjs, which is JavaScript because it runs before this is compiled. */
export function cacheFolder(): string {
  return process.env.LTH_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'lth-train');
}

/** Where a data set of the user's may be: LTH_DATA goes before the cache. */
export function dataFolders(name: string): string[] {
  const own = process.env.LTH_DATA ? [join(process.env.LTH_DATA, name)] : [];
  return [...own, join(cacheFolder(), 'data', name)];
}

/** A file of a data set as people keep it: packed or not, or with the dot that some unpackers write; or null. */
export function findFile(folder: string, name: string): string | null {
  const variants = [`${name}.gz`, name, name.replace('-idx', '.idx')];
  return variants.map((file) => join(folder, file)).find((path) => existsSync(path)) ?? null;
}

/** @throws LthError "io" where the folder has none of its variants; `hint` says what to do about it. */
export function fileIn(folder: string, name: string, hint = ''): string {
  const path = findFile(folder, name);
  if (path) return path;
  if (!existsSync(folder)) throw new LthError('io', `${folder}: there is no such folder${hint}`);
  throw new LthError('io', `${folder} holds neither ${name}.gz nor ${name}${hint}`);
}
