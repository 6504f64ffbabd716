import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { LthError } from '../native/errors.js';

/**
 * What `read` makes of a file, which is closed then.
 * @throws LthError "io" naming it: it is not there, is no regular file, or cannot be read.
 */
export async function withRegularFile<T>(
  path: string,
  read: (file: FileHandle, size: number) => Promise<T>,
): Promise<T> {
  // Opening a pipe would wait for its writer.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((cause) => {
    throw new LthError(
      'io',
      `${path}: ${cause.code === 'ENOENT' ? 'there is no such file' : cause.message}`,
      { cause },
    );
  });
  try {
    const info = await file.stat();
    if (!info.isFile()) throw new Error('is not a file');
    return await read(file, info.size);
  } catch (cause) {
    if (cause instanceof LthError) throw cause;
    throw new LthError('io', `${path}: ${cause instanceof Error ? cause.message : cause}`, { cause });
  } finally {
    await file.close();
  }
}

/** @throws LthError "io", "corrupt-file" where it has more bytes than `atMost` or shrinks meanwhile. */
export function readRegularFile(path: string, atMost: number): Promise<Buffer> {
  return withRegularFile(path, async (file, size) => {
    if (size > atMost)
      throw new LthError(
        'corrupt-file',
        `${path}: has ${size} bytes, more than the ${atMost} that it may have`,
      );
    const bytes = Buffer.alloc(size);
    for (let at = 0; at < size; ) {
      const { bytesRead } = await file.read(bytes, at, size - at, at);
      if (bytesRead === 0) throw new LthError('corrupt-file', `${path}: became shorter while it was read`);
      at += bytesRead;
    }
    return bytes;
  });
}
