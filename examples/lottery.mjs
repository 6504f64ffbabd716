// Iterative magnitude pruning by hand, through the public API: the method of "Stabilizing the Lottery Ticket
// Hypothesis" on a network of one's own, with random subnetworks of the same size beside it.
//
//   node lottery.mjs [LEVELS]          in a project where lth-train is installed, or in this folder
import { CompiledNetwork, Dataset, Masks, Session } from 'lth-train';

const levels = Number(process.argv[2] ?? 6);
const [k, T] = [50, 800]; // rewind to update k; every training ends at update T

/** @type {import('lth-train').Network} a residual multilayer perceptron: nothing needs to be compiled for it */
const description = {
  name: 'residual-mlp',
  input: [1, 28, 28],
  classes: 10,
  initialisation: 'kaiming-normal',
  layers: [
    { name: 'flatten', type: 'flatten' },
    { name: 'stem', type: 'linear', units: 128 },
    { name: 'stem-relu', type: 'relu' },
    { name: 'inner', type: 'linear', units: 128 },
    { name: 'sum', type: 'add', inputs: ['stem-relu', 'inner'] },
    { name: 'sum-relu', type: 'relu' },
    { name: 'head', type: 'linear', units: 10, prunable: false },
  ],
};

const network = CompiledNetwork.compile(description);
const { train, test } = await Dataset.open('mnist-10k');
const session = await Session.open({
  network,
  train,
  test,
  validation: 1000,
  seed: 1,
  batch: 60,
  optimiser: { type: 'sgd', learningRate: 0.05, momentum: 0.9 },
});

/** Trains to T with a data order of its own and returns the test accuracy. */
async function trainToEnd(noise) {
  for await (const batch of session.train({ until: T, noise, metricsEvery: 200, evaluate: [] })) {
    // Arrow RecordBatches over native memory; here only the last row's training loss is looked at.
    const [step, loss] = ['step', 'loss'].map((name) => batch.getChild(name).get(batch.numRows - 1));
    process.stderr.write(`  update ${step}: training loss ${loss.toFixed(4)}\n`);
  }
  return (await session.evaluate('test')).accuracy;
}

const percent = (fraction) => `${(100 * fraction).toFixed(2)} %`;

// The dense run passes through update k, where everything is remembered: weights, momentum, step.
await session.trainToEnd({ until: k, evaluate: [], ends: false });
const rewindPoint = await session.snapshot();
console.log(`dense: ${percent(await trainToEnd(0))}`);

let masks = Masks.ones(network);
for (let level = 1; level <= levels; level++) {
  masks = await masks.prune(await session.snapshot(), { fraction: 0.4 });
  const random = await masks.random(1, 0);
  const accuracies = {};
  for (const [branch, chosen] of [
    ['random', random],
    ['imp', masks], // last, because the next level prunes what the session then holds
  ]) {
    await session.setMasks(chosen);
    await session.load(rewindPoint);
    accuracies[branch] = await trainToEnd(level);
  }
  const left = percent(masks.density.prunable).padStart(7);
  console.log(
    `level ${level}, ${left} left: imp ${percent(accuracies.imp)}, random ${percent(accuracies.random)}`,
  );
}
session.dispose();
