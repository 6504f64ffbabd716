import assert from 'node:assert/strict';
import { cpSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { measureStability, type StabilityOptions } from '../lib/experiment/analyse.js';
import { copyNoise } from '../lib/experiment/analyses.js';
import { openPlan } from '../lib/experiment/openPlan.js';
import type { CopyUnit, TrainUnit } from '../lib/experiment/plan.js';
import type { StabilityResult } from '../lib/experiment/Result.js';
import { repairRun } from '../lib/experiment/repair.js';
import { runExperiment } from '../lib/experiment/run.js';
import { summarise } from '../lib/experiment/summary.js';
import { survey } from '../lib/experiment/survey.js';
import { defaultCadence } from '../lib/experiment/training.js';
import { verifyRun } from '../lib/experiment/verify.js';
import { readRecord, writeRecord } from '../lib/files.js';
import { LthError } from '../lib/native/errors.js';
import { renderStability } from '../lib/report/analyses.js';
import { renderTable } from '../lib/report/terminal.js';
import { Masks } from '../lib/session/Masks.js';
import { Snapshot } from '../lib/session/Snapshot.js';
import { RunFolder } from '../lib/store/RunFolder.js';
import { CommandLine } from './helpers/commandLine.js';
import { differences, network, openSession } from './helpers/digits.js';
import { killAll, send, start } from './helpers/processes.js';
import { bitsOf, finishedUnits, firstDifference, runToCopy, temporaryFolder } from './helpers/runs.js';
import { tinyRecipe } from './helpers/tiny.js';

const folder = temporaryFolder('stability');
const cli = new CommandLine({});
after(() => {
  cli.end();
  killAll();
});

// A run that all tests copy: two replicates, two rewind points, two levels.
const recipe = tinyRecipe({ replicates: 2, controls: ['random'] });
const { run, fresh } = await runToCopy(folder, recipe);

const asked: StabilityOptions = { orders: 3, threads: 2 };
const whole = fresh();
const first = await measureStability(whole, asked);
const count = (all: StabilityResult[], what: Partial<StabilityResult>) =>
  all.filter((one) => Object.entries(what).every(([key, value]) => Reflect.get(one, key) === value)).length;

test('two trainings under the same noise have distance 0 and angle 0, under two noises neither', async () => {
  const ends: Snapshot[] = [];
  for (const noise of [5, 5, 6]) {
    const session = await openSession();
    await session.trainToEnd({ until: 30, noise });
    ends.push(await session.snapshot());
    session.dispose();
  }
  const [a, b, c] = ends as [Snapshot, Snapshot, Snapshot];
  const masks = await Masks.ones(network).prune(a, { fraction: 0.5 });
  for (const scope of ['masked', 'all'] as const) {
    const same = await a.distance(b, masks, { scope });
    assert.ok(Object.is(same.distance, 0) && Object.is(same.angle, 0));
    assert.ok(same.layers.every(({ distance, angle }) => Object.is(distance, 0) && Object.is(angle, 0)));
    const there = await a.distance(c, masks, { scope });
    assert.ok(there.distance > 0 && there.angle !== null && there.angle > 0 && there.angle <= 180);
    assert.deepEqual(await c.distance(a, masks, { scope }), there, 'symmetric in every bit');
  }
  const names = async (scope: 'masked' | 'all') =>
    (await a.distance(c, masks, { scope })).layers.map(({ name }) => name);
  const parameters = network.summary.parameters;
  assert.deepEqual(await names('masked'), ['fc1.weight', 'fc2.weight', 'fc3.weight']);
  assert.deepEqual(
    await names('all'),
    parameters.map(({ name }) => name),
  );
});

test('other bits are refused with advice that an analysis can take: it has no folder of its own', async () => {
  const portable = new CommandLine({ LTH_ISA: 'portable' });
  const { code, err } = await portable.run('stability', fresh(), '--orders', '2');
  portable.end();
  assert.equal(code, 1);
  assert.match(err, /isa=portable.*Mix them with --allow-different-bits/s);
  assert.doesNotMatch(err, /--out/);
});

test('distance and angle are those of the definition over the weights that remain', async () => {
  const session = await openSession();
  const a = await session.snapshot();
  await session.trainToEnd({ until: 20 });
  const b = await session.snapshot();
  session.dispose();
  const masks = await Masks.ones(network).prune(b, { fraction: 0.7 });
  let [aa, bb, ab, dd] = [0, 0, 0, 0];
  for (const [name, { vector }] of masks.tensors()) {
    const x = a.tensors().get(name)?.values ?? [];
    const y = b.tensors().get(name)?.values ?? [];
    x.forEach((value, i) => {
      if (!vector.get(i)) return;
      const other = y[i] as number;
      aa += value * value;
      bb += other * other;
      ab += value * other;
      dd += (value - other) ** 2;
    });
  }
  const found = await a.distance(b, masks);
  assert.ok(Math.abs(found.distance - Math.sqrt(dd)) < 1e-9);
  assert.ok(Math.abs((found.angle ?? 0) - (Math.acos(ab / Math.sqrt(aa * bb)) * 180) / Math.PI) < 1e-6);
});

test('what is no snapshot, no masks or no scope is refused in words', async () => {
  const session = await openSession();
  const a = await session.snapshot();
  session.dispose();
  const masks = Masks.ones(network);
  await assert.rejects(a.distance({} as Snapshot, masks), /Expected a Snapshot for other/);
  await assert.rejects(a.distance(a, {} as Masks), /Expected a Masks for masks/);
  await assert.rejects(a.distance(a, masks, { scope: 'some' as 'all' }), /masked, all for scope/);
});

test('a zero vector has no angle', async () => {
  const session = await openSession();
  const a = await session.snapshot();
  const none = Masks.fromBits(
    network,
    Object.fromEntries(
      [...Masks.ones(network).tensors()].map(([name, { size }]) => [name, new Uint8Array((size + 7) >> 3)]),
    ),
  );
  session.dispose();
  const found = await a.distance(a, none);
  assert.equal(found.distance, 0);
  assert.equal(found.angle, null);
});

test('stability to data order takes all pairs, to pruning one noise, for both branches, replicates and rewind points', () => {
  assert.equal(first.complete, true);
  const { results } = first;
  for (const rewind of [0, 25])
    for (const branch of ['imp', 'random'] as const)
      for (const replicate of [0, 1])
        for (const scope of ['masked', 'all'] as const) {
          assert.equal(count(results, { kind: 'order', rewind, branch, replicate, scope }), 3);
          assert.equal(count(results, { kind: 'pruning', rewind, branch, replicate, scope }), 1);
        }
  assert.equal(results.length, 2 * 2 * 2 * 2 * 4);
  assert.ok(
    results.every(({ level }) => level === 2),
    'the last level where none is asked for',
  );
  const pairs = results.filter((one) => one.kind === 'order').map(({ noises }) => noises.join());
  assert.deepEqual(
    new Set(pairs),
    new Set([[0, 1].map(copyNoise).join(), [0, 2].map(copyNoise).join(), [1, 2].map(copyNoise).join()]),
  );
  for (const one of results.filter(({ kind }) => kind === 'pruning'))
    assert.deepEqual(one.noises, [copyNoise(0), copyNoise(0)]);
});

test('noise ids of copies are none of the levels or of the dense run', async () => {
  const { results } = await summarise(run);
  const ids = new Set(results.map(({ noise }) => noise));
  for (let i = 0; i < 100; i++) assert.ok(!ids.has(copyNoise(i)));
});

test('every sample says what it is of, in numbers that make sense', () => {
  for (const one of first.results) {
    assert.deepEqual(Object.keys(one).sort(), [
      'angle',
      'branch',
      'densityPrunable',
      'distance',
      'kind',
      'layers',
      'level',
      'method',
      'noises',
      'replicate',
      'rewind',
      'scope',
      'testAccuracies',
    ]);
    assert.ok(one.distance > 0 && one.angle !== null && one.angle > 0 && one.angle <= 180);
    assert.ok(one.densityPrunable > 0.25 && one.densityPrunable < 0.26);
    const squares = one.layers.reduce((sum, { distance }) => sum + distance ** 2, 0);
    assert.ok(Math.abs(Math.sqrt(squares) - one.distance) < 1e-9 * one.distance);
    assert.equal(one.layers.length, one.scope === 'masked' ? 3 : 6);
  }
});

test('dense copies are shared by branches and levels, and no copy shows as a result', async () => {
  const ids = finishedUnits(whole);
  // Of two replicates and two rewind points: one dense copy for pruning, three of each branch.
  assert.equal(ids.filter((id) => id.includes('-dense-copy-')).length, 4);
  assert.equal(ids.filter((id) => id.includes('-copy-')).length, 4 + 4 * 2 * 3);
  const timeless = ({ results }: Awaited<ReturnType<typeof summarise>>) => JSON.stringify(results);
  assert.equal(timeless(await summarise(whole)), timeless(await summarise(run)));
});

test('a copy under the noise of a level is that level, bit for bit', async () => {
  const { workplace, plan, experiment } = await openPlan(recipe);
  try {
    const path = fresh();
    workplace.folder = RunFolder.open(path);
    const trained = plan.units.find(
      (unit): unit is TrainUnit => unit.kind === 'train' && unit.branch === 'random' && unit.rewind === 25,
    ) as TrainUnit;
    const { label, replicate, needs, updates, rewind, masks, noise, start: from } = trained;
    const copy: CopyUnit = {
      ...{ kind: 'copy', id: 'same', key: 'a'.repeat(64), label, replicate, needs, updates },
      ...{ branch: 'random', rewind, start: from, masks, draw: null, index: 0, noise },
    };
    const lock = await workplace.folder.lock('same');
    assert.ok(lock);
    await workplace.run(copy, plan, {
      ...{
        threads: 2,
        fingerprint: experiment.fingerprint,
        allowDifferentBits: false,
        cadence: defaultCadence,
      },
      ...{ signal: undefined, onStart: () => {}, onStep: () => {}, onNotice: assert.fail },
    });
    const read = (id: string) => Snapshot.read(network, join(path, 'units', id, 'snapshot.safetensors'));
    const [a, b] = [await read('same'), await read(trained.id)];
    assert.deepEqual(differences(a, b), []);
    const distance = await a.distance(b, await workplace.masksOf(copy));
    assert.deepEqual([distance.distance, distance.angle], [0, 0]);
  } finally {
    workplace.dispose();
  }
});

test('more orders go on from those that are there', async () => {
  const path = join(folder, 'raised');
  cpSync(whole, path, { recursive: true });
  const before = finishedUnits(path);
  const stamp = (id: string) => statSync(join(path, 'units', id, 'unit.json')).mtimeMs;
  const stamps = before.map(stamp);
  const more = await measureStability(path, { ...asked, orders: 4 });
  assert.deepEqual(before.map(stamp), stamps);
  assert.equal(finishedUnits(path).length - before.length, 8 * (1 + 3), 'one more copy and its three pairs');
  assert.equal(count(more.results, { kind: 'order', scope: 'masked' }), 8 * 6);
  // Asked for less again: only that is shown.
  const less = await measureStability(path, asked);
  assert.deepEqual(less.results, first.results);
});

test('neither threads, jobs, nor a stop and going on change a bit', async () => {
  const expected = bitsOf(whole);
  const alone = fresh();
  await measureStability(alone, { ...asked, threads: 1 });
  assert.equal(firstDifference(expected, bitsOf(alone)), null);
  const shared = fresh();
  await measureStability(shared, { ...asked, jobs: 2 });
  assert.equal(firstDifference(expected, bitsOf(shared)), null);
  const cut = fresh();
  const stop = new AbortController();
  const { stopped, complete } = await measureStability(cut, {
    ...asked,
    checkpoint: { updates: 7 },
    signal: stop.signal,
    onEvent: (event) => {
      if (event.type === 'unit-start' && event.label.includes('level 2, random, copy 1')) stop.abort();
    },
  });
  assert.deepEqual({ stopped, complete }, { stopped: true, complete: false });
  const again = await measureStability(cut, asked);
  assert.deepEqual(again.results, first.results);
  assert.equal(firstDifference(expected, bitsOf(cut)), null);
});

test('kill -9 in the middle of it: the same command goes on, with the same bits', async () => {
  const path = fresh();
  const args = ['stability', path, '--orders', '3', '--threads', '2', '--checkpoint-every', '5it'];
  const { group, ended } = start(args, {}, 120_000);
  const units = finishedUnits(path).length;
  while (finishedUnits(path).length < units + 5) await new Promise((resolve) => setTimeout(resolve, 5));
  send(group, 'SIGKILL');
  assert.equal((await ended).signal, 'SIGKILL');
  assert.ok(finishedUnits(path).length < finishedUnits(whole).length);
  const { code, err } = await start(args, {}, 120_000).ended;
  assert.equal(code, 0, err);
  assert.equal(firstDifference(bitsOf(whole), bitsOf(path)), null);
});

test('what the run does not have is refused with what to type, and nothing is asked of the folder', async () => {
  const path = fresh();
  const before = bitsOf(path);
  const refused = async (options: StabilityOptions, words: RegExp) =>
    assert.rejects(measureStability(path, options), (error: unknown) => {
      assert.ok(error instanceof LthError);
      assert.match(error.message, words);
      return true;
    });
  await refused(
    { levels: [3] },
    /--levels: .* has no level 3 at rewind point 0; .* levels 1 to 2.*lth-train run/,
  );
  await refused({ rewind: ['7it'] }, /--rewind: .* has no rewind point 7, it has 0, 25/);
  await refused({ orders: 1 }, /between 2 and 1000 for orders/);
  await refused({ branches: ['dense' as 'imp'] }, /imp, random, reinit for branches/);
  assert.equal(firstDifference(before, bitsOf(path)), null);
  const { code, err } = await cli.run('stability', path, '--levels', '3');
  assert.equal(code, 2);
  assert.match(err, /has no level 3/);
  assert.equal((await cli.run('stability', join(folder, 'nowhere'))).code, 1);
});

test('levels that a run has not trained yet are trained first', async () => {
  const path = join(folder, 'begun');
  const stop = new AbortController();
  await runExperiment(recipe, {
    ...{ out: path, threads: 1, signal: stop.signal },
    onEvent: (event) => {
      if (event.type === 'unit-start' && event.label.includes('level 1')) stop.abort();
    },
  });
  const { results, complete } = await measureStability(path, { ...asked, rewind: ['25it'] });
  assert.equal(complete, true);
  assert.deepEqual(
    results,
    first.results.filter(({ rewind }) => rewind === 25),
  );
  assert.equal((await summarise(path)).complete, false, 'the run itself is not complete by that');
});

test('where the dense network diverged there is nothing to compare, and that is said', async () => {
  const path = join(folder, 'diverged');
  await runExperiment(
    tinyRecipe(
      {},
      {},
      { optimiser: { type: 'sgd', learningRate: 1e6, momentum: 0, nesterov: false, weightDecay: 0 } },
    ),
    { out: path },
  );
  const { results, complete, units } = await measureStability(path, asked);
  assert.deepEqual(results, []);
  assert.equal(complete, true);
  assert.ok(units.impossible > 0 && units.failed === 0);
  const { out, code } = await cli.run('stability', path, '--orders', '3');
  assert.equal(code, 0);
  assert.match(
    out,
    /no stability was measured yet\n\d+ units cannot be done: a training that they need diverged/,
  );
});

test('with --keep needed the weights of levels may be gone: copies need none of them, and stay', async () => {
  const path = join(folder, 'kept');
  await runExperiment(recipe, { out: path, threads: 2, keep: 'needed' });
  const { results } = await measureStability(path, { ...asked, keep: 'needed' });
  assert.deepEqual(results, first.results);
  const more = await measureStability(path, { ...asked, orders: 4, levels: [1], keep: 'needed' });
  assert.equal(more.complete, true);
  assert.equal((await verifyRun(path)).problems.length, 0);
});

test('show, list, watch and verify know these units; show says that they are there', async () => {
  const summary = await summarise(whole);
  assert.equal(summary.complete, true);
  assert.equal(summary.stability.length, first.results.length);
  const table = renderTable(summary);
  assert.match(table, /32 stability samples and 0 lines between copies are here/);
  assert.ok(
    table.startsWith(
      renderTable(await summarise(run))
        .split('\n')
        .slice(1, 4)
        .join('\n'),
      table.indexOf('\n') + 1,
    ),
  );
  const listed = JSON.parse((await cli.run('list', whole, '--json')).out)[0];
  assert.equal(listed.state, 'complete');
  assert.equal(listed.units.total, finishedUnits(whole).length);
  const shown = await cli.run('show', whole, '--analyses');
  assert.match(shown.out, /data order +6 /);
  assert.deepEqual(JSON.parse((await cli.run('show', whole, '--json')).out).stability, summary.stability);
  assert.equal((await cli.run('watch', whole)).code, 0);
  assert.deepEqual((await verifyRun(whole)).problems, []);
});

test('verify finds distances that are not those of the copies, and repair has them measured again', async () => {
  const path = join(folder, 'forged');
  cpSync(whole, path, { recursive: true });
  const id = finishedUnits(path).find((one) => one.includes('-imp-order-0-1-')) as string;
  const file = join(path, 'units', id, 'unit.json');
  const record = await readRecord(file);
  const samples = record.stability as StabilityResult[];
  await writeRecord(file, {
    ...record,
    stability: samples.map((one) => ({ ...one, distance: one.distance * 2 })),
  });
  const found = await verifyRun(path);
  assert.deepEqual(
    found.problems.map((one) => [one.id, one.message]),
    [[id, 'its distances and accuracies are not those of its copies']],
  );
  await repairRun(path, found);
  const { results } = await measureStability(path, asked);
  assert.deepEqual(results, first.results);
});

test('the commands of a run leave its analyses in requests.json, and folders of before there were any are read', async () => {
  const path = join(folder, 'older');
  cpSync(whole, path, { recursive: true });
  await runExperiment(recipe, { out: path, threads: 2 });
  const kinds = async () => (await RunFolder.open(path).analyses()).map(({ kind }) => kind);
  assert.deepEqual(await kinds(), ['stability']);
  const file = join(path, 'requests.json');
  const { analyses, ...older } = await readRecord(file);
  assert.ok(analyses);
  await writeRecord(file, older);
  assert.deepEqual(await kinds(), []);
  assert.equal(
    (await summarise(path)).stability.length,
    first.results.length,
    'what was measured still shows',
  );
  assert.ok((await survey(path)).units.every(({ state }) => state === 'done'));
});

test('the command prints the table of the scope that was asked for, and every sample as JSON', async () => {
  const { code, out, err } = await cli.run(
    'stability',
    whole,
    '--orders',
    '3',
    '--scope',
    'all',
    '--layers',
    '--json',
  );
  assert.equal(code, 0, err);
  const found = JSON.parse(out);
  assert.equal(found.scope, 'all');
  assert.deepEqual(
    found.stability,
    first.results.filter(({ scope }) => scope === 'all'),
  );
  assert.deepEqual(Object.keys(found), [
    'run',
    'recipe',
    'complete',
    'stopped',
    'units',
    'problems',
    'scope',
    'stability',
  ]);
  assert.match(err, /scope all \(all trainable parameters, masked where prunable\)/);
  assert.match(err, /fc1\.bias/);
  const sides = ['imp', 'random'].map((branch) => {
    const mine = first.results.filter(
      (one) => one.branch === branch && one.kind === 'order' && one.rewind === 0 && one.scope === 'all',
    );
    return mine.reduce((sum, { distance }) => sum + distance, 0) / mine.length;
  }) as [number, number];
  const line = renderStability(first.results, { scope: 'all', layers: false }).split('\n')[3] ?? '';
  assert.match(line, new RegExp(`data order +6 .* ${(sides[1] / sides[0]).toFixed(1).replace('.', '\\.')} `));
  assert.ok(readFileSync(join(whole, 'requests.json'), 'utf8').includes('"stability"'));
});
