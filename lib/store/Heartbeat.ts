import { existsSync } from 'node:fs';
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';

const INTERVAL_MS = 1000;

const schema = z.object({
  updates: z.int().min(0),
  updatesPerSecond: z.number().min(0),
  pid: z.int().min(0),
  host: z.string().max(300),
  /** Milliseconds since 1970. */
  time: z.number(),
});
/** Where a unit is that is being worked on. */
export type Pulse = z.infer<typeof schema>;

/** Of each unit's folder. */
export const pulseFile = '.progress.json';
const fileOf = (folder: string) => join(folder, pulseFile);

/** What was last told of a unit, or null. */
export async function readPulse(folder: string): Promise<Pulse | null> {
  const path = fileOf(folder);
  if (!existsSync(path)) return null;
  // Not synced, so after a power cut it may be empty.
  const parsed = await readFile(path, 'utf8')
    .then((text) => schema.safeParse(JSON.parse(text)))
    .catch(() => null);
  return parsed?.success ? parsed.data : null;
}

/**
 * Tells others how far a unit is, once a second, for `show` and `watch`. Nothing rests on it: not synced, and where it
 * cannot be written the training goes on until a checkpoint cannot be written.
 */
export class Heartbeat {
  /** Units that are done within the interval write nothing. */
  private last = { time: Date.now(), updates: 0 };
  private writing: Promise<void> | null = null;

  constructor(private readonly folder: string) {}

  /** @param updates that a checkpoint saved: no part of the pace. */
  begin(updates: number): void {
    this.last = { time: Date.now(), updates };
  }

  beat(updates: number): void {
    const time = Date.now();
    if (this.writing || time - this.last.time < INTERVAL_MS) return;
    const made = Math.max(0, updates - this.last.updates);
    const updatesPerSecond = (1000 * made) / (time - this.last.time);
    this.last = { time, updates };
    const pulse: Pulse = { updates, updatesPerSecond, pid: process.pid, host: hostname(), time };
    this.writing = this.write(pulse).finally(() => {
      this.writing = null;
    });
  }

  private async write(pulse: Pulse): Promise<void> {
    const path = fileOf(this.folder);
    const temporary = `${path}.tmp`;
    await writeFile(temporary, JSON.stringify(pulse))
      .then(() => rename(temporary, path))
      .catch(() => {});
  }

  /** What was told is on its way no more. */
  async idle(): Promise<void> {
    await this.writing;
  }

  async end(): Promise<void> {
    await this.idle();
    await rm(fileOf(this.folder), { force: true }).catch(() => {});
    await rm(`${fileOf(this.folder)}.tmp`, { force: true }).catch(() => {});
  }
}
