/** plan, list, show, watch, verify, and what stays on disk: a run folder seen from outside. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { diskBytes } from '../lib/experiment/disk.js';
import type { ExperimentEvent } from '../lib/experiment/Event.js';
import { openPlan } from '../lib/experiment/openPlan.js';
import { repairRun } from '../lib/experiment/repair.js';
import { type RunOptions, runExperiment } from '../lib/experiment/run.js';
import { summarise } from '../lib/experiment/summary.js';
import { verifyRun } from '../lib/experiment/verify.js';
import { watchRun } from '../lib/experiment/watch.js';
import { toYaml } from '../lib/recipe/load.js';
import { Snapshot } from '../lib/session/Snapshot.js';
import { Heartbeat, pulseFile, readPulse } from '../lib/store/Heartbeat.js';
import { RunFolder } from '../lib/store/RunFolder.js';
import { network } from './helpers/digits.js';
import { bitsOf, executable, firstDifference } from './helpers/runs.js';
import { tinyRecipe } from './helpers/tiny.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-surveys-'));
after(() => rmSync(folder, { recursive: true }));

const at = (...parts: string[]) => join(folder, ...parts);
const lthTrain = (...args: string[]) =>
  spawnSync(process.execPath, [executable, ...args], { encoding: 'utf8', cwd: folder });

async function run(name: string, recipe = tinyRecipe(), options: Partial<RunOptions> = {}) {
  return runExperiment(recipe, { threads: 2, ...options, out: at(name) });
}

/** A run that is stopped in its dense training. */
async function stopped(name: string, recipe = tinyRecipe({}, {}, { steps: '4000it' })) {
  const stop = new AbortController();
  let rows = 0;
  return run(name, recipe, {
    // So that rows come often, however fast the machine is.
    checkpoint: { updates: 50 },
    signal: stop.signal,
    onEvent: (event) => {
      if (event.type === 'progress' && ++rows === 8) stop.abort();
    },
  });
}

await run('whole');
const whole = bitsOf(at('whole'));
writeFileSync(at('tiny.yaml'), toYaml(tinyRecipe()));
const unitsOf = (name: string) => readdirSync(at(name, 'units'));
const unit = (name: string, part: string) => {
  const id = unitsOf(name).find((one) => one.includes(part));
  assert.ok(id, `${name} has no unit ${part}`);
  return id;
};

/** Adam keeps two moments beside weights and gradients, in fp32; digits are bytes. */
function memoryOf(processes: number, threads: number) {
  const sizes = [784 * 20, 20, 20 * 12, 12, 12 * 10, 10];
  // Parameters begin at multiples of 256 bytes.
  const training = 4 * sizes.reduce((sum, size) => sum + 256 * Math.ceil((4 * size) / 256), 0);
  const data = 10_000 * 28 * 28;
  const trainings = Math.floor(threads / processes);
  return { training, data, processes, trainings, bytes: trainings * training + data };
}

test('plan says what a run does: its units, updates, disk, memory and time; it writes nothing', async () => {
  const { status, stdout } = lthTrain('plan', 'tiny.yaml', '--out', 'whole-again', '--json');
  assert.equal(status, 0);
  const plan = JSON.parse(stdout);
  assert.deepEqual(plan.units.map((one: { id: string }) => one.id).sort(), unitsOf('whole').sort());
  assert.equal(
    plan.units.reduce((sum: number, one: { updates: number }) => sum + one.updates, 0),
    // The dense run once, then two levels of three branches from 0 and from 25.
    60 + 2 * 3 * (60 + 35),
  );
  const { measured, ...memory } = plan.memory;
  assert.deepEqual(memory, memoryOf(1, availableParallelism()));
  assert.ok(measured > memory.bytes);
  assert.ok(plan.time.seconds > 0 && plan.time.updatesPerSecond > 0);
  assert.ok(!existsSync(at('whole-again')));
  const human = lthTrain('plan', 'tiny.yaml', '--out', 'whole', '--no-timing');
  assert.match(human.stdout, /17 units|19 units/);
  assert.match(human.stdout, /630 updates of which 0 are left; 125 updates are an epoch/);
  assert.match(human.stdout, /disk in whole: about .* when done, at most .* on the way \(--keep all\)/);
  assert.match(human.stdout, /^memory: .* of weights, .*; what layers make of a batch comes on top$/m);
  assert.doesNotMatch(human.stdout, /time: about|all in all/);
  const jobs = lthTrain('plan', 'tiny.yaml', '--no-timing', '--jobs', '3', '--threads', '7', '--json');
  assert.deepEqual(JSON.parse(jobs.stdout).memory, { ...memoryOf(3, 7), measured: null });
  assert.equal(lthTrain('plan', 'tiny.yaml', '--keep', 'some').status, 2);
  assert.match(
    lthTrain('plan', 'tiny.yaml', '--checkpoint-every', '5 s').stderr,
    /Expected 30s, 5min, 500it/,
  );
});

