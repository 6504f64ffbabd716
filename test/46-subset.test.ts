/** Training on some of the examples: which ones, and whose keys it changes. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { openPlan } from '../lib/experiment/openPlan.js';
import { runExperiment } from '../lib/experiment/run.js';
import { packageRoot } from '../lib/package.js';
import type { Recipe } from '../lib/recipe/Recipe.js';
import { openSession, train } from './helpers/digits.js';
import { temporaryFolder } from './helpers/runs.js';
import { tinyRecipe } from './helpers/tiny.js';

const folder = temporaryFolder('subset');

const labels = gunzipSync(
  readFileSync(join(packageRoot, 'data', 'mnist-10k', 'train-labels-idx1-ubyte.gz')),
).subarray(8);

async function trainedOn(options: { subset?: number; seed?: number; replicate?: number }): Promise<number[]> {
  const session = await openSession(options);
  const { updatesPerEpoch, examples } = session.info;
  const rows = Array.from({ length: updatesPerEpoch }, (_, step) => [...session.batchIndices(step)]).flat();
  assert.equal(rows.length, examples.train);
  assert.equal(new Set(rows).size, rows.length);
  session.dispose();
  return rows.sort((a, b) => a - b);
}

test('a subset is the same for all replicates, balanced over classes, and none of the examples held out', async () => {
  const rows = await trainedOn({ subset: 1003 });
  const counts = Array.from({ length: 10 }, (_, digit) => rows.filter((row) => labels[row] === digit).length);
  assert.equal(rows.length, 1003);
  assert.ok(Math.max(...counts) - Math.min(...counts) <= 1, `${counts}`);
  assert.deepEqual(await trainedOn({ subset: 1003, replicate: 4 }), rows);
  assert.notDeepEqual(await trainedOn({ subset: 1003, seed: 8 }), rows);
  const all = new Set(await trainedOn({}));
  assert.ok(rows.every((row) => all.has(row)));
  const more = new Set(await trainedOn({ subset: 2000 }));
  assert.ok(rows.every((row) => more.has(row)));
});

test('validation and test set stay whole, training error is that of the subset', async () => {
  const session = await openSession({ subset: 300 });
  assert.deepEqual(session.info.examples, { train: 300, validation: 504, test: 1996 });
  assert.equal((await session.evaluate('train')).examples, 300);
  session.dispose();
  const available = train.info.count - 504;
  await assert.rejects(
    openSession({ subset: available + 1 }),
    new RegExp(`between 1 and ${available} for subset`),
  );
  await assert.rejects(openSession({ subset: 0 }), /for subset/);
});

const data = (subset: Recipe['data']['subset']) =>
  tinyRecipe({ data: { ...tinyRecipe().data, subset }, controls: [] }, { levels: 1 });

test('a recipe says it; without it no key is other than before it was there', async () => {
  const plans = [];
  for (const subset of [null, 600, 1200]) {
    const { plan, experiment, workplace } = await openPlan(data(subset));
    assert.equal(experiment.data.subset, subset ?? undefined);
    assert.equal('subset' in experiment.data, subset !== null);
    assert.equal(workplace.trainExamples, subset ?? train.info.count - 504);
    assert.equal(plan.steps.updatesPerEpoch, Math.ceil(workplace.trainExamples / 60));
    workplace.dispose();
    plans.push(plan.units.map(({ id }) => id));
  }
  assert.equal(new Set(plans.flat()).size, plans.flat().length);
  assert.throws(() => data(0), /data\.subset/);
  await assert.rejects(openPlan(data(100_000)), /subset/);
  const { results } = await runExperiment(data(600), { out: join(folder, 'run'), threads: 1 });
  assert.equal(results.length, 4);
});
