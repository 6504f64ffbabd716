import { createHash } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { mkdir, open, readdir, readFile, realpath, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { LthError } from './native/errors.js';
import { loadAddon } from './native/load.js';

/** More than any JSON file of a run has: a dense run of 1,000,000 checkpoints lists 200 MB of intervals. */
const LARGEST_JSON = 256 * 2 ** 20;

export function ioError(path: string, cause: unknown): LthError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const why =
    code === 'EACCES' || code === 'EPERM'
      ? 'no permission to write here'
      : code === 'EROFS'
        ? 'the file system is read-only'
        : code === 'EEXIST'
          ? 'there is a file of this name'
          : message;
  return new LthError('io', `${path}: ${why}`, { cause });
}

/** An error of the file system, which Node throws as it is, as one of ours; null for any other. */
export function fromFileSystem(error: unknown): LthError | null {
  if (!(error instanceof Error) || !('syscall' in error) || !('code' in error)) return null;
  const { path, syscall } = error as NodeJS.ErrnoException;
  return path === undefined
    ? new LthError('io', `${syscall}: ${error.message}`, { cause: error })
    : ioError(path, error);
}

/** @throws LthError "io", "corrupt-file". */
async function readJson(path: string): Promise<unknown> {
  let text: string;
  try {
    const { size } = await stat(path);
    if (size > LARGEST_JSON)
      throw new LthError('corrupt-file', `${path}: has ${size} bytes, more than this program writes`);
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if (cause instanceof LthError) throw cause;
    throw new LthError('io', `${path}: ${(cause as Error).message}`, { cause });
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new LthError('corrupt-file', `${path}: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
    });
  }
}

/** The checksum in which a record of ours ends. */
export const sealOfValue = (value: unknown) =>
  createHash('sha256').update(JSON.stringify(value)).digest('hex');

/** A record with a checksum of itself at its end, so that a flipped bit in it is found. */
export function sealedBytes(record: object): Buffer {
  // As it will be read: without what JSON has no word for.
  const value = JSON.parse(JSON.stringify(record));
  return Buffer.from(`${JSON.stringify({ ...value, seal: sealOfValue(value) }, null, 2)}\n`);
}

export async function writeRecord(path: string, record: object): Promise<void> {
  await loadAddon().fileWrite(path, sealedBytes(record));
}

/**
 * Writes a file that a user has named: whole or not at all, where a link leads; straight into a pipe or a device, which must
 * not be replaced by a file.
 * @throws LthError "io".
 */
export async function writeOutput(path: string, bytes: Uint8Array): Promise<void> {
  const there = await stat(path).catch(() => null);
  if (!there || there.isFile() || there.isDirectory()) {
    await loadAddon().fileWrite(there ? await realpath(path) : resolve(path), bytes);
    return;
  }
  try {
    await writeFile(path, bytes);
  } catch (cause) {
    throw ioError(path, cause);
  }
}

/** A record as it was written, without its seal. @throws LthError "io", "corrupt-file". */
export async function readRecord(path: string): Promise<Record<string, unknown>> {
  const value = await readJson(path);
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new LthError('corrupt-file', `${path}: is no record of this program`);
  const { seal, ...record } = value as Record<string, unknown>;
  if (seal !== sealOfValue(record))
    throw new LthError('corrupt-file', `${path}: its seal is not that of what it says`);
  return record;
}

/** @throws LthError "io": Node's own error of a failed read does not name the file. */
export async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  try {
    await pipeline(createReadStream(path), hash);
  } catch (cause) {
    throw new LthError('io', `${path}: ${(cause as Error).message}`, { cause });
  }
  return hash.digest('hex');
}

/** Size and checksum of a file as it is on disk now. */
export async function sealOf(path: string): Promise<{ bytes: number; sha256: string }> {
  return { bytes: (await stat(path)).size, sha256: await sha256(path) };
}

/** What is wrong with a file that should be as it was sealed, in words, or null. */
export async function damage(path: string, seal: { bytes: number; sha256: string }): Promise<string | null> {
  if (!existsSync(path)) return `${path}: there is no such file`;
  const { size } = await stat(path);
  if (size !== seal.bytes) return `${path}: has ${size} bytes, ${seal.bytes} were written`;
  const found = await sha256(path);
  return found === seal.sha256
    ? null
    : `${path}: its SHA-256 is ${found}, of what was written ${seal.sha256}`;
}

/** So that a power cut does not take what was just made in the folder. Some file systems cannot (EINVAL). */
async function syncFolder(path: string): Promise<void> {
  // Who may write to a folder but not list it cannot sync it.
  const folder = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'EACCES') return null;
    throw error;
  });
  if (!folder) return;
  try {
    await folder.sync();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
  } finally {
    await folder.close();
  }
}

/** Node's own recursive mkdir never ends where a parent exists in which nothing can be made (/proc). */
export async function makeFolder(path: string): Promise<void> {
  const make = async () => {
    await mkdir(path);
    await syncFolder(dirname(path));
  };
  // What another process has made meanwhile is as good.
  const unlessThere = async (error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || !(await stat(path)).isDirectory()) throw error;
  };
  try {
    await make();
  } catch (error) {
    // The folder above may be there by now: it is made or found, whoever made it.
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || dirname(path) === path)
      return unlessThere(error);
    await makeFolder(dirname(path));
    await make().catch(unlessThere);
  }
}

/** Removes what a killed process left of temporary files. */
export async function removeTemporaries(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (name.endsWith('.tmp')) await rm(join(folder, name), { force: true });
  }
}
