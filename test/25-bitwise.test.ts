import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { ScheduleOptions } from '../lib/native/AddonTypes.js';
import { Masks } from '../lib/session/Masks.js';
import type { OpenOptions, Optimiser, Session } from '../lib/session/Session.js';
import { Snapshot } from '../lib/session/Snapshot.js';
import { differences, network, openSession } from './helpers/digits.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-bitwise-'));
after(() => rmSync(folder, { recursive: true }));

const optimisers: Record<string, Optimiser> = {
  'SGD with momentum and weight decay': {
    type: 'sgd',
    learningRate: 0.1,
    momentum: 0.9,
    weightDecay: 1e-2,
  },
  'SGD with Nesterov momentum': { type: 'sgd', learningRate: 0.05, momentum: 0.9, nesterov: true },
  'RMSProp with momentum': { type: 'rmsprop', learningRate: 1e-3, momentum: 0.9, epsilon: 1e-3 },
  'Adam with weight decay': { type: 'adam', learningRate: 1.2e-3, weightDecay: 1e-2 },
};

async function trained(
  until: number,
  options: Partial<OpenOptions> = {},
  masks: Masks | null = null,
): Promise<Session> {
  const session = await openSession(options);
  await session.setMasks(masks);
  await session.trainToEnd({ until });
  return session;
}

/** Masks that keep a fifth, of weights trained a little. */
async function sparse(): Promise<Masks> {
  const session = await trained(30);
  const masks = await Masks.ones(network).prune(await session.snapshot(), { fraction: 0.8 });
  session.dispose();
  return masks;
}

/** Entries of parameters and optimiser state at pruned places that are not exactly +0. */
function revived(snapshot: Snapshot, masks: Masks): string[] {
  const wrong: string[] = [];
  for (const [name, { values }] of snapshot.tensors()) {
    const mask = [...masks.tensors()].find(([weight]) => name === weight || name.endsWith(`.${weight}`));
    if (!mask) continue;
    const bits = mask[1].vector;
    for (let i = 0; i < values.length; i++) {
      if (!bits.get(i) && !Object.is(values[i], 0)) wrong.push(`${name}[${i}] = ${values[i]}`);
    }
  }
  return wrong;
}

for (const executor of ['direct', 'aten', 'autograd'] as const) {
  for (const [name, optimiser] of Object.entries(optimisers)) {
    test(`pruned entries are +0 in weights, optimiser state and files under ${name} (${executor})`, async () => {
      const masks = await sparse();
      const session = await openSession({ optimiser, executor });
      await session.trainToEnd({ until: 12 }); // momentum of weights that are then pruned
      await session.setMasks(masks);
      assert.deepEqual(revived(await session.snapshot(), masks), [], 'at once');
      await session.trainToEnd({ until: 13 });
      assert.deepEqual(revived(await session.snapshot(), masks), [], 'after one update');
      await session.trainToEnd({ until: 60 });
      const snapshot = await session.snapshot();
      assert.deepEqual(revived(snapshot, masks), [], 'after many');
      const path = join(folder, `${executor}.safetensors`);
      await snapshot.write(path);
      const file = await Snapshot.read(network, path);
      assert.deepEqual(revived(file, masks), []);
      assert.deepEqual(differences(file, snapshot), [], 'a file holds the bits of the snapshot');
      assert.equal(file.step, 60);
      session.dispose();
    });
  }
}

test('a level starts from mask x snapshot(k), to the bit, with the optimiser state of k', async () => {
  const k = await trained(30, {
    optimiser: optimisers['Adam with weight decay'] as Optimiser,
  });
  const snapshot = await k.snapshot();
  await k.trainToEnd({ until: 90 });
  const masks = await Masks.ones(network).prune(await k.snapshot(), { fraction: 0.5 });
  await k.setMasks(masks);
  await k.load(snapshot);
  assert.equal(k.step, 30);
  const start = (await k.snapshot()).tensors();
  for (const [name, { values }] of snapshot.tensors()) {
    const mask = [...masks.tensors()].find(([weight]) => name === weight || name.endsWith(`.${weight}`))?.[1]
      .vector;
    const expected = values.map((value, i) => (mask && !mask.get(i) ? 0 : value));
    const actual = start.get(name)?.values as Float32Array;
    assert.ok(
      expected.every((value, i) => Object.is(value, actual[i])),
      name,
    );
  }
  k.dispose();
});

test('rewinding may zero the optimiser state, and keeps everything else', async () => {
  const session = await trained(30);
  const snapshot = await session.snapshot();
  await session.load(snapshot, { optimiser: 'zero' });
  const state = await session.snapshot();
  assert.equal(state.step, 30);
  assert.ok(differences(snapshot, state).every((name) => name.startsWith('exp_avg')));
  for (const [name, { role, values }] of state.tensors()) {
    if (role === 'optimiser')
      assert.ok(
        values.every((value) => Object.is(value, 0)),
        name,
      );
  }
  session.dispose();
});

for (const [name, optimiser] of Object.entries(optimisers)) {
  test(`level 0 restarted from k is the uninterrupted run, bit for bit, also from a file: ${name}`, async () => {
    const whole = await trained(200, { optimiser });
    const early = await trained(77, { optimiser });
    const path = join(folder, 'k.safetensors');
    await (await early.snapshot()).write(path);
    const restarted = await openSession({ optimiser });
    await restarted.setMasks(Masks.ones(network));
    await restarted.load(await Snapshot.read(network, path));
    await restarted.trainToEnd({ until: 200 });
    assert.deepEqual(differences(await whole.snapshot(), await restarted.snapshot()), []);
    for (const session of [whole, early, restarted]) session.dispose();
  });
}

