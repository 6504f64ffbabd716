/** What Inception-v3 is trained with beside its optimiser: averaged weights for evaluation, distorted colours, its recipe. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { measureConnectivity } from '../lib/experiment/analyse.js';
import { resolveSteps } from '../lib/experiment/plan.js';
import { runExperiment } from '../lib/experiment/run.js';
import { survey } from '../lib/experiment/survey.js';
import { loadAddon } from '../lib/native/load.js';
import { inceptionV3 } from '../lib/networks/imagenet/inception.js';
import type { Network } from '../lib/networks/Network.js';
import { loadRecipe } from '../lib/recipe/load.js';
import { parseRecipe } from '../lib/recipe/schema.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Masks } from '../lib/session/Masks.js';
import { nativeCrop, type PictureCrop, Pictures } from '../lib/session/Pictures.js';
import type { OpenOptions, Session } from '../lib/session/Session.js';
import { Snapshot } from '../lib/session/Snapshot.js';
import { readMetrics } from '../lib/store/metrics.js';
import { differences, openSession } from './helpers/digits.js';
import { normalised } from './helpers/networks.js';
import { png, writeFiles } from './helpers/pictures.js';
import { ask, withoutPython } from './helpers/python.js';
import { bitsOf, finishedUnits, firstDifference, temporaryFolder } from './helpers/runs.js';
import { tinyRecipe } from './helpers/tiny.js';

const folder = temporaryFolder('averages');
const { jpeg } = loadAddon().info();
const withoutPictures: string | false = jpeg.built ? false : jpeg.reason;

/** With running statistics, and with convolutions where those are asked for. */
const linear = normalised(24);
const convolutional: Network = {
  ...linear,
  layers: [
    { name: 'conv1', type: 'conv', channels: 4, kernel: 5, stride: 3 },
    { name: 'bn1', type: 'batchnorm' },
    { name: 'relu1', type: 'relu' },
    { name: 'pool', type: 'globalpool' },
    { name: 'fc', type: 'linear', units: 10 },
  ],
};
const networks = {
  linear: CompiledNetwork.compile(linear),
  convolutional: CompiledNetwork.compile(convolutional),
};
const average = { decay: 0.9, warmup: true };

const open = (options: Partial<OpenOptions> = {}) =>
  openSession({
    network: networks.linear,
    average,
    optimiser: { type: 'rmsprop', learningRate: 1e-3, momentum: 0.9, epsilon: 1e-3 },
    ...options,
  });

type Values = Float32Array | Float64Array;
const valuesOf = (snapshot: Snapshot, name: string) => snapshot.tensors().get(name)?.values as Values;
const isAverage = (name: string) => name.startsWith('average.');

/** Masks that keep half of the weights that a short training made. */
async function halfMasks(network: CompiledNetwork): Promise<Masks> {
  const session = await open({ network });
  await session.trainToEnd({ until: 5, evaluate: [] });
  const masks = await Masks.ones(network).prune(await session.snapshot(), { fraction: 0.5 });
  session.dispose();
  return masks;
}

for (const [what, network] of Object.entries(networks)) {
  for (const executor of ['direct', 'aten', 'autograd'] as const) {
    test(`averages are the plain ones of the weights after each update, running statistics too: ${what}, ${executor}`, async () => {
      for (const warmup of [true, false]) {
        const session = await open({ network, executor, precision: 'fp64', average: { decay: 0.9, warmup } });
        await session.setMasks(await halfMasks(network));
        const before = await session.snapshot();
        const names = [...before.tensors()].filter(
          ([, { role }]) => role === 'parameter' || role === 'buffer',
        );
        assert.ok(names.some(([, { role }]) => role === 'buffer'));
        const expected = new Map(names.map(([name, { values }]) => [name, Float64Array.from(values)]));
        for (let t = 1; t <= 30; t++) {
          await session.trainToEnd({ until: t, evaluate: [] });
          const after = await session.snapshot();
          const decay = warmup ? Math.min(0.9, (1 + t) / (10 + t)) : 0.9;
          for (const [name, values] of expected) {
            const now = valuesOf(after, name);
            const got = valuesOf(after, `average.${name}`);
            for (let i = 0; i < values.length; i++) {
              values[i] = decay * (values[i] as number) + (1 - decay) * (now[i] as number);
              const off = Math.abs((got[i] as number) - (values[i] as number));
              assert.ok(off <= 1e-12 * Math.max(1, Math.abs(values[i] as number)), `${t}: ${name}[${i}]`);
            }
          }
          after.dispose();
        }
        session.dispose();
      }
    });
  }
}

