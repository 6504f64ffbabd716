import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { basename } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import type { DatasetHandle } from '../native/AddonTypes.js';
import { LthError } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { withRegularFile } from './regularFile.js';

/** Past this an IDX file is refused: the largest kin of MNIST (EMNIST) has 0.7 GB. */
const LARGEST_IDX = 2 * 2 ** 30;
/** Deflate cannot pack better than this. */
const LARGEST_RATIO = 1032;

function firstBytes(path: string, count: number): Promise<{ head: Buffer; size: number }> {
  return withRegularFile(path, async (file, size) => {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(count), 0, count, 0);
    return { head: buffer.subarray(0, bytesRead), size };
  });
}

/** Bytes that the file will have, from its IDX header; the allocation of what follows is bounded by it. */
function sizeFromHeader(head: Buffer, path: string, largest: number): number {
  const dimensions = head.length >= 4 ? head.readUInt8(3) : 0;
  if (
    head.length < 4 ||
    head.readUInt16BE(0) !== 0 ||
    head.readUInt8(2) !== 8 ||
    dimensions < 1 ||
    dimensions > 3
  ) {
    const magic =
      head.length >= 4 ? `wrong magic 0x${head.toString('hex', 0, 4)}` : `${head.length} bytes only`;
    throw new LthError(
      'corrupt-file',
      `${path}: ${magic}, expected an IDX file of unsigned bytes (0x00000801 or 0x00000803)`,
    );
  }
  if (head.length < 4 + 4 * dimensions)
    throw new LthError('corrupt-file', `${path}: truncated inside its header`);
  let size = 1;
  for (let d = 0; d < dimensions; d++) size *= head.readUInt32BE(4 + 4 * d);
  if (size > largest)
    throw new LthError(
      'corrupt-file',
      `${path}: its header says ${size} bytes, more than the ${largest} that it may have`,
    );
  return 4 + 4 * dimensions + size;
}

/** @param size bytes of the file as it is; a header that promises more than it can hold gets no memory. */
async function collect(path: string, gzip: boolean, size: number, largest: number): Promise<Uint8Array> {
  const gunzip = gzip ? createGunzip() : null;
  const atMost = gzip ? size * LARGEST_RATIO : size;
  let whole: Buffer | undefined;
  let refusal: LthError | undefined;
  let filled = 0;
  let head = Buffer.alloc(0);
  const allocate = () => {
    const wanted = sizeFromHeader(head, path, largest);
    if (wanted <= atMost) return Buffer.alloc(wanted);
    throw new LthError(
      'corrupt-file',
      `${path}: truncated: its header says ${wanted} bytes, it holds ${atMost} at most`,
    );
  };
  const take = (chunk: Buffer) => {
    if (!whole) {
      head = Buffer.concat([head, chunk]);
      if (head.length < 16) return;
      whole = allocate();
      chunk = head;
    }
    if (filled + chunk.length > whole.length) {
      throw new LthError(
        'corrupt-file',
        `${path}: holds more than the ${whole.length} bytes its header says`,
      );
    }
    filled += chunk.copy(whole, filled);
  };
  // Gunzip leaves them, and the pipeline ends well or with an abort, as it happens.
  const behindItsEnd = () => new LthError('corrupt-file', `${path}: broken gzip: holds bytes behind its end`);
  const sink = async (source: AsyncIterable<Buffer>) => {
    try {
      for await (const chunk of source) take(chunk);
    } catch (error) {
      if (error instanceof LthError) refusal = error; // the pipeline would tell of its own abort instead
      throw error;
    }
  };
  try {
    if (gunzip) await pipeline(createReadStream(path), gunzip, sink);
    else await pipeline(createReadStream(path), sink);
  } catch (cause) {
    if (refusal) throw refusal;
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code?.startsWith('Z_'))
      throw new LthError('corrupt-file', `${path}: broken gzip: ${message}`, { cause });
    if (code === 'ABORT_ERR' && gunzip) throw behindItsEnd();
    throw new LthError('io', `${path}: ${message}`, { cause });
  }
  if (gunzip && gunzip.bytesWritten !== size) throw behindItsEnd();
  if (!whole) {
    // Shorter than 16 bytes: a tiny label file is still legal.
    whole = allocate();
    if (head.length <= whole.length) filled = head.copy(whole);
  }
  if (filled !== whole.length) {
    throw new LthError(
      'corrupt-file',
      `${path}: truncated: ${filled} bytes, its header says ${whole.length}`,
    );
  }
  return whole;
}

/**
 * The unpacked bytes of an IDX file, plain or gzip (told by its first bytes). Memory is bounded by its header.
 * @param largest past this the header is not believed.
 */
export async function readIdx(path: string, largest = LARGEST_IDX): Promise<Uint8Array> {
  const { head, size } = await firstBytes(path, 2);
  if (head.length === 0) throw new LthError('corrupt-file', `${path}: is empty`);
  const gzip = head[0] === 0x1f && head[1] === 0x8b;
  return collect(path, gzip, size, largest);
}

/** Off the event loop: webcrypto hashes on libuv's pool. */
export async function sha256(bytes: Uint8Array): Promise<Buffer> {
  return Buffer.from(await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>));
}

/**
 * Images (N,H,W) and labels (N) as a data set of shape (1,H,W).
 * @throws LthError "io" or "corrupt-file" naming the file.
 */
export async function readIdxDataset(
  images: string,
  labels: string,
  classes: number,
): Promise<DatasetHandle> {
  const [x, y] = await Promise.all([readIdx(images), readIdx(labels)]);
  const digest = createHash('sha256')
    .update(await sha256(x))
    .update(await sha256(y))
    .digest('hex');
  return loadAddon().datasetFromIdx(x, y, {
    classes,
    imagesName: basename(images),
    labelsName: basename(labels),
    digest,
  });
}
