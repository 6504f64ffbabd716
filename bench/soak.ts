/**
 * Short experiments one after the other in one process: memory must not grow.
 *
 *   npm run soak [-- --minutes 30]
 *
 * Exit code 1 where the resident memory of the last third is more than the bound above that of the second third.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { runExperiment } from '../lib/experiment/run.js';
import { loadRecipe } from '../lib/recipe/load.js';
import { summary } from './helpers.js';

/** Above what the allocator and the collector move to and fro. */
const BOUND_MIB = 24;

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '30' } } });
const minutes = Number(values.minutes);
const folder = mkdtempSync(join(tmpdir(), 'lth-soak-'));
const recipe = loadRecipe('quickstart', {
  set: ['training.steps=60', 'training.evaluateEvery=20', 'training.metricsEvery=10', 'network=lenet-100-50'],
  rewind: ['0it', '25it'],
  levels: 2,
  replicates: 2,
});

const mib = (bytes: number) => bytes / 2 ** 20;
const samples: { seconds: number; rss: number }[] = [];
const start = performance.now();
let units = 0;
let runs = 0;
let stops = 0;
let told = 0;
for (;;) {
  const seconds = (performance.now() - start) / 1000;
  if (seconds > minutes * 60) break;
  const out = join(folder, `run-${runs}`);
  // Every third run is stopped at a checkpoint and goes on.
  for (const pieces of runs % 3 === 0 ? [5, null] : [null]) {
    const stop = new AbortController();
    let left = pieces ?? Number.POSITIVE_INFINITY;
    const { stopped } = await runExperiment(recipe, {
      out,
      checkpoint: { updates: 20 },
      signal: stop.signal,
      onEvent: (event) => {
        if (event.type === 'unit-end') units++;
        if (event.type === 'progress' && --left === 0) stop.abort();
      },
    });
    if (stopped) stops++;
  }
  rmSync(out, { recursive: true });
  runs++;
  global.gc?.();
  const { rss, heapUsed, external } = process.memoryUsage();
  samples.push({ seconds, rss });
  if (seconds >= told) {
    told += 60;
    console.log(
      `${(seconds / 60).toFixed(1).padStart(5)} min: ${runs} runs, ${units} units, ${stops} stops; resident ${mib(rss).toFixed(0)} MiB, heap ${mib(heapUsed).toFixed(0)}, external ${mib(external).toFixed(0)}`,
    );
  }
}
rmSync(folder, { recursive: true });
const between = (from: number, to: number) =>
  mib(
    summary(
      samples
        .filter(({ seconds }) => seconds >= from * minutes * 60 && seconds < to * minutes * 60)
        .map(({ rss }) => rss),
    ).median,
  );
const [middle, last] = [between(1 / 3, 2 / 3), between(2 / 3, 1)];
console.log(
  `${units} units in ${runs} runs, ${stops} stopped and resumed: resident memory ${middle.toFixed(1)} MiB in the second third, ${last.toFixed(1)} in the last (bound: ${BOUND_MIB} more)`,
);
// Too few samples give NaN, which is no pass either.
process.exitCode = last - middle <= BOUND_MIB && stops > 0 ? 0 : 1;
