/** The recipes of ImageNet's networks: the cells of the paper's table (2.2), and its two swapped ones (trap T3) as printed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { resolveSteps } from '../lib/experiment/plan.js';
import { loadRecipe, recipeNames } from '../lib/recipe/load.js';
import type { Recipe } from '../lib/recipe/Recipe.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';

const examples = 1_281_167;
const updatesPerEpoch = Math.ceil(examples / 1024);

/** Epochs, fraction pruned at once, rewind points in epochs, dense accuracy and its spread (Figures 6 and 8). */
const table: Record<string, [number, number, number[], number, number]> = {
  'imagenet/resnet50-oneshot': [90, 0.7, [0, 6], 0.761, 0.001],
  'imagenet/resnet50-iterative': [90, 0.2, [0, 6], 0.761, 0.001],
  'imagenet/inception-v3': [171, 0.7, [0, 6, 8], 0.781, 0.001],
  'imagenet/inception-v3-literal': [171, 0.7, [0, 6, 8], 0.781, 0.001],
  'imagenet/squeezenet': [150, 0.5, [0, 10], 0.548, 0.006],
  'imagenet/squeezenet-literal': [150, 0.5, [0, 10], 0.548, 0.006],
};

test('they have the values of the table, prune every weight from one pool, and train on all pictures', () => {
  assert.deepEqual(
    recipeNames().filter((name) => name.startsWith('imagenet/')),
    Object.keys(table).sort(),
  );
  for (const [name, [epochs, fraction, rewinds, accuracy, spread]] of Object.entries(table)) {
    const recipe = loadRecipe(name);
    const { training, data, pruning } = recipe;
    assert.equal(recipe.name, name);
    assert.deepEqual([data.set, data.validation, data.subset], ['imagenet', 0, null], name);
    assert.deepEqual([training.batch, training.precision], [1024, 'bf16'], name);
    const steps = resolveSteps(recipe, updatesPerEpoch);
    assert.equal(steps.total, epochs * updatesPerEpoch, name);
    assert.deepEqual(
      steps.rewind,
      rewinds.map((epoch) => epoch * updatesPerEpoch),
      name,
    );
    assert.deepEqual([pruning.fraction, pruning.pooling], [fraction, 'global'], name);
    const iterative = name.endsWith('iterative');
    assert.deepEqual([pruning.method, pruning.levels], iterative ? ['iterative', 14] : ['oneshot', 1], name);
    const { weights, prunable } = CompiledNetwork.compile(recipe.network).summary.counts;
    assert.equal(prunable, weights, name);
    const dense = recipe.paper?.figures.find(({ level }) => level === 0);
    assert.deepEqual([dense?.accuracy, dense?.spread], [accuracy, spread], name);
    // A figure of a rewind point that the recipe does not have would stand beside nothing.
    for (const { rewind } of recipe.paper?.figures ?? [])
      assert.ok(rewind === undefined || steps.rewind.includes(Number.parseInt(rewind, 10)), name);
  }
});

test('ResNet-50 is trained as its table and its authors’ code say', () => {
  for (const name of ['imagenet/resnet50-oneshot', 'imagenet/resnet50-iterative']) {
    const { training, data } = loadRecipe(name);
    assert.deepEqual(training.optimiser, {
      ...{ type: 'sgd', learningRate: 0.4, momentum: 0.9, nesterov: true },
      ...{ weightDecay: 1e-4, decayed: 'without-norms' },
    });
    const { milestones, gamma, warmup } = training.schedule;
    assert.deepEqual([milestones, gamma, warmup], [['30ep', '60ep', '80ep'], 0.1, '5ep']);
    assert.equal(training.labelSmoothing, undefined);
    assert.deepEqual(data.crop, {
      training: { kind: 'random-resized', size: 224, filter: 'bicubic', area: [0.08, 1] },
      evaluation: { kind: 'centre', size: 224, resize: 224 + 32, filter: 'bicubic' },
    });
  }
});

test('SqueezeNet is trained as its authors’ code does: without weight decay, on means taken away before [-1, 1]', () => {
  const { training, data } = loadRecipe('imagenet/squeezenet');
  assert.deepEqual(training.optimiser, {
    ...{ type: 'sgd', learningRate: 0.03, momentum: 0.9, nesterov: true, weightDecay: 0 },
  });
  assert.deepEqual(training.schedule.linear, { to: 0.005 });
  assert.deepEqual(data.crop, {
    training: { kind: 'scaled-random', size: 224, shortSide: [256, 512] },
    evaluation: { kind: 'centre', size: 224, resize: 256 },
  });
  // 2 (x - m / 255 - 0.5), and (x - mean) / std here.
  const { mean, std } = data.normalise as { mean: number[]; std: number[] };
  for (const [c, m] of [123.68, 116.78, 103.94].entries())
    assert.ok(Math.abs(2 * (1 - m / 255 - 0.5) - (1 - (mean[c] ?? 0)) / (std[c] ?? 0)) < 1e-4);
});

test('the literal ones are the corrected ones but for the two swapped cells, and say so of the paper’s figures', () => {
  for (const name of ['imagenet/inception-v3', 'imagenet/squeezenet']) {
    const [right, printed] = [loadRecipe(name), loadRecipe(`${name}-literal`)];
    const but = ({ training, paper, ...rest }: Recipe) => ({
      ...{ ...rest, name: '', description: '', figures: paper?.figures },
      training: { ...training, optimiser: null, schedule: null },
    });
    assert.deepEqual(but(printed), but(right));
    // The table says nothing of weight decay.
    const decay = ({ training: { optimiser } }: Recipe) => [optimiser.weightDecay, optimiser.decayed];
    assert.deepEqual(decay(printed), decay(right));
    const word = `probably made with the optimiser of ${name}; `;
    assert.equal(printed.paper?.source.replace(`, ${word}`, '; '), right.paper?.source);
    assert.ok(printed.paper?.source.includes(word));
  }
});

test('the literal cells: Inception-v3 by momentum from 0.03 to 0.005, SqueezeNet by RMSProp from 0.66 to 6.6e-5', () => {
  const inception = loadRecipe('imagenet/inception-v3-literal').training;
  assert.ok(inception.optimiser.type === 'sgd');
  assert.deepEqual([inception.optimiser.learningRate, inception.optimiser.momentum], [0.03, 0.9]);
  assert.deepEqual(inception.schedule.linear, { to: 0.005 });

  const squeezenet = loadRecipe('imagenet/squeezenet-literal');
  const { optimiser } = squeezenet.training;
  assert.ok(optimiser.type === 'rmsprop');
  const { exponential, total } = resolveSteps(squeezenet, updatesPerEpoch);
  assert.ok(exponential);
  const rate = (step: number) =>
    optimiser.learningRate *
    Math.max(exponential.factor ** Math.floor(step / exponential.every), exponential.floor);
  assert.equal(rate(0), 0.66);
  assert.ok(Math.abs(rate(total - 1) - 6.6e-5) < 1e-12, `${rate(total - 1)}`);
  // The floor cuts nothing off but the last epoch: it is where the decay ends.
  assert.ok(rate(total - 1 - exponential.every) > 6.6e-5);
});
