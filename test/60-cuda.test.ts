/**
 * CUDA: the same training as on the CPU, the same bits every time, updates that are recorded once and replayed. All of it
 * skips where there is no device.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { RecordBatch } from 'apache-arrow';
import { loadAddon } from '../lib/native/load.js';
import { networkByName } from '../lib/networks/catalogue.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Masks } from '../lib/session/Masks.js';
import type { OpenOptions, Session } from '../lib/session/Session.js';
import { CommandLine } from './helpers/commandLine.js';
import { differences, openSession, relativeDistance } from './helpers/digits.js';
import { branched, convolutional, flattened, residual, stemmed, wide } from './helpers/networks.js';

const { cuda } = loadAddon().info();
const skip = cuda.available ? false : `no CUDA device: ${cuda.reason}`;
const folder = mkdtempSync(join(tmpdir(), 'lth-cuda-'));
const cli = new CommandLine({});
after(() => {
  cli.end();
  rmSync(folder, { recursive: true });
});

const resnet = CompiledNetwork.compile({ ...networkByName('resnet-8'), input: [1, 28, 28] });
const networks: Record<string, CompiledNetwork> = {
  'lenet-300-100': CompiledNetwork.compile('lenet-300-100'),
  'a network with sums': CompiledNetwork.compile(residual),
  'a convolutional network': CompiledNetwork.compile(convolutional),
  'a network of flattened images': CompiledNetwork.compile(flattened),
  'a network of branches': CompiledNetwork.compile(branched),
  'a network that halves pictures twice': CompiledNetwork.compile(stemmed),
  'resnet-8': resnet,
};
const sgd: Partial<OpenOptions> = {
  optimiser: { type: 'sgd', learningRate: 0.02, momentum: 0.9, nesterov: true, weightDecay: 1e-4 },
  augment: { crop: 2, flip: true },
  normalise: true,
};
const adam: Partial<OpenOptions> = { optimiser: { type: 'adam', learningRate: 1.2e-3 } };
const everyStep = { metricsEvery: 1, evaluate: [], ends: false } as const;

function losses(batches: RecordBatch[]): number[] {
  return batches.flatMap((batch) => Array.from(batch.getChild('loss')?.toArray() as Float64Array));
}

async function prune(session: Session, network: CompiledNetwork, fraction: number): Promise<Masks> {
  const masks = await Masks.ones(network).prune(await session.snapshot(), { fraction });
  await session.setMasks(masks);
  return masks;
}

for (const [name, network] of Object.entries(networks)) {
  for (const [optimiser, options] of Object.entries({ SGD: sgd, Adam: adam })) {
    test(`25 steps follow autograd on the CPU within 1e-9 in double precision: ${name}, ${optimiser}`, {
      skip,
    }, async () => {
      for (const fraction of [0, 0.8]) {
        const open = async (device: string, executor: 'direct' | 'autograd') => {
          const session = await openSession({ network, ...options, precision: 'fp64', device, executor });
          if (fraction > 0) await prune(session, network, fraction);
          return session;
        };
        const oracle = await open('cpu', 'autograd');
        const expected = losses((await oracle.trainToEnd({ until: 25, ...everyStep })).batches);
        for (const executor of ['direct', 'autograd'] as const) {
          const session = await open('cuda', executor);
          const actual = losses((await session.trainToEnd({ until: 25, ...everyStep })).batches);
          for (const [i, loss] of actual.entries()) {
            const other = expected[i] as number;
            assert.ok(Math.abs(loss - other) <= 1e-9 * other, `${executor}, step ${i}: ${loss} and ${other}`);
          }
          const distance = relativeDistance(await session.snapshot(), await oracle.snapshot());
          assert.ok(distance <= 1e-9, `${executor}, weights and optimiser state: ${distance}`);
          const some = { examples: 500 };
          const [a, b] = [await session.evaluate('test', some), await oracle.evaluate('test', some)];
          assert.equal(a.accuracy, b.accuracy, executor);
          assert.ok(Math.abs(a.loss - b.loss) <= 1e-9 * b.loss, executor);
          session.dispose();
        }
        oracle.dispose();
      }
    });
  }

  test(`in single precision, which is not TF32, gradients agree with double precision: ${name}`, {
    skip,
  }, async () => {
    const truth = await openSession({ network, ...sgd, executor: 'autograd', precision: 'fp64' });
    const oracle = await openSession({ network, ...sgd, device: 'cuda', executor: 'autograd' });
    const session = await openSession({ network, ...sgd, device: 'cuda' });
    const distances: number[] = [];
    for (const until of [0, 10, 50]) {
      await session.trainToEnd({ until });
      for (const one of [truth, oracle]) await one.load(await session.snapshot());
      const [a, b] = [await session.gradients(until), await truth.gradients(until)];
      assert.ok(Math.abs(a.loss - b.loss) <= 5e-6 * b.loss, `${until}: loss ${a.loss} and ${b.loss}`);
      const ours = relativeDistance(a.gradients, b.gradients);
      // A unit at the edge of its ReLU may be on the other side in fp32, for LibTorch's autograd too.
      const theirs = relativeDistance((await oracle.gradients(until)).gradients, b.gradients);
      assert.ok(ours <= Math.max(5e-6, 3 * theirs), `${until}: gradients ${ours}, of autograd ${theirs}`);
      distances.push(ours);
    }
    assert.ok(Math.min(...distances) <= 1e-4, `${distances}: TF32 is 1e-3 everywhere`);
    for (const one of [truth, oracle, session]) one.dispose();
  });
}

const ofBf16: [name: string, network: CompiledNetwork | undefined, batch: number][] = [
  ...(
    [
      'resnet-8',
      'a convolutional network',
      'a network of flattened images',
      'a network of branches',
      'a network that halves pictures twice',
    ] as const
  ).map((name): [string, CompiledNetwork | undefined, number] => [name, networks[name], 60]),
  // Images of 19 and 29 million values.
  ['a network of large images', CompiledNetwork.compile(wide), 384],
];
for (const [name, network, batch] of ofBf16) {
  test(`bf16: our kernels' gradients are as near the true ones as LibTorch's: ${name}`, {
    skip,
  }, async () => {
    assert.ok(network);
    const options = { network, ...sgd, batch };
    const truth = await openSession({ ...options, device: 'cuda', executor: 'autograd', precision: 'fp64' });
    const session = await openSession({ ...options, device: 'cuda', precision: 'bf16' });
    const layers = await openSession({ ...options, device: 'cuda', precision: 'bf16', executor: 'aten' });
    for (const until of [0, 10, 50]) {
      await session.trainToEnd({ until });
      for (const one of [truth, layers]) await one.load(await session.snapshot());
      const [a, b] = [await session.gradients(until), await truth.gradients(until)];
      assert.ok(Math.abs(a.loss - b.loss) <= 0.02 * b.loss, `${until}: loss ${a.loss} and ${b.loss}`);
      const distance = relativeDistance(a.gradients, b.gradients);
      const theirs = relativeDistance((await layers.gradients(until)).gradients, b.gradients);
      assert.ok(
        distance <= Math.max(1.5 * theirs, 0.01),
        `${until}: gradients ${distance}, LibTorch's ${theirs}`,
      );
      // Those have sums of eight bits one upon the other, and few norms: LibTorch's are 0.1 away too.
      assert.ok(
        distance <= (/branches|convolutional/.test(name) ? 0.2 : 0.1),
        `${until}: gradients ${distance}`,
      );
    }
    // Running statistics move alike.
    for (const one of [truth, session, layers]) await one.trainToEnd({ until: 51 });
    const of = async (one: Session) => relativeDistance(await one.snapshot(), await truth.snapshot());
    const [ours, theirs] = [await of(session), await of(layers)];
    assert.ok(ours <= Math.max(1.5 * theirs, 1e-3), `after an update: ${ours}, LibTorch's ${theirs}`);
    for (const one of [truth, session, layers]) one.dispose();
  });
}

for (const [name, precision] of [
  ['resnet-8', 'fp32'],
  ['resnet-8', 'bf16'],
  ['a network that halves pictures twice', 'bf16'],
] as const) {
  test(`replayed updates have the bits of those that are not, over the ends of epochs: ${name}, ${precision}`, {
    skip,
  }, async () => {
    const network = networks[name];
    assert.ok(network);
    const open = () => openSession({ network, ...sgd, precision, batch: 128, device: 'cuda' });
    const [replayed, eager] = [await open(), await open()];
    for (const session of [replayed, eager]) await prune(session, network, 0.6);
    const { examples, updatesPerEpoch } = replayed.info;
    // The last batch of an epoch is smaller: made, recorded and replayed twice beside the others, whose memory it shares.
    assert.notEqual(examples.train % 128, 0);
    const until = 4 * updatesPerEpoch;
    const together = losses((await replayed.trainToEnd({ until, ...everyStep })).batches);
    const one: number[] = [];
    // A call has a thread of its own, and the first update of a thread is not recorded.
    for (let step = 1; step <= until; step++)
      one.push(...losses((await eager.trainToEnd({ until: step, ...everyStep })).batches));
    assert.deepEqual(together, one);
    assert.deepEqual(differences(await replayed.snapshot(), await eager.snapshot()), []);
    for (const session of [replayed, eager]) session.dispose();
  });
}

for (const precision of ['fp32', 'bf16'] as const) {
  test(`two sessions at once train as each does alone: ${precision}`, { skip }, async () => {
    const make = async (replicate: number) => {
      const session = await openSession({ network: resnet, ...sgd, precision, replicate, device: 'cuda' });
      return { session, done: session.trainToEnd({ until: 60, ...everyStep }) };
    };
    const together = await Promise.all([0, 1].map(make));
    for (const [replicate, { session, done }] of together.entries()) {
      const a = losses((await done).batches);
      const alone = await make(replicate);
      assert.deepEqual(a, losses((await alone.done).batches));
      assert.deepEqual(differences(await session.snapshot(), await alone.session.snapshot()), []);
      for (const one of [session, alone.session]) one.dispose();
    }
  });
}

test('pruned weights and their momentum are exactly +0 after updates, however they are made', {
  skip,
}, async () => {
  for (const options of [sgd, adam]) {
    const session = await openSession({ network: resnet, ...options, device: 'cuda', precision: 'bf16' });
    const masks = await prune(session, resnet, 0.9);
    await session.trainToEnd({ until: 20, ...everyStep });
    const tensors = (await session.snapshot()).tensors();
    let pruned = 0;
    for (const [name, { vector, size }] of masks.tensors()) {
      for (const [state, { values }] of tensors) {
        if (state.replace(/^(momentum|exp_avg|exp_avg_sq)\./, '') !== name) continue;
        for (let i = 0; i < size; i++) {
          if (vector.get(i)) continue;
          pruned++;
          assert.ok(Object.is(values[i], 0), `${state}[${i}]`);
        }
      }
    }
    assert.ok(pruned > 0);
    session.dispose();
  }
});

test('new masks, loads, evaluations and gradients between replayed updates change nothing that they should not', {
  skip,
}, async () => {
  const open = () => openSession({ network: resnet, ...sgd, precision: 'bf16', device: 'cuda' });
  const [one, fresh] = [await open(), await open()];
  const start = await one.snapshot();
  await one.trainToEnd({ until: 6, ...everyStep });
  await one.evaluate('test', { examples: 100 });
  await one.gradients(6);
  const masks = await prune(one, resnet, 0.7);
  await one.load(start);
  const a = losses((await one.trainToEnd({ until: 6, ...everyStep })).batches);
  await fresh.setMasks(masks);
  const b = losses((await fresh.trainToEnd({ until: 6, ...everyStep })).batches);
  assert.deepEqual(a, b);
  assert.deepEqual(differences(await one.snapshot(), await fresh.snapshot()), []);
  for (const session of [one, fresh]) session.dispose();
});

test('algorithms chosen by the clock train a network to about the same loss, in a process of their own', {
  skip,
}, async () => {
  (await openSession({ network: resnet, device: 'cuda' })).dispose();
  await assert.rejects(
    openSession({ network: resnet, device: 'cuda', deviceMode: 'fast' }),
    /deterministic already.*another process/,
  );
  const options = ['--device', 'cuda', '--set', 'training.steps=100it', '--set', 'training.precision=bf16'];
  options.push(
    '--set',
    'pruning.rates={}',
    '--set',
    `network=${JSON.stringify(stemmed)}`,
    '--levels',
    '0',
    '--replicates',
    '1',
  );
  const losses: number[] = [];
  for (const mode of ['fast', 'deterministic']) {
    const out = join(folder, mode);
    const own = new CommandLine({});
    const { code, err } = await own.run('run', 'quickstart', '--device-mode', mode, '--out', out, ...options);
    own.end();
    assert.equal(code, 0, err);
    const { results, fingerprints } = JSON.parse((await cli.run('show', out, '--json')).out);
    losses.push(results[0].testLoss);
    assert.equal(/ mode=fast /.test(fingerprints[0]), mode === 'fast');
  }
  assert.ok(Math.abs((losses[0] as number) / (losses[1] as number) - 1) < 0.1, `${losses}`);
});

test('scores of pruning at initialisation are those of the CPU', { skip }, async () => {
  const [cpu, gpu] = [
    await openSession({ network: resnet }),
    await openSession({ network: resnet, device: 'cuda' }),
  ];
  for (const method of ['snip', 'grasp', 'synflow'] as const) {
    const [a, b] = [await gpu.scores(method, { perClass: 2 }), await cpu.scores(method, { perClass: 2 })];
    const distance = relativeDistance(a, b);
    assert.ok(distance <= 1e-9, `${method}: ${distance}`);
  }
  for (const one of [cpu, gpu]) one.dispose();
});

test('an experiment on the device has the same bits twice, whatever thread carries a training on', {
  skip,
}, async () => {
  const options = ['--device', 'cuda', '--set', 'training.steps=300it', '--set', 'pruning.rates={}'];
  // Windows of its max pool overlap.
  options.push('--set', 'training.precision=bf16');
  options.push('--set', `network=${JSON.stringify(convolutional)}`, '--levels', '2', '--replicates', '1');
  const folders = ['a', 'b'].map((name) => join(folder, name));
  for (const [i, out] of folders.entries()) {
    const cadence = ['never', '20it'][i] as string;
    const { code, err } = await cli.run(
      'run',
      'quickstart',
      '--checkpoint-every',
      cadence,
      '--out',
      out,
      ...options,
    );
    assert.equal(code, 0, err);
  }
  const [a, b] = folders as [string, string];
  const files = readdirSync(a, { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.safetensors'),
  );
  assert.ok(files.length > 3);
  for (const name of files) assert.deepEqual(readFileSync(join(a, name)), readFileSync(join(b, name)), name);
  const { code, err } = await cli.run('verify', a);
  assert.equal(code, 0, err);
});
