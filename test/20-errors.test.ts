import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AnyHandle } from '../lib/native/AddonTypes.js';
import { LthError } from '../lib/native/errors.js';
import { loadAddon } from '../lib/native/load.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Masks } from '../lib/session/Masks.js';
import { Snapshot } from '../lib/session/Snapshot.js';
import { network, openSession, test as testSet, train } from './helpers/digits.js';

async function thrown(action: () => unknown): Promise<LthError> {
  try {
    await action();
  } catch (error) {
    assert.ok(error instanceof LthError, `an LthError, not ${error}`);
    return error;
  }
  return assert.fail('nothing was thrown');
}

test('a value out of range is worded with its name, its limits and what was received', async () => {
  assert.equal(
    (await thrown(() => openSession({ threads: 9.5 }))).message,
    'Expected integer between 1 and 1024 for threads but received 9.5 of type number',
  );
  for (const options of [
    { batch: 0 },
    { batch: '60' as unknown as number },
    { seed: -1 },
    { replicate: Number.NaN },
    { validation: train.info.count },
    { optimiser: { type: 'adam', learningRate: Number.NaN } as const },
    { optimiser: { type: 'adamw' as 'adam', learningRate: 1 } },
    { optimiser: { type: 'sgd', learningRate: 0.1, momentum: 1.5 } as const },
    { schedule: { milestones: [-1] } },
    { schedule: { linear: { to: 1e-3, steps: 0 } } },
    { schedule: { exponential: { factor: 1.5, every: 1, floor: 0 } } },
    { optimiser: { type: 'rmsprop', learningRate: 1, decay: 1 } as const },
    { optimiser: { type: 'sgd', learningRate: 1, decayed: 'biases' as 'all' } as const },
    { precision: 'fp16' as 'fp32' },
    { executor: 'eager' as 'direct' },
    { normalise: { mean: [0, 0], std: [1, 1] } },
    { device: 'gpu' },
  ]) {
    const { code } = await thrown(() => openSession(options));
    assert.ok(['invalid-argument', 'wrong-shape'].includes(code), `${JSON.stringify(options)}: ${code}`);
  }
});

test('the stack of an error is that of whoever called, also for native errors and rejected promises', async () => {
  function callerOfNative() {
    return Snapshot.read(network, '/nowhere/snapshot.safetensors');
  }
  await assert.rejects(callerOfNative(), (error: LthError) => {
    assert.equal(error.code, 'io');
    assert.match(error.stack ?? '', /callerOfNative/);
    assert.match(error.stack ?? '', /^LthError: /);
    return true;
  });
  const session = await openSession();
  function callerOfSession() {
    return session.load(network as unknown as Snapshot);
  }
  assert.match((await thrown(callerOfSession)).stack ?? '', /callerOfSession/);
  session.dispose();
});

test('a handle of another kind is refused as wrong-handle, whatever is passed', async () => {
  const addon = loadAddon();
  for (const wrong of [train.handle, {}, null, undefined, 7, 'network', [], () => {}, new Uint8Array(8)]) {
    const error = await thrown(() => addon.networkSummary(wrong as never));
    assert.equal(error.code, 'wrong-handle', error.message);
  }
});

test('whatever was disposed is refused as disposed, and disposing twice is nothing', async () => {
  const session = await openSession();
  const snapshot = await session.snapshot();
  const masks = Masks.ones(network);
  const compiled = CompiledNetwork.compile('lenet-5');
  const looked = await session.snapshot();
  const counted = Masks.ones(network);
  assert.ok(looked.tensors().size > 0 && counted.density.prunable === 1);
  for (const [one, use] of [
    [masks, () => session.setMasks(masks)],
    [snapshot, () => session.load(snapshot)],
    [looked, () => looked.tensors()],
    [counted, () => counted.tensors()],
    [compiled, () => Masks.ones(compiled)],
    [session, () => session.info],
  ] as [{ dispose(): void; handle: AnyHandle }, () => unknown][]) {
    one.dispose();
    one.dispose();
    assert.equal((await thrown(use)).code, 'disposed');
  }
});

test('what is no resource, such as a promise that was not awaited, is refused and does not mean "dense"', async () => {
  const session = await openSession();
  const weights = await session.snapshot();
  const wrong = Masks.ones(network).prune(weights) as unknown as Masks;
  for (const value of [wrong, undefined, {}, 5, weights as unknown as Masks]) {
    assert.equal((await thrown(() => session.setMasks(value as Masks))).code, 'invalid-argument');
  }
  assert.equal((await thrown(() => session.load(null as unknown as Snapshot))).code, 'invalid-argument');
  assert.equal((await thrown(() => openSession({ test: {} as never }))).code, 'invalid-argument');
  await wrong;
  session.dispose();
});

test('a network that does not fit its own layers or the data is refused with both shapes', async () => {
  const error = await thrown(() =>
    CompiledNetwork.compile({
      name: 'bad',
      input: [1, 28, 28],
      classes: 10,
      layers: [
        { name: 'flatten', type: 'flatten' },
        { name: 'a', type: 'linear', units: 10 },
        { name: 'b', type: 'linear', units: 12, input: 'flatten' },
        { name: 'sum', type: 'add', inputs: ['a', 'b'] },
      ],
    }),
  );
  assert.match(error.message, /10.*12|12.*10/);
  const narrow = CompiledNetwork.compile({
    name: 'narrow',
    input: [7],
    classes: 10,
    layers: [{ name: 'out', type: 'linear', units: 10 }],
  });
  assert.equal((await thrown(() => openSession({ network: narrow }))).code, 'wrong-shape');
  const five = CompiledNetwork.compile({
    name: 'five',
    input: [1, 28, 28],
    classes: 5,
    layers: [
      { name: 'flatten', type: 'flatten' },
      { name: 'out', type: 'linear', units: 5 },
    ],
  });
  assert.equal((await thrown(() => openSession({ network: five }))).code, 'wrong-shape');
});

test('snapshots and masks of another network are refused', async () => {
  const other = CompiledNetwork.compile('lenet-21-12');
  const session = await openSession();
  const foreign = await (await openSession({ network: other })).snapshot();
  assert.equal((await thrown(() => session.load(foreign))).code, 'wrong-shape');
  assert.equal((await thrown(() => session.setMasks(Masks.ones(other)))).code, 'wrong-shape');
  assert.equal((await thrown(() => Masks.ones(network).prune(foreign))).code, 'wrong-shape');
  assert.equal((await thrown(() => Masks.ones(network).nestedIn(Masks.ones(other)))).code, 'wrong-shape');
  session.dispose();
});

test('device cuda without CUDA is an error that says why', {
  skip: loadAddon().info().cuda.available,
}, async () => {
  const error = await thrown(() => openSession({ device: 'cuda' }));
  assert.equal(error.code, 'no-cuda');
  assert.ok(error.message.length > 20);
});

test('a session without a test set cannot evaluate on one', async () => {
  const session = await openSession({ test: undefined });
  await assert.rejects(session.evaluate('test'), { code: 'invalid-argument' });
  assert.equal(testSet.info.classes, 10);
  session.dispose();
});
