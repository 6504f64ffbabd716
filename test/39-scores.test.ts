/** Scores of pruning at initialisation against PyTorch, and pruning by them. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { synflowSchedule } from '../lib/experiment/pruneByScores.js';
import type { ScoreMethod } from '../lib/native/AddonTypes.js';
import { networkByName } from '../lib/networks/catalogue.js';
import type { Network } from '../lib/networks/Network.js';
import { resnet } from '../lib/networks/resnet.js';
import { resolveNetwork } from '../lib/networks/validate.js';
import { packageRoot } from '../lib/package.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Masks } from '../lib/session/Masks.js';
import type { OpenOptions, Session } from '../lib/session/Session.js';
import { differences, network, openSession, train } from './helpers/digits.js';
import { branched } from './helpers/networks.js';
import { ask, withoutPython } from './helpers/python.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-scores-'));
after(() => rmSync(folder, { recursive: true }));

const remaining = (masks: Masks) =>
  [...masks.tensors().values()].reduce((sum, tensor) => sum + tensor.remaining, 0);

const methods: ScoreMethod[] = ['magnitude', 'snip', 'grasp', 'grasp-abs', 'synflow'];

/** On digits. */
const networks: Record<string, Network> = {
  'lenet-20-12': networkByName('lenet-20-12'),
  'a residual network with batch norm': { ...resnet(8, { width: 0.25 }), input: [1, 28, 28] },
  'a network with max pooling': {
    name: 'pooling',
    input: [1, 28, 28],
    classes: 10,
    layers: [
      { name: 'conv1', type: 'conv', channels: 4, kernel: 3, padding: 1, bias: true },
      { name: 'relu1', type: 'relu' },
      { name: 'pool', type: 'maxpool', kernel: 2 },
      { name: 'conv2', type: 'conv', channels: 6, kernel: 3, stride: 2 },
      { name: 'bn2', type: 'batchnorm' },
      { name: 'relu2', type: 'relu' },
      { name: 'flat', type: 'flatten' },
      { name: 'fc', type: 'linear', units: 10 },
    ],
  },
  'a network of branches with a second head': branched,
};

/** PyTorch's scores of the session's weights on its own examples, by method and parameter. */
async function expectedScores(session: Session, network: Network, batch: number) {
  const { layers, input, auxiliary = [] } = resolveNetwork(network);
  const weights = join(folder, 'weights.safetensors');
  const snapshot = await session.snapshot();
  await snapshot.write(weights, {}, { optimiser: false });
  const rows = [...session.scoreIndices()];
  const data = (part: string) => join(packageRoot, 'data', 'mnist-10k', `train-${part}-ubyte.gz`);
  return ask<Record<ScoreMethod, Record<string, number[]>>>('scores.py', {
    weights,
    layers,
    input,
    auxiliary,
    prunable: [...Masks.ones(CompiledNetwork.compile(network)).tensors().keys()],
    images: data('images-idx3'),
    labels: data('labels-idx1'),
    mean: train.info.mean[0],
    std: train.info.std[0],
    batches: [rows.slice(0, batch), rows.slice(batch)],
  });
}

for (const [name, description] of Object.entries(networks)) {
  test(`scores are those of PyTorch within 1e-8: ${name}`, { skip: withoutPython }, async () => {
    const network = CompiledNetwork.compile(description);
    for (const precision of ['fp64', 'fp32'] as const) {
      const session = await openSession({ network, precision });
      await session.trainToEnd({ until: 5, evaluate: [] });
      const expected = await expectedScores(session, description, 60);
      for (const method of methods) {
        const actual = (await session.scores(method)).tensors();
        for (const [parameter, values] of Object.entries(expected[method])) {
          const mine = actual.get(parameter)?.values as Float64Array;
          assert.equal(mine.length, values.length);
          const size = Math.sqrt(values.reduce((sum, v) => sum + v * v, 0));
          const off = Math.sqrt(values.reduce((sum, v, i) => sum + (v - (mine[i] as number)) ** 2, 0));
          assert.ok(size > 0, `${method} ${parameter}`);
          assert.ok(off <= 1e-8 * size, `${precision} ${method} ${parameter}: ${off} of ${size}`);
        }
      }
      session.dispose();
    }
  });
}

test('scores look at as many examples of each class, of the training set, by seed and replicate', async () => {
  const labels = gunzipSync(
    readFileSync(join(packageRoot, 'data', 'mnist-10k', 'train-labels-idx1-ubyte.gz')),
  ).subarray(8);
  const session = await openSession();
  const rows = [...session.scoreIndices({ perClass: 7 })];
  assert.equal(new Set(rows).size, 70);
  for (let digit = 0; digit < 10; digit++)
    assert.equal(rows.filter((row) => labels[row] === digit).length, 7, `${digit}`);
  // Of an epoch's rows, which are all that is trained on.
  const { updatesPerEpoch } = session.info;
  const epoch = new Set(
    Array.from({ length: updatesPerEpoch }, (_, i) => [...session.batchIndices(i)]).flat(),
  );
  assert.ok(rows.every((row) => epoch.has(row)));
  const other = async (options: Partial<OpenOptions>) => [
    ...(await openSession(options)).scoreIndices({ perClass: 7 }),
  ];
  assert.deepEqual(await other({}), rows);
  assert.notDeepEqual(await other({ seed: 8 }), rows);
  assert.notDeepEqual(await other({ replicate: 1 }), rows);
});

