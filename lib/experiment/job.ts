/**
 * A job process of `runJobs`. Signals first, before anything else is imported: the terminal and the cluster send theirs
 * to the whole group, so a job hears of one stop twice, and only its parent counts.
 */
import type { JobOrder, JobReport } from './jobs.js';

const stop = new AbortController();
let over = false;
for (const name of ['SIGINT', 'SIGTERM', 'SIGUSR1'] as const) process.on(name, () => stop.abort());
process.on('disconnect', () => {
  if (over) return;
  // The parent is gone: save and stop, or, where that was said already, be gone too (its second signal).
  if (stop.signal.aborted) process.exit(143);
  stop.abort();
});

function report(message: JobReport): Promise<void> {
  return new Promise((resolve) => {
    if (!process.connected) return resolve();
    process.send?.(message, undefined, undefined, () => resolve());
  });
}

process.on('message', async (message) => {
  if (message === 'stop') {
    stop.abort();
    return;
  }
  const { carryOutJob } = await import('./carryOutJob.js');
  const { LthError } = await import('../native/errors.js');
  const { fromFileSystem } = await import('../files.js');
  try {
    await carryOutJob(message as JobOrder, stop.signal, (event) => {
      // The parent may have died a moment ago: 'disconnect' will tell, an error here must not.
      if (process.connected)
        process.send?.({ type: 'event', event } satisfies JobReport, undefined, undefined, () => {});
    });
    await report({ type: 'done' });
  } catch (error) {
    const known = error instanceof LthError ? error : fromFileSystem(error);
    const { message: words, stack } = known ?? (error instanceof Error ? error : new Error(String(error)));
    await report({ type: 'error', code: known?.code ?? null, message: words, stack });
    process.exitCode = 1;
  }
  over = true;
  if (process.connected) process.disconnect();
});
