import { setTimeout as sleep } from 'node:timers/promises';
import type { ExperimentEvent } from './Event.js';
import { resultsOf } from './summary.js';
import { type Survey, survey, type UnitStatus } from './survey.js';

export interface WatchOptions {
  /** Between two looks at the folder. */
  intervalMs: number;
  signal?: AbortSignal;
  onEvent: (event: ExperimentEvent) => void;
}

/** Looks without anybody at work after which units that failed are taken to stay so. */
const PATIENCE = 5;

/**
 * Follows a run that is going on elsewhere, until all is done that can be done: also where units failed, nobody is at
 * work, and what is left needs them. Nothing is changed.
 */
export async function watchRun(path: string, options: WatchOptions): Promise<Survey> {
  const told = new Map<string, UnitStatus['state']>();
  let idle = 0;
  for (let first = true; ; first = false) {
    const found = await survey(path);
    if (first) tellPlan(found, options.onEvent);
    for (const status of found.units) {
      if (told.get(status.unit.id) === status.state) continue;
      told.set(status.unit.id, status.state);
      tellUnit(found, status, first, options.onEvent);
    }
    tellProgress(found, options.onEvent);
    const open = found.units.filter(({ state }) => state !== 'done' && state !== 'impossible');
    if (open.length === 0) return found;
    idle = open.some(({ state }) => state === 'running') ? 0 : idle + 1;
    if (idle === 1) options.onEvent({ type: 'notice', message: 'nobody works on it now' });
    if (idle > PATIENCE && isStuck(open)) return found;
    await sleep(options.intervalMs, undefined, options.signal ? { signal: options.signal } : {});
  }
}

/** Has each of these units failed, or does it need one that has? */
function isStuck(open: UnitStatus[]): boolean {
  const stuck = new Set<string>();
  for (const { unit, state } of open) {
    if (state === 'failed' || state === 'damaged' || unit.needs.some((id) => stuck.has(id)))
      stuck.add(unit.id);
  }
  return stuck.size === open.length;
}

function tellPlan({ units }: Survey, tell: WatchOptions['onEvent']): void {
  tell({
    type: 'plan',
    units: units.length,
    done: units.filter(({ state }) => state === 'done').length,
    updates: units.reduce((sum, { unit }) => sum + unit.updates, 0),
    bytes: null,
    peakBytes: null,
  });
}

function tellUnit(
  { recipe, plan }: Survey,
  status: UnitStatus,
  first: boolean,
  tell: WatchOptions['onEvent'],
): void {
  const { unit, state, record, message } = status;
  const { id, label } = unit;
  if (state === 'running') tell({ type: 'unit-start', id, label, resumed: 0 });
  if (state === 'failed' || state === 'damaged')
    tell({ type: 'unit-failed', id, label, code: state, message: message ?? '' });
  // What was done before the first look is in `show`.
  if (state === 'done' && record && !first) {
    const results = resultsOf(record, plan.steps.rewind, recipe.pruning.method);
    tell({
      type: 'unit-end',
      id,
      label,
      results,
      stability: record.stability ?? [],
      connectivity: record.connectivity ?? null,
      skipped: false,
      diverged: record.diverged,
      seconds: record.seconds,
    });
  }
}

function tellProgress({ units }: Survey, tell: WatchOptions['onEvent']): void {
  const total = units.reduce((sum, { unit }) => sum + unit.updates, 0);
  const running = units.filter(({ state }) => state === 'running');
  tell({
    type: 'progress',
    fraction: total === 0 ? 1 : units.reduce((sum, { updates }) => sum + updates, 0) / total,
    updatesPerSecond: running.reduce((sum, { pulse }) => sum + (pulse?.updatesPerSecond ?? 0), 0),
    running: running.map(({ unit }) => unit.label),
  });
}
