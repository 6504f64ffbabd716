/** Sparse products: the same training as dense ones, the same bits for any number of threads, and only where it is cheaper. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { networkByName } from '../lib/networks/catalogue.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Masks } from '../lib/session/Masks.js';
import type { OpenOptions, Session } from '../lib/session/Session.js';
import { differences, openSession, relativeDistance } from './helpers/digits.js';
import { branched, headed, residual } from './helpers/networks.js';

const networks = {
  resnet: CompiledNetwork.compile({ ...networkByName('resnet-8'), input: [1, 28, 28] }),
  narrow: CompiledNetwork.compile({ ...networkByName('resnet-8-w0.3'), input: [1, 28, 28] }),
  vgg: CompiledNetwork.compile({ ...networkByName('vgg-11-w0.1'), input: [1, 28, 28] }),
};
/** What the others lack: biases, large kernels, strides of pruned layers, no batch norm, odd numbers of channels. */
const strided = CompiledNetwork.compile({
  name: 'strided',
  input: [1, 28, 28],
  classes: 10,
  initialisation: 'kaiming-normal',
  layers: [
    { name: 'stem', type: 'conv', channels: 13, kernel: [5, 3], stride: [2, 1], padding: [2, 0], bias: true },
    { name: 'stem-relu', type: 'relu' },
    { name: 'down', type: 'conv', channels: 18, kernel: 1, stride: 2, bias: true },
    { name: 'five', type: 'conv', channels: 18, kernel: 5, stride: 2, padding: 2, input: 'stem-relu' },
    { name: 'sum', type: 'add', inputs: ['down', 'five'] },
    { name: 'sum-relu', type: 'relu' },
    { name: 'apart', type: 'conv', channels: 31, kernel: 2, stride: 3, padding: 1, bias: true },
    { name: 'pool', type: 'globalpool' },
    { name: 'head', type: 'linear', units: 10 },
  ],
});
/** Convolutions that read concatenations and are read by them. */
const branches = CompiledNetwork.compile(branched);
/** Most of its weights are in linear layers behind convolutions. */
const head = CompiledNetwork.compile(headed);
const options: Partial<OpenOptions> = {
  batch: 60,
  optimiser: { type: 'sgd', learningRate: 0.05, momentum: 0.9, weightDecay: 1e-4 },
  augment: { crop: 2, flip: true },
  normalise: true,
};

async function pruned(network: CompiledNetwork, session: Session, fraction: number): Promise<void> {
  // Nearly all weights of the head are in one layer: all of its layers are to be sparse.
  const pooling = network === head ? 'layerwise' : 'global';
  await session.setMasks(await Masks.ones(network).prune(await session.snapshot(), { fraction, pooling }));
}

test('each product is sparse where few weights are left, and dense where many are', async () => {
  const session = await openSession({ network: networks.resnet, ...options, precision: 'bf16' });
  const [first, ...rest] = session.kernels();
  assert.deepEqual(first, { layer: 'conv1', forward: 'dense', inputGradient: null, weightGradient: 'dense' });
  const of = (kernel: 'dense' | 'sparse') => ({
    forward: kernel,
    inputGradient: kernel,
    weightGradient: kernel,
  });
  for (const { layer, ...kernels } of rest) assert.deepEqual(kernels, of('dense'), layer);
  const some = { fraction: 0.98, pooling: 'layerwise' } as const;
  await session.setMasks(await Masks.ones(networks.resnet).prune(await session.snapshot(), some));
  // Projections and the head are never pruned.
  for (const { layer, ...kernels } of session.kernels().slice(1)) {
    assert.deepEqual(kernels, of(/downsample|^fc$/.test(layer) ? 'dense' : 'sparse'), layer);
  }
  await session.setMasks(Masks.ones(networks.resnet));
  for (const { layer, ...kernels } of session.kernels().slice(1))
    assert.deepEqual(kernels, of('dense'), layer);
  session.dispose();
  const without = await openSession({ executor: 'autograd' });
  assert.deepEqual(without.kernels(), []);
  without.dispose();
});

test('linear layers behind convolutions are chosen as all others are, in the order of the layers', async () => {
  const names = ['pixels-fc', 'conv1', 'conv2', 'fc1', 'fc2', 'short', 'kept', 'out'];
  for (const precision of ['fp32', 'bf16', 'fp64'] as const) {
    const session = await openSession({ network: head, ...options, precision });
    const check = (kernel: (layer: string) => 'dense' | 'sparse') =>
      assert.deepEqual(
        session.kernels(),
        names.map((layer) => ({
          layer,
          forward: kernel(layer),
          // Those read the examples.
          inputGradient: /^(pixels-fc|conv1)$/.test(layer) ? null : kernel(layer),
          weightGradient: kernel(layer),
        })),
      );
    check(() => 'dense');
    const some = { fraction: 0.98, pooling: 'layerwise' } as const;
    await session.setMasks(await Masks.ones(head).prune(await session.snapshot(), some));
    check((layer) => (layer === 'kept' ? 'dense' : 'sparse'));
    await session.setMasks(null);
    check(() => 'dense');
    session.dispose();
  }
});

