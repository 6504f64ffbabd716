import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Tuning } from '../native/AddonTypes.js';
import { type ErrorCode, LthError } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import type { Recipe } from '../recipe/Recipe.js';
import type { RunFolder } from '../store/RunFolder.js';
import type { Analysis } from '../store/records.js';
import type { UnitEvent } from './Event.js';
import type { ScheduleOptions } from './scheduler.js';
import { threadsEach } from './sideBySide.js';

/** What a job process is told first. */
export interface JobOrder {
  recipe: Recipe;
  /** By which products are chosen. */
  tuning: Tuning;
  /** What to measure on the run; null: the run itself. */
  analysis: Analysis | null;
  out: string;
  how: Pick<
    ScheduleOptions,
    'cadence' | 'keep' | 'allowDifferentBits' | 'fingerprint' | 'threads' | 'sideBySide' | 'command'
  >;
}

/** What comes back: events, and at the end one of the other two. */
export type JobReport =
  | { type: 'event'; event: UnitEvent }
  | { type: 'done' }
  | { type: 'error'; code: ErrorCode | null; message: string; stack: string | undefined };

export interface JobsOptions {
  recipe: Recipe;
  tuning: Tuning;
  analysis: Analysis | null;
  folder: RunFolder;
  how: Omit<JobOrder['how'], 'threads' | 'command'>;
  jobs: number;
  /** Of all jobs together. */
  threads: number;
  command: string;
  signal: AbortSignal | undefined;
  onEvent: (event: UnitEvent) => void;
}

/**
 * Runs a plan in several processes, each with its share of the threads. They find their units by the locks in the run
 * folder, as independent commands do. A process that dies takes one unit's progress since its checkpoint with it: the
 * unit is noted as failed and another process takes the dead one's place.
 */
export async function runJobs(o: JobsOptions): Promise<void> {
  const { recipe, tuning, analysis, folder, command } = o;
  const threads = threadsEach(o);
  const order: JobOrder = { recipe, tuning, analysis, out: folder.path, how: { ...o.how, threads, command } };
  const children = new Set<ChildProcess>();
  let failure: unknown;
  let stopping = false;
  const stop = () => {
    stopping = true;
    // Not by a signal: the children have had the terminal's or the cluster's already, and would take ours for a second.
    for (const child of children) tell(child, 'stop');
  };
  o.signal?.addEventListener('abort', stop, { once: true });

  const runOne = async (): Promise<void> => {
    for (;;) {
      if (stopping || o.signal?.aborted) return;
      const end = await startJob(order, children, o.onEvent);
      if (end.error) {
        failure ??= end.error;
        stop();
      }
      if (!end.died) return;
      for (const { id, label } of end.died.units) {
        const message = `the process that worked on it ended with ${end.died.how}`;
        if (await noteFailure(folder, { id, label, message, command }))
          o.onEvent({ type: 'unit-failed', id, label, code: 'native', message });
      }
      // One that does not get as far as a unit would die again and again.
      if (!end.died.hadUnits && !stopping && !o.signal?.aborted) {
        failure ??= new LthError('native', `a job process ended with ${end.died.how} before it had a unit`);
        stop();
      }
    }
  };
  /** No job is left alone: an error stops all of them, and is thrown when they have ended. */
  const guarded = () =>
    runOne().catch((error) => {
      failure ??= error;
      stop();
    });
  try {
    await Promise.all(Array.from({ length: o.jobs }, guarded));
  } finally {
    o.signal?.removeEventListener('abort', stop);
  }
  if (failure) throw failure;
}

/**
 * Under the unit's lock.
 * @returns false where another process has taken the unit up meanwhile, or it was finished: nothing is noted.
 */
async function noteFailure(
  folder: RunFolder,
  failure: { id: string; label: string; message: string; command: string },
): Promise<boolean> {
  const lock = await folder.lock(failure.id);
  if (!lock) return false;
  try {
    if (await folder.record(failure.id)) return false;
    await folder.fail({ ...failure, code: 'native' });
    return true;
  } finally {
    loadAddon().dispose(lock);
  }
}

/** To a child that has just died nothing can be said; how it ended is told by 'close'. */
function tell(child: ChildProcess, message: JobOrder | 'stop'): void {
  if (child.connected) child.send(message, () => {});
}

interface JobEnd {
  error: unknown;
  /** It ended without a word. */
  died: { how: string; units: { id: string; label: string }[]; hadUnits: boolean } | null;
}

function startJob(
  order: JobOrder,
  children: Set<ChildProcess>,
  onEvent: (event: UnitEvent) => void,
): Promise<JobEnd> {
  const child = fork(fileURLToPath(new URL('./job.js', import.meta.url)), {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    serialization: 'advanced',
  });
  children.add(child);
  const working = new Map<string, { id: string; label: string }>();
  let report: JobReport | undefined;
  let hadUnits = false;
  child.on('message', (message) => {
    report = message as JobReport;
    if (report.type !== 'event') return;
    const { event } = report;
    hadUnits ||= event.type === 'unit-start';
    if (event.type === 'unit-start') working.set(event.id, { id: event.id, label: event.label });
    if (event.type === 'unit-end' || event.type === 'unit-failed') working.delete(event.id);
    onEvent(event);
  });
  tell(child, order);
  return new Promise((resolve) => {
    // 'close' and not 'exit': messages that are still on their way come first.
    child.on('error', (error) => resolve({ error, died: null }));
    child.on('close', (code, signal) => {
      children.delete(child);
      if (report?.type === 'done') {
        resolve({ error: undefined, died: null });
      } else if (report?.type === 'error') {
        const { code: known, message, stack } = report;
        const error = known ? new LthError(known, message) : Object.assign(new Error(message), { stack });
        resolve({ error, died: null });
      } else {
        const how = signal ?? `exit code ${code}`;
        resolve({ error: undefined, died: { how, units: [...working.values()], hadUnits } });
      }
    });
  });
}
