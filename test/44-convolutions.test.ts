/** The fast dense step of networks with convolutions: same bits for any number of threads, in every precision; bf16. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { networkByName } from '../lib/networks/catalogue.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Masks } from '../lib/session/Masks.js';
import type { OpenOptions, Session } from '../lib/session/Session.js';
import { differences, openSession, relativeDistance } from './helpers/digits.js';
import { branched } from './helpers/networks.js';

/** Wide enough for Winograd's algorithm: paddings of 2, 0 and 1, an odd size, biases, weights that are summed over slices. */
const wide = CompiledNetwork.compile({
  name: 'wide',
  input: [1, 28, 28],
  classes: 10,
  initialisation: 'kaiming-normal',
  layers: [
    { name: 'stem', type: 'conv', channels: 35, kernel: 3, stride: 3 },
    { name: 'stem-relu', type: 'relu' },
    { name: 'outwards', type: 'conv', channels: 40, kernel: 3, padding: 2, bias: true },
    { name: 'outwards-relu', type: 'relu' },
    { name: 'inwards', type: 'conv', channels: 33, kernel: 3 },
    { name: 'inwards-relu', type: 'relu' },
    { name: 'pool', type: 'maxpool', kernel: 2, stride: 2 },
    { name: 'grow', type: 'conv', channels: 172, kernel: 3, padding: 1 },
    { name: 'grow-relu', type: 'relu' },
    { name: 'large', type: 'conv', channels: 172, kernel: 3, padding: 1, bias: true },
    { name: 'large-relu', type: 'relu' },
    { name: 'mean', type: 'globalpool' },
    { name: 'head', type: 'linear', units: 10 },
  ],
});

/** Few channels in front of many units, whose gradients are made of unfolded images; and one more than those may be. */
const unfolded = CompiledNetwork.compile({
  name: 'unfolded',
  input: [1, 28, 28],
  classes: 10,
  initialisation: 'kaiming-normal',
  layers: [
    { name: 'one', type: 'conv', channels: 3, kernel: [5, 4], stride: [1, 2], padding: [4, 1], bias: true },
    { name: 'one-relu', type: 'relu' },
    { name: 'three', type: 'conv', channels: 8, kernel: 7, stride: 2, padding: 3 },
    { name: 'three-relu', type: 'relu' },
    { name: 'eight', type: 'conv', channels: 9, kernel: 2 },
    { name: 'eight-relu', type: 'relu' },
    { name: 'nine', type: 'conv', channels: 70, kernel: 3, stride: 2, padding: 1 },
    { name: 'nine-relu', type: 'relu' },
    { name: 'beside', type: 'conv', channels: 40, kernel: 5, stride: 5, input: 'three-relu' },
    { name: 'mean', type: 'globalpool', input: 'nine-relu' },
    { name: 'mean-beside', type: 'globalpool', input: 'beside' },
    { name: 'both', type: 'concat', inputs: ['mean', 'mean-beside'] },
    { name: 'head', type: 'linear', units: 10 },
  ],
});

/** Pictures that the package has; three groups with projections, and one with pooling, and a width that fills no vector. */
const networks = {
  resnet: CompiledNetwork.compile({ ...networkByName('resnet-8'), input: [1, 28, 28] }),
  narrow: CompiledNetwork.compile({ ...networkByName('resnet-8-w0.3'), input: [1, 28, 28] }),
  vgg: CompiledNetwork.compile({ ...networkByName('vgg-11-w0.1'), input: [1, 28, 28] }),
  wide,
  unfolded,
  branched: CompiledNetwork.compile(branched),
};
const options: Partial<OpenOptions> = {
  batch: 60,
  optimiser: { type: 'sgd', learningRate: 0.05, momentum: 0.9, weightDecay: 1e-4 },
  augment: { crop: 2, flip: true },
  normalise: true,
};

for (const [name, network] of Object.entries(networks)) {
  // Double precision is there for comparison and slow: the smallest network says it all.
  for (const precision of ['fp32', 'bf16', ...(name === 'narrow' ? (['fp64'] as const) : [])] as const) {
    test(`1, 2, 5 and 8 threads give the same bits over the end of an epoch, masked, augmented, in metrics too: ${name}, ${precision}`, async () => {
      const runs = [];
      // Of 8, all go through each of the four slices together.
      for (const threads of [1, 2, 5, 8]) {
        const session = await openSession({ network, precision, threads, ...options });
        await session.setMasks(await Masks.ones(network).prune(await session.snapshot(), { fraction: 0.3 }));
        // The last batch of the epoch is a smaller one, of slices that are not full.
        await session.setStep(session.info.updatesPerEpoch - 2);
        const { batches } = await session.trainToEnd({
          until: session.info.updatesPerEpoch + 2,
          metricsEvery: 1,
          evaluate: [],
        });
        const { loss, accuracy } = await session.evaluate('test', { examples: 300 });
        const rows = batches.flatMap((batch) =>
          batch.toArray().map((row) => ({ ...row.toJSON(), seconds: 0 })),
        );
        assert.ok(rows.every((row) => Number.isFinite((row as unknown as { loss: number }).loss)));
        runs.push({
          snapshot: await session.snapshot(),
          rows: JSON.stringify([...rows, loss, accuracy]),
        });
        session.dispose();
      }
      const [first, ...others] = runs as [(typeof runs)[0], ...typeof runs];
      for (const run of others) {
        assert.deepEqual(differences(run.snapshot, first.snapshot), []);
        assert.equal(run.rows, first.rows);
      }
    });
  }
}

