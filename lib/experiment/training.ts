import { performance } from 'node:perf_hooks';
import type { RunEnd } from '../native/AddonTypes.js';
import type { Session } from '../session/Session.js';
import type { Checkpoints } from '../store/Checkpoints.js';
import { appendBatch, appendRows, noRows, type Rows } from '../store/rows.js';
import type { Replacements } from './replacements.js';

/** When a training saves what it has. Whatever comes first; both null: only when it is stopped. */
export interface Cadence {
  seconds: number | null;
  updates: number | null;
  /** Wait longer where saving is slow, so that it never takes more than this share of the time. */
  largestShare: number;
}

export const defaultCadence: Cadence = { seconds: 30, updates: null, largestShare: 0.01 };

export interface TrainingOptions {
  until: number;
  noise: number;
  metricsEvery: number;
  evaluateEvery: number;
  /** The training went on before this session: rows come as if it had not been cut. */
  continues: boolean;
  ends: boolean;
  cadence: Cadence;
  signal: AbortSignal | undefined;
  onStep: (step: number) => void;
}

const PROGRESS_MS = 200;

/**
 * Trains to `until` in pieces that end in checkpoints; a piece goes on while the checkpoint before it is written. When
 * `signal` aborts, the step at hand is saved and its reason thrown, so that no update is lost.
 * @returns how it ended, all rows since the unit's start, and the seconds it took, earlier pieces included.
 */
export async function trainWithCheckpoints(
  session: Session,
  checkpoints: Checkpoints,
  replacements: Replacements,
  o: TrainingOptions,
): Promise<{ end: RunEnd; rows: Rows; seconds: number }> {
  const start = performance.now();
  const before = checkpoints.seconds;
  const seconds = () => before + (performance.now() - start) / 1000;
  const saver = new Saver(session, checkpoints, replacements, seconds);
  let continues = o.continues || checkpoints.step !== null;
  const signal = o.signal ? AbortSignal.any([o.signal, saver.failed]) : saver.failed;
  const clock = setInterval(() => {
    o.onStep(session.step);
    replacements.collect();
  }, PROGRESS_MS);
  let saved = session.step;
  let rows = noRows();
  try {
    for (;;) {
      const pause = new AbortController();
      const wait = saver.wait(o.cadence);
      const timer = wait === null ? undefined : setTimeout(() => pause.abort(), wait * 1000);
      const { updates } = o.cadence;
      const began = seconds();
      try {
        const iterator = session.train({
          until: o.until,
          noise: o.noise,
          metricsEvery: o.metricsEvery,
          evaluateEvery: o.evaluateEvery,
          continues,
          ends: o.ends,
          pause: pause.signal,
          pauseAt: updates === null ? 0 : session.step - (session.step % updates) + updates,
          signal,
        });
        for (;;) {
          const next = await iterator.next();
          if (next.done) {
            if (next.value.state === 'paused') break;
            await saver.idle();
            const all = await checkpoints.rows();
            appendRows(all, rows);
            return { end: next.value, rows: all, seconds: seconds() };
          }
          appendBatch(rows, next.value, began);
          o.onStep(session.step);
        }
      } finally {
        clearTimeout(timer);
      }
      await saver.begin(rows);
      saved = session.step;
      rows = noRows();
      continues = true;
    }
  } catch (error) {
    if (!o.signal?.aborted || error !== o.signal.reason) throw error;
    if (session.step !== saved) await saver.begin(rows);
    await saver.idle();
    throw error;
  } finally {
    clearInterval(clock);
    replacements.collect();
    // Whatever went wrong: nothing of ours is written once the unit's lock is given back.
    await saver.idle().catch(() => {});
  }
}

/** Writes one checkpoint at a time, beside the training. */
class Saver {
  private readonly controller = new AbortController();
  private writing: Promise<void> = Promise.resolve();
  private cost = 0;

  constructor(
    private readonly session: Session,
    private readonly checkpoints: Checkpoints,
    private readonly replacements: Replacements,
    private readonly seconds: () => number,
  ) {}

  /** Aborted with the error when a checkpoint cannot be written: to train on without one would be to hide it. */
  get failed(): AbortSignal {
    return this.controller.signal;
  }

  /** Seconds until the next one, or null. */
  wait({ seconds, largestShare }: Cadence): number | null {
    return seconds === null
      ? null
      : Math.min(Math.max(seconds, this.cost / largestShare), 2 ** 31 / 1000 - 1);
  }

  /** Copies the state, so that the session is free again, and writes it with the rows in the background. */
  async begin(rows: Rows): Promise<void> {
    await this.idle();
    const start = performance.now();
    const snapshot = await this.session.snapshot();
    const pictures = this.replacements.pictures();
    this.writing = this.checkpoints.save(snapshot, rows, this.seconds(), pictures).finally(() => {
      snapshot.dispose();
      this.cost = (performance.now() - start) / 1000;
    });
    this.writing.catch((error) => this.controller.abort(error));
  }

  /** @throws what went wrong in writing. */
  async idle(): Promise<void> {
    await this.writing;
  }
}
