import { existsSync } from 'node:fs';
import { rm, rmdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ioError, makeFolder } from '../files.js';
import type { LockHandle } from '../native/AddonTypes.js';
import { loadAddon } from '../native/load.js';
import { RunFolder } from './RunFolder.js';

const lockOf = (path: string) => join(path, '.lock');

/** The folder and those above it that are not there, from the inside out. */
function missingFolders(path: string): string[] {
  const missing: string[] = [];
  for (let at = resolve(path); !existsSync(at); at = dirname(at)) missing.push(at);
  return missing;
}

/** What was not there before; folders from the inside out. */
interface Made {
  lock: boolean;
  folders: string[];
}

async function takeBack(path: string, made: Made): Promise<void> {
  try {
    if (made.lock) await rm(lockOf(path), { force: true });
    for (const folder of made.folders) if (existsSync(folder)) await rmdir(folder);
  } catch {
    // What led here is what there is to say.
  }
}

/**
 * A run of which there is nothing yet but its folder and the lock in it: it takes seconds to open data and measure a
 * machine, and who looks for the run meanwhile shall wait. A killed process leaves an empty folder and no lock.
 */
export class Beginning {
  private constructor(
    readonly lock: LockHandle,
    private readonly path: string,
    private readonly made: Made,
  ) {}

  /** null where a run is there already, or somebody else begins one. @throws LthError "io". */
  static async of(path: string): Promise<Beginning | null> {
    if (RunFolder.is(path)) return null;
    const addon = loadAddon(); // before anything is made: it may not be built
    const made = { lock: !existsSync(lockOf(path)), folders: missingFolders(join(path, 'units')) };
    try {
      await makeFolder(path);
    } catch (cause) {
      throw ioError(path, cause);
    }
    try {
      const lock = addon.lockTry(lockOf(path));
      return lock && new Beginning(lock, path, made);
    } catch (error) {
      // Whoever began here and came to nothing took the folder away at this very moment.
      if (!existsSync(path)) return Beginning.of(path);
      await takeBack(path, made);
      throw error;
    }
  }

  /** There will be no run: what was made goes, but for folders that somebody has put something into. */
  async undo(): Promise<void> {
    if (!RunFolder.begun(this.path)) await takeBack(this.path, this.made);
  }

  end(): void {
    loadAddon().dispose(this.lock);
  }
}

/**
 * Waits while a living process begins a run in the folder, whether there is one then or not.
 * @param onWait called once, before the wait, with a word for people.
 * @returns false where the signal came first.
 * @throws LthError "io" where the folder cannot be looked into.
 */
export async function untilBegun(
  path: string,
  onWait: (message: string) => void,
  signal?: AbortSignal,
): Promise<boolean> {
  const begins = () => !RunFolder.is(path) && loadAddon().lockHeld(lockOf(path));
  if (!begins()) return true;
  onWait(`${path}: a run begins there, waiting for it`);
  while (begins()) {
    if (signal?.aborted) return false;
    await sleep(50);
  }
  return true;
}
