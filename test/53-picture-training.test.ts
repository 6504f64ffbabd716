/** Trainings on pictures in files: the same ones for any number of threads and after a resume, broken ones replaced. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { runExperiment } from '../lib/experiment/run.js';
import { loadAddon } from '../lib/native/load.js';
import type { Network } from '../lib/networks/Network.js';
import { parseRecipe } from '../lib/recipe/schema.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Dataset, type PictureOptions } from '../lib/session/Dataset.js';
import { type PictureBatch, Pictures } from '../lib/session/Pictures.js';
import { type OpenOptions, Session } from '../lib/session/Session.js';
import { differences } from './helpers/digits.js';
import { png, sample, withoutSample, writeFiles } from './helpers/pictures.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-picture-training-'));
after(() => rmSync(folder, { recursive: true }));

const { cuda, jpeg } = loadAddon().info();
const skip: string | false = jpeg.built ? false : jpeg.reason;

const classes = 3;
const own = join(folder, 'own');
writeFiles(
  own,
  Object.fromEntries(
    ['train', 'val'].flatMap((part, p) =>
      Array.from({ length: 22 }, (_, i) => [
        `${part}/class-${i % classes}/p${i}.png`,
        png(24 + i, 40 - i, i + 50 * p),
      ]),
    ),
  ),
);
const network: Network = {
  name: 'small',
  input: [3, 16, 16],
  classes,
  layers: [
    { name: 'conv1', type: 'conv', channels: 8, kernel: 3, padding: 1 },
    { name: 'bn1', type: 'batchnorm' },
    { name: 'relu1', type: 'relu' },
    { name: 'pool', type: 'globalpool' },
    { name: 'drop', type: 'dropout', probability: 0.25 },
    { name: 'fc', type: 'linear', units: classes },
  ],
};
const crop: PictureOptions['crop'] = {
  training: { kind: 'random-resized', size: 16 },
  evaluation: { kind: 'centre', size: 16, resize: 20 },
};

/** Nine pictures of each part, in turns of the classes. */
const writeNine = (root: string) =>
  writeFiles(
    root,
    Object.fromEntries(
      ['train', 'val'].flatMap((part) =>
        Array.from({ length: 9 }, (_, i) => [`${part}/class-${i % classes}/p${i}.png`, png(30, 30, i)]),
      ),
    ),
  );

async function dataOf(root: string): Promise<{ train: Dataset; test: Dataset }> {
  const { train, validation } = await Pictures.openParts(root);
  return { train: Dataset.ofPictures(train, { crop }), test: Dataset.ofPictures(validation, { crop }) };
}

async function open(options: Partial<OpenOptions> = {}): Promise<Session> {
  return Session.open({
    network: CompiledNetwork.compile(network),
    ...(await dataOf(own)),
    validation: 4,
    seed: 3,
    batch: 5, // 18 examples: the last batch of an epoch has 3
    optimiser: { type: 'sgd', learningRate: 0.05, momentum: 0.9 },
    ...options,
  });
}

async function trained(until: number, options: Partial<OpenOptions> = {}) {
  const session = await open(options);
  const { batches } = await session.trainToEnd({ until, metricsEvery: 1, evaluateEvery: 4, noise: 2 });
  const losses = batches.flatMap((batch) => Array.from(batch.getChild('loss')?.toArray() as Float64Array));
  const snapshot = await session.snapshot();
  return { session, losses, snapshot };
}

test('threads and workers change no bit of weights, losses and evaluations', { skip }, async () => {
  const one = await trained(9, { threads: 1, workers: 1 });
  assert.ok(one.losses.every(Number.isFinite) && one.losses.length >= 13);
  for (const [threads, workers] of [
    [1, 4],
    [3, 2],
  ] as const) {
    const other = await trained(9, { threads, workers });
    assert.deepEqual(other.losses, one.losses);
    assert.deepEqual(differences(other.snapshot, one.snapshot), []);
  }
  const reseeded = await trained(9, { seed: 4 });
  assert.notDeepEqual(reseeded.losses, one.losses);
});

test('a training that goes on from any step has the pictures of one that was not cut', { skip }, async () => {
  const whole = await trained(9);
  for (const cut of [1, 4, 6]) {
    const { session, snapshot } = await trained(cut);
    session.dispose();
    const next = await open();
    await next.load(snapshot);
    await next.trainToEnd({ until: 9, noise: 2 });
    assert.deepEqual(differences(await next.snapshot(), whole.snapshot), [], `cut at ${cut}`);
  }
});

