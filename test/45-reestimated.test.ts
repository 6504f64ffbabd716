/** Running statistics estimated anew: plain averages of batch statistics, at the weights as they are. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { measureConnectivity } from '../lib/experiment/analyse.js';
import { runExperiment } from '../lib/experiment/run.js';
import { networkByName } from '../lib/networks/catalogue.js';
import { packageRoot } from '../lib/package.js';
import { reportExtras } from '../lib/report/extras.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import type { OpenOptions } from '../lib/session/Session.js';
import type { Snapshot } from '../lib/session/Snapshot.js';
import { CommandLine } from './helpers/commandLine.js';
import { differences, openSession } from './helpers/digits.js';
import { normalised } from './helpers/networks.js';
import { killAll, send, start } from './helpers/processes.js';
import { bitsOf, finishedUnits, firstDifference, temporaryFolder } from './helpers/runs.js';
import { tinyRecipe } from './helpers/tiny.js';

const folder = temporaryFolder('reestimated');
const cli = new CommandLine({});
after(() => {
  cli.end();
  killAll();
});

const small = normalised(16);
const network = CompiledNetwork.compile(small);
const augment = { crop: 4, flip: true };
const open = (options: Partial<OpenOptions> = {}) =>
  openSession({ network, precision: 'fp64', normalise: false, augment, ...options });

/** Of fc1's outputs: mean over batches of the batches' means and unbiased variances, in plain loops. */
function averages(batches: Int32Array[], weight: Float64Array, bias: Float64Array) {
  const images = gunzipSync(
    readFileSync(join(packageRoot, 'data', 'mnist-10k', 'train-images-idx3-ubyte.gz')),
  ).subarray(16);
  const mean = new Float64Array(16);
  const variance = new Float64Array(16);
  for (const rows of batches) {
    for (let unit = 0; unit < 16; unit++) {
      const outputs = Array.from(rows, (row) => {
        let sum = bias[unit] as number;
        for (let i = 0; i < 784; i++)
          sum += ((images[row * 784 + i] as number) / 255) * (weight[unit * 784 + i] as number);
        return sum;
      });
      const middle = outputs.reduce((a, b) => a + b, 0) / outputs.length;
      const squares = outputs.reduce((a, b) => a + (b - middle) ** 2, 0);
      mean[unit] = (mean[unit] as number) + middle / batches.length;
      variance[unit] = (variance[unit] as number) + squares / (outputs.length - 1) / batches.length;
    }
  }
  return { 'bn1.running_mean': mean, 'bn1.running_var': variance };
}

test('batches in parts: each part of one counts once', async () => {
  const snapshots = [];
  for (const [batch, microBatch, batches] of [
    [150, 50, 3],
    [50, undefined, 9],
  ] as const) {
    const session = await open({ batch, ...(microBatch === undefined ? {} : { microBatch }) });
    await session.reestimateStatistics(batches);
    snapshots.push(await session.snapshot());
    session.dispose();
  }
  const [parts, whole] = snapshots as [Snapshot, Snapshot];
  assert.deepEqual(differences(parts, whole), []);
});

test('running statistics become the plain average over the batches, without augmentation; nothing else changes', async () => {
  for (const executor of ['direct', 'autograd'] as const) {
    const session = await open({ executor, batch: 64 });
    await session.trainToEnd({ until: 7, evaluate: [] });
    const before = await session.snapshot();
    const { updatesPerEpoch } = session.info;
    // Over the end of the epoch, whose last batch is smaller and counts as much as the others.
    const count = updatesPerEpoch + 1;
    await session.reestimateStatistics(count);
    const found = await session.snapshot();
    assert.deepEqual(differences(found, before), ['bn1.running_mean', 'bn1.running_var']);
    assert.equal(session.step, 7);
    const batches = Array.from({ length: count }, (_, i) => session.batchIndices(i));
    assert.ok((batches[updatesPerEpoch - 1]?.length ?? 64) < 64);
    const values = (name: string) => found.tensors().get(name)?.values as Float64Array;
    const expected = averages(batches, values('fc1.weight'), values('fc1.bias'));
    for (const [name, mean] of Object.entries(expected))
      for (const [unit, value] of values(name).entries())
        assert.ok(
          Math.abs(value - (mean[unit] as number)) <= 1e-12 * Math.max(1, Math.abs(value)),
          `${executor} ${name}[${unit}]`,
        );
    // One batch: its own statistics, whatever stood there before.
    await session.reestimateStatistics(1);
    const one = averages(batches.slice(0, 1), values('fc1.weight'), values('fc1.bias'));
    const variance = (await session.snapshot()).tensors().get('bn1.running_var')?.values as Float64Array;
    for (const [unit, value] of one['bn1.running_var'].entries())
      assert.ok(Math.abs(value - (variance[unit] as number)) <= 1e-12 * value);
    session.dispose();
  }
});

