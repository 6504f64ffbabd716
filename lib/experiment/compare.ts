import { performance } from 'node:perf_hooks';
import type { Masks } from '../session/Masks.js';
import type { Session, SplitName } from '../session/Session.js';
import type { Snapshot } from '../session/Snapshot.js';
import { readMetrics } from '../store/metrics.js';
import type { RunFolder } from '../store/RunFolder.js';
import type { DistanceUnit, InterpolationUnit } from './plan.js';
import type { ConnectivityResult, StabilityResult } from './Result.js';
import type { UnitContext, Workplace } from './Workplace.js';

/** Both scopes: the second costs one more pass over weights that are at hand. */
const scopes: StabilityResult['scope'][] = ['masked', 'all'];

/** The copies of a comparison, and the masks of its branch. */
async function materialOf(workplace: Workplace, unit: DistanceUnit | InterpolationUnit) {
  const a = await workplace.snapshot(unit.copies[0]);
  const b = await workplace.snapshot(unit.copies[1]);
  return { a, b, masks: await workplace.masksOf(unit) };
}

/** Test accuracies of the two copies at T. */
export async function accuraciesOf(
  folder: RunFolder,
  { copies }: DistanceUnit,
): Promise<StabilityResult['testAccuracies']> {
  const [a, b] = await Promise.all(
    copies.map(async (id) => {
      const rows = await readMetrics(await folder.file(id, 'metrics.arrow'));
      return rows.findLast(({ split }) => split === 'test')?.accuracy ?? null;
    }),
  );
  return [a ?? null, b ?? null];
}

/** One sample of a stability, for each scope (paper section 2). */
export async function samplesOf(
  { of, branch, replicate, rewind, method, level, noises }: DistanceUnit,
  a: Snapshot,
  b: Snapshot,
  masks: Masks,
  testAccuracies: StabilityResult['testAccuracies'],
): Promise<StabilityResult[]> {
  const place = { kind: of, branch, replicate, rewind, method, level, noises };
  const densityPrunable = masks.density.prunable;
  const samples: StabilityResult[] = [];
  for (const scope of scopes) {
    const { distance, angle, layers } = await a.distance(b, masks, { scope });
    samples.push({ ...place, testAccuracies, scope, densityPrunable, distance, angle, layers });
  }
  return samples;
}

export async function measureDistance(workplace: Workplace, unit: DistanceUnit, context: UnitContext) {
  const start = performance.now();
  context.onStart(0);
  const { a, b, masks } = await materialOf(workplace, unit);
  const accuracies = await accuraciesOf(workplace.folder, unit);
  const stability = await samplesOf(unit, a, b, masks, accuracies);
  for (const resource of [a, b, masks]) resource.dispose();
  return { ...outcome(context, start), stability };
}

/** Error barrier height: the largest error on the line less the mean of those at its ends (LMC section 2). */
export function barrierOf(errors: number[]): number {
  const ends = ((errors[0] ?? 0) + (errors.at(-1) ?? 0)) / 2;
  return Math.max(...errors) - ends;
}

/**
 * Errors at evenly spaced points between two copies, both ends included (paper 3.5). Running statistics are
 * interpolated as the weights are, so that the ends are the copies and have the copies' own errors; or estimated anew on
 * as many examples as the training error is measured on, at the ends too: there the errors are those that the copies
 * have under such statistics.
 */
export async function measureLine(
  workplace: Workplace,
  session: Session,
  unit: InterpolationUnit,
  context: UnitContext,
) {
  const start = performance.now();
  const { branch, replicate, rewind, method, level, noises, statistics } = unit;
  context.onStart(0);
  const { a, b, masks } = await materialOf(workplace, unit);
  if (unit.masks) await session.setMasks(masks);
  const trainExamples = unit.trainExamples ?? session.info.examples.train;
  const { signal } = context;
  const errorOn = async (split: SplitName, examples?: number) => {
    const found = await session.evaluate(split, {
      ...(signal ? { signal } : {}),
      ...(examples === undefined ? {} : { examples }),
    });
    return 1 - found.accuracy;
  };
  const alphas: number[] = [];
  const testError: number[] = [];
  const trainError: number[] = [];
  for (let i = 0; i < unit.alphas; i++) {
    const alpha = i / (unit.alphas - 1);
    const point = await a.interpolate(b, alpha);
    await session.load(point, { optimiser: 'zero' });
    point.dispose();
    if (statistics === 'reestimated')
      await session.reestimateStatistics(
        Math.ceil(trainExamples / workplace.recipe.training.batch),
        signal ? { signal } : {},
      );
    alphas.push(alpha);
    testError.push(await errorOn('test'));
    trainError.push(await errorOn('train', trainExamples));
  }
  const connectivity: ConnectivityResult = {
    ...{ branch, replicate, rewind, method, level, noises, statistics },
    densityPrunable: masks.density.prunable,
    ...{ alphas, testError, trainError, trainExamples },
    barrier: { test: barrierOf(testError), train: barrierOf(trainError) },
  };
  for (const resource of [a, b, masks]) resource.dispose();
  return { ...outcome(context, start), connectivity };
}

function outcome({ fingerprint }: UnitContext, start: number) {
  const seconds = (performance.now() - start) / 1000;
  return { files: [], diverged: false, updates: 0, seconds, fingerprints: [fingerprint] };
}
