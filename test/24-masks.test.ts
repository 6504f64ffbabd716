import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Masks, type PruneOptions } from '../lib/session/Masks.js';
import type { Snapshot } from '../lib/session/Snapshot.js';
import { network, openSession } from './helpers/digits.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-masks-'));
after(() => rmSync(folder, { recursive: true }));

const lenet = CompiledNetwork.compile('lenet-300-100');
const lenetSession = await openSession({ network: lenet });
const halfRate: PruneOptions = { fraction: 0.2, pooling: 'layerwise', rates: { 'fc3.weight': 0.1 } };

/** `levels` prunings in a row, each of the same weights. */
async function ladder(
  weights: Snapshot,
  compiled: CompiledNetwork,
  levels: number,
  options: PruneOptions,
): Promise<Masks[]> {
  const masks = [Masks.ones(compiled)];
  for (let level = 1; level <= levels; level++) {
    masks.push(await (masks.at(-1) as Masks).prune(weights, options));
  }
  return masks;
}
const remaining = (masks: Masks) => [...masks.tensors().values()].map((tensor) => tensor.remaining);
const percent = (x: number) => (100 * x).toFixed(2);

test('LeNet-300-100 with its output layer at half rate: 51.28, 21.07, 10.83 % at levels 3, 7, 10 (paper 1.4)', async () => {
  const masks = await ladder(await lenetSession.snapshot(), lenet, 10, halfRate);
  assert.deepEqual(
    [3, 7, 10].map((level) => percent(masks[level]?.density.prunable ?? 0)),
    ['51.28', '21.07', '10.83'],
  );
});

test('every pruning removes exactly floor(rate * remaining), layer by layer or from one pool', async () => {
  const weights = await lenetSession.snapshot();
  let counts = [784 * 300, 300 * 100, 100 * 10];
  for (const masks of await ladder(weights, lenet, 12, halfRate)) {
    assert.deepEqual(remaining(masks), counts);
    counts = counts.map((n, i) => n - Math.floor(n * (i === 2 ? 0.1 : 0.2)));
  }
  let pool = 266_200;
  for (const masks of await ladder(weights, lenet, 12, { fraction: 0.2 })) {
    assert.equal(
      remaining(masks).reduce((a, b) => a + b),
      pool,
    );
    pool -= Math.floor(pool * 0.2);
  }
});

test('what goes are the smallest magnitudes that remained', async () => {
  const weights = await lenetSession.snapshot();
  for (const options of [{ fraction: 0.3 }, halfRate]) {
    const [, first, second] = await ladder(weights, lenet, 2, options);
    let largestGone = 0;
    let smallestKept = Number.POSITIVE_INFINITY;
    for (const [name, { vector }] of (second as Masks).tensors()) {
      const before = first?.tensors().get(name)?.vector;
      const w = weights.tensors().get(name)?.values as Float32Array;
      if (options.fraction === 0.2) [largestGone, smallestKept] = [0, Number.POSITIVE_INFINITY];
      for (let i = 0; i < w.length; i++) {
        const magnitude = Math.abs(w[i] as number);
        if (vector.get(i)) smallestKept = Math.min(smallestKept, magnitude);
        else if (before?.get(i)) largestGone = Math.max(largestGone, magnitude);
      }
      if (options.fraction === 0.2) assert.ok(largestGone <= smallestKept, name);
    }
    assert.ok(largestGone <= smallestKept);
  }
});

test('ties are broken by position: the lower one goes first', async () => {
  const session = await openSession();
  await session.setMasks(Masks.fromBits(network, zeroBits()));
  const flat = await session.snapshot(); // all weights are zero
  const masks = await Masks.ones(network).prune(flat, { fraction: 0.25 });
  const total = network.summary.counts.prunable;
  const bits = [...masks.tensors().values()].flatMap(({ vector }) => vector.toJSON());
  assert.equal(bits.indexOf(true), Math.floor(total * 0.25));
  assert.equal(bits.lastIndexOf(false), Math.floor(total * 0.25) - 1);
  session.dispose();
});

function zeroBits(): Record<string, Uint8Array> {
  const tensors = network.summary.parameters.filter((parameter) => parameter.prunable);
  return Object.fromEntries(
    tensors.map(({ name, size }) => [name, new Uint8Array(Math.ceil(size / 64) * 8)]),
  );
}

test('one-shot pruning to level n keeps as many weights as n iterative prunings', async () => {
  const weights = await lenetSession.snapshot();
  for (const options of [halfRate, { fraction: 0.2 }]) {
    const iterative = (await ladder(weights, lenet, 7, options))[7] as Masks;
    const oneshot = await Masks.ones(lenet).prune(weights, { ...options, levels: 7 });
    assert.deepEqual(remaining(oneshot), remaining(iterative));
    // The same weights all along: the same choice.
    assert.ok(oneshot.nestedIn(iterative) && iterative.nestedIn(oneshot));
  }
});