test('what the plan says of the disk is what the run takes, for both retention rules', async () => {
  const average = { decay: 0.99, warmup: false };
  for (const [keep, more] of [
    ['all', {}],
    ['needed', {}],
    ['all', { average }],
  ] as const) {
    const recipe = tinyRecipe({ network: 'lenet-100-50' }, { levels: 3 }, { metricsEvery: '1', ...more });
    const name = `disk-${keep}${Object.keys(more)}`;
    await run(name, recipe, { keep });
    const { plan, workplace } = await openPlan(recipe);
    const { bytes, peakBytes } = diskBytes(plan, recipe, workplace.network.summary.counts, {
      keep,
      trainings: 2,
    });
    workplace.dispose();
    const taken = await RunFolder.open(at(name)).bytes();
    assert.ok(Math.abs(bytes / taken - 1) < 0.1, `${name}: ${bytes} planned, ${taken} taken`);
    assert.ok(peakBytes > bytes);
  }
});

test('--keep needed leaves rewind points, the dense end, the last level; masks and metrics all stay', async () => {
  await run('lean', tinyRecipe(), { keep: 'needed' });
  const kept = unitsOf('lean').filter((id) => existsSync(at('lean', 'units', id, 'snapshot.safetensors')));
  assert.deepEqual(kept.map((id) => id.replace(/-[0-9a-f]{12}$/, '')).sort(), [
    'r0-dense-0it',
    'r0-dense-25it',
    'r0-dense-60it',
    'r0-k0-iterative-l02-imp',
    'r0-k25-iterative-l02-imp',
  ]);
  for (const [file, bits] of whole) {
    if (/snapshot|unit\.json/.test(file)) continue;
    assert.equal(bitsOf(at('lean')).get(file), bits, file);
  }
  const { problems, files } = await verifyRun(at('lean'));
  assert.deepEqual(problems, []);
  assert.ok(files > 0);
  // More levels, rewind points and controls than before, out of what was kept.
  const more = tinyRecipe({ rewind: ['25it', '0it', '40it'] }, { levels: 3 });
  assert.equal((await run('lean', more, { keep: 'needed' })).complete, true);
  await run('rich', more);
  const last = unit('rich', 'k25-iterative-l03-imp');
  for (const file of ['snapshot.safetensors', 'metrics.arrow']) {
    assert.ok(
      readFileSync(at('lean', 'units', last, file)).equals(readFileSync(at('rich', 'units', last, file))),
    );
  }
});

test('list and show tell how far runs are, also of one that was stopped or is damaged', async () => {
  await stopped('runs/stopped');
  cpSync(at('whole'), at('runs', 'deep', 'whole'), { recursive: true });
  cpSync(at('whole'), at('runs', 'damaged'), { recursive: true });
  writeFileSync(at('runs', 'damaged', 'experiment.json'), '{}');
  const runs = JSON.parse(lthTrain('list', '--json').stdout) as Record<string, unknown>[];
  assert.deepEqual(
    runs.map(({ run: path, state }) => [path, state]),
    [
      ['runs/damaged', 'damaged'],
      ['runs/deep/whole', 'complete'],
      ['runs/stopped', 'stopped'],
    ],
  );
  assert.match(String(runs[0]?.problem), /experiment\.json: its seal.*Remove it and give the same/);
  const fraction = runs[2]?.fraction as number;
  assert.ok(fraction > 0 && fraction < 0.2, `${fraction}`);
  const human = lthTrain('list');
  assert.equal(human.status, 0);
  assert.match(human.stdout, /^runs\/deep\/whole +tiny +complete +19\/19 +100 % /m);
  assert.match(lthTrain('show', 'runs/stopped').stdout, /not complete: \d of 19 units done\)/);
  assert.equal(lthTrain('list', 'nowhere').status, 1);
});

test('what several commands on one folder asked for is what show and list judge by', async () => {
  await run('asked', tinyRecipe({ controls: [] }, { levels: 1 }));
  await run('asked', tinyRecipe({ rewind: ['0it'], controls: ['random'] }, { levels: 2 }));
  assert.equal((await summarise(at('asked'))).complete, true, 'and not their product');
  await stopped('asked-more', tinyRecipe({}, {}, { steps: '4000it' }));
  const fewer = tinyRecipe({ rewind: ['0it'], controls: [] }, { levels: 0 }, { steps: '4000it' });
  assert.equal((await run('asked-more', fewer)).complete, true, 'judged by what this command asked for');
  const all = await summarise(at('asked-more'));
  assert.equal(all.complete, false);
  assert.equal(all.units.total, 19);
});

