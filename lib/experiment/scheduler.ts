import { setTimeout as sleep } from 'node:timers/promises';
import { fromFileSystem } from '../files.js';
import type { LockHandle } from '../native/AddonTypes.js';
import { LthError } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { removeCheckpoints } from '../store/Checkpoints.js';
import { Heartbeat } from '../store/Heartbeat.js';
import type { RunFolder } from '../store/RunFolder.js';
import type { UnitRecord } from '../store/records.js';
import type { UnitEvent } from './Event.js';
import type { Plan, Unit } from './plan.js';
import { type Keep, removable } from './retention.js';
import { resultsOf } from './summary.js';
import type { Cadence } from './training.js';
import type { Workplace } from './Workplace.js';

export interface ScheduleOptions {
  threads: number;
  /** Units in work at a time, at most as many as threads. */
  sideBySide: number;
  fingerprint: string;
  allowDifferentBits: boolean;
  cadence: Cadence;
  keep: Keep;
  /** Of this command, shared by its jobs. */
  command: string;
  /** Units that were finished when the command began. */
  finished: ReadonlyMap<string, UnitRecord>;
  signal: AbortSignal | undefined;
  onEvent: (event: UnitEvent) => void;
}

/**
 * How long to wait before asking again whether another process has finished a unit, or has died and left it: short at
 * first, for units may be short, then twice as long each time.
 */
const POLL_MS = { first: 10, longest: 500 };

/**
 * Carries a plan out. As many units run side by side as may, because two trainings on one core each beat one on two;
 * they share the threads. Bits never depend on it. A training that diverges is
 * a result, and a unit that fails is noted; what would have come of them is left out and the rest goes on.
 * @throws the first error that is not of one unit alone: what was written cannot be written.
 */
export async function runPlan(plan: Plan, workplace: Workplace, options: ScheduleOptions): Promise<void> {
  await new Scheduler(plan, workplace, options).run();
}

interface Running {
  threads: number;
  promise: Promise<void>;
}

class Scheduler {
  private readonly folder: RunFolder;
  private readonly waiting: Unit[];
  private readonly finished: Map<string, UnitRecord>;
  private readonly failed = new Set<string>();
  /** Units that cannot be done because one that they need diverged or failed. */
  private readonly impossible = new Set<string>();
  private readonly running = new Map<string, Running>();
  /** Aborted by the caller's signal, or by the first error that is not of one unit alone. */
  private readonly stop = new AbortController();
  private failure: unknown;
  private poll = POLL_MS.first;
  private readonly onAbort = () => this.stop.abort(this.options.signal?.reason);

  constructor(
    private readonly plan: Plan,
    private readonly workplace: Workplace,
    private readonly options: ScheduleOptions,
  ) {
    this.folder = workplace.folder;
    this.finished = new Map(options.finished);
    this.waiting = plan.units.filter((unit) => !this.finished.has(unit.id));
    const { signal } = options;
    if (signal?.aborted) this.onAbort();
    signal?.addEventListener('abort', this.onAbort, { once: true });
  }

  async run(): Promise<void> {
    try {
      await this.tidy();
      for (;;) {
        const before = this.settledCount;
        const elsewhere = this.stopped ? false : await this.launch().catch((error) => this.fail(error));
        // Something ended while locks were asked for: more may be ready.
        if (this.settledCount !== before) continue;
        if (this.running.size === 0 && !elsewhere) break;
        const changes: Promise<unknown>[] = [...this.running.values()].map((one) => one.promise);
        if (elsewhere) changes.push(this.askAgain());
        await Promise.race(changes);
      }
    } finally {
      this.options.signal?.removeEventListener('abort', this.onAbort);
    }
    if (this.failure) throw this.failure;
  }

  private get settledCount(): number {
    return this.finished.size + this.failed.size;
  }

  private askAgain(): Promise<unknown> {
    const wait = this.poll;
    this.poll = Math.min(2 * wait, POLL_MS.longest);
    return sleep(wait, undefined, { ref: this.running.size === 0 });
  }

  private get stopped(): boolean {
    return this.stop.signal.aborted;
  }

  /** Has all units stop at their next step; `run` throws the first error when they have. */
  private fail(error: unknown): false {
    this.failure ??= error;
    this.stop.abort(error);
    return false;
  }