test('an update is the one of the same bytes in memory: crops, order and normalisation', {
  skip,
}, async () => {
  const { train } = await dataOf(own);
  const session = await open({ validation: 0 });
  const step = 6;
  const { loss } = await session.gradients(step, 2);
  const pictures = train.pictures as Pictures;
  const made: PictureBatch[] = [];
  for await (const one of pictures.batches({
    crop: crop.training,
    batch: 5,
    seed: 3,
    noise: 2,
    from: step,
    until: step + 1,
  }))
    made.push(one);
  const batch = made[0] as PictureBatch;
  assert.deepEqual([...session.batchIndices(step, 2)], [...batch.rows]);
  // A network without hidden layers, by hand: dropout is not in a comparison with plain arithmetic.
  const plain = CompiledNetwork.compile({
    ...network,
    layers: [
      { name: 'pool', type: 'globalpool' },
      { name: 'fc', type: 'linear', units: classes },
    ],
  });
  const other = await open({ network: plain, validation: 0 });
  const tensors = new Map(
    [...(await other.snapshot()).tensors()].map(([name, { values }]) => [name, values]),
  );
  const weight = tensors.get('fc.weight') as Float32Array;
  const [mean, std] = [
    [0.485, 0.456, 0.406],
    [0.229, 0.224, 0.225],
  ];
  let sum = 0;
  for (let n = 0; n < 5; n++) {
    const x = mean.map((m, c) => {
      const from = batch.images.subarray((n * 3 + c) * 256, (n * 3 + c + 1) * 256);
      return (from.reduce((a, b) => a + b, 0) / 256 / 255 - m) / (std[c] as number);
    });
    const logits = Array.from({ length: classes }, (_, k) =>
      x.reduce((a, value, c) => a + value * (weight[k * 3 + c] as number), 0),
    );
    const label = batch.labels[n] as number;
    sum += Math.log(logits.reduce((a, l) => a + Math.exp(l), 0)) - (logits[label] as number);
  }
  const got = (await other.gradients(step, 2)).loss;
  assert.ok(Math.abs(got - sum / 5) < 1e-5, `${got} and ${sum / 5}`);
  assert.ok(Number.isFinite(loss));
});

test('every executor sees the same pictures, and a device where there is one', { skip }, async () => {
  const places: Partial<OpenOptions>[] = (['direct', 'aten', 'autograd'] as const).map((executor) => ({
    executor,
  }));
  if (cuda.available) places.push({ device: 'cuda' });
  const losses: number[][] = [];
  for (const place of places) {
    const { session, losses: ofTraining } = await trained(12, { ...place, precision: 'fp64' });
    // Statistics are re-estimated over batches that nothing waits for.
    await session.reestimateStatistics(4);
    losses.push([...ofTraining, (await session.gradients(3)).loss, (await session.evaluate('test')).loss]);
    session.dispose();
  }
  const [first, ...others] = losses as [number[], ...number[][]];
  assert.equal(first.length, 12 + 2 * 3 + 2);
  for (const one of others)
    for (const [i, loss] of first.entries())
      assert.ok(Math.abs((one[i] as number) / loss - 1) < 1e-9, `${i}`);
});

test('a picture that cannot be read is replaced, told once with its path, and the training goes on', {
  skip,
}, async () => {
  const broken = join(folder, 'broken');
  writeNine(broken);
  const [first, second] = [join(broken, 'train/class-0/p3.png'), join(broken, 'val/class-1/p4.png')];
  truncateSync(first, 60);
  writeFileSync(second, '');
  const session = await open({ ...(await dataOf(broken)), validation: 0 });
  const { end } = await session.trainToEnd({ until: 6 });
  assert.equal(end.state, 'done');
  const told = session.replacedPictures();
  assert.deepEqual(told.map(({ path }) => path).sort(), [first, second]);
  for (const { by, why } of told) {
    assert.ok(by !== first && by !== second && by.startsWith(broken), by);
    assert.notEqual(why, '');
  }
  await session.trainToEnd({ until: 9 });
  assert.deepEqual(session.replacedPictures(), [], 'each once');
});

test('scores are those of the same pixels in memory, for any number of threads and workers', {
  skip,
}, async () => {
  const small: Network = { ...network, input: [3, 32, 32] };
  const { train } = await Pictures.openParts(own);
  const crops: PictureOptions['crop'] = {
    training: { kind: 'random-resized', size: 32 },
    evaluation: { kind: 'centre', size: 32, resize: 36 },
  };
  const records: Uint8Array[] = [];
  for await (const { images, labels } of train.batches({ crop: crops.evaluation, batch: 9, shuffle: false }))
    labels.forEach((label, n) => {
      records.push(Uint8Array.of(label), images.slice(n * 3072, (n + 1) * 3072));
    });
  const handle = await loadAddon().datasetFromCifar([Buffer.concat(records)], {
    ...{ names: ['own'], classes, coarse: 0, digest: '0'.repeat(64) },
  });
  // Its constructor is for this package's readers alone.
  const inMemory = Reflect.construct(Dataset, [handle]) as Dataset;
  const inFiles = Dataset.ofPictures(train, { crop: crops });
  const { mean, std } = inFiles.info;
  const options: Partial<OpenOptions> = {
    network: CompiledNetwork.compile(small),
    normalise: { mean, std },
  };
  const expected = await open({ ...options, train: inMemory, test: inMemory });
  const perClass = 4; // 12 examples: batches of 5, 5 and 2
  for (const [threads, workers] of [
    [1, 1],
    [3, 4],
  ] as const) {
    const session = await open({ ...options, train: inFiles, test: inFiles, threads, workers });
    const before = await session.snapshot();
    assert.deepEqual(session.scoreIndices({ perClass }), expected.scoreIndices({ perClass }));
    for (const method of ['snip', 'grasp', 'grasp-abs', 'synflow', 'magnitude'] as const) {
      const scores = await session.scores(method, { perClass });
      assert.deepEqual(differences(scores, await expected.scores(method, { perClass })), [], method);
    }
    assert.deepEqual(differences(await session.snapshot(), before), []);
    // Scoring takes nothing from the training that follows.
    await session.trainToEnd({ until: 3, evaluate: [] });
    const fresh = await open({ ...options, train: inFiles, test: inFiles });
    await fresh.trainToEnd({ until: 3, evaluate: [] });
    assert.deepEqual(differences(await session.snapshot(), await fresh.snapshot()), []);
  }
  await assert.rejects(expected.scores('snip', { perClass: 9 }), /wants 9 examples of class/);
});