test('pruned weights are +0 in the averages too', async () => {
  for (const network of Object.values(networks)) {
    for (const executor of ['direct', 'aten'] as const) {
      const session = await open({ network, executor });
      await session.trainToEnd({ until: 4, evaluate: [] });
      const masks = await halfMasks(network);
      await session.setMasks(masks);
      assert.equal(await masks.violations(await session.snapshot()), 0);
      await session.trainToEnd({ until: 12, evaluate: [] });
      const after = await session.snapshot();
      assert.equal(await masks.violations(after), 0);
      for (const [name, { vector, size }] of masks.tensors()) {
        const values = valuesOf(after, `average.${name}`);
        for (let i = 0; i < size; i++) assert.ok(vector.get(i) || Object.is(values[i], 0), `${name}[${i}]`);
      }
      session.dispose();
    }
  }
});

async function trained(until: number, options: Partial<OpenOptions>, masks: Masks | null, from?: Snapshot) {
  const session = await open(options);
  await session.setMasks(masks);
  if (from) await session.load(from);
  const { batches } = await session.trainToEnd({
    until,
    evaluateEvery: 4,
    metricsEvery: 0,
    ends: until === 23,
    continues: from !== undefined,
  });
  const losses = batches.flatMap((batch) => Array.from(batch.getChild('loss')?.toArray() as Float64Array));
  const snapshot = await session.snapshot();
  session.dispose();
  return { losses, snapshot };
}

test('threads change no bit of averages and evaluations, nor does a cut at any update', async () => {
  for (const network of Object.values(networks)) {
    for (const masks of [null, await halfMasks(network)]) {
      const whole = await trained(23, { network, threads: 1 }, masks);
      const three = await trained(23, { network, threads: 3 }, masks);
      assert.deepEqual(three.losses, whole.losses);
      assert.deepEqual(differences(three.snapshot, whole.snapshot), []);
      for (const cut of [1, 4, 9, 22]) {
        const first = await trained(cut, { network }, masks);
        const path = join(folder, `cut-${cut}.safetensors`);
        await first.snapshot.write(path);
        const second = await trained(23, { network }, masks, await Snapshot.read(network, path));
        assert.deepEqual(differences(second.snapshot, whole.snapshot), [], `cut at ${cut}`);
        assert.deepEqual([...first.losses, ...second.losses], whole.losses, `cut at ${cut}`);
      }
    }
  }
});

/** A session without averages whose weights are another's averages. */
async function ofAverages(snapshot: Snapshot, network: CompiledNetwork, options: Partial<OpenOptions>) {
  const session = await open({ network, ...options, average: undefined });
  const path = join(folder, 'averages.safetensors');
  await snapshot.write(path, {}, { optimiser: false });
  // The file again with the averages under the names of the weights.
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE(0));
  const head = JSON.parse(bytes.toString('utf8', 8, 8 + length));
  const body = bytes.subarray(8 + length);
  const chosen = Object.keys(head).filter(isAverage);
  const data: Buffer[] = [];
  let at = 0;
  const other: Record<string, unknown> = { __metadata__: head.__metadata__ };
  for (const name of chosen) {
    const [begin, end] = head[name].data_offsets;
    data.push(body.subarray(begin, end));
    other[name.slice('average.'.length)] = { ...head[name], data_offsets: [at, at + end - begin] };
    at += end - begin;
  }
  const text = Buffer.from(JSON.stringify(other).padEnd(Math.ceil(JSON.stringify(other).length / 8) * 8));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  writeFiles(folder, { 'as-weights.safetensors': Buffer.concat([size, text, ...data]) });
  await session.load(await Snapshot.read(network, join(folder, 'as-weights.safetensors')), {
    optimiser: 'zero',
  });
  return session;
}

