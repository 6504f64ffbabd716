/** Networks for 32x32 pictures against plain torch.nn modules that load our snapshots by name. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { networkByName } from '../lib/networks/catalogue.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { bytesOf } from './helpers/digits.js';
import { withoutPython } from './helpers/python.js';
import {
  close,
  compare as compareWith,
  dataset,
  type Executor,
  open as openOn,
  pictures,
} from './helpers/torchNetworks.js';

const some = await pictures(4);
const { images, labels } = some;

const open = (options: Parameters<typeof openOn>[1]) => openOn(some, options);

const compare = (asked: { name: string; executor: Executor; dtype: 'fp32' | 'fp64'; replicate?: number }[]) =>
  compareWith(
    asked.map((one) => {
      const [kind, depth, width] = one.name.split('-');
      const reference = { kind, depth: Number(depth), width: Number(width?.slice(1) ?? 1), classes: 10 };
      return { ...one, pictures: some, reference, alone: [0, 1] };
    }),
  );

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
