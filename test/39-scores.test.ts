/** Scores of pruning at initialisation against PyTorch, and pruning by them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { synflowSchedule } from '../lib/experiment/pruneByScores.js';
import type { ScoreMethod } from '../lib/native/AddonTypes.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Masks } from '../lib/session/Masks.js';
import type { Session } from '../lib/session/Session.js';
import { differences, network, openSession, train } from './helpers/digits.js';
import { ask, withoutPython } from './helpers/python.js';

const remaining = (masks: Masks) =>
  [...masks.tensors().values()].reduce((sum, tensor) => sum + tensor.remaining, 0);

const methods: ScoreMethod[] = ['magnitude', 'snip', 'grasp', 'grasp-abs', 'synflow'];

/** The weights as PyTorch takes them, in nested lists' order. */
async function weightsOf(session: Session) {
  const snapshot = await session.snapshot();
  return Object.fromEntries(
    [...snapshot.tensors()]
      .filter(([, { role }]) => role === 'parameter')
      .map(([name, { shape, values }]) => [name, { shape, values: Array.from(values) }]),
  );
}

test('magnitude and SynFlow scores are those of PyTorch within 1e-4', { skip: withoutPython }, async () => {
  const net = CompiledNetwork.compile('lenet-20-12');
  const validation = train.info.count - 300;
  for (const precision of ['fp64', 'fp32'] as const) {
    const session = await openSession({ network: net, validation, batch: 1 << 20, precision });
    await session.trainToEnd({ until: 5, evaluate: [] });
    const weights = await weightsOf(session);
    const expected = ask<Record<ScoreMethod, Record<string, number[]>>>('scores.py', {
      weights,
      layers: ['fc1', 'fc2', 'fc3'],
      input: 784,
    });
    for (const method of ['magnitude', 'synflow'] as const) {
      const actual = await session.scores(method);
      for (const [name, values] of Object.entries(expected[method])) {
        const mine = actual.tensors().get(name)?.values as Float64Array;
        assert.equal(mine.length, values.length);
        const size = Math.sqrt(values.reduce((sum, v) => sum + v * v, 0));
        const off = Math.sqrt(values.reduce((sum, v, i) => sum + (v - (mine[i] as number)) ** 2, 0));
        assert.ok(off <= 1e-4 * size, `${precision} ${method} ${name}: ${off} of ${size}`);
      }
    }
    session.dispose();
  }
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

test("SynFlow's densities fall exponentially in 100 steps to exactly what is wanted", () => {
  const schedule = synflowSchedule(16040, 1604);
  assert.equal(schedule.length, 100);
  assert.equal(schedule.at(-1), 1604);
  assert.equal(schedule[49], Math.round(16040 * Math.sqrt(0.1)));
  assert.ok(schedule.every((n, i) => i === 0 || n <= (schedule[i - 1] as number)));
});