for (const executor of ['direct', 'aten', 'autograd'] as const) {
  test(`evaluations are of the averages, and leave the training as it is: ${executor}`, async () => {
    // Weights in bf16, and those that are left of pruned tensors, are copies that must follow.
    const ways: [CompiledNetwork, Partial<OpenOptions>][] = Object.values(networks).map((one) => [one, {}]);
    if (executor !== 'autograd') ways.push([networks.convolutional, { precision: 'bf16' }]);
    if (executor === 'direct')
      for (const one of Object.values(networks))
        ways.push([one, { kernels: 'sparse' }], [one, { kernels: 'dense' }]);
    for (const [network, more] of ways) {
      const masks = executor === 'direct' ? await halfMasks(network) : null;
      const options = { network, executor, ...more };
      const session = await open({ ...options, average: { decay: 0.99 } });
      await session.setMasks(masks);
      const { batches } = await session.trainToEnd({ until: 20, metricsEvery: 0, evaluate: ['test'] });
      const before = await session.snapshot();
      const evaluated = await session.evaluate('test');
      assert.deepEqual(differences(await session.snapshot(), before), []);
      assert.equal(batches.at(-1)?.getChild('loss')?.toArray().at(-1), evaluated.loss);
      const plain = await ofAverages(before, network, options);
      await plain.setMasks(masks);
      assert.deepEqual(await plain.evaluate('test'), evaluated);
      const raw = await open({ ...options, average: undefined });
      await raw.setMasks(masks);
      await raw.load(before);
      assert.notEqual((await raw.evaluate('test')).loss, evaluated.loss);
      // The next update is the one of the weights, with and without averages.
      await session.trainToEnd({ until: 25, evaluateEvery: 1, evaluate: ['test'] });
      await raw.trainToEnd({ until: 25, evaluate: [] });
      assert.ok(differences(await raw.snapshot(), await session.snapshot()).every(isAverage));
      for (const one of [session, plain, raw]) one.dispose();
    }
  });
}

test('statistics that are estimated anew are those of the averages', async () => {
  const session = await open({ average: { decay: 0.99 } });
  await session.trainToEnd({ until: 20, evaluate: [] });
  const before = await session.snapshot();
  const plain = await ofAverages(before, networks.linear, {});
  for (const one of [session, plain]) await one.reestimateStatistics(4);
  const after = await session.snapshot();
  assert.deepEqual(differences(after, before).sort(), [
    'average.bn1.running_mean',
    'average.bn1.running_var',
  ]);
  assert.deepEqual(
    [...valuesOf(after, 'average.bn1.running_var')],
    [...valuesOf(await plain.snapshot(), 'bn1.running_var')],
  );
  assert.equal((await session.evaluate('test')).loss, (await plain.evaluate('test')).loss);
});

test('averages begin at the weights: of an initialisation, and of a snapshot that has none', async () => {
  const begins = async (session: Session) => {
    const snapshot = await session.snapshot();
    for (const [name, { values }] of snapshot.tensors())
      if (isAverage(name)) assert.deepEqual(values, valuesOf(snapshot, name.slice('average.'.length)), name);
  };
  const session = await open();
  await begins(session);
  await session.trainToEnd({ until: 3, evaluate: [] });
  await session.initialise(4);
  await begins(session);
  const without = await open({ average: undefined });
  await without.trainToEnd({ until: 7, evaluate: [] });
  await session.load(await without.snapshot());
  await begins(session);
  assert.equal(session.step, 7);
  await assert.rejects(open({ average: { decay: 1 } }), { code: 'invalid-argument' });
  assert.throws(() => tinyRecipe({}, {}, { average: { decay: 1.5, warmup: false } }), /average.decay/);
});

test('without averages there is nothing of them: not in memory, not in snapshots, not in their files', async () => {
  const session = await open({ average: undefined });
  await session.trainToEnd({ until: 3, evaluate: [] });
  const snapshot = await session.snapshot();
  assert.equal(session.memory().average, 0);
  assert.ok(![...snapshot.tensors().keys()].some(isAverage));
  const averaged = await open();
  await averaged.trainToEnd({ until: 3, evaluate: [] });
  assert.equal(averaged.memory().average, averaged.memory().weights);
  const other = await averaged.snapshot();
  assert.equal(other.bytes - snapshot.bytes, averaged.memory().average);
  // The weights' own tensors have the bits they have without, and so has a file of theirs.
  assert.ok(differences(snapshot, other).every(isAverage));
  const read = async (one: Snapshot) => {
    const path = join(folder, 'plain.safetensors');
    await one.write(path);
    return readFileSync(path);
  };
  await session.load(other);
  const [a, b] = [await read(snapshot), await read(await session.snapshot())];
  assert.equal(Buffer.compare(a, b), 0);
});

