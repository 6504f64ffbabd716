/** The networks of ImageNet: torchvision's counts and names, and plain torch.nn modules that load our snapshots by name. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { networkByName } from '../lib/networks/catalogue.js';
import { inceptionV3 } from '../lib/networks/imagenet/inception.js';
import { squeezenet } from '../lib/networks/imagenet/squeezenet.js';
import type { Network } from '../lib/networks/Network.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { withoutPython } from './helpers/python.js';
import { type Asked, compare, open, pictures } from './helpers/torchNetworks.js';

const cifar = await pictures(8);
const grey = await pictures(4, 1, 75);

/** Parameters, and weights: all of them are prunable. */
const counts: Record<string, [parameters: number, weights: number, multiplyAdds: number]> = {
  resnet18: [11_689_512, 11_678_912, 1.814e9],
  resnet34: [21_797_672, 21_779_648, 3.664e9],
  resnet50: [25_557_032, 25_502_912, 4.089e9],
  resnet101: [44_549_160, 44_442_816, 7.801e9],
  resnet152: [60_192_808, 60_040_384, 11.514e9],
  squeezenet1_0: [1_248_424, 1_244_448, 0.819e9],
  squeezenet1_1: [1_235_496, 1_231_552, 0.349e9],
  inception_v3: [27_161_264, 27_123_040, 5.713e9],
};

for (const [name, [parameters, weights, multiplyAdds]] of Object.entries(counts)) {
  test(`${name} has torchvision's counts of parameters and multiply-adds, and all weights may be pruned`, () => {
    const network = CompiledNetwork.compile(name);
    assert.deepEqual(network.summary.counts, { parameters, weights, prunable: weights });
    // torchvision's own are of evaluation, without the auxiliary head.
    const auxiliary = name === 'inception_v3' ? 25 * 128 * 768 + 25 * 768 * 128 + 768 * 1000 : 0;
    const ours = network.summary.flops / 2 - auxiliary;
    assert.ok(Math.abs(ours / multiplyAdds - 1) < 0.01, `${ours} multiply-adds`);
    network.dispose();
  });
}

test('tensors are named and shaped as in torchvision', () => {
  const expected: Record<string, Record<string, number[]>> = {
    resnet18: { 'layer1.0.conv1.weight': [64, 64, 3, 3], 'layer4.1.bn2.running_var': [512] },
    resnet50: {
      'conv1.weight': [64, 3, 7, 7],
      'layer1.0.downsample.0.weight': [256, 64, 1, 1],
      'layer2.0.conv2.weight': [128, 128, 3, 3],
      'layer4.2.conv3.weight': [2048, 512, 1, 1],
      'fc.weight': [1000, 2048],
    },
    squeezenet1_0: {
      'features.0.weight': [96, 3, 7, 7],
      'features.3.squeeze.weight': [16, 96, 1, 1],
      'features.12.expand3x3.bias': [256],
      'classifier.1.weight': [1000, 512, 1, 1],
    },
    inception_v3: {
      'Conv2d_4a_3x3.bn.running_mean': [192],
      'Mixed_5b.branch1x1.conv.weight': [64, 192, 1, 1],
      'Mixed_6b.branch7x7dbl_5.conv.weight': [192, 128, 1, 7],
      'Mixed_7c.branch3x3dbl_3b.conv.weight': [384, 384, 3, 1],
      'AuxLogits.conv1.conv.weight': [768, 128, 5, 5],
      'AuxLogits.fc.bias': [1000],
    },
  };
  for (const [name, tensors] of Object.entries(expected)) {
    const network = CompiledNetwork.compile(name);
    const shapes = new Map(network.summary.parameters.map((one) => [one.name, one.shape]));
    for (const [tensor, shape] of Object.entries(tensors))
      assert.deepEqual(shapes.get(tensor), shape, tensor);
    network.dispose();
  }
});

test('names take the pictures’ size and the classes; those of CIFAR-10 are others', () => {
  const small = networkByName('resnet50-s64-c10');
  assert.deepEqual([small.input, small.classes], [[3, 64, 64], 10]);
  assert.deepEqual(networkByName('inception_v3').input, [3, 299, 299]);
  assert.deepEqual(networkByName('resnet-50').input, [3, 32, 32]);
  for (const name of [
    'resnet20',
    'resnet50-w2',
    'resnet50-c1',
    'resnet50-s0',
    'squeezenet1_2',
    'constructor',
  ])
    assert.throws(() => networkByName(name), { code: 'recipe' }, name);
  // 75 is too small for the auxiliary head.
  assert.throws(() => CompiledNetwork.compile('inception_v3-s75'), { message: /AuxLogits/ });
});

test('ResNet-50 begins as the paper’s code does: blocks as their shortcuts, fc small (paper 2.2)', async () => {
  const network = CompiledNetwork.compile(networkByName('resnet50-s32-c10'));
  const session = await open(cifar, { network });
  const tensors = (await session.snapshot()).tensors();
  const deviation = (name: string) => {
    const { values } = tensors.get(name) as { values: Float32Array };
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    return Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length);
  };
  const near = (actual: number, wanted: number) =>
    assert.ok(Math.abs(actual / wanted - 1) < 0.02, `${actual} and ${wanted}`);
  near(deviation('layer3.1.conv2.weight'), Math.sqrt(1 / (256 * 9)));
  near(deviation('fc.weight'), 0.01);
  for (const [name, { values, role }] of tensors) {
    if (role !== 'parameter' || !/(bn\d|downsample\.1)\.weight$/.test(name)) continue;
    const last = /layer\d\.\d\.bn3/.test(name);
    assert.ok(
      values.every((value) => value === (last ? 0 : 1)),
      name,
    );
  }
  session.dispose();
  network.dispose();
});

type Case = Pick<Asked, 'name' | 'reference' | 'pictures'> & { description: Network };
// Without dropout, which PyTorch draws otherwise; the auxiliary head is 27-parity's.
const cases: Case[] = [
  ...[18, 50].map((depth) => ({
    name: `resnet${depth}`,
    description: networkByName(`resnet${depth}-s32-c10`),
    reference: { kind: 'imagenet-resnet', depth, channels: 3, classes: 10 },
    pictures: cifar,
  })),
  ...(['1_0', '1_1'] as const).map((version) => ({
    name: `squeezenet${version}`,
    description: squeezenet(version, { classes: 10, size: 32, dropout: 0 }),
    reference: { kind: 'squeezenet', version, channels: 3, classes: 10 },
    pictures: cifar,
  })),
  {
    name: 'inception_v3',
    description: {
      ...inceptionV3({ classes: 10, size: 75, dropout: 0, auxiliary: false }),
      input: [1, 75, 75],
    },
    reference: { kind: 'inception', channels: 1, classes: 10, momentum: 0.004 },
    pictures: grey,
  },
];
for (const one of cases)
  test(`${one.name} is PyTorch's network within 1e-9 in double precision: loss, gradients of every parameter, running statistics, eval mode`, {
    skip: withoutPython,
  }, async () => {
    // The oracle reads the same layers and is slow: one of them says it all.
    const executors = /1_0/.test(one.name) ? (['direct', 'autograd'] as const) : (['direct'] as const);
    const asked = executors.map((executor) => ({ ...one, executor, dtype: 'fp64' as const }));
    for (const { state, network } of await compare(asked))
      for (const resource of [state, network]) resource.dispose();
  });
