import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { LthError } from '../native/errors.js';
import { withRegularFile } from './regularFile.js';

const BLOCK = 512;
/** Of all unpacked bytes: the official archives have 190 MB at most. */
const LARGEST_TAR = 2 ** 28;
const MOST_MEMBERS = 1000;

interface Member {
  name: string;
  size: number;
  regular: boolean;
}

function text(block: Buffer, at: number, length: number): string {
  const field = block.subarray(at, at + length);
  const end = field.indexOf(0);
  return field.toString('latin1', 0, end < 0 ? length : end);
}

function octal(block: Buffer, at: number, length: number): number | null {
  const match = /^ *([0-7]{1,11})[ \0]*$/.exec(block.toString('latin1', at, at + length));
  return match ? Number.parseInt(match[1] as string, 8) : null;
}

/**
 * Reads what is pushed into it as a tar of files and folders; only members that are wanted take memory.
 * @throws LthError "corrupt-file", on push and at the end.
 */
export class TarReader {
  readonly found = new Map<string, Buffer>();
  private head = Buffer.alloc(BLOCK);
  private filled = 0;
  /** Of the member at hand: where its bytes go, how many of them are to come, and of the padding behind. */
  private into: Buffer | null = null;
  private left = 0;
  private padding = 0;
  private unpacked = 0;
  private members = 0;
  private ended = false;

  constructor(
    private readonly path: string,
    /** By the last part of the name: how many bytes it may have. */
    private readonly wanted: Map<string, number>,
  ) {}

  private corrupt(what: string): LthError {
    return new LthError('corrupt-file', `${this.path}: ${what}`);
  }

  push(chunk: Buffer): void {
    this.unpacked += chunk.length;
    if (this.unpacked > LARGEST_TAR) throw this.corrupt(`unpacks to more than ${LARGEST_TAR} bytes`);
    for (let at = 0; at < chunk.length; ) {
      const rest = chunk.subarray(at);
      if (this.left > 0) {
        const piece = rest.subarray(0, this.left);
        if (this.into) piece.copy(this.into, this.into.length - this.left);
        this.left -= piece.length;
        at += piece.length;
      } else if (this.padding > 0) {
        const skipped = Math.min(this.padding, rest.length);
        this.padding -= skipped;
        at += skipped;
      } else {
        const piece = rest.subarray(0, BLOCK - this.filled);
        piece.copy(this.head, this.filled);
        this.filled += piece.length;
        at += piece.length;
        if (this.filled === BLOCK) this.header();
      }
    }
  }

  end(): void {
    if (this.left > 0 || this.padding > 0 || this.filled > 0) throw this.corrupt('truncated inside its tar');
    if (!this.ended) throw this.corrupt('truncated: its tar has no end');
  }

  private header(): void {
    this.filled = 0;
    if (this.head.every((byte) => byte === 0)) {
      this.ended = true;
      return;
    }
    if (this.ended) throw this.corrupt('holds bytes behind the end of its tar');
    const { name, size, regular } = this.member();
    if (++this.members > MOST_MEMBERS) throw this.corrupt(`holds more than ${MOST_MEMBERS} files`);
    this.left = size;
    this.padding = (BLOCK - (size % BLOCK)) % BLOCK;
    this.into = null;
    const last = name.split('/').at(-1) as string;
    const atMost = regular ? this.wanted.get(last) : undefined;
    if (atMost === undefined) return;
    if (size > atMost)
      throw this.corrupt(`${name} has ${size} bytes, more than the ${atMost} that it may have`);
    if (this.found.has(last)) throw this.corrupt(`holds ${last} twice`);
    this.into = Buffer.alloc(size);
    this.found.set(last, this.into);
  }

  private member(): Member {
    const { head } = this;
    const place = `file ${this.members} of its tar`;
    const sum = head.reduce((total, byte, i) => total + (i >= 148 && i < 156 ? 0x20 : byte), 0);
    if (octal(head, 148, 8) !== sum) throw this.corrupt(`${place}: the checksum of its header is wrong`);
    const name = text(head, 0, 100);
    const size = octal(head, 124, 12);
    const type = text(head, 156, 1);
    if (size === null) throw this.corrupt(`${place}: its size is no number`);
    if (size > LARGEST_TAR) throw this.corrupt(`${place}: has ${size} bytes, more than an archive may have`);
    // No links, no long names, nothing that is told about another member.
    if (!['', '0', '5'].includes(type))
      throw this.corrupt(`${place}: is of kind ${JSON.stringify(type)}, expected files and folders`);
    return { name, size: type === '5' ? 0 : size, regular: type !== '5' };
  }
}

/**
 * Files of a tar.gz in memory, by the last part of their names; those that are not in it are not in the answer. Nothing
 * is written to disk, and no more is unpacked than official archives have.
 * @param wanted how many bytes each may have.
 * @throws LthError "io", "corrupt-file".
 */
export async function readTarGz(path: string, wanted: Map<string, number>): Promise<Map<string, Buffer>> {
  const size = await withRegularFile(path, async (_, bytes) => bytes);
  const tar = new TarReader(path, wanted);
  const gunzip = createGunzip();
  const behindItsEnd = () => new LthError('corrupt-file', `${path}: broken gzip: holds bytes behind its end`);
  let refusal: LthError | undefined;
  try {
    await pipeline(createReadStream(path), gunzip, async (source: AsyncIterable<Buffer>) => {
      try {
        for await (const chunk of source) tar.push(chunk);
        tar.end();
      } catch (error) {
        if (error instanceof LthError) refusal = error; // the pipeline would tell of its own abort instead
        throw error;
      }
    });
  } catch (cause) {
    if (refusal) throw refusal;
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code?.startsWith('Z_'))
      throw new LthError('corrupt-file', `${path}: broken gzip: ${message}`, { cause });
    if (code === 'ABORT_ERR') throw behindItsEnd();
    throw new LthError('io', `${path}: ${message}`, { cause });
  }
  if (gunzip.bytesWritten !== size) throw behindItsEnd();
  return tar.found;
}
