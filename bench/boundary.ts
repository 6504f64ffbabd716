/**
 * The boundary between C++ and JavaScript: how long a tensor of 25 million floats takes to become an Arrow vector and
 * what memory that costs, and how late a 10 ms timer is while a session trains on all cores.
 *
 *   npm run bench:boundary -- [--seconds 10] [--json]
 */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { CompiledNetwork, Dataset, Masks, Session } from '../lib/index.js';
import { describe, type Setting, type Summary, setting, show, summary } from './helpers.js';

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '10' }, json: { type: 'boolean', default: false } },
});

const UNITS = 32_000;
const TIMER_MS = 10;
const { train } = await Dataset.open('mnist-10k');

function wide(): CompiledNetwork {
  return CompiledNetwork.compile({
    name: 'wide',
    input: [1, 28, 28],
    classes: 10,
    layers: [
      { name: 'flatten', type: 'flatten' },
      { name: 'wide', type: 'linear', units: UNITS },
      { name: 'out', type: 'linear', units: 10 },
    ],
  });
}

interface ZeroCopy {
  floats: number;
  /** Milliseconds from a snapshot to all its tensors as Arrow vectors. */
  ms: Summary;
  /** Growth of resident memory, MiB, over all of it. */
  grown: number;
}

/** Every snapshot is looked at for the first time: its views are kept afterwards. */
async function zeroCopy(): Promise<ZeroCopy> {
  const network = wide();
  const session = await Session.open({
    network,
    train,
    batch: 1,
    optimiser: { type: 'sgd', learningRate: 0.1 },
  });
  const times: number[] = [];
  let grown = 0;
  let floats = 0;
  for (let i = 0; i < 25; i++) {
    const snapshot = await session.snapshot();
    const before = process.memoryUsage.rss();
    const start = performance.now();
    const vector = snapshot.tensors().get('wide.weight')?.vector;
    times.push(performance.now() - start);
    floats = vector?.length ?? 0;
    grown = Math.max(grown, (process.memoryUsage.rss() - before) / 2 ** 20);
    snapshot.dispose();
  }
  session.dispose();
  return { floats, ms: summary(times), grown };
}

interface Lateness {
  /** Milliseconds that a 10 ms timer came late. */
  median: number;
  p99: number;
  max: number;
  ticks: number;
}

async function lateness(work: () => Promise<void>): Promise<Lateness> {
  const late: number[] = [];
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    late.push(Math.max(0, now - last - TIMER_MS));
    last = now;
  }, TIMER_MS);
  await work();
  clearInterval(timer);
  const sorted = late.sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))] ?? 0;
  return { median: at(0.5), p99: at(0.99), max: at(1), ticks: sorted.length };
}

/** A row for every update: as much progress as there can be. */
async function training(): Promise<void> {
  const network = CompiledNetwork.compile('lenet-300-100');
  const optimiser = { type: 'adam', learningRate: 1.2e-3 } as const;
  const session = await Session.open({ network, train, batch: 60, optimiser });
  const signal = AbortSignal.timeout(Number(values.seconds) * 1000);
  await session.trainToEnd({ until: 2 ** 31 - 1, metricsEvery: 1, evaluate: [], signal }).catch((error) => {
    if (!signal.aborted) throw error;
  });
  session.dispose();
}

/** Everything else that passes over all weights, of which there are 25 million. */
async function passes(): Promise<void> {
  const network = wide();
  const optimiser = { type: 'adam', learningRate: 1.2e-3 } as const;
  const session = await Session.open({ network, train, batch: 60, optimiser });
  const snapshot = await session.snapshot();
  const masks = await Masks.ones(network).prune(snapshot);
  await masks.random(1, 0);
  await session.setMasks(masks);
  await session.load(snapshot);
  (await session.gradients(0)).gradients.dispose();
  for (const one of [snapshot, session]) one.dispose();
}

const result: { setting: Setting; zeroCopy: ZeroCopy; training: Lateness; passes: Lateness } = {
  setting: setting(),
  zeroCopy: await zeroCopy(),
  training: await lateness(training),
  passes: await lateness(passes),
};
if (values.json) {
  console.log(JSON.stringify(result));
} else {
  const { zeroCopy: copy } = result;
  console.log(describe(result.setting));
  console.log(
    `${(copy.floats / 1e6).toFixed(1)} million floats become an Arrow vector in ${show(copy.ms)} ms; memory grows by ${copy.grown.toFixed(2)} MiB at most`,
  );
  const words = (late: Lateness) =>
    `late by ${late.median.toFixed(1)} ms (median), ${late.p99.toFixed(1)} (99 %), ${late.max.toFixed(1)} (worst of ${late.ticks})`;
  console.log(
    `a ${TIMER_MS} ms timer while training on ${availableParallelism()} threads, a row every update: ${words(result.training)}`,
  );
  console.log(
    `a ${TIMER_MS} ms timer while 25 million weights are drawn, copied, pruned and loaded: ${words(result.passes)}`,
  );
}
