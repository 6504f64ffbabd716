/**
 * What a whole IMP costs beside PyTorch's best dense step: one update with the masks of every level, both sides interleaved,
 * medians of the rounds. PyTorch makes its dense step and is spared the mask that it would have to multiply by.
 *
 *   npm run bench:imp -- [--network resnet-20] [--run RUN] [--levels 15] [--precision fp32|bf16] [--threads 2] [--batch 128]
 *     [--rounds 3] [--steps 3] [--train 10] [--variants eager-bf16-nhwc,...] [--json]
 *
 * --run takes the masks of a run's IMP (its first rewind point and replicate). Without it they are made here, as IMP makes
 * them but after --train updates a level: 20 % of what is left goes, by magnitude over all prunable weights, from the
 * weights at the start again.
 */
import { parseArgs } from 'node:util';
import { firstPrunings } from '../lib/experiment/overlap.js';
import { survey } from '../lib/experiment/survey.js';
import { CompiledNetwork, Dataset, Masks, Session } from '../lib/index.js';
import type { Precision } from '../lib/native/AddonTypes.js';
import { describe, setting, summary } from './helpers.js';
import { noise, Reference } from './pytorch.js';

const { values } = parseArgs({
  options: {
    network: { type: 'string', default: 'resnet-20' },
    run: { type: 'string' },
    levels: { type: 'string', default: '15' },
    precision: { type: 'string' },
    threads: { type: 'string', default: '2' },
    batch: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    steps: { type: 'string', default: '3' },
    train: { type: 'string', default: '10' },
    variants: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const pictures = !values.network.startsWith('lenet');
const precision = (values.precision ?? (pictures ? 'bf16' : 'fp32')) as Precision;
const [levels, threads, rounds, steps] = [values.levels, values.threads, values.rounds, values.steps].map(
  Number,
) as [number, number, number, number];
const batch = Number(values.batch ?? (pictures ? 128 : 60));

const network = CompiledNetwork.compile(values.network);
const session = await Session.open({
  network,
  train: pictures ? await noise() : (await Dataset.open('mnist-10k')).train,
  batch,
  threads,
  precision,
  augment: pictures ? { crop: 4, flip: true } : null,
  optimiser: pictures
    ? { type: 'sgd', learningRate: 0.01, momentum: 0.9, weightDecay: 1e-4 }
    : { type: 'adam', learningRate: 1.2e-3 },
});
const start = await session.snapshot();

/** Milliseconds an update. */
async function ours(updates: number): Promise<number> {
  const until = session.step + updates;
  const { end } = await session.trainToEnd({ until, metricsEvery: 0, evaluate: [], ends: false });
  return (end.seconds * 1e3) / updates;
}

/** Of levels 1 and up. */
async function* masksOfLevels(): AsyncGenerator<Masks> {
  if (values.run) {
    const found = await survey(values.run);
    const same = firstPrunings(found);
    if (same.length < levels)
      throw new Error(`${values.run} has masks of ${same.length} levels, and ${levels} are asked for`);
    for (const [unit] of same.slice(0, levels))
      yield await Masks.read(network, await found.folder.file(unit.id, 'masks.safetensors'));
    return;
  }
  let masks = Masks.ones(network);
  for (let level = 1; level <= levels; level++) {
    await session.setMasks(masks);
    await session.load(start);
    await ours(Number(values.train));
    masks = await masks.prune(await session.snapshot(), { fraction: 0.2 });
    yield masks;
  }
}

const reference = await Reference.start({
  network: values.network,
  threads,
  batch,
  optimiser: pictures ? 'sgd' : 'adam',
  ...(values.variants ? { variants: values.variants } : {}),
});
const rows: { level: number; prunable: number; ms: number; pytorch: number; ratio: number }[] = [];

/** Both sides, now. */
async function measure(level: number, prunable: number): Promise<void> {
  await ours(1);
  const mine: number[] = [];
  const best: number[] = [];
  for (let round = 0; round < rounds; round++) {
    mine.push(await ours(steps));
    const theirs: number[] = [];
    for (const variant of reference.variants) theirs.push(await reference.measure(variant, steps));
    best.push(Math.min(...theirs));
  }
  const [ms, pytorch] = [summary(mine).median, summary(best).median];
  rows.push({ level, prunable, ms, pytorch, ratio: pytorch / ms });
  if (!values.json)
    console.log(
      `  ${String(level).padStart(2)}  ${(100 * prunable).toFixed(2).padStart(6)} %  ${ms.toFixed(2).padStart(8)} ms  PyTorch ${pytorch.toFixed(2).padStart(8)} ms  ${(pytorch / ms).toFixed(2).padStart(5)} times as fast`,
    );
}

if (!values.json) {
  console.log(
    `${values.network}, batch ${batch}, ${precision}, ${threads} threads: an update at each level, masks ${values.run ? `of ${values.run}` : `after ${values.train} updates a level`}`,
  );
  console.log(
    `${describe(setting())}, PyTorch ${reference.torch}: the best of ${reference.variants.join(', ')}`,
  );
}
await measure(0, 1);
let level = 0;
for await (const masks of masksOfLevels()) {
  await session.load(start);
  await session.setMasks(masks);
  level++;
  await measure(level, masks.density.prunable);
  await session.setMasks(null);
}
reference.stop();
session.dispose();

// Dense PyTorch trainings that as long a time would do for.
const cost = rows.reduce((sum, { ratio }) => sum + 1 / ratio, 0);
if (values.json)
  console.log(
    JSON.stringify({ setting: setting(), torch: reference.torch, ...values, precision, rows, cost }),
  );
else
  console.log(
    `${rows.length} trainings take as long as ${cost.toFixed(2)} dense ones of PyTorch's best variant (${rows.length} there)`,
  );