for (const name of ['wide', 'unfolded'] as const)
  test(`${name} convolutions follow autograd for 3 steps within 1e-9 in double precision, and within 5e-6 in one step in fp32`, async () => {
    const network = networks[name];
    for (const fraction of [0, 0.5]) {
      const open = async (executor: 'direct' | 'autograd', precision: 'fp32' | 'fp64') => {
        const session = await openSession({ network, ...options, batch: 140, executor, precision });
        if (fraction)
          await session.setMasks(await Masks.ones(network).prune(await session.snapshot(), { fraction }));
        return session;
      };
      const [direct, oracle] = [await open('direct', 'fp64'), await open('autograd', 'fp64')];
      // Nine slices: more than large weights' gradients take at once.
      for (const session of [direct, oracle]) await session.trainToEnd({ until: 3, evaluate: [] });
      const distance = relativeDistance(await direct.snapshot(), await oracle.snapshot());
      assert.ok(distance <= 1e-9, String(distance));
      const [direct32, oracle32] = [await open('direct', 'fp32'), await open('autograd', 'fp32')];
      for (const session of [direct32, oracle32]) await session.load(await oracle.snapshot());
      const [a, b] = [await direct32.gradients(3), await oracle32.gradients(3)];
      assert.ok(Math.abs(a.loss - b.loss) <= 5e-6 * b.loss, `loss ${a.loss} and ${b.loss}`);
      const inFp32 = relativeDistance(a.gradients, b.gradients);
      assert.ok(inFp32 <= 5e-6, String(inFp32));
      for (const session of [direct, oracle, direct32, oracle32]) session.dispose();
    }
  });

for (const name of ['resnet', 'wide', 'branched'] as const)
  test(`gradients are as near to those of double precision as LibTorch layer by layer, in fp32 and in bf16: ${name}`, async () => {
    const network = networks[name];
    const truth = await openSession({ network, ...options, executor: 'autograd', precision: 'fp64' });
    for (const [precision, most] of [
      ['fp32', 1e-4],
      ['bf16', 0.1],
    ] as const) {
      const open = (executor: 'direct' | 'aten') => openSession({ network, ...options, precision, executor });
      const [direct, layers] = [await open('direct'), await open('aten')];
      for (const until of [0, 5, 20]) {
        await direct.trainToEnd({ until, evaluate: [] });
        for (const session of [layers, truth]) await session.load(await direct.snapshot());
        const of = async (session: Session) => (await session.gradients(until)).gradients;
        const expected = await of(truth);
        const [ours, theirs] = [
          relativeDistance(await of(direct), expected),
          relativeDistance(await of(layers), expected),
        ];
        assert.ok(ours <= most && ours > 0, `${precision}, step ${until}: ${ours} from double precision`);
        assert.ok(
          ours <= 1.5 * theirs + 1e-6,
          `${precision}, step ${until}: ${ours}, layer by layer ${theirs}`,
        );
      }
      for (const session of [direct, layers]) session.dispose();
    }
    truth.dispose();
  });

test('a training in bf16 learns as one in fp32 does, its weights and momentum are fp32', async () => {
  const losses = [];
  for (const precision of ['fp32', 'bf16'] as const) {
    // The lower rate at the end takes out what two steps at the higher one differ by.
    const schedule = { milestones: [80], gamma: 0.1 };
    const session = await openSession({
      network: networks.resnet,
      ...options,
      precision,
      augment: null,
      schedule,
    });
    await session.trainToEnd({ until: 120, evaluate: [] });
    const { loss, accuracy } = await session.evaluate('test', { examples: 500 });
    assert.ok(accuracy > 0.9, `${precision}: ${accuracy}`);
    losses.push(loss);
    const weights = (await session.snapshot()).tensors().get('momentum.conv1.weight')?.values;
    assert.ok(weights instanceof Float32Array);
    // Of bf16 numbers the lower halves are zero.
    assert.ok(new Uint32Array(weights.slice().buffer).some((bits) => (bits & 0xffff) !== 0));
    session.dispose();
  }
  const [fp32, bf16] = losses as [number, number];
  assert.ok(Math.abs(fp32 - bf16) < 0.1, `${fp32} and ${bf16}`);
});

test('bf16 is refused where it is not known, with what to type', async () => {
  await assert.rejects(openSession({ precision: 'bf16' }), {
    code: 'unsupported',
    message: /lenet-20-12.*use fp32/,
  });
  await assert.rejects(openSession({ network: networks.resnet, precision: 'bf16', executor: 'autograd' }), {
    code: 'unsupported',
    message: /autograd/,
  });
});

test('the fingerprint names what decides the bits of convolutions, and no more for networks without them', async () => {
  const [with32, withBf16, without] = [
    await openSession({ network: networks.resnet }),
    await openSession({ network: networks.resnet, precision: 'bf16' }),
    await openSession(),
  ];
  assert.match(with32.info.fingerprint, /precision=fp32 isa=\w+ convolutions=\d+ libtorch-isa=\S+$/);
  assert.match(withBf16.info.fingerprint, /precision=bf16/);
  assert.doesNotMatch(without.info.fingerprint, /convolutions/);
  for (const session of [with32, withBf16, without]) session.dispose();
});

test('a training that diverges ends as one, in bf16 too', async () => {
  for (const precision of ['fp32', 'bf16'] as const) {
    const session = await openSession({
      network: networks.vgg,
      ...options,
      precision,
      optimiser: { type: 'sgd', learningRate: 1e6 },
    });
    const { end } = await session.trainToEnd({ until: 40, evaluate: [] });
    assert.equal(end.state, 'diverged');
    session.dispose();
  }
});
