import { createHash } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { ioError } from '../files.js';
import { LthError } from '../native/errors.js';
import { findFile } from './folders.js';
import { readIdx, sha256 } from './idx.js';
import { type Archive, isArchive, packedName, type SourceFile } from './sources.js';
import { readTarGz } from './tar.js';

/** No honest packing of so many bytes is longer: deflate keeps what it cannot pack in blocks with 5 bytes of head. */
export function largestPacking(bytes: number): number {
  return bytes + Math.ceil(bytes / 1000) + 1024;
}

/** The most bytes that a file may have on its way and on disk. */
export const largestOf = (file: SourceFile) => (isArchive(file) ? file.largest : largestPacking(file.bytes));

function wrongSum(path: string, what: string, found: string, expected: string): LthError {
  return new LthError('corrupt-file', `${path}: ${what} is ${found}, expected ${expected}`);
}

async function md5(path: string): Promise<string> {
  const hash = createHash('md5');
  try {
    await pipeline(createReadStream(path), hash);
  } catch (cause) {
    throw new LthError('io', `${path}: ${(cause as Error).message}`, { cause });
  }
  return hash.digest('hex');
}

async function verifyArchive(path: string, archive: Archive): Promise<void> {
  const found = await md5(path);
  if (found !== archive.md5) throw wrongSum(path, 'its MD5', found, archive.md5);
  if (archive.files.length === 0) return;
  const members = await readTarGz(path, new Map(archive.files.map(({ name, bytes }) => [name, bytes])));
  for (const { name, sha256: expected } of archive.files) {
    const bytes = members.get(name);
    if (!bytes) throw new LthError('corrupt-file', `${path}: holds no ${name}`);
    const sum = (await sha256(bytes)).toString('hex');
    if (sum !== expected) throw wrongSum(path, `the SHA-256 of ${name} in it`, sum, expected);
  }
}

/** @throws LthError "io", or "corrupt-file" where the file does not hold the bytes wanted, with both sums. */
export async function verify(path: string, file: SourceFile): Promise<void> {
  const { size } = await stat(path).catch((cause) => {
    throw new LthError('io', `${path}: ${cause.message}`, { cause });
  });
  if (size > largestOf(file))
    throw new LthError(
      'corrupt-file',
      isArchive(file)
        ? `${path}: has ${size} bytes, it should have ${file.largest} at most`
        : `${path}: has ${size} bytes, unpacked it should have ${file.bytes}`,
    );
  if (isArchive(file)) return verifyArchive(path, file);
  const found = (await sha256(await readIdx(path, file.bytes))).toString('hex');
  if (found !== file.sha256) throw wrongSum(path, 'the SHA-256 of its unpacked bytes', found, file.sha256);
}

/** The path of a file of a source that is there, whether right or not; or null. */
function findOf(folder: string, file: SourceFile): string | null {
  if (!isArchive(file)) return findFile(folder, file.name);
  const path = join(folder, file.name);
  return existsSync(path) ? path : null;
}

async function sync(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function isGzip(path: string): Promise<boolean> {
  const handle = await open(path, 'r');
  try {
    const { buffer } = await handle.read(Buffer.alloc(2), 0, 2, 0);
    return buffer.readUInt16BE() === 0x1f8b;
  } finally {
    await handle.close();
  }
}

/**
 * Gives a temporary file its name once it is verified and on the disk. @returns that name, with .gz where it is packed.
 * @throws LthError "corrupt-file", "io".
 */
export async function place(temporary: string, file: SourceFile): Promise<string> {
  await verify(temporary, file);
  const folder = dirname(temporary);
  try {
    const name = (await isGzip(temporary)) ? packedName(file) : file.name;
    await sync(temporary);
    await rename(temporary, join(folder, name));
    await sync(folder);
    return name;
  } catch (cause) {
    throw ioError(temporary, cause);
  }
}

/** Copies a file of the user's into `folder`. @throws LthError "io", "corrupt-file" naming the file at fault. */
export async function copyInto(folder: string, from: string, file: SourceFile): Promise<string> {
  const source = findOf(from, file);
  if (!source)
    throw new LthError(
      'io',
      `${from} holds ${isArchive(file) ? 'no' : `neither ${file.name}.gz nor`} ${file.name}`,
    );
  await verify(source, file);
  const bytes = await readFile(source);
  const temporary = join(folder, `${file.name}.tmp`);
  try {
    await writeFile(temporary, bytes);
  } catch (cause) {
    await rm(temporary, { force: true });
    throw ioError(temporary, cause);
  }
  // Checked once more: the bytes that get the name are those that were written here.
  return place(temporary, file);
}

/**
 * The path of a file that is there and right, or null. With `aside`, one that is wrong is kept under NAME.bad and told of.
 */
export async function present(
  folder: string,
  file: SourceFile,
  aside: ((why: string) => void) | null,
): Promise<string | null> {
  for (;;) {
    const path = findOf(folder, file);
    if (!path) return null;
    try {
      await verify(path, file);
      return path;
    } catch (error) {
      if (!(error instanceof LthError) || error.code !== 'corrupt-file') throw error;
      if (!aside) return null;
      await rename(path, `${path}.bad`).catch((cause) => {
        throw ioError(path, cause);
      });
      aside(`${error.message}; kept as ${path}.bad`);
    }
  }
}
