/**
 * What checkpoints cost a LeNet-300-100 training. The default cadence is so rare that its cost drowns in the noise, so
 * the cost of one checkpoint is measured by saving every 0.25 s, against the same training without, interleaved, and
 * divided by the default cadence.
 *
 *   npm run bench:checkpoint [-- --rounds 5 --updates 12000]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Replacements } from '../lib/experiment/replacements.js';
import { type Cadence, defaultCadence, trainWithCheckpoints } from '../lib/experiment/training.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Dataset } from '../lib/session/Dataset.js';
import { Session } from '../lib/session/Session.js';
import { Checkpoints } from '../lib/store/Checkpoints.js';
import { describe, setting, summary } from './helpers.js';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '7' },
    updates: { type: 'string', default: '6000' },
    threads: { type: 'string', default: '2' },
    folder: { type: 'string', default: tmpdir() },
  },
});
const updates = Number(values.updates);
const threads = Number(values.threads);

const network = CompiledNetwork.compile('lenet-300-100');
const { train, test } = await Dataset.open('mnist-10k');
const fingerprint = 'bench';

/** Seconds of a training with its evaluations, and how many checkpoints it made. */
async function once(cadence: Cadence): Promise<{ seconds: number; saved: number }> {
  const folder = mkdtempSync(join(values.folder, 'lth-bench-checkpoint-'));
  const optimiser = { type: 'adam', learningRate: 1.2e-3 } as const;
  const session = await Session.open({
    network,
    train,
    test,
    validation: 1000,
    batch: 60,
    optimiser,
    threads,
  });
  const owner = { id: 'bench', key: '0'.repeat(64), start: 0, fingerprint, allowDifferentBits: false };
  const checkpoints = new Checkpoints(folder, owner);
  let saved = 0;
  const save = checkpoints.save.bind(checkpoints);
  checkpoints.save = async (...args) => {
    saved++;
    await save(...args);
  };
  try {
    const start = performance.now();
    const replacements = new Replacements(session, undefined, () => {});
    await trainWithCheckpoints(session, checkpoints, replacements, {
      until: updates,
      noise: 0,
      metricsEvery: 100,
      evaluateEvery: 100,
      continues: false,
      ends: true,
      cadence,
      signal: undefined,
      onStep: () => {},
    });
    return { seconds: (performance.now() - start) / 1000, saved };
  } finally {
    session.dispose();
    rmSync(folder, { recursive: true });
  }
}

const never: Cadence = { seconds: null, updates: null, largestShare: 1 };
/** So often that the difference is far above the noise. */
const often: Cadence = { seconds: 0.25, updates: null, largestShare: Number.POSITIVE_INFINITY };

console.log(describe(setting()));
console.log(`LeNet-300-100, batch 60, Adam, ${updates} updates, ${threads} threads`);
await once(never);
const without: number[] = [];
const within: number[] = [];
const each: number[] = [];
for (let round = 0; round < Number(values.rounds); round++) {
  // In turn first and second, so that a drift of the machine falls on both.
  const pair = round % 2 ? [never, often] : [often, never];
  const results = [];
  for (const cadence of pair) results.push({ cadence, ...(await once(cadence)) });
  const plain = results.find(({ cadence }) => cadence === never);
  const saving = results.find(({ cadence }) => cadence === often);
  if (!plain || !saving) throw new Error('a round has two sides');
  without.push(plain.seconds);
  within.push(saving.seconds);
  each.push((saving.seconds - plain.seconds) / saving.saved);
  console.log(
    `round ${round + 1}: without ${plain.seconds.toFixed(2)} s, with ${saving.saved} checkpoints ${saving.seconds.toFixed(2)} s`,
  );
}
const { median: cost, low, high } = summary(each);
const share = (100 * cost) / (defaultCadence.seconds as number);
console.log(
  `a checkpoint (3.2 MB, written, synced, read back) costs the training ${(cost * 1000).toFixed(1)} ms (quartiles ${(low * 1000).toFixed(1)} to ${(high * 1000).toFixed(1)})`,
);
console.log(
  `at the default cadence of ${defaultCadence.seconds} s that is ${share.toFixed(3)} % of the time; ratio with/without when saving every 0.25 s: ${(summary(within).median / summary(without).median).toFixed(3)}`,
);
network.dispose();