test('a run with averages is the same bits after stops, and the ends of its lines have the errors of its trainings', async () => {
  // Evaluated at multiples of 20 alone, so that what a rewind point has of averages shows in rows of later updates.
  const recipe = (training: object) =>
    tinyRecipe({ rewind: ['25it'], network: linear }, { levels: 1, pooling: 'global', rates: {} }, training);
  const averaged = recipe({ average: { decay: 0.95 } });
  const whole = join(folder, 'whole');
  const { results } = await runExperiment(averaged, { out: whole, threads: 1, checkpoint: {} });
  const out = join(folder, 'stopped');
  for (let stops = 0; ; stops++) {
    const stop = new AbortController();
    let left = 1 + (stops % 2);
    const one = await runExperiment(averaged, {
      ...{ out, threads: 1 + (stops % 3), checkpoint: { updates: 7 }, signal: stop.signal },
      onEvent: (event) => {
        if (event.type === 'progress' && --left === 0) stop.abort();
      },
    });
    if (!one.complete) continue;
    assert.ok(stops >= 2);
    break;
  }
  assert.equal(firstDifference(bitsOf(whole), bitsOf(out)), null);
  // Without averages units have other names and other accuracies.
  const plain = await runExperiment(recipe({}), { out: join(folder, 'plain'), threads: 1 });
  assert.notDeepEqual(
    plain.results.map((one) => one.testAccuracy),
    results.map((one) => one.testAccuracy),
  );
  const shared = finishedUnits(join(folder, 'plain')).filter((id) => finishedUnits(whole).includes(id));
  assert.deepEqual(shared, []);
  await measureConnectivity(whole, { alphas: 3, threads: 2, trainExamples: 100 });
  let ends = 0;
  for (const { unit, record } of (await survey(whole)).units) {
    if (unit.kind !== 'interpolation') continue;
    for (const [end, id] of unit.copies.entries()) {
      const rows = await readMetrics(join(whole, 'units', id, 'metrics.arrow'));
      const own = rows.findLast(({ split }) => split === 'test');
      assert.equal(record?.connectivity?.testError.at(-end), 1 - (own?.accuracy ?? Number.NaN));
      ends++;
    }
  }
  assert.ok(ends >= 4);
});

test('label smoothing of a recipe reaches its trainings', async () => {
  const losses = [];
  for (const labelSmoothing of [undefined, 0.5]) {
    const training = { steps: '2it', ...(labelSmoothing && { labelSmoothing }) };
    const out = join(folder, `smoothed-${labelSmoothing}`);
    await runExperiment(tinyRecipe({ controls: [], rewind: ['0it'] }, { levels: 0 }, training), {
      out,
      threads: 1,
    });
    const unit = finishedUnits(out).find((id) => id.includes('dense-2it'));
    const rows = await readMetrics(join(out, 'units', unit as string, 'metrics.arrow'));
    losses.push(rows.find(({ split }) => split === 'train')?.loss);
  }
  assert.notEqual(losses[0], losses[1]);
});

test('level 0 that goes on from a rewind point has the averages of a training that was not cut', async () => {
  const one = await open();
  await one.trainToEnd({ until: 25, evaluate: [] });
  const atK = await one.snapshot();
  await one.trainToEnd({ until: 40, evaluate: [] });
  const end = await one.snapshot();
  const two = await open();
  await two.trainToEnd({ until: 31, evaluate: [] });
  await two.load(atK);
  await two.trainToEnd({ until: 40, evaluate: [] });
  assert.deepEqual(differences(await two.snapshot(), end), []);
  // A zeroed optimiser does not forget them.
  await two.load(atK, { optimiser: 'zero' });
  assert.ok(!differences(await two.snapshot(), atK).some(isAverage));
});

const size = 24;
const random = (colour?: 'inception' | 'brightness-chroma'): PictureCrop => ({
  kind: 'random-resized',
  size,
  ...(colour && { colour }),
});

test('colours are those of a plain reference in double precision, within rounding', {
  skip: withoutPictures || withoutPython,
}, async () => {
  const file = png(90, 120, 3);
  const wanted: object[] = [];
  const got: Uint8Array[] = [];
  for (const colour of ['inception', 'brightness-chroma'] as const) {
    for (let example = 0; example < 24; example++) {
      const key = { seed: 2 ** 33 + 5, replicate: 1, noise: 2 ** 40 + 3, epoch: 7, example };
      const made = async (crop: PictureCrop) =>
        (await loadAddon().pictureCrop(file, 'x', { crop: nativeCrop(crop), upright: false, ...key })).pixels;
      wanted.push({ ...key, colour, pixels: [...(await made(random()))] });
      got.push(await made(random(colour)));
    }
  }
  const answers = ask<number[][]>('colours.py', wanted);
  let [off, all] = [0, 0];
  for (const [n, answer] of answers.entries()) {
    const pixels = got[n] as Uint8Array;
    assert.equal(answer.length, pixels.length);
    for (const [i, value] of answer.entries()) {
      // Half a grey level is what rounding to bytes takes; single precision adds 1e-3 at most.
      const distance = Math.abs((pixels[i] as number) - value);
      assert.ok(distance <= 0.501, `example ${n}, byte ${i}: ${pixels[i]}, ${value}`);
      off += distance;
      all += 1;
    }
  }
  assert.ok(off / all < 0.27);
});

