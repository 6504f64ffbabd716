/** The networks of CIFAR-10: counts of the paper (sections 2.1 and 6.1 of LTH and its successor), names, augmentation. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { networkByName } from '../lib/networks/catalogue.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Masks } from '../lib/session/Masks.js';
import { differences, openSession } from './helpers/digits.js';

test('ResNet-20 and VGG-19 have the counts of the paper', () => {
  const resnet = CompiledNetwork.compile('resnet-20').summary;
  assert.deepEqual(resnet.counts, { parameters: 272_474, weights: 270_896, prunable: 267_696 });
  const vgg = CompiledNetwork.compile('vgg-19').summary;
  assert.equal(vgg.counts.prunable, 20_018_880);
  assert.equal(vgg.counts.weights, 20_024_000);
  const running = resnet.parameters.filter((one) => !one.trainable);
  assert.equal(
    running.reduce((sum, one) => sum + one.size, 0),
    1_568,
  );
});

test('networks are named by depth, width and classes; others are refused with a hint', () => {
  assert.equal(networkByName('resnet-32').layers.filter((one) => one.type === 'conv').length, 33);
  assert.equal(networkByName('vgg-16-c100').classes, 100);
  assert.equal(CompiledNetwork.compile('resnet-20-w0.5').summary.parameters[0]?.shape[0], 8);
  for (const name of ['resnet-21', 'resnet-20-w0', 'vgg-17', 'resnet-20-x2']) {
    assert.throws(() => networkByName(name), { code: 'recipe' }, name);
  }
});

/** Grey pictures that the package has, and a ResNet-20 whose first layer reads them: the same counts but for conv1. */
const grey = { ...networkByName('resnet-20'), input: [1, 28, 28] };

test('levels of ResNet-20 keep what the paper prints, and shortcuts and fc whole', async () => {
  const network = CompiledNetwork.compile(grey);
  const session = await openSession({ network });
  const weights = await session.snapshot();
  let masks = Masks.ones(network);
  let remaining = network.summary.counts.prunable;
  for (let level = 1; level <= 15; level++) {
    masks = await masks.prune(weights, { fraction: 0.2 });
    remaining -= Math.floor(remaining / 5);
    const kept = [...masks.tensors().values()].reduce((sum, one) => sum + one.remaining, 0);
    assert.equal(kept, remaining, `level ${level}`);
  }
  assert.ok([...masks.tensors().keys()].every((name) => !/downsample|fc/.test(name)));
  // The RGB network: 267,696 weights in one pool (paper.md 6.1).
  const printed = [
    80.24, 64.43, 51.78, 41.66, 33.56, 27.09, 21.91, 17.76, 14.44, 11.79, 9.67, 7.97, 6.61, 5.53, 4.66,
  ];
  let left = 267_696;
  for (const percent of printed) {
    left -= Math.floor(left / 5);
    // Floors leave up to one weight a level more than 0.8^n.
    assert.ok(Math.abs(((left + 3_200) / 270_896) * 100 - percent) < 0.01, `${percent}`);
  }
  session.dispose();
});

test('rewinding restores the running statistics; gradients leave them as they are', async () => {
  const network = CompiledNetwork.compile({ ...networkByName('resnet-8'), input: [1, 28, 28] });
  const open = () =>
    openSession({
      network,
      optimiser: { type: 'sgd', learningRate: 0.05, momentum: 0.9 },
      augment: { crop: 2, flip: true },
    });
  const session = await open();
  await session.trainToEnd({ until: 2, evaluate: [] });
  const start = await session.snapshot();
  assert.equal(start.tensors().get('bn1.running_mean')?.role, 'buffer');
  assert.equal(start.tensors().has('momentum.bn1.running_mean'), false);
  await session.gradients(2);
  assert.deepEqual(differences(await session.snapshot(), start), []);
  await session.trainToEnd({ until: 4, evaluate: [] });
  const end = await session.snapshot();
  assert.ok(differences(end, start).includes('bn1.running_var'));
  const other = await open();
  await other.load(start);
  await other.trainToEnd({ until: 4, evaluate: [] });
  assert.deepEqual(differences(await other.snapshot(), end), []);
  for (const one of [session, other]) one.dispose();
});

test('augmentation is a function of noise, epoch and example, and of training alone', async () => {
  const network = CompiledNetwork.compile('lenet-20-12');
  const run = async (noise: number, augment: { crop: number; flip: boolean } | null, batch = 60) => {
    const session = await openSession({ network, augment, batch });
    await session.trainToEnd({ until: 3, noise, evaluate: [] });
    return session.snapshot();
  };
  const augment = { crop: 4, flip: true };
  assert.deepEqual(differences(await run(1, augment), await run(1, augment)), []);
  assert.notDeepEqual(differences(await run(1, augment), await run(1, null)), []);
  assert.notDeepEqual(differences(await run(1, augment), await run(2, augment)), []);
  const [plain, augmented] = [await openSession({ network }), await openSession({ network, augment })];
  assert.deepEqual(await plain.evaluate('train'), await augmented.evaluate('train'));
});