const vectors = { lenet: CompiledNetwork.compile('lenet-300-100'), sums: CompiledNetwork.compile(residual) };

for (const [name, network] of Object.entries({ ...networks, strided, branches, head, ...vectors })) {
  test(`25 steps follow autograd within 1e-9 in double precision, at densities from 30 % to nearly none: ${name}`, async () => {
    // The last leaves a weight or two. The oracle of the largest network is slow: the others say it all.
    for (const fraction of name === 'resnet' ? [0.95] : [0.7, 0.9, 0.95, 0.99, 0.99999]) {
      const open = (executor: 'direct' | 'autograd') =>
        openSession({ network, ...options, executor, precision: 'fp64', batch: 20 });
      const [direct, oracle] = [await open('direct'), await open('autograd')];
      for (const session of [direct, oracle]) {
        await pruned(network, session, fraction);
        await session.trainToEnd({ until: 25, evaluate: [] });
        if (fraction >= 0.9 && session === direct) {
          assert.ok(
            session.kernels().some((one) => one.weightGradient === 'sparse'),
            `${fraction}`,
          );
        }
      }
      const distance = relativeDistance(await direct.snapshot(), await oracle.snapshot());
      assert.ok(distance <= 1e-9, `${fraction}: ${distance}`);
      for (const session of [direct, oracle]) session.dispose();
    }
  });

  for (const precision of name in vectors ? (['fp32'] as const) : (['fp32', 'bf16'] as const)) {
    test(`1, 2, 5 and 8 threads give the same bits at 5 %, over the end of an epoch: ${name}, ${precision}`, async () => {
      const snapshots = [];
      // Of 8, all go through each of the four slices together.
      for (const threads of [1, 2, 5, 8]) {
        const session = await openSession({ network, precision, threads, ...options });
        await pruned(network, session, 0.95);
        await session.setStep(session.info.updatesPerEpoch - 2);
        await session.trainToEnd({ until: session.info.updatesPerEpoch + 2, evaluate: [] });
        snapshots.push(await session.snapshot());
        session.dispose();
      }
      const [first, ...others] = snapshots;
      assert.ok(first);
      for (const one of others) assert.deepEqual(differences(one, first), []);
    });
  }
}

test('momentum goes on where masks change in the middle of a training, to fewer weights and back to all', async () => {
  for (const network of [networks.vgg, head, vectors.lenet]) {
    const open = (executor: 'direct' | 'autograd') =>
      openSession({ network, ...options, executor, precision: 'fp64', batch: 20 });
    const [direct, oracle] = [await open('direct'), await open('autograd')];
    for (const session of [direct, oracle]) {
      await session.trainToEnd({ until: 3, evaluate: [] });
      await pruned(network, session, 0.6);
      await session.trainToEnd({ until: 6, evaluate: [] });
      await pruned(network, session, 0.95);
      await session.trainToEnd({ until: 9, evaluate: [] });
      await session.setMasks(null);
      await session.trainToEnd({ until: 12, evaluate: [] });
    }
    const distance = relativeDistance(await direct.snapshot(), await oracle.snapshot());
    assert.ok(distance <= 1e-9, String(distance));
    for (const session of [direct, oracle]) session.dispose();
  }
});

test('batches of other sizes in between, the last of an epoch and those of an evaluation, are followed as well', async () => {
  for (const network of [head, vectors.lenet]) {
    const open = (executor: 'direct' | 'autograd') =>
      openSession({ network, ...options, executor, precision: 'fp64' });
    const [direct, oracle] = [await open('direct'), await open('autograd')];
    const losses: number[][] = [];
    for (const session of [direct, oracle]) {
      await pruned(network, session, 0.9);
      const last = session.info.updatesPerEpoch;
      await session.setStep(last - 2);
      const seen: number[] = [];
      for (const until of [last - 1, last, last + 2]) {
        await session.trainToEnd({ until, evaluate: [] });
        for (const examples of [1, 17, 200])
          seen.push((await session.evaluate('validation', { examples })).loss);
      }
      losses.push(seen);
    }
    for (const [i, loss] of (losses[0] as number[]).entries())
      assert.ok(Math.abs(loss - (losses[1]?.[i] as number)) < 1e-9, `${i}: ${losses}`);
    const distance = relativeDistance(await direct.snapshot(), await oracle.snapshot());
    assert.ok(distance <= 1e-9, String(distance));
    for (const session of [direct, oracle]) session.dispose();
  }
});