test('colours do not depend on threads, and evaluations have none', { skip: withoutPictures }, async () => {
  const own = join(folder, 'own');
  writeFiles(
    own,
    Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`c${i % 2}/p${i}.png`, png(30 + i, 50 - i, i)])),
  );
  const pictures = await Pictures.open(own);
  const sums: string[] = [];
  for (const [colour, workers] of [
    ['inception', 1],
    ['inception', 5],
    ['brightness-chroma', 1],
    ['brightness-chroma', 5],
    [undefined, 2],
  ] as const) {
    const hash = createHash('sha256');
    for await (const one of pictures.batches({ crop: random(colour), batch: 5, workers, until: 7 }))
      hash.update(one.images);
    sums.push(hash.digest('hex'));
  }
  assert.equal(sums[0], sums[1]);
  assert.equal(sums[2], sums[3]);
  assert.equal(new Set(sums).size, 3);
  assert.throws(
    () => nativeCrop({ kind: 'random-resized', size, colour: 'sepia' as never }),
    /crop.colour.*sepia/,
  );
  const crop = { training: random('inception'), evaluation: { kind: 'central', size, colour: 'inception' } };
  const recipe = { ...tinyRecipe(), data: { set: 'imagenet', validation: 0, crop } };
  assert.throws(() => parseRecipe(recipe, 'test'), /colour/);
});

test('the recipe of Inception-v3 is what the paper’s code does (paper 2.2, trap T3)', () => {
  const recipe = loadRecipe('imagenet/inception-v3');
  const perEpoch = Math.ceil(1_281_167 / 1024);
  const steps = resolveSteps(recipe, perEpoch);
  assert.equal(steps.total, 171 * perEpoch);
  assert.deepEqual(steps.exponential, { factor: 0.94, every: 3 * perEpoch, floor: 1e-4 });
  assert.deepEqual(steps.rewind, [0, 6 * perEpoch, 8 * perEpoch]);
  assert.equal(Math.round((1000 * 6) / 171) / 10, 3.5);
  const { training, data, pruning } = recipe;
  assert.deepEqual(training.optimiser, {
    ...{ type: 'rmsprop', learningRate: 0.165 * 4, decay: 0.9, momentum: 0.9, epsilon: 1 },
    ...{ weightDecay: 4e-5, decayed: 'weights' },
  });
  assert.equal(training.labelSmoothing, 0.1);
  assert.deepEqual(training.average, { decay: 0.995, warmup: true });
  assert.deepEqual(inceptionV3().auxiliary, [{ layer: 'AuxLogits.fc', weight: 0.4 }]);
  assert.deepEqual([pruning.method, pruning.fraction, pruning.levels], ['oneshot', 0.7, 1]);
  assert.deepEqual(data.crop?.training, {
    ...{ kind: 'random-resized', size: 299, area: [0.05, 1], colour: 'brightness-chroma' },
  });
  assert.equal(recipe.paper?.figures[0]?.accuracy, 0.781);
});

test('that recipe goes from dense through prune and rewind to the report, on a few small pictures', {
  skip: withoutPictures,
}, async () => {
  const set = join(folder, 'imagenet');
  writeFiles(
    set,
    Object.fromEntries(
      ['train', 'val'].flatMap((part, p) =>
        Array.from({ length: 6 }, (_, i) => [`${part}/c${i % 2}/p${i}.png`, png(80 + i, 90 - i, i + 9 * p)]),
      ),
    ),
  );
  const { network: _, ...rest } = loadRecipe('imagenet/inception-v3');
  const { crop } = rest.data;
  const recipe = parseRecipe(
    {
      ...rest,
      network: inceptionV3({ classes: 2, size: 75, auxiliary: false }),
      data: {
        ...rest.data,
        folder: set,
        crop: { training: { ...crop?.training, size: 75 }, evaluation: { ...crop?.evaluation, size: 75 } },
      },
      training: {
        ...rest.training,
        ...{ steps: '2it', batch: 3, precision: 'fp32', evaluateEvery: '2it' },
        schedule: { ...rest.training.schedule, exponential: { factor: 0.94, every: '1it', floor: 1e-4 } },
      },
      rewind: ['1it'],
    },
    'test',
  );
  const summary = await runExperiment(recipe, { out: join(folder, 'inception'), threads: 2 });
  assert.equal(summary.complete, true);
  assert.deepEqual(
    summary.results.map(({ branch, level }) => [branch, level]),
    [
      ['imp', 0],
      ['imp', 1],
      ['reinit', 1],
    ],
  );
});