test('1, 2 and 5 threads give the same bits, dense and sparse, in every metric too', async () => {
  const masks = await sparse();
  for (const mask of [null, masks]) {
    const runs = [];
    for (const threads of [1, 2, 5]) {
      const session = await openSession({ threads });
      await session.setMasks(mask);
      const { batches } = await session.trainToEnd({ until: 150, metricsEvery: 10, evaluateEvery: 50 });
      const rows = batches.flatMap((batch) =>
        batch.toArray().map((row) => ({ ...row.toJSON(), seconds: 0 })),
      );
      runs.push({ snapshot: await session.snapshot(), rows: JSON.stringify(rows) });
      session.dispose();
    }
    for (const run of runs.slice(1)) {
      assert.deepEqual(differences(run.snapshot, (runs[0] as (typeof runs)[0]).snapshot), []);
      assert.equal(run.rows, runs[0]?.rows);
    }
  }
});

test('a level makes exactly T - k updates, with the learning rates of updates k to T - 1', async () => {
  const schedule = { milestones: [12, 18], gamma: 0.5, warmup: 8 };
  const rate = (update: number) =>
    1.2e-3 * (update >= 12 ? 0.5 : 1) * (update >= 18 ? 0.5 : 1) * (update < 8 ? update / 8 : 1);
  const session = await openSession({ schedule });
  await session.trainToEnd({ until: 5 });
  const snapshot = await session.snapshot();
  const masks = await Masks.ones(network).prune(snapshot, { fraction: 0.5 });
  await session.setMasks(masks);
  await session.load(snapshot);
  const { batches } = await session.trainToEnd({ until: 20, metricsEvery: 1, noise: 3, evaluate: [] });
  const rows = batches.flatMap((batch) => batch.toArray().map((row) => row.toJSON()));
  assert.deepEqual(
    rows.map((row) => row.step),
    Array.from({ length: 15 }, (_, i) => 6 + i),
  );
  for (const row of rows)
    assert.ok(Math.abs(row.learningRate - rate(row.step - 1)) < 1e-12, `update ${row.step - 1}`);
  session.dispose();
});

test('the rate goes down in a line to the end, or by a factor every so many updates to its floor, or stays', async () => {
  const line = (update: number) => 1.2e-3 + ((1e-4 - 1.2e-3) * Math.min(update, 20)) / 20;
  const stairs = (update: number) => 1.2e-3 * Math.max(0.5 ** Math.floor(update / 3), 0.1);
  for (const [schedule, rate] of [
    [{ linear: { to: 1e-4, steps: 20 } }, line],
    [{ exponential: { factor: 0.5, every: 3, floor: 0.1 } }, stairs],
    [{ exponential: { factor: 0.5, every: 3, floor: 0.1 }, constantAt: 7 }, () => stairs(7)],
    [
      { linear: { to: 1e-4, steps: 20 }, warmup: 4 },
      (update: number) => line(update) * Math.min(1, update / 4),
    ],
  ] as [Partial<ScheduleOptions>, (update: number) => number][]) {
    const session = await openSession({ schedule });
    const { batches } = await session.trainToEnd({ until: 24, metricsEvery: 1, evaluate: [] });
    const rates = batches.flatMap((batch) => Array.from(batch.getChild('learningRate')?.toArray()));
    assert.equal(rates.length, 24);
    for (const [update, got] of rates.entries())
      assert.ok(
        Math.abs((got as number) - rate(update)) < 1e-12,
        `${JSON.stringify(schedule)}, update ${update}`,
      );
    session.dispose();
  }
});

test('a reinitialised network that starts at step k trains with the schedule of k and stays within its masks', async () => {
  const masks = await sparse();
  const session = await openSession({ schedule: { milestones: [10], gamma: 0.1 } });
  await session.setMasks(masks);
  await session.initialise(2);
  session.setStep(10);
  const start = await session.snapshot();
  assert.deepEqual(revived(start, masks), []);
  const { batches } = await session.trainToEnd({ until: 15, metricsEvery: 1, evaluate: [] });
  assert.ok(Math.abs((batches[0]?.getChild('learningRate')?.get(0) as number) - 1.2e-4) < 1e-12);
  assert.equal(session.step, 15);
  const other = await openSession();
  await other.setMasks(masks);
  for (const draw of [0, 1]) {
    await other.initialise(draw);
    assert.ok(
      differences(await other.snapshot(), start).includes('fc1.weight'),
      `draw ${draw} is not draw 2`,
    );
  }
  await other.initialise(2);
  assert.deepEqual(differences(await other.snapshot(), start), [], 'a draw is a function of its number');
  session.dispose();
});

test('the noise id decides the data order and nothing else', async () => {
  const runs = [];
  for (const noise of [0, 0, 5]) {
    const session = await openSession();
    await session.trainToEnd({ until: 20, noise });
    runs.push(await session.snapshot());
    session.dispose();
  }
  const [a, b, c] = runs as [Snapshot, Snapshot, Snapshot];
  assert.deepEqual(differences(a, b), []);
  assert.ok(differences(a, c).includes('fc1.weight'));
});