test('masks are nested from level to level, and random ones too, with the counts of IMP in every tensor', async () => {
  const session = await openSession();
  let masks = Masks.ones(network);
  const imp = [masks];
  for (let level = 1; level <= 6; level++) {
    await session.setMasks(masks);
    await session.initialise();
    await session.trainToEnd({ until: 20, noise: level });
    masks = await masks.prune(await session.snapshot(), { fraction: 0.3 });
    imp.push(masks);
  }
  for (let level = 1; level < imp.length; level++) {
    const [outer, inner] = [imp[level - 1] as Masks, imp[level] as Masks];
    assert.ok(inner.nestedIn(outer));
    assert.ok(!outer.nestedIn(inner));
    const random = await inner.random(7, 0);
    const other = await inner.random(7, 1);
    assert.ok(random.nestedIn(await outer.random(7, 0)));
    assert.deepEqual(remaining(random), remaining(inner));
    assert.ok(!random.nestedIn(inner), 'random is not the IMP mask');
    assert.ok(!other.nestedIn(random), 'another replicate, another permutation');
    assert.ok(random.nestedIn(await inner.random(7, 0)), 'the same every time');
  }
  session.dispose();
});

test('random masks are spread evenly', async () => {
  const sparse = await Masks.ones(lenet).prune(await lenetSession.snapshot(), {
    fraction: 0.9,
    pooling: 'layerwise',
  });
  const bits = (await sparse.random(3, 0)).tensors().get('fc1.weight')?.vector;
  const perTenth = Array.from({ length: 10 }, (_, part) => {
    let ones = 0;
    for (let i = 0; i < 23_520; i++) ones += bits?.get(part * 23_520 + i) ? 1 : 0;
    return ones;
  });
  // 2352 are expected in each tenth; standard deviation about 46.
  for (const ones of perTenth) assert.ok(Math.abs(ones - 2352) < 250, String(perTenth));
});

test('overall density counts the weights that are never pruned, biases not', async () => {
  const compiled = CompiledNetwork.compile({
    name: 'partly',
    input: [1, 28, 28],
    classes: 10,
    layers: [
      { name: 'flatten', type: 'flatten' },
      { name: 'hidden', type: 'linear', units: 10 },
      { name: 'relu', type: 'relu' },
      { name: 'out', type: 'linear', units: 10, prunable: false },
    ],
  });
  const session = await openSession({ network: compiled });
  const masks = await Masks.ones(compiled).prune(await session.snapshot(), { fraction: 0.5 });
  assert.deepEqual([...masks.tensors().keys()], ['hidden.weight']);
  assert.equal(masks.density.prunable, 0.5);
  assert.equal(masks.density.overall, (3920 + 100) / 7940);
  session.dispose();
});

test('masks written to a file, or taken over as Arrow bits, come back the same', async () => {
  const masks = await Masks.ones(lenet).prune(await lenetSession.snapshot(), halfRate);
  const path = join(folder, 'masks.safetensors');
  await masks.write(path, { level: '1' });
  const bits = Object.fromEntries(
    [...masks.tensors()].map(([name, { vector }]) => [name, vector.data[0]?.values as Uint8Array]),
  );
  for (const again of [await Masks.read(lenet, path), Masks.fromBits(lenet, bits)]) {
    assert.ok(again.nestedIn(masks) && masks.nestedIn(again));
    assert.deepEqual(remaining(again), remaining(masks));
  }
  await assert.rejects(Masks.read(network, path), { code: 'wrong-shape' });
});

test('impossible prunings are refused', async () => {
  const weights = await lenetSession.snapshot();
  const ones = Masks.ones(lenet);
  for (const fraction of [0, 1, -0.1, 1.2, Number.NaN]) {
    await assert.rejects(ones.prune(weights, { fraction }), { code: 'invalid-argument' });
    await assert.rejects(ones.prune(weights, { pooling: 'layerwise', rates: { 'fc1.weight': fraction } }), {
      code: 'invalid-argument',
    });
  }
  await assert.rejects(ones.prune(weights, { levels: 0 }), { code: 'invalid-argument' });
  await assert.rejects(ones.prune(weights, { pooling: 'layerwise', rates: { 'fc9.weight': 0.1 } }), {
    code: 'invalid-argument',
  });
  assert.throws(() => Masks.fromBits(lenet, {}), /fc1\.weight/);
});