test('a picture that scores cannot read is replaced and told of', { skip }, async () => {
  const broken = join(folder, 'broken-scores');
  writeNine(broken);
  writeFileSync(join(broken, 'train/class-0/p3.png'), '');
  const session = await open({ ...(await dataOf(broken)), validation: 0 });
  const scores = await session.scores('snip', { perClass: 3 });
  assert.ok([...scores.tensors().values()].some(({ values }) => values.some((x) => x !== 0)));
  const told = session.replacedPictures();
  assert.deepEqual(
    told.map(({ path }) => path),
    [join(broken, 'train/class-0/p3.png')],
  );
});

test('a picture that is not there any more stops the training: nothing is known of it, and no other stands in', {
  skip,
}, async () => {
  const fading = join(folder, 'fading');
  writeNine(fading);
  const session = await open({ ...(await dataOf(fading)), validation: 0 });
  const lost = join(fading, 'train/class-0/p3.png');
  rmSync(lost);
  await assert.rejects(session.trainToEnd({ until: 6, evaluate: [] }), (error: Error & { code: string }) => {
    assert.equal(error.code, 'io');
    assert.ok(error.message.includes(lost), error.message);
    return true;
  });
  assert.deepEqual(session.replacedPictures(), []);
});

test('crops of two sizes, and augmentation of pictures in memory, are refused', { skip }, async () => {
  const { train } = await Pictures.openParts(own);
  assert.throws(
    () =>
      Dataset.ofPictures(train, {
        crop: { ...crop, evaluation: { kind: 'centre', size: 24, resize: 24 } },
      }),
    /16 pixels.*24/,
  );
  for (const options of [undefined, {}, { crop: { training: crop.training } }])
    assert.throws(() => Reflect.apply(Dataset.ofPictures, Dataset, [train, options]), {
      code: 'invalid-argument',
    });
  await assert.rejects(open({ augment: { crop: 2, flip: false } }), /crops of their own/);
  await assert.rejects(Dataset.open('imagenet', own), { code: 'recipe' });
  await assert.rejects(Dataset.open('mnist-10k', null, { crop }), { code: 'recipe' });
  await assert.rejects(Dataset.open('imagenet', join(folder, 'nowhere'), { crop }), /nowhere/);
});

test('an experiment on real JPEGs goes through dense, prune, rewind, retrain, and resumes', {
  skip: skip || withoutSample,
}, async () => {
  const recipe = (levels: number) =>
    parseRecipe(
      {
        name: 'photographs',
        network: {
          ...network,
          classes: 10,
          layers: network.layers.map((l) => (l.type === 'linear' ? { ...l, units: 10 } : l)),
        },
        data: { set: 'imagenet', folder: join(sample, 'imagenette-224'), validation: 0, crop },
        rewind: ['2it'],
        controls: ['random'],
        training: {
          steps: '6it',
          batch: 32,
          optimiser: { type: 'sgd', learningRate: 0.05, momentum: 0.9 },
          evaluateEvery: '6it',
          metricsEvery: '1it',
        },
        pruning: { levels, fraction: 0.5, pooling: 'global', method: 'oneshot' },
      },
      'test',
    );
  const [one, two] = [join(folder, 'run-1'), join(folder, 'run-2')];
  const working = new Set<string>();
  let sideBySide = 0;
  const first = await runExperiment(recipe(1), {
    out: one,
    threads: 2,
    onEvent: (event) => {
      if (event.type === 'unit-start') working.add(event.id);
      if (event.type === 'unit-end') working.delete(event.id);
      sideBySide = Math.max(sideBySide, working.size);
    },
  });
  assert.equal(sideBySide, 1, 'trainings on files are large');
  assert.equal(first.complete, true);
  const again = await runExperiment(recipe(2), { out: one, threads: 2 });
  const whole = await runExperiment(recipe(2), { out: two, threads: 1 });
  const accuracies = (summary: typeof whole) =>
    summary.results.map((r) => [r.branch, r.level, r.testAccuracy]);
  assert.equal(accuracies(whole).length, 5);
  assert.deepEqual(accuracies(again), accuracies(whole));
  assert.match(readFileSync(join(one, 'recipe.yaml'), 'utf8'), /random-resized/);
});
