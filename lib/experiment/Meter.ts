import type { ExperimentEvent, UnitEvent } from './Event.js';
import type { Plan } from './plan.js';

/** How far a plan is, out of what one or several processes tell of their units. */
export class Meter {
  private readonly start = performance.now();
  /** Updates of each unit of the plan. */
  private readonly updates: Map<string, number>;
  private readonly total: number;
  /** Of units that are finished, or failed. */
  private readonly settled = new Set<string>();
  private readonly running = new Map<string, { label: string; updates: number }>();
  private done = 0;
  /** Made before this command, which says nothing about its speed. */
  private before = 0;

  constructor(
    plan: Plan,
    private readonly tell: (event: ExperimentEvent) => void,
  ) {
    this.updates = new Map(plan.units.map((unit) => [unit.id, unit.updates]));
    this.total = plan.units.reduce((sum, unit) => sum + unit.updates, 0);
  }

  get totalUpdates(): number {
    return this.total;
  }

  /** The unit was finished before this command began. */
  finishedBefore(id: string): void {
    this.settle(id);
    this.before += this.updates.get(id) ?? 0;
  }

  take(event: UnitEvent): void {
    switch (event.type) {
      case 'unit-start':
        if (this.settled.has(event.id)) return;
        this.running.set(event.id, { label: event.label, updates: event.resumed });
        this.before += event.resumed;
        this.tell(event);
        break;
      case 'step': {
        const one = this.running.get(event.id);
        if (one) one.updates = event.updates;
        this.progress();
        break;
      }
      case 'unit-end':
        // Each process tells of it, the one that did it first.
        if (this.settled.has(event.id)) return;
        if (event.skipped) this.before += this.updates.get(event.id) ?? 0;
        this.settle(event.id);
        this.tell(event);
        break;
      case 'unit-failed':
        if (this.settled.has(event.id)) return;
        // What will not be made says nothing about the speed.
        this.before += (this.updates.get(event.id) ?? 0) - (this.running.get(event.id)?.updates ?? 0);
        this.settle(event.id);
        this.tell(event);
        break;
      case 'notice':
        this.tell(event);
    }
  }

  private settle(id: string): void {
    this.settled.add(id);
    this.running.delete(id);
    this.done += this.updates.get(id) ?? 0;
  }

  private progress(): void {
    let updates = this.done;
    for (const one of this.running.values()) updates += one.updates;
    const seconds = (performance.now() - this.start) / 1000;
    this.tell({
      type: 'progress',
      fraction: this.total === 0 ? 1 : Math.min(1, updates / this.total),
      updatesPerSecond: Math.max(0, updates - this.before) / seconds,
      running: [...this.running.values()].map((one) => one.label),
    });
  }
}
