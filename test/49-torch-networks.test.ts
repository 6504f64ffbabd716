/** Networks for 32x32 pictures against plain torch.nn modules that load our snapshots by name. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { loadAddon } from '../lib/native/load.js';
import { networkByName } from '../lib/networks/catalogue.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Dataset } from '../lib/session/Dataset.js';
import { type OpenOptions, Session } from '../lib/session/Session.js';
import type { Snapshot } from '../lib/session/Snapshot.js';
import { bytesOf } from './helpers/digits.js';
import { ask, withoutPython } from './helpers/python.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-torch-'));
after(() => rmSync(folder, { recursive: true }));

/** Pictures with structure at several scales, that differ from one another; the numbers are the same every time. */
function pictures(count: number): Buffer {
  const bytes = Buffer.alloc(count * 3072);
  for (let i = 0; i < bytes.length; i++) {
    const [n, c, y, x] = [Math.floor(i / 3072), Math.floor(i / 1024) % 3, (i >> 5) & 31, i & 31];
    const wave = Math.sin((x * (n + 1)) / 7 + c) * Math.cos((y * (c + 2)) / (3 + n));
    bytes[i] = Math.round(127.5 + 90 * wave + 30 * Math.sin(i * 12.9898));
  }
  return bytes;
}

/** A data set of the CIFAR layout out of pictures and labels. */
async function dataset(images: Buffer, labels: number[]): Promise<Dataset> {
  const records = labels.map((label, i) =>
    Buffer.concat([Buffer.from([label]), images.subarray(i * 3072, (i + 1) * 3072)]),
  );
  const handle = await loadAddon().datasetFromCifar([Buffer.concat(records)], {
    ...{ names: ['made'], classes: 10, coarse: 0, digest: 'made' },
  });
  return Reflect.construct(Dataset, [handle]) as Dataset;
}

const COUNT = 4;
const images = pictures(COUNT);
const labels = Array.from({ length: COUNT }, (_, i) => (i * 7 + 3) % 10);
const train = await dataset(images, labels);
const raw = join(folder, 'pictures');
writeFileSync(raw, images);

interface Answer {
  names: string[];
  loss: number;
  correct: number;
  gradients: Record<string, number>;
  statistics: Record<string, number>;
  probabilities: number[][];
  alone: number[][];
}

const open = (options: Partial<OpenOptions> & Pick<OpenOptions, 'network'>) =>
  Session.open({
    ...{ train, batch: COUNT, seed: 3, threads: 2 },
    optimiser: { type: 'sgd', learningRate: 0.02, momentum: 0.9 },
    ...options,
  });

const close = (a: number, b: number, limit: number, what: string) =>
  assert.ok(Math.abs(a - b) <= limit * Math.max(1, Math.abs(b)), `${what}: ${a} and ${b}`);

type Executor = 'direct' | 'autograd';
type Precision = 'fp32' | 'fp64';

interface Asked {
  name: string;
  executor: Executor;
  dtype: Precision;
  replicate?: number;
}

/** What a network's executors make of one batch, in files, and what PyTorch is asked for. */
async function requestOf({ name, executor, dtype, replicate = 0 }: Asked) {
  const network = CompiledNetwork.compile(name);
  const [kind, depth, width] = name.split('-');
  const session = await open({ network, executor, precision: dtype, replicate });
  // Off the initialisation, where running statistics, scales and shifts are those of nobody.
  await session.trainToEnd({ until: 1, evaluate: [] });
  const what = `${name}, ${executor}, ${dtype}, replicate ${replicate}`;
  const write = async (snapshot: Snapshot, part: string) => {
    const path = join(folder, `${what} ${part}.safetensors`);
    await snapshot.write(path, {}, { optimiser: false });
    return path;
  };
  const state = await session.snapshot();
  const weights = await write(state, 'weights');
  const { loss, correct, gradients } = await session.gradients(1);
  const evaluation = await session.evaluate('train');
  const rows = [...session.batchIndices(1)];
  await session.trainToEnd({ until: 2, evaluate: [] });
  const request = {
    network: { kind, depth: Number(depth), width: Number(width?.slice(1) ?? 1), classes: 10 },
    ...{ dtype, weights, pictures: raw, labels },
    gradients: await write(gradients, 'gradients'),
    after: await write(await session.snapshot(), 'after'),
    ...{ mean: train.info.mean, std: train.info.std, train: rows },
    ...{ evaluate: labels.map((_, i) => i), alone: [0, 1] },
  };
  session.dispose();
  const parameters = [...gradients.tensors()].filter(([, { role }]) => role === 'parameter');
  const names = parameters.map(([one]) => one);
  return { what, network, executor, dtype, state, request, loss, correct, names, evaluation };
}

