import assert from 'node:assert/strict';
import { cpSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import {
  type ConnectivityOptions,
  measureConnectivity,
  measureStability,
} from '../lib/experiment/analyse.js';
import { barrierOf } from '../lib/experiment/compare.js';
import { openPlan } from '../lib/experiment/openPlan.js';
import { maskOverlap } from '../lib/experiment/overlap.js';
import type { ConnectivityResult, OverlapResult } from '../lib/experiment/Result.js';
import { runExperiment } from '../lib/experiment/run.js';
import { summarise } from '../lib/experiment/summary.js';
import { survey } from '../lib/experiment/survey.js';
import { verifyRun } from '../lib/experiment/verify.js';
import { renderConnectivity, renderOverlap } from '../lib/report/analyses.js';
import { Masks } from '../lib/session/Masks.js';
import { Snapshot } from '../lib/session/Snapshot.js';
import { readMetrics } from '../lib/store/metrics.js';
import { CommandLine } from './helpers/commandLine.js';
import { differences, network, openSession } from './helpers/digits.js';
import { killAll, send, start } from './helpers/processes.js';
import { bitsOf, finishedUnits, firstDifference, runToCopy, temporaryFolder } from './helpers/runs.js';
import { tinyRecipe } from './helpers/tiny.js';

const folder = temporaryFolder('connectivity');
const cli = new CommandLine({});
after(() => {
  cli.end();
  killAll();
});

const recipe = tinyRecipe({ replicates: 2, controls: [] });
const { run, fresh } = await runToCopy(folder, recipe);

const asked: ConnectivityOptions = { alphas: 5, threads: 2 };
const whole = fresh();
const first = await measureConnectivity(whole, asked);

test('a point between two snapshots has (1 - alpha) a + alpha b for every parameter; the ends are the snapshots', async () => {
  const session = await openSession();
  const a = await session.snapshot();
  await session.trainToEnd({ until: 20 });
  const b = await session.snapshot();
  const parameters = (s: Snapshot) => [...s.tensors()].filter(([, { role }]) => role === 'parameter');
  for (const alpha of [0, 0.25, 1]) {
    const point = await a.interpolate(b, alpha);
    assert.deepEqual(
      [...point.tensors().keys()],
      parameters(a).map(([name]) => name),
      'no optimiser state',
    );
    for (const [name, { values }] of point.tensors()) {
      const [x, y] = [a, b].map((one) => one.tensors().get(name)?.values as Float32Array) as [
        Float32Array,
        Float32Array,
      ];
      values.forEach((value, i) => {
        const [p, q] = [x[i] as number, y[i] as number];
        if (alpha === 0 || alpha === 1) assert.ok(Object.is(value, alpha === 0 ? p : q));
        else assert.ok(Math.abs(value - ((1 - alpha) * p + alpha * q)) <= 1e-7 * (Math.abs(p) + Math.abs(q)));
      });
    }
  }
  await assert.rejects(a.interpolate(b, 1.5), /between 0 and 1 for alpha/);
  await assert.rejects(a.interpolate({} as Snapshot, 0.5), /a Snapshot for other/);
  assert.deepEqual(differences(await b.interpolate(b, 0.3), await b.interpolate(b, 0)), []);
  session.dispose();
});

test('an evaluation of some examples takes them evenly over the split', async () => {
  const session = await openSession();
  const all = await session.evaluate('test');
  assert.deepEqual(await session.evaluate('test', { examples: all.examples }), all);
  const some = await session.evaluate('test', { examples: 200 });
  assert.equal(some.examples, 200);
  await assert.rejects(session.evaluate('test', { examples: 0 }), /examples/);
  await assert.rejects(
    session.evaluate('test', { examples: all.examples + 1 }),
    /\[evaluate\] \d+ examples of a split/,
  );
  session.dispose();
});

test('there is a line for each replicate, rewind point and network: dense, imp and random', () => {
  assert.equal(first.complete, true);
  const places = first.results.map((r) => `${r.replicate} ${r.rewind} ${r.branch} ${r.level}`).sort();
  const expected = [0, 1].flatMap((replicate) =>
    [0, 25].flatMap((k) => ['dense 0', 'imp 2', 'random 2'].map((what) => `${replicate} ${k} ${what}`)),
  );
  assert.deepEqual(places, expected.sort());
});

test('every line says what it is of: alphas from 0 to 1, errors, barriers above the mean of the ends', () => {
  for (const one of first.results) {
    assert.deepEqual(Object.keys(one).sort(), [
      'alphas',
      'barrier',
      'branch',
      'densityPrunable',
      'level',
      'method',
      'noises',
      'replicate',
      'rewind',
      'statistics',
      'testError',
      'trainError',
      'trainExamples',
    ]);
    assert.deepEqual(one.alphas, [0, 0.25, 0.5, 0.75, 1]);
    assert.equal(one.statistics, 'interpolated');
    assert.equal(one.densityPrunable === 1, one.branch === 'dense');
    for (const errors of [one.testError, one.trainError])
      assert.ok(errors.length === 5 && errors.every((error) => error >= 0 && error <= 1));
    assert.equal(one.barrier.test, barrierOf(one.testError));
    assert.equal(one.barrier.train, barrierOf(one.trainError));
    assert.ok(one.barrier.test >= 0 && one.barrier.train >= 0);
    assert.notEqual(one.noises[0], one.noises[1]);
  }
});

test('a barrier is the largest error less the mean of the ends', () => {
  assert.equal(barrierOf([0.25, 0.5, 0.75]), 0.25);
  assert.equal(barrierOf([0.5, 0.25, 0]), 0.25);
  assert.equal(barrierOf([0.5, 0.5]), 0);
});

test("the ends of a line have exactly the copies' own errors, on the test set and on the training set", async () => {
  const found = await survey(whole);
  let lines = 0;
  for (const { unit, record } of found.units) {
    if (unit.kind !== 'interpolation') continue;
    lines++;
    const line = record?.connectivity as ConnectivityResult;
    for (const [end, id] of unit.copies.entries()) {
      const rows = await readMetrics(join(whole, 'units', id, 'metrics.arrow'));
      const own = rows.findLast(({ split }) => split === 'test');
      assert.equal(line.testError.at(-end), 1 - (own?.accuracy ?? Number.NaN));
      const session = await openSession({ seed: recipe.seed, replicate: unit.replicate });
      const copy = await Snapshot.read(network, join(whole, 'units', id, 'snapshot.safetensors'));
      await session.load(copy, { optimiser: 'zero' });
      assert.equal(line.trainExamples, session.info.examples.train);
      assert.equal(line.trainError.at(-end), 1 - (await session.evaluate('train')).accuracy);
      session.dispose();
    }
  }
  assert.equal(lines, 12);
});

test('copies are those of stability; other alphas and examples train nothing again', async () => {
  const path = join(folder, 'more');
  cpSync(whole, path, { recursive: true });
  const before = finishedUnits(path);
  const stamps = () => before.map((id) => statSync(join(path, 'units', id, 'unit.json')).mtimeMs);
  const then = stamps();
  const more = await measureConnectivity(path, { ...asked, alphas: 3, trainExamples: 100 });
  assert.equal(finishedUnits(path).length, before.length + 12);
  assert.deepEqual(stamps(), then);
  for (const [i, one] of more.results.entries()) {
    const same = first.results[i] as ConnectivityResult;
    assert.deepEqual(
      one.testError,
      [0, 2, 4].map((at) => same.testError[at]),
    );
    assert.equal(one.trainExamples, 100);
  }
  await measureStability(path, { threads: 2, orders: 2, samples: 2 });
  assert.equal(finishedUnits(path).filter((id) => id.includes('-copy-')).length, 2 * 2 * 3 * 2);
  assert.equal((await verifyRun(path)).problems.length, 0);
});

test('neither threads, jobs, nor a stop and going on change a bit', async () => {
  const expected = bitsOf(whole);
  const alone = fresh();
  await measureConnectivity(alone, { ...asked, threads: 1 });
  assert.equal(firstDifference(expected, bitsOf(alone)), null);
  const shared = fresh();
  await measureConnectivity(shared, { ...asked, jobs: 2 });
  assert.equal(firstDifference(expected, bitsOf(shared)), null);
  const cut = fresh();
  const stop = new AbortController();
  const { stopped } = await measureConnectivity(cut, {
    ...asked,
    signal: stop.signal,
    onEvent: (event) => {
      if (event.type === 'unit-start' && event.label.includes('line between')) stop.abort();
    },
  });
  assert.equal(stopped, true);
  assert.deepEqual((await measureConnectivity(cut, asked)).results, first.results);
  assert.equal(firstDifference(expected, bitsOf(cut)), null);
});

test('kill -9 in the middle of it: the same command goes on, with the same bits', async () => {
  const path = fresh();
  const args = ['connectivity', path, '--alphas', '5', '--threads', '2'];
  const { group, ended } = start(args, {}, 120_000);
  const line = () => finishedUnits(path).some((id) => id.includes('-line-'));
  while (!line()) await new Promise((resolve) => setTimeout(resolve, 2));
  send(group, 'SIGKILL');
  assert.equal((await ended).signal, 'SIGKILL');
  const { code, err } = await start(args, {}, 120_000).ended;
  assert.equal(code, 0, err);
  assert.equal(firstDifference(bitsOf(whole), bitsOf(path)), null);
});

test('with batch norm, statistics are interpolated or estimated anew: the ends have the errors of copies treated so', async () => {
  const layers = [
    { name: 'flatten', type: 'flatten' as const },
    { name: 'fc1', type: 'linear' as const, units: 16 },
    { name: 'bn1', type: 'batchnorm' as const },
    { name: 'relu1', type: 'relu' as const },
    { name: 'fc2', type: 'linear' as const, units: 10 },
  ];
  const normalised = tinyRecipe(
    {
      network: { name: 'normalised', input: [1, 28, 28], classes: 10, layers },
      controls: [],
    },
    { levels: 1, pooling: 'global', rates: {} },
  );
  const path = join(folder, 'normalised');
  await runExperiment(normalised, { out: path, threads: 2 });
  const how = { ...asked, trainExamples: 600 };
  const interpolated = await measureConnectivity(path, how);
  const reestimated = await measureConnectivity(path, { ...how, statistics: 'reestimated' });
  assert.equal(reestimated.results.length, interpolated.results.length);
  assert.ok(reestimated.results.every(({ statistics }) => statistics === 'reestimated'));
  assert.notDeepEqual(
    reestimated.results.map(({ testError }) => testError),
    interpolated.results.map(({ testError }) => testError),
  );
  const { workplace, plan } = await openPlan(normalised);
  for (const { unit, record } of (await survey(path)).units) {
    if (unit.kind !== 'interpolation') continue;
    const line = record?.connectivity as ConnectivityResult;
    for (const [end, id] of unit.copies.entries()) {
      const session = await workplace.openSession(unit.replicate, 1, plan.steps);
      const file = join(path, 'units', id, 'snapshot.safetensors');
      const copy = await Snapshot.read(workplace.network, file);
      await session.load(copy, { optimiser: 'zero' });
      if (line.statistics === 'reestimated') await session.reestimateStatistics(10);
      assert.equal(line.testError.at(-end), 1 - (await session.evaluate('test')).accuracy);
      assert.equal(
        line.trainError.at(-end),
        1 - (await session.evaluate('train', { examples: 600 })).accuracy,
      );
      session.dispose();
    }
  }
  workplace.dispose();
});

test('more train examples than there are, and branches that there are not, are refused', async () => {
  const path = fresh();
  await assert.rejects(
    measureConnectivity(path, { trainExamples: 1e6 }),
    /for trainExamples but received 1000000/,
  );
  await assert.rejects(
    measureConnectivity(path, { branches: [] }),
    /some of dense, imp, random, reinit for branches/,
  );
  assert.equal((await cli.run('connectivity', path, '--alphas', '1')).code, 2);
  assert.equal(firstDifference(bitsOf(run), bitsOf(path)), null);
});

test('a run without levels has dense lines all the same', async () => {
  const path = join(folder, 'dense');
  await runExperiment(tinyRecipe({ controls: [] }, { levels: 0 }), { out: path, threads: 2 });
  const { results } = await measureConnectivity(path, { ...asked, orders: 3 });
  assert.deepEqual(results.map(({ branch, rewind }) => `${branch} ${rewind}`).sort(), [
    'dense 0',
    'dense 0',
    'dense 0',
    'dense 25',
    'dense 25',
    'dense 25',
  ]);
  await assert.rejects(measureStability(path), /has no level beside the dense network/);
  assert.equal((await summarise(path)).connectivity.length, 6);
});

test('the command prints barriers, and every line as JSON', async () => {
  const { code, out, err } = await cli.run('connectivity', whole, '--alphas', '5', '--json');
  assert.equal(code, 0, err);
  assert.deepEqual(JSON.parse(out).connectivity, first.results);
  assert.match(err, /5 points with both ends/);
  assert.match(renderConnectivity(first.results), /0 +dense +0 +100\.00 +2 /);
  assert.match(
    (await cli.run('show', whole)).out,
    /0 stability samples and 12 lines between copies are here/,
  );
});

const overlap = await maskOverlap(run);

test('masks are compared between replicates, rewind points and levels, where only one of these differs', () => {
  const words = overlap.map(
    ({ between, places: [a, b] }) =>
      `${between} r${a.replicate}${b.replicate} k${a.rewind},${b.rewind} l${a.level}${b.level}`,
  );
  const expected = [0, 25].flatMap((k) => [
    `levels r00 k${k},${k} l12`,
    `levels r11 k${k},${k} l12`,
    `replicates r01 k${k},${k} l11`,
    `replicates r01 k${k},${k} l22`,
  ]);
  for (const r of [0, 1]) for (const l of [1, 2]) expected.push(`rewind r${r}${r} k0,25 l${l}${l}`);
  assert.deepEqual(words.sort(), expected.sort());
});

test('overlap counts shared weights; iterative levels are nested; chance is that of random masks', async () => {
  for (const one of overlap) {
    assert.equal(one.union, one.a + one.b - one.intersection);
    assert.equal(one.jaccard, one.intersection / one.union);
    assert.equal(
      one.chanceIntersection,
      one.layers.reduce((sum, layer) => sum + (layer.a * layer.b) / layer.size, 0),
    );
    assert.equal(one.chance, one.chanceIntersection / (one.a + one.b - one.chanceIntersection));
    assert.equal(one.size, 16040);
    if (one.between === 'levels') assert.equal(one.intersection, Math.min(one.a, one.b));
  }
  // Level 1 is pruned by the same dense network, whatever the rewind point.
  const same = overlap.filter(({ between, places: [a] }) => between === 'rewind' && a.level === 1);
  assert.ok(same.length === 2 && same.every(({ jaccard }) => jaccard === 1));
  const ones = Masks.ones(network);
  const random = [
    await ones.prune(await anySnapshot(), { fraction: 0.5 }).then((masks) => masks.random(1, 0)),
  ];
  random.push(await (random[0] as Masks).random(2, 0));
  const { intersection, chanceIntersection } = (random[0] as Masks).overlap(random[1] as Masks);
  assert.ok(Math.abs(intersection - chanceIntersection) < 0.03 * chanceIntersection);
});

async function anySnapshot(): Promise<Snapshot> {
  const session = await openSession();
  const snapshot = await session.snapshot();
  session.dispose();
  return snapshot;
}

test('the overlap command writes nothing, prints a table, and every pair as JSON', async () => {
  const before = bitsOf(run);
  const { code, out } = await cli.run('overlap', run);
  assert.equal(code, 0);
  assert.match(out, /replicates +25 +2 +1 /);
  assert.equal(out.trimEnd(), renderOverlap(overlap));
  const json = JSON.parse((await cli.run('overlap', run, '--json')).out) as { overlap: OverlapResult[] };
  assert.deepEqual(json.overlap, overlap);
  assert.equal(firstDifference(before, bitsOf(run)), null);
});
