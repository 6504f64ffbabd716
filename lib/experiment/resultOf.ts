import type { MetricRow } from '../store/metrics.js';
import type { UnitRecord } from '../store/records.js';
import type { Result } from './Result.js';

type What = Pick<Result, 'branch' | 'replicate' | 'level' | 'noise'>;

/** Early stopping: the update with the lowest validation loss, the earliest of equals (LTH section 1). */
export function resultOf(
  rows: MetricRow[],
  what: What,
  density: { prunable: number; overall: number },
  updates: number,
  diverged: boolean,
  replacedPictures: Result['replacedPictures'],
  seconds: number,
): NonNullable<UnitRecord['result']> {
  const last = (split: string) => (diverged ? undefined : rows.findLast((row) => row.split === split));
  const [test, validation] = [last('test'), last('validation')];
  let best: MetricRow | undefined;
  for (const row of diverged ? [] : rows) {
    if (row.split === 'validation' && (!best || row.loss < best.loss)) best = row;
  }
  return {
    ...what,
    densityPrunable: density.prunable,
    densityOverall: density.overall,
    testAccuracy: test?.accuracy ?? null,
    validationAccuracy: validation?.accuracy ?? null,
    testLoss: test?.loss ?? null,
    validationLoss: validation?.loss ?? null,
    earlyStop: best?.step ?? null,
    earlyStopTestAccuracy:
      rows.find((row) => row.split === 'test' && row.step === best?.step)?.accuracy ?? null,
    updates,
    diverged,
    replacedPictures,
    seconds,
  };
}