test('with convolutions: the same bits for any number of threads, and the averages of autograd', async () => {
  const resnet = CompiledNetwork.compile({ ...networkByName('resnet-8'), input: [1, 28, 28] });
  const statistics = async (options: Partial<OpenOptions>) => {
    const session = await openSession({ network: resnet, ...options });
    await session.reestimateStatistics(5);
    const snapshot = await session.snapshot();
    session.dispose();
    return snapshot;
  };
  const [one, two] = [await statistics({ threads: 1 }), await statistics({ threads: 2 })];
  assert.deepEqual(differences(one, two), []);
  const [direct, oracle] = [
    await statistics({ precision: 'fp64' }),
    await statistics({ precision: 'fp64', executor: 'autograd' }),
  ];
  let looked = 0;
  for (const [name, { values, role }] of direct.tensors()) {
    if (role !== 'buffer') continue;
    looked++;
    const other = oracle.tensors().get(name)?.values as Float64Array;
    for (const [i, value] of values.entries())
      assert.ok(Math.abs(value - (other[i] as number)) <= 1e-10 * Math.max(1, Math.abs(value)), name);
  }
  assert.equal(looked, 2 * 9);
});

test('training goes on after it as it would have without it, but for the running statistics', async () => {
  const [plain, other] = [await open(), await open()];
  await other.reestimateStatistics(3);
  for (const session of [plain, other]) await session.trainToEnd({ until: 5, evaluate: [] });
  assert.deepEqual(differences(await plain.snapshot(), await other.snapshot()), [
    'bn1.running_mean',
    'bn1.running_var',
  ]);
  for (const session of [plain, other]) session.dispose();
});

test('it is refused without batches and while the session is busy, and stopped by a signal', async () => {
  const session = await open();
  await assert.rejects(session.reestimateStatistics(0), /between 1 and \d+ for batches/);
  const going = session.reestimateStatistics(50);
  await assert.rejects(session.reestimateStatistics(1), { code: 'busy' });
  await going;
  const stop = new AbortController();
  const long = session.reestimateStatistics(2 ** 31 - 1, { signal: stop.signal });
  setTimeout(() => stop.abort(), 20);
  await assert.rejects(long, { name: 'AbortError' });
  await assert.rejects(session.reestimateStatistics(1, { signal: AbortSignal.abort() }), {
    name: 'AbortError',
  });
  await session.reestimateStatistics(1);
  session.dispose();
});

const asked = { alphas: 6, trainExamples: 600, statistics: 'reestimated', threads: 2 } as const;
const recipe = tinyRecipe(
  { network: small, controls: [], rewind: ['0it'] },
  { levels: 1, pooling: 'global', rates: {} },
);

test('lines with statistics estimated anew: same bits for any number of threads, and after kill -9 inside a line', async () => {
  const whole = join(folder, 'whole');
  await runExperiment(recipe, { out: whole, threads: 2 });
  await measureConnectivity(whole, asked);
  const expected = bitsOf(whole);
  const alone = join(folder, 'alone');
  await runExperiment(recipe, { out: alone, threads: 1 });
  await measureConnectivity(alone, { ...asked, threads: 1 });
  assert.equal(firstDifference(expected, bitsOf(alone)), null);
  const killed = join(folder, 'killed');
  await runExperiment(recipe, { out: killed, threads: 2 });
  const args = ['connectivity', killed, '--alphas', '6', '--train-examples', '600', '--threads', '2'].concat([
    '--statistics',
    'reestimated',
  ]);
  const { group, ended } = start(args, {}, 120_000);
  const units = join(killed, 'units');
  const inLine = () =>
    readdirSync(units).some((id) => id.includes('-line-') && !existsSync(join(units, id, 'unit.json')));
  while (!inLine()) await new Promise((resolve) => setTimeout(resolve, 1));
  send(group, 'SIGKILL');
  assert.equal((await ended).signal, 'SIGKILL');
  assert.ok(finishedUnits(killed).filter((id) => id.includes('-line-')).length < 3);
  const { code, err } = await start(args, {}, 120_000).ended;
  assert.equal(code, 0, err);
  assert.equal(firstDifference(expected, bitsOf(killed)), null);
  assert.match((await cli.run(...args)).out, /reestimated/);
});

test("a report's command line of such lines carries the option, and only of such", async () => {
  const whole = join(folder, 'whole');
  await measureConnectivity(whole, { alphas: 3, trainExamples: 600, threads: 2 });
  const { commands } = await reportExtras(whole);
  const lines = commands.filter((one) => one.startsWith('lth-train connectivity'));
  assert.equal(lines.length, 2);
  assert.match(lines[0] as string, /--alphas 6 --statistics reestimated --train-examples 600$/);
  assert.match(lines[1] as string, /--alphas 3 --train-examples 600$/);
});
