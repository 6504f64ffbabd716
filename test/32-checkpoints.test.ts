/** Contract 8: whatever happens, at most the steps since the last checkpoint are lost, and the bits are the same. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { ExperimentEvent } from '../lib/experiment/Event.js';
import { type RunOptions, runExperiment } from '../lib/experiment/run.js';
import { packageRoot } from '../lib/package.js';
import { toYaml } from '../lib/recipe/load.js';
import type { Recipe } from '../lib/recipe/Recipe.js';
import { readMetrics } from '../lib/store/metrics.js';
import { appendBatch, noRows } from '../lib/store/rows.js';
import { differences, openSession } from './helpers/digits.js';
import { bitsOf } from './helpers/runs.js';
import { tinyRecipe } from './helpers/tiny.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-checkpoints-'));
after(() => rmSync(folder, { recursive: true }));

const places: [string, Recipe][] = [
  ['adam', tinyRecipe()],
  [
    'momentum',
    tinyRecipe(
      { rewind: ['25it'], controls: ['random'] },
      {},
      { optimiser: { type: 'sgd', learningRate: 0.05, momentum: 0.9, nesterov: true, weightDecay: 1e-3 } },
    ),
  ],
  ['autograd', tinyRecipe({ rewind: ['0it'], controls: [] }, { levels: 1 }, { executor: 'autograd' })],
  ['zeroed', tinyRecipe({ rewind: ['25it'], controls: [], rewindOptimiser: 'zero' }, { levels: 1 })],
];

interface Told {
  events: ExperimentEvent[];
  resumed: number[];
  notices: string[];
}

async function run(name: string, recipe: Recipe, options: Partial<RunOptions> = {}) {
  const told: Told = { events: [], resumed: [], notices: [] };
  const onEvent = (event: ExperimentEvent) => {
    told.events.push(event);
    if (event.type === 'unit-start' && event.resumed > 0) told.resumed.push(event.resumed);
    if (event.type === 'notice') told.notices.push(event.message);
    options.onEvent?.(event);
  };
  const out = join(folder, name);
  const summary = await runExperiment(recipe, { threads: 2, ...options, out, onEvent });
  return { ...summary, ...told };
}

/** Stops a run when it is told of the n-th row. */
async function stopAt(name: string, recipe: Recipe, n: number, options: Partial<RunOptions> = {}) {
  const stop = new AbortController();
  let left = n;
  return run(name, recipe, {
    ...options,
    signal: stop.signal,
    onEvent: (event) => {
      if (event.type === 'progress' && --left === 0) stop.abort();
    },
  });
}

for (const [name, recipe] of places) await run(`${name}-whole`, recipe, { checkpoint: {} });
const whole = bitsOf(join(folder, 'adam-whole'));

for (const [name, recipe] of places) {
  test(`${name}: checkpoints at every few updates change no bit, and none is left`, async () => {
    for (const updates of name === 'zeroed' ? [1] : [7, 60]) {
      const { complete } = await run(`${name}-every-${updates}`, recipe, { checkpoint: { updates } });
      assert.equal(complete, true);
      assert.deepEqual(
        bitsOf(join(folder, `${name}-every-${updates}`)),
        bitsOf(join(folder, `${name}-whole`)),
      );
    }
  });

  test(`${name}: stopped again and again it goes on from the very update`, async () => {
    let stops = 0;
    let resumed = 0;
    for (let n = 1; ; n++) {
      const one = await stopAt(`${name}-stopped`, recipe, 1 + (n % 2), { checkpoint: { updates: 7 } });
      resumed += one.resumed.length;
      if (one.complete) break;
      assert.equal(one.stopped, true);
      stops++;
    }
    assert.ok(stops >= 2, `${stops} stops`);
    assert.ok(resumed >= 1, `${resumed} units went on`);
    assert.deepEqual(bitsOf(join(folder, `${name}-stopped`)), bitsOf(join(folder, `${name}-whole`)));
  });
}

