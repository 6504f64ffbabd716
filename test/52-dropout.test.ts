/** Dropout in training: what is dropped is a function of noise, epoch and example alone, and evaluation drops nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import type { OpenOptions, Session } from '../lib/session/Session.js';
import { differences, openSession } from './helpers/digits.js';
import { branched } from './helpers/networks.js';

const one = (probability: number): CompiledNetwork =>
  CompiledNetwork.compile({
    name: 'one',
    input: [1, 28, 28],
    classes: 10,
    layers: [
      { name: 'drop', type: 'dropout', probability },
      { name: 'pixels', type: 'flatten' },
      { name: 'fc', type: 'linear', units: 10 },
    ],
  });

/** Pixels as the linear layer of a batch of one has read them: dW = dy x^T, db = dy. */
async function read(session: Session, step: number, noise = 0): Promise<number[]> {
  const tensors = (await session.gradients(step, noise)).gradients.tensors();
  const [weight, bias] = ['fc.weight', 'fc.bias'].map((name) => tensors.get(name)?.values as Float64Array);
  return Array.from({ length: 784 }, (_, i) => (weight?.[i] as number) / (bias?.[0] as number));
}

const options: Partial<OpenOptions> = { precision: 'fp64', batch: 1, normalise: true };

for (const executor of ['direct', 'aten', 'autograd'] as const)
  test(`what stays is multiplied by 1 / (1 - p), the rest is 0: ${executor}`, async () => {
    const [plain, dropping] = [one(0), one(0.3)];
    const [whole, some] = [
      await openSession({ ...options, network: plain, executor }),
      await openSession({ ...options, network: dropping, executor }),
    ];
    const [x, y] = [await read(whole, 5), await read(some, 5)];
    const dropped = y.filter((value) => value === 0).length;
    assert.ok(Math.abs(dropped - 0.3 * 784) < 5 * Math.sqrt(0.3 * 0.7 * 784), `${dropped} of 784`);
    for (const [i, value] of y.entries())
      assert.ok(value === 0 || Math.abs(value - (x[i] as number) / 0.7) < 1e-9, `${i}: ${value}, ${x[i]}`);
    assert.deepEqual(await whole.evaluate('test'), await some.evaluate('test'));
    for (const resource of [whole, some, plain, dropping]) resource.dispose();
  });

test('another noise, epoch, replicate or example drops others; the same drops the same', async () => {
  const network = one(0.5);
  const session = await openSession({ ...options, network });
  const pattern = async (from: Session, step: number, noise = 0) =>
    (await read(from, step, noise)).map((value) => (value === 0 ? 0 : 1)).join('');
  const base = await pattern(session, 3);
  assert.equal(await pattern(session, 3), base);
  const row = session.batchIndices(3)[0];
  const epoch = session.info.updatesPerEpoch;
  const again = Array.from({ length: epoch }, (_, i) => epoch + i).find(
    (step) => session.batchIndices(step)[0] === row,
  ) as number;
  const others = [
    await pattern(session, 4),
    // The same example in the epoch behind.
    await pattern(session, again),
    await pattern(session, 3, 1),
  ];
  const other = await openSession({ ...options, network, replicate: 1 });
  const there = Array.from({ length: epoch }, (_, i) => i).find(
    (step) => other.batchIndices(step)[0] === row,
  );
  others.push(await pattern(other, there as number));
  assert.equal(new Set([base, ...others]).size, 5);
  for (const resource of [session, other, network]) resource.dispose();
});

test('a training with dropout goes on after a snapshot as if it had not been cut, with any number of threads', async () => {
  const network = CompiledNetwork.compile(branched);
  const run = async (cuts: number[], threads: number) => {
    let session = await openSession({ network, threads });
    for (const until of [...cuts, 6]) {
      const state = await session.snapshot();
      session.dispose();
      session = await openSession({ network, threads });
      await session.load(state);
      await session.trainToEnd({ until, evaluate: [] });
    }
    const state = await session.snapshot();
    session.dispose();
    return state;
  };
  const whole = await run([], 1);
  assert.deepEqual(differences(await run([2, 3], 3), whole), []);
});
