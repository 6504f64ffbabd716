import { rm, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ioError, makeFolder } from '../files.js';
import type { LockHandle } from '../native/AddonTypes.js';
import { LthError, wrongValue } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { attempt, type Seen, Trouble } from './download.js';
import { dataFolders } from './folders.js';
import { copyInto, largestOf, place, present } from './place.js';
import { packedName, type Source, type SourceFile } from './sources.js';

export interface FetchedFile {
  /** As it is in the folder, e.g. "train-images-idx3-ubyte.gz". */
  name: string;
  bytes: number;
  /** "there": it was there already, and right. */
  state: 'fetched' | 'copied' | 'there';
}

/** What `data fetch --json` prints. */
export interface Fetched {
  set: string;
  folder: string;
  files: FetchedFile[];
}

export type FetchEvent =
  /** Another process fetches into the folder. */
  | { type: 'waiting'; folder: string }
  | { type: 'bytes'; name: string; done: number; size: number | null }
  /** Something went wrong that may be put right yet. */
  | { type: 'trouble'; text: string }
  | { type: 'file'; file: FetchedFile };

export interface FetchOptions {
  /** Where the files go. Default: LTH_DATA/NAME, else the cache. */
  folder?: string;
  /** Copies from this folder, instead of any mirror. */
  from?: string;
  /** Instead of the official mirrors: folders with the packed files in them. */
  mirrors?: string[];
  /** Without a byte for so long an attempt is given up. */
  stallMs?: number;
  /** Before the second attempt; twice as long before each one after it. */
  backoffMs?: number;
  onEvent?: (event: FetchEvent) => void;
}

/** Attempts at one mirror that bring next to nothing. */
const ATTEMPTS = 4;
/** An attempt that comes so much further than all before it is worth as many again. */
const WORTH = 1 << 20;
const LOCK_POLL_MS = 200;

/** Carries out one `data fetch`. */
class Fetch {
  private readonly stallMs: number;
  private readonly backoffMs: number;
  private readonly tell: (event: FetchEvent) => void;
  private mirrors: string[];

  constructor(
    source: Source,
    private readonly folder: string,
    private readonly options: FetchOptions,
  ) {
    this.stallMs = options.stallMs ?? 30_000;
    this.backoffMs = options.backoffMs ?? 1000;
    this.tell = options.onEvent ?? (() => {});
    this.mirrors = (options.mirrors ?? source.mirrors).map(mirrorUrl);
  }

  /** Call with the folder's lock held. */
  async bring(file: SourceFile): Promise<FetchedFile> {
    const part = join(this.folder, `${packedName(file)}.part`);
    const there = await present(this.folder, file, (text) => this.tell({ type: 'trouble', text }));
    if (there) return this.done(basename(there), 'there');
    if (this.options.from !== undefined) {
      const name = await copyInto(this.folder, this.options.from, file);
      await rm(part, { force: true });
      return this.done(name, 'copied');
    }
    return this.done(await this.fromMirrors(file, part), 'fetched');
  }

  async done(name: string, state: FetchedFile['state']): Promise<FetchedFile> {
    const file = { name, bytes: (await stat(join(this.folder, name))).size, state };
    this.tell({ type: 'file', file });
    return file;
  }

  private async fromMirrors(file: SourceFile, part: string): Promise<string> {
    const reasons: string[] = [];
    const { mirrors } = this;
    for (const mirror of mirrors) {
      const url = new URL(packedName(file), mirror).href;
      try {
        const name = await this.fromMirror(url, file, part);
        // The next file is asked for where this one was got.
        this.mirrors = [mirror, ...mirrors.filter((other) => other !== mirror)];
        return name;
      } catch (error) {
        if (!(error instanceof Trouble)) throw error;
        reasons.push(`${url}: ${error.message}`);
        if (reasons.length < mirrors.length)
          this.tell({ type: 'trouble', text: `${reasons.at(-1)}; asking the next mirror` });
      }
    }
    throw new LthError(
      'io',
      `${packedName(file)} could not be fetched:\n  ${reasons.join('\n  ')}\n` +
        'Without network: `--from DIR` copies the files from a folder, `--mirror URL` names another server.',
    );
  }