test('a run that goes on elsewhere is watched to its end', async () => {
  const slow = tinyRecipe({ rewind: ['0it'], controls: [] }, { levels: 1 }, { steps: '3000it' });
  writeFileSync(at('slow.yaml'), toYaml(slow));
  const child = spawn(process.execPath, [executable, 'run', at('slow.yaml'), '--out', at('slow')], {
    stdio: 'ignore',
  });
  const ended = new Promise((resolve) => child.on('close', resolve));
  while (!RunFolder.is(at('slow'))) await new Promise((resolve) => setTimeout(resolve, 20));
  const events: ExperimentEvent[] = [];
  const found = await watchRun(at('slow'), { intervalMs: 50, onEvent: (event) => events.push(event) });
  assert.ok(found.units.every(({ state }) => state === 'done'));
  const of = (type: ExperimentEvent['type']) => events.filter((event) => event.type === type);
  assert.equal(of('plan').length, 1);
  assert.ok(of('unit-end').length >= 1);
  const fractions = events.flatMap((event) => (event.type === 'progress' ? [event.fraction] : []));
  assert.deepEqual(
    fractions,
    [...fractions].sort((a, b) => a - b),
  );
  assert.equal(fractions.at(-1), 1);
  assert.equal(await ended, 0);
});

test('a unit in work tells once a second how far and how fast it is; a broken word of it is none', async () => {
  const place = mkdtempSync(at('pulse-'));
  const heart = new Heartbeat(place);
  heart.begin(100);
  heart.beat(150);
  assert.equal(await readPulse(place), null, 'short units tell nothing');
  await new Promise((resolve) => setTimeout(resolve, 1100));
  heart.beat(400);
  await heart.idle();
  const pulse = await readPulse(place);
  assert.equal(pulse?.updates, 400);
  assert.ok(
    pulse && pulse.updatesPerSecond > 0 && pulse.updatesPerSecond <= 300,
    `${pulse?.updatesPerSecond}`,
  );
  assert.equal(pulse?.pid, process.pid);
  writeFileSync(join(place, pulseFile), '');
  assert.equal(await readPulse(place), null);
  await heart.end();
  assert.deepEqual(readdirSync(place), []);
});

test('verify finds nothing in a whole run, and every file that was touched', async () => {
  assert.match(
    lthTrain('verify', 'whole').stdout,
    /^19 finished units, \d+ files, 0 checkpoints .*: all is right$/m,
  );
  const id = unit('whole', 'k0-iterative-l01-random');
  for (const [name, words] of [
    ['snapshot.safetensors', /snapshot\.safetensors: its SHA-256/],
    ['masks.safetensors', /masks\.safetensors: its SHA-256/],
    ['metrics.arrow', /metrics\.arrow: its SHA-256/],
    ['times.arrow', /times\.arrow: its SHA-256/],
    ['unit.json', /unit\.json: (its seal|.*JSON)/],
  ] as const) {
    cpSync(at('whole'), at('touched'), { recursive: true });
    const path = at('touched', 'units', id, name);
    const bytes = readFileSync(path);
    const middle = bytes.length >> 1;
    bytes[middle] = (bytes[middle] as number) ^ 1;
    writeFileSync(path, bytes);
    const { problems } = await verifyRun(at('touched'));
    assert.deepEqual(
      problems.map((one) => [one.id, one.kind]),
      [[id, 'unit']],
      name,
    );
    assert.match(problems[0]?.message ?? '', words);
    const moved = await repairRun(at('touched'), await verifyRun(at('touched')));
    assert.deepEqual(moved, [at('touched', 'damaged', id)]);
    assert.equal((await run('touched')).complete, true);
    rmSync(at('touched', 'damaged'), { recursive: true });
    assert.equal(firstDifference(whole, bitsOf(at('touched'))), null, name);
    rmSync(at('touched'), { recursive: true });
  }
});