const limits = { fp64: 1e-9, fp32: 1e-5 };

/**
 * Loss, gradients of every parameter, running statistics after an update, and the loss in eval mode. Gradients in single
 * precision are left to the caller: a sum that is zero but for rounding may open a ReLU here and close it there.
 */
async function compare(asked: Asked[]) {
  const ours = [];
  for (const one of asked) ours.push(await requestOf(one));
  const answers = ask<Answer[]>(
    'cifar_networks.py',
    ours.map(({ request }) => request),
  );
  return ours.map((mine, i) => {
    const theirs = answers[i] as Answer;
    const { what, dtype, loss, correct, evaluation, names } = mine;
    const limit = limits[dtype];
    assert.deepEqual([...theirs.names].sort(), [...names].sort(), what);
    close(loss, theirs.loss, limit, `${what}, loss`);
    assert.equal(correct, theirs.correct, what);
    assert.equal(Object.keys(theirs.gradients).length, names.length);
    for (const part of dtype === 'fp64' ? (['gradients', 'statistics'] as const) : (['statistics'] as const))
      for (const [one, distance] of Object.entries(theirs[part]))
        assert.ok(distance <= limit, `${what}, ${part} of ${one}: ${distance}`);
    const losses = theirs.probabilities.map((p, n) => -(p[labels[n] as number] as number));
    const mean = losses.reduce((a, b) => a + b, 0) / COUNT;
    close(evaluation.loss, mean, limit, `${what}, loss in eval mode`);
    return { ...mine, theirs, limit };
  });
}

const executors: Executor[] = ['direct', 'autograd'];
// 20 million weights in double precision take long: VGG is narrow but for once, through `direct` alone.
const cases: [string, Executor[]][] = [
  ['resnet-20', executors],
  ['resnet-20-w2', executors],
  ['resnet-56', executors],
  ['vgg-16-w0.25', executors],
  ['vgg-19-w0.25', executors],
  ['vgg-19', ['direct']],
];
for (const [name, which] of cases)
  test(`${name} is PyTorch's network within 1e-9 in double precision: loss, gradients of every parameter, running statistics, eval mode`, {
    skip: withoutPython,
  }, async () => {
    const asked = which.map((executor) => ({ name, executor, dtype: 'fp64' as const }));
    for (const { state, network } of await compare(asked))
      for (const resource of [state, network]) resource.dispose();
  });

for (const name of ['resnet-20', 'vgg-16-w0.25'])
  test(`${name} in single precision: gradients of every parameter are PyTorch's within 1e-5, but where a ReLU is on the edge`, {
    skip: withoutPython,
  }, async () => {
    for (const executor of executors) {
      const asked = [0, 1, 2, 3].map((replicate) => ({ name, executor, dtype: 'fp32' as const, replicate }));
      const worst = (await compare(asked)).map(({ state, network, theirs }) => {
        for (const resource of [state, network]) resource.dispose();
        return Math.max(...Object.values(theirs.gradients));
      });
      // An error of the arithmetic would show in every replicate; one ReLU of thousands moves a gradient by less.
      assert.ok(Math.min(...worst) <= 1e-5 && Math.max(...worst) <= 0.05, `${executor}: ${worst}`);
    }
  });

