import { setTimeout as sleep } from 'node:timers/promises';
import type { LockHandle } from '../native/AddonTypes.js';
import { LthError } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import type { RunFolder, UnitRecord } from '../store/RunFolder.js';
import type { ExperimentEvent } from './Event.js';
import type { Plan, Unit } from './plan.js';
import { resultsOf } from './summary.js';
import type { Workplace } from './Workplace.js';

export interface ScheduleOptions {
  threads: number;
  fingerprint: string;
  signal: AbortSignal | undefined;
  onEvent: (event: ExperimentEvent) => void;
}

/**
 * How long to wait before asking again whether another process has finished a unit, or has died and left it: short at
 * first, for units may be short, then twice as long each time.
 */
const POLL_MS = { first: 10, longest: 500 };

/**
 * Carries a plan out. As many units run side by side as there are threads, one thread each, because two trainings on
 * one core each beat one on two; fewer units share the threads. Bits never depend on it. A training that diverges is
 * a result; what would have been pruned from it is left out and the rest goes on.
 */
export async function runPlan(plan: Plan, workplace: Workplace, options: ScheduleOptions): Promise<void> {
  await new Scheduler(plan, workplace, options).run();
}

class Scheduler {
  private readonly folder: RunFolder;
  private readonly waiting: Unit[] = [];
  private readonly finished = new Map<string, UnitRecord>();
  /** Units that cannot be done because one that they need diverged. */
  private readonly impossible = new Set<string>();
  private readonly running = new Map<
    string,
    { label: string; threads: number; from: number; step: number; promise: Promise<void> }
  >();
  private readonly start = performance.now();
  /** Aborted by the caller's signal, or by the first error. */
  private readonly stop = new AbortController();
  private failure: unknown;
  private poll = POLL_MS.first;
  private updatesDone = 0;
  private updatesBefore = 0;
  private readonly updatesTotal: number;

  constructor(
    private readonly plan: Plan,
    private readonly workplace: Workplace,
    private readonly options: ScheduleOptions,
  ) {
    this.folder = workplace.folder;
    this.updatesTotal = plan.units.reduce((sum, unit) => sum + unit.updates, 0);
    const { signal } = options;
    if (signal?.aborted) this.stop.abort(signal.reason);
    signal?.addEventListener('abort', () => this.stop.abort(signal.reason), { once: true });
  }

  async run(): Promise<void> {
    for (const unit of this.plan.units) {
      const record = await this.folder.record(unit.id);
      if (record) {
        this.finished.set(unit.id, record);
        this.updatesDone += unit.updates;
      } else {
        this.waiting.push(unit);
      }
    }
    this.updatesBefore = this.updatesDone;
    const { units } = this.plan;
    this.options.onEvent({
      type: 'plan',
      units: units.length,
      done: this.finished.size,
      updates: this.updatesTotal,
      bytes: this.workplace.diskBytes(this.plan),
    });
    for (;;) {
      const before = this.finished.size;
      const elsewhere = this.stopped ? false : await this.launch().catch((error) => this.fail(error));
      // Something ended while locks were asked for: more may be ready.
      if (this.finished.size !== before) continue;
      if (this.running.size === 0 && !elsewhere) break;
      const changes: Promise<unknown>[] = [...this.running.values()].map((one) => one.promise);
      if (elsewhere) changes.push(this.askAgain());
      await Promise.race(changes);
    }
    if (this.failure) throw this.failure;
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
    this.stop.abort();
    return false;
  }

  /** Starts what is ready and nobody else works on; true where another process has some of it. */
  private async launch(): Promise<boolean> {
    for (const unit of this.waiting) {
      if (unit.needs.some((id) => this.impossible.has(id) || this.finished.get(id)?.diverged))
        this.impossible.add(unit.id);
    }
    const ready = this.waiting.filter(
      (unit) => !this.impossible.has(unit.id) && unit.needs.every((id) => this.finished.has(id)),
    );
    let free = this.options.threads;
    for (const one of this.running.values()) free -= one.threads;
    const taken: { unit: Unit; lock: LockHandle }[] = [];
    let elsewhere = false;
    try {
      for (const unit of ready) {
        if (taken.length >= free) break;
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
      const from = (unit.kind === 'dense' ? unit.to : this.plan.steps.total) - unit.updates;
      const entry = { label: unit.label, threads, from, step: from, promise: Promise.resolve() };
      this.running.set(unit.id, entry);
      entry.promise = this.carryOut(unit, lock, threads)
        .catch((error) => {
          if (!this.stopped || error !== this.stop.signal.reason) this.fail(error);
        })
        .finally(() => this.running.delete(unit.id));
    });
    if (taken.length > 0) this.poll = POLL_MS.first;
    return elsewhere;
  }

  private async carryOut(unit: Unit, lock: LockHandle, threads: number): Promise<void> {
    try {
      const record = await this.folder.record(unit.id);
      if (record) return this.finishedElsewhere(unit, record);
      await this.folder.clean(unit.id);
      this.options.onEvent({ type: 'unit-start', id: unit.id, label: unit.label });
      const start = performance.now();
      const { files, ...outcome } = await this.workplace.run(unit, this.plan, {
        threads,
        signal: this.stop.signal,
        onStep: (step) => this.progress(unit, step),
      });
      const { id, kind, label, key } = unit;
      const from = unit.kind === 'dense' ? unit.from : null;
      const seconds = (performance.now() - start) / 1000;
      const done = await this.folder.finish(
        { id, kind, label, key, fingerprint: this.options.fingerprint, from, ...outcome, seconds },
        files,
      );
      this.settle(unit, done, false);
    } finally {
      loadAddon().dispose(lock);
    }
  }

  private finishedElsewhere(unit: Unit, record: UnitRecord): void {
    if (record.key !== unit.key)
      throw new LthError(
        'corrupt-file',
        `${this.folder.unit(unit.id)}/unit.json has another key than this experiment`,
      );
    this.settle(unit, record, true);
  }

  private settle(unit: Unit, record: UnitRecord, skipped: boolean): void {
    this.finished.set(unit.id, record);
    this.updatesDone += unit.updates;
    this.options.onEvent({
      type: 'unit-end',
      id: unit.id,
      label: unit.label,
      results: resultsOf(record, this.plan.steps.rewind, this.workplace.recipe.pruning.method),
      skipped,
      diverged: record.diverged,
      seconds: record.seconds,
    });
  }

  private progress(unit: Unit, step: number): void {
    const entry = this.running.get(unit.id);
    if (entry) entry.step = step;
    let updates = this.updatesDone;
    for (const one of this.running.values()) updates += Math.max(0, one.step - one.from);
    const seconds = (performance.now() - this.start) / 1000;
    this.options.onEvent({
      type: 'progress',
      fraction: updates / this.updatesTotal,
      updatesPerSecond: (updates - this.updatesBefore) / seconds,
      running: [...this.running.values()].map((one) => one.label),
    });
  }
}