  /** All attempts at one mirror. @throws Trouble where it does not give the file. */
  private async fromMirror(url: string, file: SourceFile, part: string): Promise<string> {
    for (let again = false; ; again = true) {
      const resumed = await this.download(url, file, part);
      try {
        return await place(part, file);
      } catch (error) {
        if (!(error instanceof LthError) || error.code !== 'corrupt-file') throw error;
        await rm(part, { force: true });
        // Its first bytes may be of another mirror's file, or of one that has been replaced since.
        if (!resumed || again) {
          throw new Trouble(`what it sent is not the file: ${error.message}`, false);
        }
        this.tell({ type: 'trouble', text: `${url}: the part that was there does not fit; starting over` });
      }
    }
  }

  /** @returns whether bytes are in the part file that were there before. */
  private async download(url: string, file: SourceFile, part: string): Promise<boolean> {
    const seen: Seen = { validator: null, size: null };
    let resumed = false;
    let left = ATTEMPTS;
    let furthest = 0;
    for (;;) {
      let reached: number | null = null;
      try {
        await attempt(url, part, seen, {
          atMost: largestOf(file),
          stallMs: this.stallMs,
          onBytes: (done, size) => {
            // An attempt that begins at 0 leaves nothing of those before it.
            if (reached === null) resumed = done > 0;
            reached = done;
            this.tell({ type: 'bytes', name: packedName(file), done, size });
          },
        });
        return resumed;
      } catch (error) {
        if (!(error instanceof Trouble) || !error.again) throw error;
        left = (reached ?? 0) >= furthest + WORTH ? ATTEMPTS : left - 1;
        furthest = Math.max(furthest, reached ?? 0);
        if (left === 0) throw error;
        this.tell({ type: 'trouble', text: `${url}: ${error.message}; trying again` });
        await sleep(this.backoffMs * 2 ** (ATTEMPTS - 1 - left));
      }
    }
  }
}

function mirrorUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (!url || !['http:', 'https:'].includes(url.protocol))
    throw wrongValue('an http(s) URL', 'a mirror', text);
  // Without it the last part of the path would be replaced.
  return url.href.endsWith('/') ? url.href : `${url.href}/`;
}

async function lockOf(folder: string, tell: (event: FetchEvent) => void): Promise<LockHandle> {
  for (let asked = 0; ; asked++) {
    const lock = loadAddon().lockTry(join(folder, '.lock'));
    if (lock) return lock;
    if (asked === 0) tell({ type: 'waiting', folder });
    await sleep(LOCK_POLL_MS);
  }
}

/**
 * Brings the files of a data set into a folder: what is there and right stays, the rest is copied or downloaded. A file
 * has its name only once its checksums are right; what was downloaded of one stays for the next call.
 * @throws LthError "io" (no mirror gives a file, or the folder cannot be written), "corrupt-file" (a file of `from`),
 * "invalid-argument".
 */
export async function fetchDataset(source: Source, options: FetchOptions = {}): Promise<Fetched> {
  const folder = resolve(options.folder ?? (dataFolders(source.name)[0] as string));
  const fetch = new Fetch(source, folder, options);
  const result = (files: FetchedFile[]): Fetched => ({ set: source.name, folder, files });
  // Where all is there nothing needs to be written: the folder may be another's.
  const there = await Promise.all(source.files.map((file) => present(folder, file, null)));
  if (there.every((path) => path !== null)) {
    return result(await Promise.all(there.map((path) => fetch.done(basename(path), 'there'))));
  }
  try {
    await makeFolder(folder);
  } catch (cause) {
    throw ioError(folder, cause);
  }
  const lock = await lockOf(folder, options.onEvent ?? (() => {}));
  try {
    const files: FetchedFile[] = [];
    for (const file of source.files) files.push(await fetch.bring(file));
    return result(files);
  } finally {
    loadAddon().dispose(lock);
  }
}