/** A run that was stopped in the middle of its dense training, with two checkpoints. */
const long = tinyRecipe({ rewind: ['0it'], controls: [] }, { levels: 1 }, { steps: '400it' });
await run('long-whole', long, { checkpoint: {} });
await stopAt('long-stopped', long, 20, { checkpoint: { updates: 10 } });
const unitOf = (name: string) => {
  const id = readdirSync(join(folder, name, 'units')).find((one) => one.includes('dense-400it')) as string;
  return join(folder, name, 'units', id);
};
const stepsIn = (path: string) =>
  readdirSync(path)
    .flatMap((name) => /^checkpoint-(\d+)\.json$/.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
const [previous, newest] = stepsIn(unitOf('long-stopped')) as [number, number];

/** A copy of the stopped run. */
function copied(name: string): string {
  cpSync(join(folder, 'long-stopped'), join(folder, name), { recursive: true });
  return unitOf(name);
}

test('two checkpoints are kept, with the metrics of every interval before them', () => {
  const names = readdirSync(unitOf('long-stopped'));
  assert.deepEqual(stepsIn(unitOf('long-stopped')).length, 2);
  assert.ok(newest > previous && previous >= 10, `${previous} and ${newest}`);
  assert.equal(
    names.filter((name) => name.startsWith('checkpoint-') && name.endsWith('.safetensors')).length,
    2,
  );
  const record = JSON.parse(readFileSync(join(unitOf('long-stopped'), `checkpoint-${newest}.json`), 'utf8'));
  assert.equal(record.step, newest);
  assert.match(record.fingerprints[0], /^kernels=\d+ libtorch=/);
  assert.deepEqual(
    record.intervals.map((one: { name: string }) => one.name).filter((name: string) => !names.includes(name)),
    [],
  );
});

test('a run goes on from its newest checkpoint', async () => {
  copied('goes-on');
  const { resumed, notices } = await run('goes-on', long);
  assert.deepEqual([resumed[0], notices], [newest, []]);
  assert.deepEqual(bitsOf(join(folder, 'goes-on')), bitsOf(join(folder, 'long-whole')));
});

test('a newest checkpoint that is cut, flipped or incomplete is passed over, with a word, for the one before it', async () => {
  const snapshot = `checkpoint-${newest}.safetensors`;
  const { length } = readFileSync(join(unitOf('long-stopped'), snapshot));
  const header = 8 + Number(readFileSync(join(unitOf('long-stopped'), snapshot)).readBigUInt64LE(0));
  const damages: [string, (path: string) => void][] = [
    ...[0, 1, 7, 8, 9, header - 1, header, header + 1, length >> 1, length - 1].map(
      (at): [string, (path: string) => void] => [
        `${snapshot} cut at ${at}`,
        (path) => truncateSync(join(path, snapshot), at),
      ],
    ),
    ...[snapshot, `checkpoint-${newest}.json`, `interval-${newest}.arrow`].flatMap((name) =>
      [0.1, 0.5, 0.9].map((share): [string, (path: string) => void] => [
        `${name} with a flipped bit at ${share}`,
        (path) => {
          const bytes = readFileSync(join(path, name));
          const at = Math.floor(bytes.length * share);
          bytes[at] = (bytes[at] as number) ^ 4;
          writeFileSync(join(path, name), bytes);
        },
      ]),
    ),
    ['no snapshot', (path) => rmSync(join(path, snapshot))],
    ['no interval', (path) => rmSync(join(path, `interval-${newest}.arrow`))],
    ['an empty record', (path) => writeFileSync(join(path, `checkpoint-${newest}.json`), '')],
    [
      'a record of other things',
      (path) => writeFileSync(join(path, `checkpoint-${newest}.json`), '{"a": 1}'),
    ],
    [
      'a record of another unit',
      (path) => {
        const record = JSON.parse(readFileSync(join(path, `checkpoint-${newest}.json`), 'utf8'));
        record.key = record.key.replace(/./g, '0');
        writeFileSync(join(path, `checkpoint-${newest}.json`), JSON.stringify(record));
      },
    ],
    [
      'a record that names a file elsewhere',
      (path) => {
        const record = JSON.parse(readFileSync(join(path, `checkpoint-${newest}.json`), 'utf8'));
        record.snapshot.name = `../../${record.snapshot.name}`;
        writeFileSync(join(path, `checkpoint-${newest}.json`), JSON.stringify(record));
      },
    ],
  ];
  for (const [what, damage] of damages) {
    rmSync(join(folder, 'hurt'), { recursive: true, force: true });
    damage(copied('hurt'));
    const { resumed, notices, complete } = await run('hurt', long);
    assert.equal(resumed[0], previous, what);
    assert.equal(notices.length, 1, what);
    assert.match(
      notices[0] ?? '',
      new RegExp(`passed over a checkpoint: .*(checkpoint|interval)-${newest}`),
      what,
    );
    assert.equal(complete, true, what);
    assert.deepEqual(bitsOf(join(folder, 'hurt')), bitsOf(join(folder, 'long-whole')), what);
  }
});

test('with no whole checkpoint the unit begins again; what a kill left half done is removed', async () => {
  const path = copied('none');
  for (const step of [previous, newest]) truncateSync(join(path, `checkpoint-${step}.safetensors`), 100);
  // Of a checkpoint whose record was never written.
  writeFileSync(join(path, 'checkpoint-395.safetensors'), 'half');
  writeFileSync(join(path, 'interval-395.arrow'), 'half');
  writeFileSync(join(path, 'checkpoint-395.json.77.0.tmp'), 'half');
  const { resumed, notices } = await run('none', long);
  assert.deepEqual([resumed, notices.length], [[], 2]);
  assert.deepEqual(bitsOf(join(folder, 'none')), bitsOf(join(folder, 'long-whole')));
  assert.deepEqual(
    readdirSync(path).filter((name) => name.startsWith('checkpoint')),
    [],
  );
});

test('a checkpoint of a dense run that began elsewhere is passed over when a rewind point comes between', async () => {
  const before = tinyRecipe({ rewind: ['0it'], controls: [] }, { levels: 0 }, { steps: '400it' });
  const id = `${readdirSync(join(folder, 'long-whole', 'units')).find((one) => one.includes('dense-400it'))}`;
  await stopAt('between', before, 20, { checkpoint: { updates: 10 } });
  const [first] = stepsIn(join(folder, 'between', 'units', id));
  assert.ok((first ?? 0) > 0);
  const after = { ...before, rewind: ['0it', '390it'] };
  const { notices, complete } = await run('between', after);
  assert.equal(complete, true);
  assert.ok(
    notices.length > 0 && notices.every((one) => /began at step 0, the unit now begins at 390/.test(one)),
  );
  await run('not-between', after);
  const files = [...bitsOf(join(folder, 'not-between'))].filter(([file]) => file.startsWith('units'));
  const found = bitsOf(join(folder, 'between'));
  for (const [file, bits] of files) assert.equal(found.get(file), bits, file);
});

test('metrics past the checkpoint are dropped, so that no row is there twice', async () => {
  const path = copied('rows');
  cpSync(join(path, `interval-${newest}.arrow`), join(path, `interval-${newest + 5}.arrow`));
  await run('rows', long);
  const steps = (await readMetrics(join(path, 'metrics.arrow')))
    .filter(({ split }) => split === 'train')
    .map(({ step }) => step);
  assert.deepEqual(
    steps,
    Array.from({ length: 40 }, (_, i) => 10 * (i + 1)),
  );
});

test('another instruction set is refused by checkpoint and folder, unless different bits are allowed', async () => {
  copied('other');
  const yaml = join(folder, 'long.yaml');
  writeFileSync(yaml, toYaml(long));
  const start = (...args: string[]) =>
    spawnSync(
      process.execPath,
      [
        join(packageRoot, 'bin', 'lth-train.js'),
        'run',
        yaml,
        '--out',
        join(folder, 'other'),
        '--json',
        ...args,
      ],
      { env: { ...process.env, LTH_ISA: 'portable' }, encoding: 'utf8' },
    );
  const refused = start();
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /was made under "kernels=.*--allow-different-bits/);
  const allowed = start('--allow-different-bits');
  assert.equal(allowed.status, 0, allowed.stderr);
  assert.match(allowed.stderr, new RegExp(`goes on after ${newest} updates`));
  const { fingerprints } = JSON.parse(allowed.stdout) as { fingerprints: string[] };
  assert.deepEqual(
    fingerprints.map((one) => /isa=(\w+)/.exec(one)?.[1] === 'portable'),
    [false, true],
  );
  // What was made there is not gone on from here without a word.
  await assert.rejects(run('other', long), { code: 'different-bits' });
});

test('jobs share the units and give the same bits', async () => {
  for (const jobs of [2, 3]) {
    const { complete, events } = await run(`jobs-${jobs}`, tinyRecipe(), { jobs, threads: jobs });
    assert.equal(complete, true);
    assert.deepEqual(bitsOf(join(folder, `jobs-${jobs}`)), whole);
    const ends = events.flatMap((event) => (event.type === 'unit-end' ? [event.id] : []));
    assert.equal(new Set(ends).size, ends.length, 'each unit is told of once');
    assert.equal(ends.length, readdirSync(join(folder, `jobs-${jobs}`, 'units')).length);
  }
});

test('jobs are stopped by the signal, and go on', async () => {
  const stopped = await stopAt('jobs-stopped', tinyRecipe(), 4, { jobs: 2 });
  assert.equal(stopped.stopped, true);
  const { complete } = await run('jobs-stopped', tinyRecipe(), { jobs: 2 });
  assert.equal(complete, true);
  assert.deepEqual(bitsOf(join(folder, 'jobs-stopped')), whole);
});

test('the unit of a job that dies is noted as failed, the rest goes on, and the next run does it', async () => {
  const slow = tinyRecipe(
    { rewind: ['0it'], controls: [], replicates: 2 },
    { levels: 1 },
    { steps: '20000it' },
  );
  let killed = 0;
  const first = await run('died', slow, {
    jobs: 2,
    checkpoint: { updates: 500 },
    onEvent: (event) => {
      if (killed > 0 || event.type !== 'progress' || event.fraction < 0.1) return;
      const units = join(folder, 'died', 'units');
      for (const id of readdirSync(units)) {
        const pulse = join(units, id, '.progress.json');
        if (killed > 0 || !existsSync(pulse)) continue;
        killed = JSON.parse(readFileSync(pulse, 'utf8')).pid as number;
        assert.notEqual(killed, process.pid);
        process.kill(killed, 'SIGKILL');
      }
    },
  });
  assert.ok(killed > 0);
  assert.equal(first.complete, false);
  assert.equal(first.problems.length, 1);
  assert.match(first.problems[0]?.message ?? '', /the process that worked on it ended with SIGKILL/);
  assert.ok(first.units.done >= 3, 'the other replicate was done');
  const second = await run('died', slow, { jobs: 2 });
  assert.equal(second.complete, true);
  assert.ok((second.resumed[0] ?? 0) >= 500, 'from its checkpoint');
  await run('lived', slow);
  assert.deepEqual(bitsOf(join(folder, 'died')), bitsOf(join(folder, 'lived')));
});

test('a session that is paused, or stopped in an evaluation, goes on as if it had not been', async () => {
  const options = { until: 90, metricsEvery: 10, evaluateEvery: 5 };
  const one = await openSession();
  const straight = noRows();
  for (const batch of (await one.trainToEnd(options)).batches) appendBatch(straight, batch, 0);
  const other = await openSession();
  const pieces = noRows();
  let stops = 0;
  for (let n = 0; ; n++) {
    const stop = new AbortController();
    // Every second piece is stopped wherever it is, mostly in one of the many evaluations.
    const timer = n % 2 ? setTimeout(() => stop.abort(), n % 7) : undefined;
    const pauseAt = other.step + 1 + (n % 4);
    const iterator = other.train({ ...options, continues: n > 0, pauseAt, signal: stop.signal });
    try {
      for (;;) {
        const next = await iterator.next();
        if (next.done) {
          clearTimeout(timer);
          if (next.value.state === 'paused') assert.equal(next.value.step, pauseAt);
          break;
        }
        appendBatch(pieces, next.value, 0);
      }
    } catch (error) {
      assert.equal(error, stop.signal.reason);
      stops++;
    }
    const copy = await other.snapshot();
    await other.load(copy);
    if (other.step === 90 && n % 2 === 0) break;
  }
  assert.ok(stops > 0);
  for (const name of ['step', 'split', 'loss', 'accuracy', 'learningRate', 'examples'] as const)
    assert.deepEqual(pieces[name], straight[name], name);
  assert.deepEqual(differences(await one.snapshot(), await other.snapshot()), []);
});
