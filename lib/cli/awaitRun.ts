import { untilBegun } from '../store/Beginning.js';

/** For commands that read a run: waits for one that another command just begins. @returns false where the signal came first. */
export function awaitRun(run: string, signal?: AbortSignal): Promise<boolean> {
  return untilBegun(run, (message) => process.stderr.write(`${message}\n`), signal);
}
