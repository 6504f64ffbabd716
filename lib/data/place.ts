import { open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ioError } from '../files.js';
import { LthError } from '../native/errors.js';
import { fileIn, findFile } from './folders.js';
import { readIdx, sha256 } from './idx.js';
import type { SourceFile } from './sources.js';

/** No honest packing of so many bytes is longer: deflate keeps what it cannot pack in blocks with 5 bytes of head. */
export function largestPacking(bytes: number): number {
  return bytes + Math.ceil(bytes / 1000) + 1024;
}

/** @throws LthError "io", or "corrupt-file" where the file does not hold the bytes wanted, with both sums. */
export async function verify(path: string, file: SourceFile): Promise<void> {
  const { size } = await stat(path).catch((cause) => {
    throw new LthError('io', `${path}: ${cause.message}`, { cause });
  });
  if (size > largestPacking(file.bytes))
    throw new LthError('corrupt-file', `${path}: has ${size} bytes, unpacked it should have ${file.bytes}`);
  const found = (await sha256(await readIdx(path, file.bytes))).toString('hex');
  if (found !== file.sha256)
    throw new LthError(
      'corrupt-file',
      `${path}: the SHA-256 of its unpacked bytes is ${found}, expected ${file.sha256}`,
    );
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
    const name = (await isGzip(temporary)) ? `${file.name}.gz` : file.name;
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
  const source = fileIn(from, file.name);
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
    const path = findFile(folder, file.name);
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