test('gradients on request are those of all weights, whatever an update needs', async () => {
  for (const network of [networks.resnet, head]) {
    const open = (executor: 'direct' | 'autograd') =>
      openSession({ network, ...options, executor, precision: 'fp64' });
    const [direct, oracle] = [await open('direct'), await open('autograd')];
    for (const session of [direct, oracle]) await pruned(network, session, 0.95);
    await direct.trainToEnd({ until: 3, evaluate: [] });
    await oracle.load(await direct.snapshot());
    const [a, b] = [(await direct.gradients(3)).gradients, (await oracle.gradients(3)).gradients];
    assert.ok(relativeDistance(a, b) < 1e-9);
    // And training goes on as if nobody had asked.
    const other = await open('direct');
    await pruned(network, other, 0.95);
    for (const session of [direct, other]) await session.trainToEnd({ until: 6, evaluate: [] });
    assert.deepEqual(differences(await direct.snapshot(), await other.snapshot()), []);
    for (const session of [direct, oracle, other]) session.dispose();
  }
});

test('a subnetwork of 5 % is as near to double precision as LibTorch layer by layer, in fp32 and in bf16', async () => {
  for (const network of [networks.resnet, head]) {
    const truth = await openSession({ network, ...options, executor: 'autograd', precision: 'fp64' });
    await pruned(network, truth, 0.95);
    for (const precision of ['fp32', 'bf16'] as const) {
      const open = (executor: 'direct' | 'aten') => openSession({ network, ...options, precision, executor });
      const [direct, layers] = [await open('direct'), await open('aten')];
      for (const session of [direct, layers]) await pruned(network, session, 0.95);
      const start = await truth.snapshot();
      for (const session of [direct, layers, truth]) {
        await session.load(start);
        await session.trainToEnd({ until: 1, evaluate: [] });
      }
      const exact = await truth.snapshot();
      const [ours, theirs] = [
        relativeDistance(await direct.snapshot(), exact),
        relativeDistance(await layers.snapshot(), exact),
      ];
      assert.ok(ours > 0 && ours <= 1.5 * theirs + 1e-6, `${precision}: ${ours}, layer by layer ${theirs}`);
      await truth.load(start);
      await truth.setStep(0);
      for (const session of [direct, layers]) session.dispose();
    }
    truth.dispose();
  }
});

test('dense and sparse are as asked for, the same training within rounding, and part of the fingerprint', async () => {
  for (const network of [networks.vgg, head, vectors.lenet]) {
    const snapshots = [];
    for (const kernels of ['auto', 'dense', 'sparse'] as const) {
      const session = await openSession({ network, ...options, precision: 'fp64', kernels });
      await pruned(network, session, 0.85);
      await session.trainToEnd({ until: 10, evaluate: [] });
      const made = new Set(
        session.kernels().flatMap((one) => [one.forward, one.inputGradient ?? one.forward]),
      );
      if (kernels !== 'auto') assert.deepEqual([...made], [kernels]);
      assert.equal(
        /products=(\w+)/.exec(session.info.fingerprint)?.[1],
        kernels === 'auto' ? undefined : kernels,
      );
      snapshots.push(await session.snapshot());
      session.dispose();
    }
    const [first, ...others] = snapshots;
    assert.ok(first);
    for (const one of others) assert.ok(relativeDistance(one, first) < 1e-11);
  }
  await assert.rejects(openSession({ kernels: 'sparse', executor: 'autograd' }), { code: 'unsupported' });
});

test('at 98 % no dense gradient or momentum of the pruned layers is held, and snapshots are whole all the same', async () => {
  for (const network of [vectors.lenet, head]) {
    const session = await openSession({ network, ...options });
    const dense = session.memory();
    const { parameters, prunable } = network.summary.counts;
    assert.ok(dense.gradients >= 4 * parameters && dense.optimiser === dense.gradients);
    await session.trainToEnd({ until: 3, evaluate: [] });
    const before = await session.snapshot();
    const masks = await Masks.ones(network).prune(before, { fraction: 0.98, pooling: 'layerwise' });
    await session.setMasks(masks);
    const sparse = session.memory();
    assert.equal(sparse.weights, dense.weights);
    // 2 % of the weights, what is never pruned, and what is left over at the end of each tensor.
    const most = 4 * (0.02 * prunable + parameters - prunable + network.summary.parameters.length * 64);
    assert.ok(
      sparse.gradients <= most && sparse.optimiser <= most,
      `${JSON.stringify(sparse)}, at most ${most}`,
    );
    // What is left keeps its momentum, the rest is +0.
    const after = await session.snapshot();
    for (const [name, { vector, size }] of masks.tensors()) {
      for (const tensor of [name, `momentum.${name}`]) {
        const [was, is] = [before, after].map((one) => one.tensors().get(tensor)?.values as Float32Array);
        for (let i = 0; i < size; i++)
          assert.ok(Object.is(is?.[i], vector.get(i) ? was?.[i] : 0), `${tensor}[${i}]`);
      }
    }
    // A snapshot goes in and comes out.
    await session.load(after);
    assert.deepEqual(differences(await session.snapshot(), after), []);
    await session.gradients(3);
    assert.equal(session.memory().gradients, dense.weights);
    await session.setMasks(null);
    assert.deepEqual(session.memory(), { ...dense, gradients: dense.weights });
    assert.deepEqual(differences(await session.snapshot(), after), []);
    session.dispose();
  }
});