for (const name of ['resnet-20', 'vgg-16-w0.25'])
  test(`logits of ${name} are PyTorch's but for a constant, picture by picture, in train and eval mode`, {
    skip: withoutPython,
  }, async () => {
    const asked = executors.map((executor) => ({ name, executor, dtype: 'fp32' as const }));
    for (const { network, executor, state, theirs, limit, what } of await compare(asked)) {
      // A batch of one: the gradient of the last bias is softmax less one-hot.
      const one = await open({ network, executor, batch: 1 });
      await one.load(state, { optimiser: 'zero' });
      const bias = theirs.names.at(-1) as string;
      for (const [i, row] of [0, 1].entries()) {
        const step = labels.findIndex((_, s) => one.batchIndices(s)[0] === row);
        const { gradients } = await one.gradients(step);
        const values = gradients.tensors().get(bias)?.values;
        assert.equal(values?.length, 10);
        for (let label = 0; label < 10; label++)
          close(
            (values?.[label] as number) + (label === labels[row] ? 1 : 0),
            theirs.alone[i]?.[label] as number,
            limit,
            `${what}, picture ${row}, class ${label}`,
          );
      }
      one.dispose();
      // One picture under each label in turn: its loss is the log-softmax of that class.
      for (let label = 0; label < 10; label++) {
        const test = await dataset(images, [label]);
        const session = await open({ network, executor, test });
        await session.load(state, { optimiser: 'zero' });
        const { loss } = await session.evaluate('test');
        close(-loss, theirs.probabilities[0]?.[label] as number, limit, `${what}, eval, class ${label}`);
        for (const each of [session, test]) each.dispose();
      }
      for (const each of [state, network]) each.dispose();
    }
  });

for (const [name, repeated] of [
  ['resnet-20', '64,64,3,3'],
  ['vgg-16', '512,512,3,3'],
] as const)
  test(`${name} begins with Gaussian Glorot in every layer, scales of one, shifts and biases of zero (paper 2.1)`, async () => {
    const network = CompiledNetwork.compile(name);
    const session = await open({ network });
    const tensors = (await session.snapshot()).tensors();
    const norms = networkByName(name).layers.filter(({ type }) => type === 'batchnorm').length;
    const seen = { gaussian: 0, one: 0, zero: 0 };
    for (const [tensor, { shape, values, role }] of tensors) {
      if (role === 'optimiser') continue;
      if (shape.length === 1) {
        const one = /running_var$|(bn\d|downsample\.1|features\.\d+)\.weight$/.test(tensor);
        seen[one ? 'one' : 'zero']++;
        assert.ok(
          values.every((value) => Object.is(value, one ? 1 : 0)),
          tensor,
        );
        continue;
      }
      seen.gaussian++;
      const [out, ...rest] = shape as [number, ...number[]];
      const window = rest.slice(1).reduce((a, b) => a * b, 1);
      const deviation = Math.sqrt(2 / (window * (out + (rest[0] as number))));
      const moments = [0, 0, 0, 0, 0];
      for (const value of values) {
        let power = 1;
        for (let p = 1; p <= 4; p++) {
          power *= value / deviation;
          moments[p] = (moments[p] as number) + power / values.length;
        }
      }
      const moment = (p: number) => moments[p] as number;
      // Five standard errors of a Gaussian's first, second and fourth moment.
      const error = 5 / Math.sqrt(values.length);
      assert.ok(Math.abs(moment(1)) < error, `${tensor}: mean ${moment(1)}`);
      assert.ok(Math.abs(moment(2) - 1) < Math.SQRT2 * error, `${tensor}: variance ${moment(2)}`);
      assert.ok(Math.abs(moment(4) - 3) < Math.sqrt(96) * error, `${tensor}: fourth moment ${moment(4)}`);
    }
    const convolutions = networkByName(name).layers.filter(({ type }) => type === 'conv').length;
    assert.deepEqual(seen, { gaussian: convolutions + 1, one: 2 * norms, zero: 2 * norms + 1 });
    // Layers of the same shape have draws of their own.
    const [a, b] = [...tensors]
      .filter(([, { shape, role }]) => role === 'parameter' && shape.join() === repeated)
      .map(([, { values }]) => values);
    assert.ok(a && b && Buffer.compare(bytesOf(a), bytesOf(b)) !== 0);
    session.dispose();
    network.dispose();
  });
