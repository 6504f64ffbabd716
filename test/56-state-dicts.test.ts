/** Weights of other programs by name: state dicts of PyTorch modules as safetensors. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { inceptionV3 } from '../lib/networks/imagenet/inception.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Snapshot } from '../lib/session/Snapshot.js';
import { openSession } from './helpers/digits.js';
import { ask, without } from './helpers/python.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-state-'));
after(() => rmSync(folder, { recursive: true }));

interface Tensor {
  dtype: 'F64' | 'F32' | 'F16' | 'BF16' | 'I64';
  shape: number[];
  bytes: Buffer;
}

const floats = (shape: number[], values: number[]): Tensor => ({
  dtype: 'F32',
  shape,
  bytes: Buffer.from(Float32Array.from(values).buffer),
});
const words = (dtype: 'F16' | 'BF16', shape: number[], bits: number[]): Tensor => ({
  dtype,
  shape,
  bytes: Buffer.from(Uint16Array.from(bits).buffer),
});
const numbered = (count: number) => Array.from({ length: count }, (_, i) => i / 8 - 3);

function save(name: string, tensors: Record<string, Tensor>): string {
  let at = 0;
  const header: Record<string, unknown> = {};
  for (const [key, { dtype, shape, bytes }] of Object.entries(tensors)) {
    header[key] = { dtype, shape, data_offsets: [at, at + bytes.length] };
    at += bytes.length;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const path = join(folder, name);
  writeFileSync(path, Buffer.concat([length, json, ...Object.values(tensors).map(({ bytes }) => bytes)]));
  return path;
}

const tiny = CompiledNetwork.compile({
  name: 'tiny',
  input: [1, 2, 2],
  classes: 2,
  layers: [
    { name: 'conv', type: 'conv', channels: 2, kernel: 1 },
    { name: 'bn', type: 'batchnorm' },
    { name: 'pool', type: 'globalpool' },
    { name: 'fc', type: 'linear', units: 2 },
  ],
});
const whole = (): Record<string, Tensor> => ({
  'fc.bias': floats([2], [1, -2]),
  'conv.weight': words('BF16', [2, 1, 1, 1], [0x3fc0, 0xc000]),
  'bn.weight': words('F16', [2], [0x3e00, 0x0001]),
  'bn.bias': words('F16', [2], [0xfbff, 0x8000]),
  'bn.running_mean': floats([2], [0.5, -0.25]),
  'bn.running_var': floats([2], [2, 3]),
  'bn.num_batches_tracked': { dtype: 'I64', shape: [], bytes: Buffer.alloc(8, 1) },
  'fc.weight': floats([2, 2], numbered(4)),
});

const valuesOf = (snapshot: Snapshot) =>
  Object.fromEntries([...snapshot.tensors()].map(([name, { values }]) => [name, [...values]]));
const expected = {
  'conv.weight': [1.5, -2],
  'bn.weight': [1.5, 2 ** -24],
  'bn.bias': [-65504, -0],
  'bn.running_mean': [0.5, -0.25],
  'bn.running_var': [2, 3],
  'fc.weight': numbered(4),
  'fc.bias': [1, -2],
};

test('tensors are taken by name, whatever their order and type', async () => {
  const snapshot = await Snapshot.fromStateDict(tiny, save('whole', whole()));
  assert.equal(snapshot.step, 0);
  assert.deepEqual(valuesOf(snapshot), expected);
  assert.ok([...snapshot.tensors().values()].every(({ values }) => values instanceof Float32Array));

  const prefixed = Object.fromEntries(Object.entries(whole()).map(([name, one]) => [`module.${name}`, one]));
  assert.deepEqual(valuesOf(await Snapshot.fromStateDict(tiny, save('module', prefixed))), expected);

  const third = 1 / 3;
  const double: Tensor = { dtype: 'F64', shape: [2], bytes: Buffer.from(Float64Array.of(third, 2).buffer) };
  const mixed = await Snapshot.fromStateDict(tiny, save('double', { ...whole(), 'fc.bias': double }));
  assert.deepEqual(valuesOf(mixed), { ...expected, 'fc.bias': [third, 2] });
});

test('what is missing, of another shape or unknown is named, and broken files are refused', async () => {
  const refusals: [name: string, tensors: Record<string, Tensor>, words: RegExp][] = [
    [
      'missing',
      (({ 'fc.bias': _, 'bn.weight': __, ...rest }) => rest)(whole()),
      /has no bn\.weight, fc\.bias$/,
    ],
    ['unknown', { ...whole(), 'fc2.weight': floats([1], [1]) }, /network has not: fc2\.weight$/],
    ['shape', { ...whole(), 'fc.weight': floats([4], numbered(4)) }, /fc\.weight is \(4\), expected \(2,2\)/],
    [
      'dtype',
      { ...whole(), 'fc.bias': { dtype: 'I64', shape: [2], bytes: Buffer.alloc(16) } },
      /fc\.bias is I64, expected F64/,
    ],
    ['half-module', { ...whole(), 'module.fc.bias': floats([2], [1, 1]) }, /has not: module\.fc\.bias/],
  ];
  for (const [name, tensors, words] of refusals) {
    const path = save(name, tensors);
    await assert.rejects(Snapshot.fromStateDict(tiny, path), (error: Error & { code: string }) => {
      assert.equal(error.code, 'wrong-shape');
      assert.match(error.message, words);
      assert.ok(error.message.includes(path));
      return true;
    });
  }
  const cut = save('cut', whole());
  truncateSync(cut, 300);
  await assert.rejects(Snapshot.fromStateDict(tiny, cut), { code: 'corrupt-file' });
  await assert.rejects(Snapshot.fromStateDict(tiny, join(folder, 'none')), { code: 'io' });
});

test('a session goes on from them, without a memory of the optimiser', async () => {
  const network = CompiledNetwork.compile('lenet-300-100');
  const session = await openSession({ network, optimiser: { type: 'adam', learningRate: 1e-3 } });
  const file = join(folder, 'trained');
  await session.trainToEnd({ until: 30 });
  // Of parameters alone, our own snapshots are such files too.
  await (await session.snapshot()).write(file, {}, { optimiser: false });
  const before = await session.evaluate('test');
  const other = await openSession({ network, optimiser: { type: 'adam', learningRate: 1e-3 }, seed: 9 });
  const snapshot = await Snapshot.fromStateDict(network, file);
  await assert.rejects(other.load(snapshot), /optimiser: 'zero'/);
  await other.load(snapshot, { optimiser: 'zero' });
  const there = await other.evaluate('test');
  assert.deepEqual([there.loss, there.accuracy], [before.loss, before.accuracy]);
  await other.trainToEnd({ until: 5 });
  for (const one of [session, other]) one.dispose();
});

test("state dicts of modules with torchvision's names load, of every type", {
  skip: without('torch, safetensors.torch'),
}, async () => {
  const requests = [
    { network: 'resnet18-s64-c10', kind: 'resnet', arguments: { depth: 18, channels: 3, classes: 10 } },
    { network: 'resnet50-s64-c10', kind: 'resnet', arguments: { depth: 50, channels: 3, classes: 10 } },
    {
      network: 'squeezenet1_0-c10',
      kind: 'squeezenet',
      arguments: { version: '1_0', channels: 3, classes: 10 },
    },
    {
      network: inceptionV3({ classes: 10, auxiliary: false }),
      kind: 'inception',
      arguments: { channels: 3, classes: 10, momentum: 0.1 },
    },
  ].map((one, i) => ({
    ...one,
    path: join(folder, `torch-${i}`),
    dtype: ['float32', 'bfloat16', 'float16', 'float64'][i],
    module: i === 1,
  }));
  const answers = ask<Record<string, [sum: number, squares: number, last: number]>[]>(
    'state_dicts.py',
    requests,
  );
  for (const [i, { network, path, dtype }] of requests.entries()) {
    const compiled = CompiledNetwork.compile(network);
    const snapshot = await Snapshot.fromStateDict(compiled, path);
    const tensors = snapshot.tensors();
    const answer = answers[i] as NonNullable<(typeof answers)[number]>;
    assert.deepEqual([...tensors.keys()].sort(), Object.keys(answer).sort(), path);
    for (const [name, { values }] of tensors) {
      assert.equal(values instanceof Float64Array, dtype === 'float64', name);
      const [sum, squares, last] = answer[name] as [number, number, number];
      let [ours, oursSquared] = [0, 0];
      for (const value of values) {
        ours += value;
        oursSquared += value * value;
      }
      assert.ok(
        Math.abs(oursSquared - squares) <= 1e-9 * (squares + 1e-9),
        `${name}: ${oursSquared}, ${squares}`,
      );
      assert.ok(
        Math.abs(ours - sum) <= 1e-9 * (Math.sqrt(squares * values.length) + 1e-9),
        `${name}: ${ours}, ${sum}`,
      );
      assert.equal(values[values.length - 1], last, name);
    }
    snapshot.dispose();
    compiled.dispose();
  }
});
