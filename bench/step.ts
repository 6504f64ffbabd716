/**
 * One training step against PyTorch's best ways to make it, interleaved in one run: median of the rounds' ratios.
 * Both sides gather a batch out of resident bytes, normalise it, go forward and backward, update with the fused
 * optimiser, and look at the loss; lth-train augments pictures too, PyTorch does not. Networks: lenet-300-100 (eager,
 * torch.compile), resnet-D and vgg-N ({eager fp32, bf16} x {NCHW, NHWC}, torch.compile).
 *
 *   npm run bench:step -- [--network lenet-300-100] [--precision fp32|bf16] [--threads 2] [--batch 60|128]
 *     [--optimiser adam|sgd] [--sparsity 0.95 [--pooling global|layerwise]] [--rounds 25] [--steps 200]
 *     [--variants eager,...] [--device cpu|cuda] [--json]
 *
 * With --sparsity that share of the prunable weights is pruned by its magnitude at initialisation: global keeps more of
 * some layers than of others, layerwise as much of each. PyTorch then makes its dense step, without the mask that it would
 * have to multiply by: it is spared that.
 */
import { parseArgs } from 'node:util';
import { CompiledNetwork, Dataset, Masks, Session } from '../lib/index.js';
import type { Precision } from '../lib/native/AddonTypes.js';
import { describe, type Summary, setting, show, summary } from './helpers.js';
import { noise, Reference } from './pytorch.js';

const { values } = parseArgs({
  options: {
    network: { type: 'string', default: 'lenet-300-100' },
    precision: { type: 'string' },
    threads: { type: 'string', default: '2' },
    batch: { type: 'string' },
    optimiser: { type: 'string' },
    sparsity: { type: 'string', default: '0' },
    pooling: { type: 'string', default: 'global' },
    rounds: { type: 'string' },
    steps: { type: 'string' },
    variants: { type: 'string', default: '' },
    device: { type: 'string', default: 'cpu' },
    json: { type: 'boolean', default: false },
  },
});
const pictures = !values.network.startsWith('lenet');
const precision = (values.precision ?? (pictures ? 'bf16' : 'fp32')) as Precision;
const optimiser = values.optimiser ?? (pictures ? 'sgd' : 'adam');
const threads = Number(values.threads);
const batch = Number(values.batch ?? (pictures ? 128 : 60));
const sparsity = Number(values.sparsity);
const rounds = Number(values.rounds ?? (pictures ? 7 : 25));
const steps = Number(values.steps ?? (pictures ? 3 : 200));

const network = CompiledNetwork.compile(values.network);
const train = pictures ? await noise() : (await Dataset.open('mnist-10k')).train;
const session = await Session.open({
  network,
  train,
  batch,
  threads,
  precision,
  device: values.device,
  augment: pictures ? { crop: 4, flip: true } : null,
  optimiser:
    optimiser === 'adam'
      ? { type: 'adam', learningRate: 1.2e-3 }
      : { type: 'sgd', learningRate: 0.01, momentum: 0.9, weightDecay: pictures ? 1e-4 : 0 },
});

if (sparsity > 0) {
  const pooling = values.pooling as 'global' | 'layerwise';
  await session.setMasks(
    await Masks.ones(network).prune(await session.snapshot(), { fraction: sparsity, pooling }),
  );
}

async function ours(): Promise<number> {
  const { end } = await session.trainToEnd({
    until: session.step + steps,
    metricsEvery: 0,
    evaluate: [],
    ends: false,
  });
  return (end.seconds * 1e3) / steps;
}

const { network: name, variants, device } = values;
const reference = await Reference.start({ network: name, threads, batch, optimiser, variants, device });
const times: Record<string, number[]> = { 'lth-train': [] };
for (const variant of reference.variants) times[variant] = [];
await ours();
for (let round = 0; round < rounds; round++) {
  times['lth-train']?.push(await ours());
  for (const variant of reference.variants) times[variant]?.push(await reference.measure(variant, steps));
}
reference.stop();

const mine = times['lth-train'] as number[];
const ms: Record<string, Summary> = {};
const ratio: Record<string, Summary> = {};
for (const [name, all] of Object.entries(times)) {
  ms[name] = summary(all);
  if (name !== 'lth-train') ratio[name] = summary(all.map((time, round) => time / (mine[round] as number)));
}
const least = Math.min(...Object.values(ratio).map((r) => r.median));
const result = {
  setting: setting(),
  torch: reference.torch,
  network: values.network,
  precision,
  device: values.device,
  threads,
  batch,
  optimiser,
  sparsity,
  pooling: values.pooling,
  steps,
  ms,
  ratio,
  least,
};
if (values.json) {
  console.log(JSON.stringify(result));
} else {
  console.log(
    `${values.network}, batch ${batch}, ${optimiser}, ${precision}, ${values.device}, ${threads} threads: training step, ${sparsity > 0 ? `${100 * sparsity} % pruned, ${values.pooling}` : 'dense'}`,
  );
  console.log(
    `${describe(result.setting)}, PyTorch ${reference.torch}; median [quartiles] of ${rounds} rounds`,
  );
  for (const [name, s] of Object.entries(ms)) {
    const faster = ratio[name] ? `   lth-train is ${show(ratio[name], 2)} times as fast` : '';
    console.log(`  ${name.padEnd(18)} ${show(s)} ms${faster}`);
  }
}
session.dispose();
