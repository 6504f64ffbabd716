import { createHash } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { LthError } from './native/errors.js';
import { loadAddon } from './native/load.js';

/** More than any JSON file of a run has: a dense run of 1,000,000 checkpoints lists 200 MB of intervals. */
const LARGEST_JSON = 256 * 2 ** 20;

export function ioError(path: string, cause: unknown): LthError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const why =
    code === 'EACCES' || code === 'EPERM' || code === 'EROFS' ? 'no permission to write here' : message;
  return new LthError('io', `${path}: ${why}`, { cause });
}

/** @throws LthError "corrupt-file". */
export async function readJson(path: string): Promise<unknown> {
  try {
    const { size } = await stat(path);
    if (size > LARGEST_JSON) throw new Error(`has ${size} bytes, more than this program writes`);
    return JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    throw new LthError('corrupt-file', `${path}: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
    });
  }
}

export async function writeJson(path: string, value: unknown): Promise<void> {
  await loadAddon().fileWrite(path, Buffer.from(`${JSON.stringify(value, null, 2)}\n`));
}

export async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
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

/** Node's own recursive mkdir never ends where a parent exists in which nothing can be made (/proc). */
export async function makeFolder(path: string): Promise<void> {
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

/** Removes what a killed process left of temporary files. */
export async function removeTemporaries(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (name.endsWith('.tmp')) await rm(join(folder, name), { force: true });
  }
}
