/** The recipes of the successor, "Linear Mode Connectivity and the Lottery Ticket Hypothesis". */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { measureConnectivity } from '../lib/experiment/analyse.js';
import { resolveSteps } from '../lib/experiment/plan.js';
import { runExperiment } from '../lib/experiment/run.js';
import { packageRoot } from '../lib/package.js';
import { loadRecipe, recipeNames } from '../lib/recipe/load.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { temporaryFolder } from './helpers/runs.js';

const folder = temporaryFolder('lmc');

/** Iterations, batch, learning rate, warm-up, density of prunable weights in % (paper 2.4). */
const table: Record<string, [number, number, number, number, number]> = {
  'mnist/lmc-lenet': [24_000, 60, 0.0012, 0, 3.5],
  'cifar10/lmc-resnet20': [63_000, 128, 0.1, 0, 16.8],
  'cifar10/lmc-resnet20-low': [63_000, 128, 0.01, 0, 8.6],
  'cifar10/lmc-resnet20-warmup': [63_000, 128, 0.03, 30_000, 8.6],
  'cifar10/lmc-vgg16': [63_000, 128, 0.1, 0, 1.5],
  'cifar10/lmc-vgg16-low': [63_000, 128, 0.01, 0, 5.5],
  'cifar10/lmc-vgg16-warmup': [63_000, 128, 0.1, 30_000, 1.5],
};

test('they have the values of the table of that paper, and train on all examples', () => {
  assert.deepEqual(
    recipeNames()
      .filter((name) => name.includes('/lmc-'))
      .sort(),
    Object.keys(table).sort(),
  );
  for (const [name, [total, batch, rate, warmup, density]] of Object.entries(table)) {
    const recipe = loadRecipe(name);
    const { training, data, pruning } = recipe;
    assert.deepEqual([data.validation, data.subset, recipe.replicates], [0, null, 3], name);
    assert.deepEqual([training.batch, training.optimiser.learningRate], [batch, rate], name);
    const updatesPerEpoch = Math.ceil((data.set === 'mnist' ? 60_000 : 50_000) / batch);
    const steps = resolveSteps(recipe, updatesPerEpoch);
    assert.deepEqual([steps.total, steps.warmup], [total, warmup], name);
    assert.deepEqual(steps.milestones, data.set === 'mnist' ? [] : [32_000, 48_000]);
    assert.deepEqual(recipe.controls, ['random', 'reinit']);
    // What is printed counts all weights of VGG, and the never pruned ones of its last layer show.
    const { weights, prunable } = CompiledNetwork.compile(recipe.network).summary.counts;
    const left = prunable * 0.8 ** pruning.levels;
    const remaining = name.includes('vgg') ? (left + weights - prunable) / weights : left / prunable;
    assert.ok(Math.abs(remaining * 100 - density) < 0.05, `${name}: ${remaining}`);
  }
  assert.deepEqual(loadRecipe('cifar10/lmc-resnet20').rewind, ['0it', '500it', '1000it', '2000it']);
  assert.equal(loadRecipe('cifar10/lmc-resnet20').paper?.figures[0]?.accuracy, 0.917);
  assert.equal(loadRecipe('cifar10/lmc-vgg16').paper?.figures[0]?.accuracy, 0.937);
});

test("each file's head says how barriers are measured, in words that the command takes", () => {
  for (const name of Object.keys(table)) {
    const text = readFileSync(join(packageRoot, 'lib', 'recipe', 'recipes', `${name}.yaml`), 'utf8');
    const out = `runs/${name.split('/')[1]}`;
    assert.ok(text.includes(`#   lth-train run ${name} --out ${out}\n`), name);
    assert.ok(
      text.includes(`#   lth-train connectivity ${out} --orders 3 --branches dense,imp,random,reinit\n`),
    );
  }
});

test('without a validation set a run and its lines go all the way: no early stopping, and 9 lines a place', async () => {
  const small = [
    'data.set=mnist-10k',
    'training.steps=24it',
    'training.evaluateEvery=12it',
    'pruning.levels=1',
  ];
  const recipe = loadRecipe('mnist/lmc-lenet', { set: [...small, 'network=lenet-20-12'] });
  const run = join(folder, 'lenet');
  const { results, complete } = await runExperiment(recipe, { out: run, threads: 2 });
  assert.ok(complete && results.length === 3 * 4);
  for (const one of results) {
    assert.deepEqual([one.validationAccuracy, one.earlyStop, one.earlyStopTestAccuracy], [null, null, null]);
    assert.ok((one.testAccuracy ?? 0) > 0);
  }
  const branches = ['dense', 'imp', 'random', 'reinit'] as const;
  const lines = await measureConnectivity(run, {
    ...{ orders: 3, alphas: 3, threads: 2, trainExamples: 100 },
    branches: [...branches],
  });
  for (const branch of branches)
    assert.equal(lines.results.filter((one) => one.branch === branch).length, 9, branch);
});