test('running statistics and what is not prunable have no score, and scoring moves no statistics', async () => {
  const description = networks['a residual network with batch norm'] as Network;
  const network = CompiledNetwork.compile(description);
  const session = await openSession({ network });
  await session.trainToEnd({ until: 5, evaluate: [] });
  const before = await session.snapshot();
  const prunable = Masks.ones(network).tensors();
  assert.deepEqual(
    [...prunable.keys()].filter((name) => !/conv\d\.weight$/.test(name)),
    [],
  );
  for (const method of methods)
    for (const [name, { values }] of (await session.scores(method)).tensors())
      assert.equal(
        values.some((x) => x !== 0),
        prunable.has(name),
        `${method} ${name}`,
      );
  assert.deepEqual(differences(await session.snapshot(), before), []);
});

test('scoring changes nothing of the session, and has the same bits for any number of threads', async () => {
  const one = await openSession({ threads: 1 });
  const two = await openSession({ threads: 2 });
  const before = await one.snapshot();
  for (const method of methods) {
    const [a, b] = [await one.scores(method), await two.scores(method)];
    assert.deepEqual(differences(a, b), [], method);
    assert.ok(
      a
        .tensors()
        .get('fc1.bias')
        ?.values.every((x) => x === 0),
    );
  }
  assert.deepEqual(differences(await one.snapshot(), before), []);
});

test('pruning by scores keeps exactly what is asked for, nested, lowest or highest', async () => {
  const session = await openSession();
  const ones = Masks.ones(network);
  const all = remaining(ones);
  for (const method of methods) {
    const scores = await session.scores(method);
    const half = await ones.pruneByScores(scores, { remaining: all >> 1 });
    const tenth = await ones.pruneByScores(scores, { remaining: 1604 });
    const other = await ones.pruneByScores(scores, { remaining: all >> 1, highest: true });
    assert.equal(remaining(half), all >> 1);
    assert.equal(remaining(tenth), 1604);
    assert.ok(tenth.nestedIn(half) && !half.nestedIn(other), method);
  }
  await assert.rejects(ones.pruneByScores(await session.snapshot(), { remaining: 9 }), {
    code: 'wrong-shape',
  });
  const scores = await session.scores('snip');
  await assert.rejects(ones.pruneByScores(scores, { remaining: all + 1 }), { code: 'invalid-argument' });
});

test('magnitude, highest: the ablation "invert" of magnitude pruning', async () => {
  const session = await openSession();
  const weights = await session.snapshot();
  const smallest = await Masks.ones(network).prune(weights, { fraction: 0.2 });
  const largest = await Masks.ones(network).prune(weights, { fraction: 0.2, highest: true });
  assert.equal(remaining(smallest), remaining(largest));
  assert.ok(!smallest.nestedIn(largest));
});

test('scores want as many examples of each class as they say, and no other method is known', async () => {
  const session = await openSession();
  await assert.rejects(session.scores('snip', { perClass: 100_000 }), /wants 100000 examples of class/);
  await assert.rejects(session.scores('snap' as ScoreMethod), { code: 'invalid-argument' });
});

test('batches that are scored are no larger than micro-batches', async () => {
  const parts = await openSession({ batch: 60, microBatch: 7 });
  const small = await openSession({ batch: 7 });
  for (const method of ['snip', 'grasp-abs'] as const)
    assert.deepEqual(differences(await parts.scores(method), await small.scores(method)), [], method);
});

test('a signal stops scoring after the batch at hand, and the session goes on as if it had not begun', async () => {
  const session = await openSession({ batch: 1 });
  const stop = new AbortController();
  const work = session.scores('grasp', { perClass: 500, signal: stop.signal });
  await assert.rejects(session.scores('snip'), { code: 'busy' });
  stop.abort(new Error('enough'));
  await assert.rejects(work, { message: 'enough' });
  await assert.rejects(session.scores('snip', { signal: stop.signal }), { message: 'enough' });
  const other = await openSession({ batch: 1 });
  assert.deepEqual(differences(await session.scores('snip'), await other.scores('snip')), []);
});

test("SynFlow's densities fall exponentially in 100 steps to exactly what is wanted", () => {
  const schedule = synflowSchedule(16040, 1604);
  assert.equal(schedule.length, 100);
  assert.equal(schedule.at(-1), 1604);
  assert.equal(schedule[49], Math.round(16040 * Math.sqrt(0.1)));
  assert.ok(schedule.every((n, i) => i === 0 || n <= (schedule[i - 1] as number)));
});
