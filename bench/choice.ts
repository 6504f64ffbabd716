/**
 * Does `auto` choose well? A training step with dense products alone, sparse ones wherever they can be, and the choice by
 * the built-in table and by this machine's, interleaved in one run, at the densities of IMP's levels and others. `loss` is
 * how much longer a choice takes than the better of dense and sparse: median of the rounds' ratios; below 0 where it mixes both.
 * With one thread its own time counts, so that others on the machine hardly matter.
 *
 *   npm run bench:choice -- [--network resnet-20] [--precision fp32|bf16] [--densities 0.41,0.21,...] [--pooling layerwise|global]
 *     [--threads 1] [--batch 60|128] [--rounds 9] [--steps N] [--tuning FILE] [--json]
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { CompiledNetwork, Dataset, Masks, measureTuning, Session, type Tuning } from '../lib/index.js';
import type { Precision } from '../lib/native/AddonTypes.js';
import { networkByName } from '../lib/networks/catalogue.js';
import { describe, type Summary, setting, show, summary } from './helpers.js';
import { noise } from './pytorch.js';

const { values } = parseArgs({
  options: {
    network: { type: 'string', default: 'resnet-20' },
    precision: { type: 'string' },
    densities: { type: 'string', default: '0.64,0.51,0.41,0.33,0.26,0.21,0.168,0.107,0.055,0.02' },
    pooling: { type: 'string', default: 'layerwise' },
    threads: { type: 'string', default: '1' },
    batch: { type: 'string' },
    rounds: { type: 'string', default: '9' },
    steps: { type: 'string' },
    tuning: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const pictures = !values.network.startsWith('lenet');
const precision = (values.precision ?? (pictures ? 'bf16' : 'fp32')) as Precision;
const threads = Number(values.threads);
const batch = Number(values.batch ?? (pictures ? 128 : 60));
const steps = Number(values.steps ?? (pictures ? 1 : 200));
const pooling = values.pooling as 'global' | 'layerwise';
const description = networkByName(values.network);
const network = CompiledNetwork.compile(description);
const train = pictures ? await noise(description) : (await Dataset.open('mnist-10k')).train;

const measured = values.tuning
  ? (JSON.parse(readFileSync(values.tuning, 'utf8')) as { tuning: Tuning }).tuning
  : await measureTuning();
const choices = {
  dense: { kernels: 'dense' },
  sparse: { kernels: 'sparse' },
  builtin: {},
  measured: { tuning: measured },
} as const;
type Name = keyof typeof choices;
const names = Object.keys(choices) as Name[];
const sessions = new Map<Name, Session>();
for (const name of names) {
  const optimiser = pictures
    ? { type: 'sgd' as const, learningRate: 1e-4, momentum: 0.9, weightDecay: 1e-4 }
    : { type: 'adam' as const, learningRate: 1e-5 };
  sessions.set(
    name,
    await Session.open({ network, train, batch, threads, precision, optimiser, ...choices[name] }),
  );
}

async function milliseconds(session: Session): Promise<number> {
  const before = process.cpuUsage();
  const { end } = await session.trainToEnd({
    until: session.step + steps,
    metricsEvery: 0,
    evaluate: [],
    ends: false,
  });
  const { user, system } = process.cpuUsage(before);
  return (threads === 1 ? (user + system) / 1e3 : end.seconds * 1e3) / steps;
}

interface Row {
  density: number;
  ms: Record<Name, Summary>;
  loss: Record<'builtin' | 'measured', Summary>;
  /** Of all products that have a choice, how many are sparse. */
  sparse: Record<'builtin' | 'measured', number>;
}

const rows: Row[] = [];
for (const density of values.densities.split(',').map(Number)) {
  const times: Record<Name, number[]> = { dense: [], sparse: [], builtin: [], measured: [] };
  const first = sessions.get('dense') as Session;
  const masks = await Masks.ones(network).prune(await first.snapshot(), { fraction: 1 - density, pooling });
  for (const session of sessions.values()) {
    await session.setMasks(masks);
    await milliseconds(session);
  }
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const [name, session] of sessions) times[name].push(await milliseconds(session));
  }
  const better =
    summary(times.dense).median <= summary(times.sparse).median ? ('dense' as const) : ('sparse' as const);
  const lossOf = (name: Name) =>
    summary(times[name].map((time, i) => time / (times[better][i] as number) - 1));
  const sparseOf = (name: Name) => {
    const all = (sessions.get(name) as Session)
      .kernels()
      .flatMap((one) => [one.forward, one.inputGradient, one.weightGradient].filter((kind) => kind !== null));
    return all.filter((kind) => kind === 'sparse').length / all.length;
  };
  rows.push({
    density,
    ms: Object.fromEntries(names.map((name) => [name, summary(times[name])])) as Row['ms'],
    loss: { builtin: lossOf('builtin'), measured: lossOf('measured') },
    sparse: { builtin: sparseOf('builtin'), measured: sparseOf('measured') },
  });
  masks.dispose();
  // The next density is of all weights again.
  for (const session of sessions.values()) {
    await session.setMasks(null);
    await session.initialise();
  }
}
for (const session of sessions.values()) session.dispose();

if (values.json) {
  console.log(
    JSON.stringify({ setting: setting(), ...values, precision, batch, steps, tuning: measured, rows }),
  );
} else {
  console.log(
    `${values.network}, batch ${batch}, ${precision}, ${threads} threads, ${pooling}: training step`,
  );
  console.log(`${describe(setting())}; median [quartiles] of ${values.rounds} rounds`);
  const percent = (s: Summary) =>
    `${(100 * s.median).toFixed(1)} [${(100 * s.low).toFixed(1)}, ${(100 * s.high).toFixed(1)}] %`;
  for (const { density, ms, loss, sparse } of rows) {
    console.log(
      `  ${(100 * density).toFixed(1).padStart(5)} % left: ${names.map((name) => `${name} ${show(ms[name], 2)}`).join('  ')} ms`,
    );
    for (const name of ['builtin', 'measured'] as const)
      console.log(
        `           ${name}: ${(100 * sparse[name]).toFixed(0)} % of products sparse, loss ${percent(loss[name])}`,
      );
  }
}
