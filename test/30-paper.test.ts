/** The recipes of the small networks, the data that they want, and the paper's figures beside what was measured. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { Result, RunSummary } from '../lib/experiment/Result.js';
import { LthError } from '../lib/native/errors.js';
import { loadRecipe, recipeNames, toYaml } from '../lib/recipe/load.js';
import type { PaperFigures } from '../lib/recipe/Recipe.js';
import { curves, savingOf } from '../lib/report/matching.js';
import { renderTable } from '../lib/report/terminal.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Dataset } from '../lib/session/Dataset.js';
import { Session } from '../lib/session/Session.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-paper-'));
after(() => rmSync(folder, { recursive: true }));

const names = ['mnist/lenet-300-100', 'fashion-mnist/lenet-300-100'] as const;

test('both recipes are built in and are the same experiment on two data sets', () => {
  const [mnist, fashion] = names.map((name) => {
    assert.ok(recipeNames().includes(name));
    const recipe = loadRecipe(name);
    assert.equal(recipe.name, name);
    return recipe;
  });
  assert.ok(mnist && fashion);
  assert.equal(mnist.data.set, 'mnist');
  assert.equal(fashion.data.set, 'fashion-mnist');
  assert.equal(fashion.paper, null);
  const { name, description, paper } = fashion;
  assert.deepEqual({ ...mnist, name, description, paper, data: fashion.data }, fashion);
});

test('they have the values of the paper: T, batch, optimiser, levels and rates', () => {
  const { network, data, training, pruning, ...recipe } = loadRecipe('mnist/lenet-300-100');
  assert.equal(network, 'lenet-300-100');
  assert.deepEqual([data.validation, data.normalise], [5000, true]);
  assert.deepEqual([training.steps, training.batch], ['50000it', 60]);
  assert.deepEqual([training.evaluateEvery, training.metricsEvery], ['100it', '100it']);
  assert.deepEqual([training.optimiser.type, training.optimiser.learningRate], ['adam', 0.0012]);
  assert.deepEqual(training.schedule, { milestones: [], gamma: 0.1, warmup: '0it' });
  assert.deepEqual(pruning, {
    levels: 10,
    fraction: 0.2,
    pooling: 'layerwise',
    rates: { 'fc3.weight': 0.1 },
    method: 'iterative',
  });
  assert.deepEqual([recipe.rewind, recipe.noise, recipe.controls], [['0it'], 'fresh', ['random', 'reinit']]);
  assert.deepEqual([recipe.replicates, recipe.seed], [3, 1]);
});

test('60,000 examples are 55,000 for training and 5,000 for validation, an epoch is 917 updates', async () => {
  // Pictures without a dot do for counting.
  const file = (name: string, type: number, ...dimensions: number[]) => {
    const bytes = Buffer.alloc(4 + 4 * dimensions.length + dimensions.reduce((a, b) => a * b, 1));
    bytes.writeUInt32BE(type, 0);
    for (const [d, size] of dimensions.entries()) bytes.writeUInt32BE(size, 4 + 4 * d);
    writeFileSync(join(folder, `${name}.gz`), gzipSync(bytes, { level: 1 }));
  };
  file('train-images-idx3-ubyte', 0x803, 60_000, 28, 28);
  file('train-labels-idx1-ubyte', 0x801, 60_000);
  file('t10k-images-idx3-ubyte', 0x803, 10_000, 28, 28);
  file('t10k-labels-idx1-ubyte', 0x801, 10_000);
  for (const name of names) {
    const { network, data, training } = loadRecipe(name);
    const sets = await Dataset.open(data.set, folder);
    const session = await Session.open({
      network: CompiledNetwork.compile(network),
      ...sets,
      validation: data.validation,
      batch: training.batch,
      optimiser: training.optimiser,
      normalise: false,
      threads: 1,
    });
    assert.deepEqual(session.info.examples, { train: 55_000, validation: 5000, test: 10_000 });
    assert.equal(session.info.updatesPerEpoch, 917);
    session.dispose();
  }
});

function result(branch: Result['branch'], rewind: number, level: number, accuracy: number): Result {
  return {
    branch,
    replicate: 0,
    rewind,
    method: 'iterative',
    level,
    noise: 0,
    densityPrunable: level === 10 ? 0.1083 : 0.8 ** level,
    densityOverall: 0.8 ** level,
    testAccuracy: accuracy,
    validationAccuracy: accuracy,
    testLoss: 0.1,
    validationLoss: 0.1,
    earlyStop: 100,
    earlyStopTestAccuracy: accuracy,
    updates: 1000,
    diverged: false,
    replacedPictures: null,
    seconds: 1,
  };
}

const summary = (paper: PaperFigures | null, results: Result[]): RunSummary => ({
  run: 'runs/x',
  recipe: 'x',
  complete: true,
  units: { total: 1, done: 1, running: 0, waiting: 0, failed: 0, impossible: 0, damaged: 0 },
  stability: [],
  connectivity: [],
  problems: [],
  replacedPictures: [],
  fingerprints: ['kernels=1'],
  paper,
  results,
});

test('the figures of the paper stand beside the measured ones, level by level', () => {
  const { paper } = loadRecipe('mnist/lenet-300-100');
  const results = [
    result('imp', 0, 0, 0.9812),
    result('imp', 0, 1, 0.9822),
    result('imp', 0, 10, 0.98314),
    result('random', 0, 10, 0.974),
  ];
  const text = renderTable(summary(paper, results));
  assert.ok(
    text.includes(`
paper (Stabilizing the Lottery Ticket Hypothesis, Figures 2 and 3), test accuracy %:
  level 0: imp 98.0 +- 0.2 (here 98.12)
  level 10, 10.7 % remaining (here 10.83 %): imp 98.3 +- 0.1 (here 98.31), random 97.5 +- 0.3 (here 97.40)
`),
    text,
  );
});

test('levels and controls that have no figure, here or there, are not made up', () => {
  const paper: PaperFigures = {
    source: 'Somebody 2019',
    figures: [
      { branch: 'imp', level: 0, accuracy: 0.9176 },
      { branch: 'random', level: 1, rewind: '500it', accuracy: 0.9 },
      { branch: 'imp', level: 2, accuracy: 0.5 },
    ],
  };
  const text = renderTable(
    summary(paper, [result('imp', 0, 0, 0.9), result('imp', 0, 1, 0.9), result('imp', 500, 1, 0.9)]),
  );
  const lines = text.split('\n').filter((line) => line.startsWith('  level'));
  assert.deepEqual(lines, ['  level 0: imp 91.76 (here 90.00)', '  level 1: random 90.0 (here -)']);
  assert.ok(!renderTable(summary(null, [result('imp', 0, 0, 0.9)])).includes('paper'));
});

test('figures are read back from the run folder, and refused where they make no sense', () => {
  const recipe = loadRecipe('mnist/lenet-300-100');
  const file = join(folder, 'recipe.yaml');
  writeFileSync(file, toYaml(recipe));
  assert.deepEqual(loadRecipe(file), recipe);
  for (const [set, words] of [
    ['paper.sorce=x', /Did you mean "source"\?/],
    ['paper.figures=[{branch: imp, level: 0, accuracy: 98}]', /paper\.figures\.0\.accuracy/],
    ['paper.figures=[{branch: imp, level: 1, accuracy: 0.9, rewind: 2ep}]', /500it or a whole number/],
    ['paper.figures=[{branch: dense, level: 0, accuracy: 0.9}]', /paper\.figures\.0\.branch/],
  ] as const) {
    assert.throws(
      () => loadRecipe('mnist/lenet-300-100', { set: [set] }),
      (error) => error instanceof LthError && error.code === 'recipe' && words.test(error.message),
    );
  }
});

test('what IMP cost is counted in dense trainings, update by update', () => {
  const of = (level: number, seconds: number, updates: number, branch: Result['branch'] = 'imp') =>
    ({
      ...{ branch, level, seconds, updates, replicate: 0, rewind: 20, method: 'iterative', noise: level },
    }) as Result;
  const rest = { densityPrunable: 1, densityOverall: 1, testAccuracy: 0.9, earlyStop: 1, diverged: false };
  const saving = (results: Result[]) => {
    const [curve] = curves(results.map((one) => ({ ...rest, ...one })));
    assert.ok(curve);
    return savingOf(curve);
  };
  // 10, 8 and 2 ms an update: the first made more updates.
  assert.equal(
    saving([of(0, 1, 100), of(1, 0.64, 80), of(2, 0.16, 80), of(1, 9, 80, 'random')]),
    'time: 3 trainings of imp took as long as 2.0 dense ones of as many updates, 33 % saved',
  );
  assert.match(saving([of(0, 1, 100), of(1, 1.6, 80)]) ?? '', /as 3\.0 dense ones of as many updates$/);
  assert.equal(saving([of(0, 1, 100)]), null);
  assert.equal(saving([of(0, 1, 100), of(1, 1, 80, 'random')]), null);
});