  /** Starts what is ready and nobody else works on; true where another process has some of it. */
  private async launch(): Promise<boolean> {
    for (const unit of this.waiting) {
      const isLost = (id: string) =>
        this.impossible.has(id) || this.failed.has(id) || this.finished.get(id)?.diverged;
      if (unit.needs.some(isLost)) this.impossible.add(unit.id);
    }
    const ready = this.waiting.filter(
      (unit) => !this.impossible.has(unit.id) && unit.needs.every((id) => this.finished.has(id)),
    );
    let free = this.options.threads;
    for (const one of this.running.values()) free -= one.threads;
    const most = Math.min(free, this.options.sideBySide - this.running.size);
    const taken: { unit: Unit; lock: LockHandle }[] = [];
    let elsewhere = false;
    try {
      for (const unit of ready) {
        if (taken.length >= most) break;
        const lock = await this.folder.lock(unit.id);
        if (lock) taken.push({ unit, lock });
        else elsewhere = true;
      }
    } catch (error) {
      for (const { lock } of taken) loadAddon().dispose(lock);
      throw error;
    }
    taken.forEach(({ unit, lock }, i) => {
      const threads = Math.max(1, Math.floor(free / (taken.length - i)));
      free -= threads;
      this.waiting.splice(this.waiting.indexOf(unit), 1);
      const entry: Running = { threads, promise: Promise.resolve() };
      this.running.set(unit.id, entry);
      entry.promise = this.carryOut(unit, threads)
        .catch((error) => this.settleError(unit, error))
        .finally(() => loadAddon().dispose(lock))
        .then(() => this.tidy())
        .catch((error) => void this.fail(error))
        .finally(() => this.running.delete(unit.id));
    });
    if (taken.length > 0) this.poll = POLL_MS.first;
    return elsewhere;
  }

  /** Under the unit's lock. */
  private async carryOut(unit: Unit, threads: number): Promise<void> {
    const { id, kind, label, key } = unit;
    const { options } = this;
    const record = await this.folder.record(id);
    if (record) return this.finishedElsewhere(unit, record);
    const failure = await this.folder.failure(id);
    if (failure?.command === options.command) return this.failedElsewhere(unit, failure);
    await this.folder.clean(id);
    const first = unit.kind === 'dense' ? unit.to - unit.updates : this.plan.steps.total - unit.updates;
    const heartbeat = new Heartbeat(this.folder.unit(id));
    try {
      const { files, ...outcome } = await this.workplace.run(unit, this.plan, {
        threads,
        fingerprint: options.fingerprint,
        allowDifferentBits: options.allowDifferentBits,
        cadence: options.cadence,
        signal: this.stop.signal,
        onStart: (step) => {
          const resumed = unit.updates === 0 ? 0 : step - first;
          heartbeat.begin(resumed);
          options.onEvent({ type: 'unit-start', id, label, resumed });
        },
        onStep: (step) => {
          heartbeat.beat(step - first);
          options.onEvent({ type: 'step', id, updates: step - first });
        },
        onNotice: (message) => options.onEvent({ type: 'notice', message }),
      });
      const from = unit.kind === 'dense' ? unit.from : null;
      const done = await this.folder.finish({ id, kind, label, key, from, ...outcome }, files);
      await removeCheckpoints(this.folder.unit(id));
      this.settle(unit, done, false);
    } finally {
      await heartbeat.end();
    }
  }

  /** What an error of one unit means: nothing where all was stopped, a note where it is of this unit alone. */
  private async settleError(unit: Unit, thrown: unknown): Promise<void> {
    if (this.stopped && thrown === this.stop.signal.reason) return;
    const error = fromFileSystem(thrown) ?? thrown;
    const known = error instanceof LthError;
    // What cannot be written now will not be written for the next unit either.
    if (known && (error.code === 'io' || error.code === 'different-bits')) throw error;
    if (!known && !(error instanceof RangeError)) throw error; // a defect of ours
    const { id, label } = unit;
    const { command } = this.options;
    const { code, message } = known ? error : { code: 'native', message: String(error) };
    await this.folder.fail({ id, label, code, message, command });
    this.failed.add(id);
    this.options.onEvent({ type: 'unit-failed', id, label, code, message });
  }

  private finishedElsewhere(unit: Unit, record: UnitRecord): void {
    if (record.key !== unit.key)
      throw new LthError(
        'corrupt-file',
        `${this.folder.unit(unit.id)}/unit.json has another key than this experiment`,
      );
    this.settle(unit, record, true);
  }

  private failedElsewhere(unit: Unit, { code, message }: { code: string; message: string }): void {
    const { id, label } = unit;
    this.failed.add(id);
    this.options.onEvent({ type: 'unit-failed', id, label, code, message });
  }

  private settle(unit: Unit, record: UnitRecord, skipped: boolean): void {
    this.finished.set(unit.id, record);
    this.options.onEvent({
      type: 'unit-end',
      id: unit.id,
      label: unit.label,
      results: resultsOf(record, this.plan.steps.rewind, this.workplace.recipe.pruning.method),
      stability: record.stability ?? [],
      connectivity: record.connectivity ?? null,
      skipped,
      diverged: record.diverged,
      seconds: record.seconds,
    });
  }

  /** Removes weights that the retention rule does not keep. */
  private async tidy(): Promise<void> {
    if (this.options.keep === 'all') return;
    for (const id of removable(this.plan, (one) => this.finished.has(one))) {
      const file = this.finished.get(id)?.files['snapshot.safetensors'];
      if (!file || file.removed) continue;
      // Where another process is at it, that one removes it, or the next command does.
      if (await this.folder.remove(id, 'snapshot.safetensors')) file.removed = true;
    }
  }
}
