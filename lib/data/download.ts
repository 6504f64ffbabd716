import { type FileHandle, open, stat } from 'node:fs/promises';
import { ioError } from '../files.js';
import { LthError } from '../native/errors.js';

/** Why an attempt did not bring the file; `again`: another attempt at the same mirror may. */
export class Trouble extends Error {
  constructor(
    message: string,
    readonly again: boolean,
  ) {
    super(message);
  }
}

/** What the attempts at one mirror know of the file there: a change of it means another file. */
export interface Seen {
  /** ETag, else Last-Modified. */
  validator: string | null;
  size: number | null;
}

export interface DownloadOptions {
  /** More bytes than this are never written, whatever the server says or sends. */
  atMost: number;
  /** Given up after so many milliseconds without a byte. */
  stallMs: number;
  /** Bytes that are there, and all of them where the server says how many. */
  onBytes: (done: number, size: number | null) => void;
}

/** Signals when nothing came for a while: connecting and headers count as well. */
class StallClock {
  private readonly controller = new AbortController();
  private readonly timer: NodeJS.Timeout;

  constructor(milliseconds: number) {
    const trouble = new Trouble(`no byte came for ${milliseconds / 1000} s`, true);
    this.timer = setTimeout(() => this.controller.abort(trouble), milliseconds);
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  tick(): void {
    this.timer.refresh();
  }

  stop(): void {
    clearTimeout(this.timer);
  }
}

/** Of what fetch throws the innermost reason: "fetch failed" alone helps nobody. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const inner = error instanceof AggregateError ? error.errors[0] : error.cause;
  if (inner instanceof Error) return reasonOf(inner);
  const { code } = error as NodeJS.ErrnoException;
  return code && !error.message.includes(code) ? `${error.message} (${code})` : error.message;
}

function validatorOf(headers: Headers): string | null {
  const etag = headers.get('etag');
  // A weak one does not promise the same bytes.
  return etag && !etag.startsWith('W/') ? etag : headers.get('last-modified');
}

/** `bytes 100-199/200` as { start: 100, size: 200 }. */
function contentRange(headers: Headers): { start: number; size: number | null } | null {
  const match = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get('content-range') ?? '');
  return match ? { start: Number(match[1]), size: match[2] === '*' ? null : Number(match[2]) } : null;
}

/** Size of the whole file by the answer's headers; null where they do not say. */
function sizeOf(response: Response): number | null {
  if (response.status === 206) return contentRange(response.headers)?.size ?? null;
  const length = response.headers.get('content-length');
  // Of a body that is packed for the way it counts packed bytes, and we get unpacked ones.
  return length !== null && !response.headers.has('content-encoding') ? Number(length) : null;
}

/** May the answer's bytes be put behind those that are there? */
function goesOn(response: Response, have: number, seen: Seen): boolean {
  const [size, validator] = [sizeOf(response), validatorOf(response.headers)];
  return (
    contentRange(response.headers)?.start === have &&
    !response.headers.has('content-encoding') &&
    (size === null || size > have) &&
    (seen.size === null || size === null || size === seen.size) &&
    // Where it does not say, it has agreed to our If-Range.
    (seen.validator === null || validator === null || validator === seen.validator)
  );
}

async function bytesOf(path: string): Promise<number> {
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  );
}

async function openPart(part: string, flags: 'a' | 'w'): Promise<FileHandle> {
  return open(part, flags).catch((cause) => {
    throw ioError(part, cause);
  });
}

/** Empties a part file that nothing can be put behind. */
async function startOver(part: string): Promise<void> {
  await (await openPart(part, 'w')).close();
}

async function request(url: string, have: number, seen: Seen, signal: AbortSignal): Promise<Response> {
  // Packed for the way, a file could neither be measured nor gone on with.
  const headers: Record<string, string> = { 'accept-encoding': 'identity' };
  if (have > 0) {
    headers.range = `bytes=${have}-`;
    if (seen.validator) headers['if-range'] = seen.validator;
  }
  return fetch(url, { headers, signal });
}

/**
 * One attempt to bring a file, going on behind the bytes in `part` where the server lets us.
 * @throws Trouble of the server's or the way's, LthError "io" where the part file cannot be written.
 */
export async function attempt(
  url: string,
  part: string,
  seen: Seen,
  options: DownloadOptions,
): Promise<void> {
  let have = await bytesOf(part);
  if (have > options.atMost) {
    await startOver(part);
    have = 0;
  }
  const clock = new StallClock(options.stallMs);
  try {
    const response = await request(url, have, seen, clock.signal);
    try {
      await take(response, part, have, seen, options, clock);
    } finally {
      // A body that was left must not hold its connection.
      if (!response.bodyUsed) await response.body?.cancel();
    }
  } catch (error) {
    if (error instanceof LthError || error instanceof Trouble) throw error;
    if (clock.signal.aborted) throw clock.signal.reason;
    throw new Trouble(reasonOf(error), true);
  } finally {
    clock.stop();
  }
}

async function take(
  response: Response,
  part: string,
  have: number,
  seen: Seen,
  { atMost, onBytes }: DownloadOptions,
  clock: StallClock,
): Promise<void> {
  const { status } = response;
  if (status === 416 && response.headers.get('content-range') === `bytes */${have}`) {
    // A process ended between its last byte and the check.
    onBytes(have, have);
    return;
  }
  if (status === 416 || (status === 206 && !goesOn(response, have, seen))) {
    await startOver(part);
    Object.assign(seen, { validator: null, size: null });
    throw new Trouble('the file there is not the one that was begun', true);
  }
  if (status !== 200 && status !== 206)
    throw new Trouble(`HTTP ${status}`, status >= 500 || status === 408 || status === 429);
  const size = sizeOf(response);
  if (size !== null && size > atMost)
    throw new Trouble(`it has ${size} bytes there, at most ${atMost} were expected`, false);
  Object.assign(seen, { validator: validatorOf(response.headers), size });
  let done = status === 206 ? have : 0;
  const file = await openPart(part, status === 206 ? 'a' : 'w');
  try {
    onBytes(done, size);
    for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
      clock.tick();
      if (done + chunk.length > (size ?? atMost))
        throw new Trouble(`it sends more than the ${size ?? atMost} bytes expected`, false);
      await file.writeFile(chunk).catch((cause) => {
        throw ioError(part, cause);
      });
      done += chunk.length;
      onBytes(done, size);
    }
  } finally {
    await file.close();
  }
  if (size !== null && done < size)
    throw new Trouble(`the connection ended after ${done} of ${size} bytes`, true);
}
