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

const COUNT = 12;
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

/** Gradients, state after an update, and losses of one executor, beside those of PyTorch. */
async function compare(name: string, executor: 'direct' | 'autograd', dtype: 'fp32' | 'fp64') {
  const network = CompiledNetwork.compile(name);
  const [kind, depth, width] = name.split('-');
  const session = await open({ network, executor, precision: dtype });
  // Off the initialisation, where running statistics, scales and shifts are those of nobody.
  await session.trainToEnd({ until: 2, evaluate: [] });
  const files = ['weights', 'gradients', 'after'].map((one) => join(folder, `${one}.safetensors`));
  const state = await session.snapshot();
  await state.write(files[0] as string, {}, { optimiser: false });
  const { loss, correct, gradients } = await session.gradients(2);
  await gradients.write(files[1] as string, {}, { optimiser: false });
  const evaluation = await session.evaluate('train');
  const rows = [...session.batchIndices(2)];
  await session.trainToEnd({ until: 3, evaluate: [] });
  const next = await session.snapshot();
  await next.write(files[2] as string, {}, { optimiser: false });
  session.dispose();
  const [weights, gradientFile, after] = files;
  const theirs = ask<Answer>('cifar_networks.py', {
    network: { kind, depth: Number(depth), width: Number(width?.slice(1) ?? 1), classes: 10 },
    ...{ dtype, weights, gradients: gradientFile, after, pictures: raw, labels },
    ...{ mean: train.info.mean, std: train.info.std, train: rows },
    ...{ evaluate: labels.map((_, i) => i), alone: [0, 1] },
  });
  const what = `${name}, ${executor}, ${dtype}`;
  const limit = dtype === 'fp64' ? 1e-9 : 1e-5;
  assert.deepEqual(
    theirs.names,
    [...gradients.tensors()].filter(([, { role }]) => role === 'parameter').map(([one]) => one),
    what,
  );
  close(loss, theirs.loss, limit, `${what}, loss`);
  assert.equal(correct, theirs.correct, what);
  for (const part of ['gradients', 'statistics'] as const) {
    const all = Object.entries(theirs[part]);
    assert.ok(all.length > 0);
    for (const [one, distance] of all)
      assert.ok(distance <= limit, `${what}, ${part} of ${one}: ${distance}`);
  }
  const losses = theirs.probabilities.map((p, i) => -(p[labels[i] as number] as number));
  close(evaluation.loss, losses.reduce((a, b) => a + b, 0) / COUNT, limit, `${what}, loss in eval mode`);
  return { network, state, theirs, limit, what };
}

for (const name of ['resnet-20', 'resnet-20-w2', 'resnet-56', 'vgg-16', 'vgg-19'])
  for (const executor of ['direct', 'autograd'] as const)
    test(`${name} is PyTorch's network, through ${executor}: loss, gradients of every parameter, running statistics, eval mode`, {
      skip: withoutPython,
    }, async () => {
      for (const dtype of ['fp64', 'fp32'] as const) {
        const { network, state } = await compare(name, executor, dtype);
        for (const one of [state, network]) one.dispose();
      }
    });

for (const name of ['resnet-20', 'vgg-16-w0.25'])
  test(`logits of ${name} are PyTorch's but for a constant, picture by picture, in train and eval mode`, {
    skip: withoutPython,
  }, async () => {
    for (const executor of ['direct', 'autograd'] as const) {
      const { network, state, theirs, limit, what } = await compare(name, executor, 'fp32');
      // A batch of one: the gradient of the last bias is softmax less one-hot.
      const one = await open({ network, executor, batch: 1 });
      await one.load(state, { optimiser: 'zero' });
      const bias = theirs.names.at(-1) as string;
      for (const [i, row] of [0, 1].entries()) {
        const step = Array.from({ length: COUNT }, (_, s) => s).find((s) => one.batchIndices(s)[0] === row);
        const { gradients } = await one.gradients(step as number);
        for (const [label, value] of gradients.tensors().get(bias)?.values.entries() ?? assert.fail())
          close(
            value + (label === labels[row] ? 1 : 0),
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

for (const name of ['resnet-20', 'vgg-16'])
  test(`${name} begins with Gaussian Glorot in every layer, scales of one, shifts and biases of zero (paper 2.1)`, async () => {
    const network = CompiledNetwork.compile(name);
    const session = await open({ network });
    const tensors = (await session.snapshot()).tensors();
    const norms = networkByName(name).layers.filter(({ type }) => type === 'batchnorm').length;
    const seen = { gaussian: 0, one: 0, zero: 0 };
    // All draws together, in standard deviations: each tensor alone is looked at with limits that fit its size.
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
      const moment = (p: number) => values.reduce((a, b) => a + (b / deviation) ** p, 0) / values.length;
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
      .filter(([, { shape, role }]) => role === 'parameter' && shape.join() === '64,64,3,3')
      .map(([, { values }]) => values);
    assert.ok(a && b && Buffer.compare(Buffer.from(a.buffer), Buffer.from(b.buffer)) !== 0);
    session.dispose();
    network.dispose();
  });