test('masks that are damaged where the weights below them were removed are made again, weights and all', async () => {
  const recipe = tinyRecipe({ rewind: ['0it'], controls: [] }, { levels: 3 });
  await run('lean-damaged', recipe, { keep: 'needed' });
  const before = bitsOf(at('lean-damaged'));
  const id = unit('lean-damaged', 'l02-prune');
  truncateSync(at('lean-damaged', 'units', id, 'masks.safetensors'), 50);
  const moved = await repairRun(at('lean-damaged'), await verifyRun(at('lean-damaged')));
  assert.deepEqual(
    moved.map((path) => path.replace(/.*damaged\/|-[0-9a-f]{12}$/g, '')),
    ['r0-k0-iterative-l02-prune', 'r0-k0-iterative-l01-imp'],
  );
  assert.equal((await run('lean-damaged', recipe, { keep: 'needed' })).complete, true);
  rmSync(at('lean-damaged', 'damaged'), { recursive: true });
  assert.equal(firstDifference(before, bitsOf(at('lean-damaged'))), null);
});

test('a run that failed is watched until nothing more can be done', async () => {
  cpSync(at('whole'), at('failing'), { recursive: true });
  truncateSync(at('failing', 'units', unit('failing', 'k0-iterative-l02-prune'), 'masks.safetensors'), 50);
  const more = tinyRecipe({}, { levels: 3 });
  assert.equal((await run('failing', more)).complete, false);
  const found = await watchRun(at('failing'), { intervalMs: 1, onEvent: () => {} });
  assert.ok(found.units.some(({ state }) => state === 'failed'));
});

/** Writes a unit's file anew and its record to match, as a defect of the program would. */
async function forge(name: string, id: string, file: string, bytes: Buffer) {
  writeFileSync(at(name, 'units', id, file), bytes);
  const store = RunFolder.open(at(name));
  const record = await store.record(id);
  assert.ok(record);
  const { format, files, ...rest } = record;
  await store.finish(rest, Object.keys(files));
}

test('verify finds wrong science behind right checksums', async () => {
  cpSync(at('whole'), at('forged'), { recursive: true });
  const [first, second] = [
    unit('forged', 'k0-iterative-l01-prune'),
    unit('forged', 'k0-iterative-l02-prune'),
  ];
  const masks = (id: string) => readFileSync(at('forged', 'units', id, 'masks.safetensors'));
  // The level before's masks: nested, but too many weights are left.
  await forge('forged', second, 'masks.safetensors', masks(first));
  // Pruned weights that are not zero: those of the dense training.
  const dense = readFileSync(at('forged', 'units', unit('forged', 'dense-60it'), 'snapshot.safetensors'));
  const imp = unit('forged', 'k25-iterative-l01-imp');
  await forge('forged', imp, 'snapshot.safetensors', dense);
  const { problems } = await verifyRun(at('forged'));
  const of = (id: string) => problems.filter((one) => one.id === id).map(({ message }) => message);
  assert.ok(of(second).some((message) => /keeps \d+ of \d+ weights, expected \d+/.test(message)));
  assert.ok(of(second).some((message) => /not those of the smallest weights/.test(message)));
  assert.ok(of(imp).some((message) => /\d+ pruned entries are not \+0/.test(message)));
  const human = lthTrain('verify', 'forged');
  assert.equal(human.status, 1);
  assert.match(
    human.stdout,
    /`lth-train verify forged --repair` puts damaged units aside; `lth-train run forged\/recipe.yaml --out forged`, with/,
  );
});

test('verify looks at checkpoints, and leaves alone what somebody works on', async () => {
  await stopped('halted');
  const dense = unit('halted', 'dense-4000it');
  const before = await verifyRun(at('halted'));
  assert.ok(before.checkpoints > 0);
  assert.deepEqual(before.problems, []);
  const snapshot = readdirSync(at('halted', 'units', dense)).find((name) =>
    /^checkpoint.*tensors$/.test(name),
  );
  truncateSync(at('halted', 'units', dense, snapshot as string), 99);
  const { problems } = await verifyRun(at('halted'));
  assert.deepEqual(
    problems.map(({ id, kind }) => [id, kind]),
    [[dense, 'checkpoint']],
  );
  const lock = await RunFolder.open(at('halted')).lock(dense);
  assert.ok(lock);
  const busy = await verifyRun(at('halted'));
  assert.deepEqual([busy.running, busy.problems], [1, []]);
});

test('a snapshot that was removed to save disk is named where it is missed', async () => {
  const store = RunFolder.open(at('lean'));
  const id = unit('lean', 'k0-iterative-l01-imp');
  assert.equal((await store.record(id))?.files['snapshot.safetensors']?.removed, true);
  await assert.rejects(store.file(id, 'snapshot.safetensors'), /was removed to save disk \(--keep needed\)/);
  const kept = unit('lean', 'dense-60it');
  const weights = await Snapshot.read(network, await store.file(kept, 'snapshot.safetensors'));
  assert.equal(weights.step, 60);
  weights.dispose();
  assert.ok(statSync(at('lean', 'units', id, 'metrics.arrow')).size > 0);
});
