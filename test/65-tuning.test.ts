/** The table of costs by which products are chosen: what it decides, where a run has it from, and its measurement. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { measureStability } from '../lib/experiment/analyse.js';
import type { ExperimentEvent } from '../lib/experiment/Event.js';
import { kernelsOf } from '../lib/experiment/kernels.js';
import { runExperiment } from '../lib/experiment/run.js';
import { machineTuningPath, thisMachine } from '../lib/experiment/tuning.js';
import { verifyRun } from '../lib/experiment/verify.js';
import { writeRecord } from '../lib/files.js';
import type { ProductCosts, Tuning } from '../lib/native/AddonTypes.js';
import { loadAddon } from '../lib/native/load.js';
import { networkByName } from '../lib/networks/catalogue.js';
import type { Recipe } from '../lib/recipe/Recipe.js';
import { reportExtras } from '../lib/report/extras.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Masks } from '../lib/session/Masks.js';
import type { OpenOptions, Session } from '../lib/session/Session.js';
import type { Snapshot } from '../lib/session/Snapshot.js';
import {
  builtinTuning,
  checkTuning,
  costNames,
  measureTuning,
  tuningName,
  tuningParts,
} from '../lib/session/tuning.js';
import { readTuning, writeTuning } from '../lib/store/tuningFile.js';
import { differences, openSession } from './helpers/digits.js';
import { headed } from './helpers/networks.js';
import { killAll, start } from './helpers/processes.js';
import { bitsOf, executable, firstDifference, temporaryFolder } from './helpers/runs.js';
import { tinyRecipe } from './helpers/tiny.js';

const folder = temporaryFolder('tuning');
after(killAll);

const resnet = CompiledNetwork.compile({ ...networkByName('resnet-8-w0.3'), input: [1, 28, 28] });
const lenet = CompiledNetwork.compile('lenet-300-100');

const costs = (all: number): ProductCosts => ({
  entryOfRun: all,
  entryOfPlace: all,
  gradientOfVector: all,
  gradientOfBand: all,
  splitOfVector: all,
});
const table = (all: number): Tuning => {
  const each = costs(all);
  return { fp32: each, bf16: each, linear: each, wide: each };
};
const nothing = table(0);
const much = table(1e6);

const recipe = (changes: Partial<Recipe> = {}, pruning: Partial<Recipe['pruning']> = {}) =>
  tinyRecipe({ rewind: ['0it'], controls: [], ...changes }, pruning);
const read = (...parts: string[]) => readFileSync(join(...parts), 'utf8');
const fingerprintOf = (run: string) =>
  (JSON.parse(read(run, 'experiment.json')) as { fingerprint: string }).fingerprint;

const file = join(folder, 'nothing.json');
await writeTuning(file, nothing, null);
/** A run with a table in which nothing costs anything: all its products are sparse. */
const tuned = join(folder, 'tuned');
await runExperiment(recipe(), { out: tuned, threads: 2, tuning: file });

const sgd: Partial<OpenOptions> = {
  optimiser: { type: 'sgd', learningRate: 0.05, momentum: 0.9, weightDecay: 1e-4 },
};

async function prune(network: CompiledNetwork, session: Session, fraction: number): Promise<void> {
  const pooling = 'layerwise';
  await session.setMasks(await Masks.ones(network).prune(await session.snapshot(), { fraction, pooling }));
}

const made = (session: Session) =>
  new Set(
    session
      .kernels()
      // Projections and the head are never pruned.
      .filter(({ layer }) => !/downsample|^fc$/.test(layer))
      .flatMap((one) => [one.forward, one.inputGradient, one.weightGradient])
      .filter((kind) => kind !== null),
  );

for (const [network, precision] of [
  [resnet, 'fp32'],
  [resnet, 'bf16'],
  [lenet, 'fp32'],
] as const) {
  test(`products that cost nothing are all sparse, such that cost much are all dense: ${network.summary.name}, ${precision}`, async () => {
    for (const [tuning, kind] of [
      [nothing, 'sparse'],
      [much, 'dense'],
    ] as const) {
      const session = await openSession({ network, precision, tuning });
      // Gradients of linear layers are made of what is left alone where it lies packed.
      await prune(network, session, network === lenet ? 0.95 : 0.6);
      assert.deepEqual([...made(session)], [kind]);
      session.dispose();
    }
  });

  test(`1 and 2 threads give the same bits by any table, and another table gives others: ${network.summary.name}, ${precision}`, async () => {
    const after = async (tuning: Tuning | null, threads: number): Promise<Snapshot> => {
      const session = await openSession({ network, precision, threads, ...sgd, ...(tuning && { tuning }) });
      await prune(network, session, 0.7);
      await session.trainToEnd({ until: 8, evaluate: [] });
      const snapshot = await session.snapshot();
      session.dispose();
      return snapshot;
    };
    const mixed: Tuning = { ...nothing };
    for (const part of tuningParts) mixed[part] = { ...costs(1e6), entryOfRun: 0, entryOfPlace: 0 };
    const one = await after(mixed, 1);
    assert.deepEqual(differences(await after(mixed, 2), one), []);
    assert.notDeepEqual(differences(await after(much, 1), one), []);
    // The built-in table is the one of who gives none.
    assert.deepEqual(differences(await after(builtinTuning(), 2), await after(null, 1)), []);
  });
}

test('each kind of product is chosen by its own costs, each precision by its own part', async () => {
  const session = await openSession({
    network: resnet,
    tuning: { ...much, fp32: { ...costs(0), gradientOfVector: 1e6 } },
  });
  await prune(resnet, session, 0.6);
  for (const { layer, forward, weightGradient } of session.kernels()) {
    if (/downsample|^fc$/.test(layer)) continue;
    assert.deepEqual([forward, weightGradient], ['sparse', 'dense'], layer);
  }
  session.dispose();
  for (const precision of ['fp32', 'bf16'] as const) {
    const network = CompiledNetwork.compile(headed);
    const other = await openSession({ network, precision, tuning: { ...much, linear: costs(0) } });
    await prune(network, other, 0.9);
    for (const { layer, forward, weightGradient } of other.kernels()) {
      if (layer === 'kept') continue; // never pruned
      const kind = /^conv/.test(layer) ? 'dense' : 'sparse';
      assert.deepEqual([forward, weightGradient], [kind, kind], `${layer}, ${precision}`);
    }
    other.dispose();
  }
});

test('linear layers are wide by their columns: a batch of 512 pictures is, one of 60 is not', async () => {
  for (const [batch, first] of [
    [60, 'dense'],
    [512, 'sparse'],
  ] as const) {
    const session = await openSession({ network: lenet, batch, tuning: { ...much, wide: costs(0) } });
    await prune(lenet, session, 0.95);
    await session.trainToEnd({ until: 1, evaluate: [] });
    // 784 inputs of a picture, then 300, then 100.
    const made = session.kernels().map((one) => [one.forward, one.weightGradient]);
    assert.deepEqual(made, [
      [first, first],
      ['dense', 'dense'],
      ['dense', 'dense'],
    ]);
    session.dispose();
  }
});

test('a table from before wide layers had costs of their own has those of the others', async () => {
  const old = join(folder, 'old.json');
  const tuning = { ...table(1), linear: costs(2), wide: costs(2) };
  await writeTuning(old, tuning, null);
  const { tuning: back } = await readTuning(old);
  assert.deepEqual(back, tuning);
  const { wide: _, ...without } = tuning;
  await writeTuning(old, without as Tuning, null);
  const { tuning: filled } = await readTuning(old);
  assert.deepEqual(filled, tuning);
  assert.equal(tuningName(filled), tuningName(tuning));
});

test('the table is in the fingerprint, unless it is built in or nothing is chosen by it', async () => {
  const wordOf = async (options: Partial<OpenOptions>) => {
    const session = await openSession(options);
    const { fingerprint } = session.info;
    session.dispose();
    return / tuning=(\w+)/.exec(fingerprint)?.[1] ?? null;
  };
  assert.equal(await wordOf({ tuning: much }), tuningName(much));
  assert.match(tuningName(much) ?? '', /^[0-9a-f]{16}$/);
  assert.notEqual(tuningName(much), tuningName(nothing));
  assert.equal(tuningName(builtinTuning()), null);
  for (const options of [
    {},
    { tuning: builtinTuning() },
    { tuning: much, kernels: 'dense' },
    { tuning: much, kernels: 'sparse' },
    { tuning: much, precision: 'fp64' },
    { tuning: much, executor: 'autograd' },
    { tuning: much, executor: 'aten' },
  ] as const)
    assert.equal(await wordOf(options), null, JSON.stringify(options));
});

test('in double precision, and where kernels are dense or sparse, no table changes a choice', async () => {
  for (const options of [{ precision: 'fp64' }, { kernels: 'dense' }, { kernels: 'sparse' }] as const) {
    const choices = [];
    for (const tuning of [nothing, much]) {
      const session = await openSession({ network: lenet, ...options, tuning });
      await prune(lenet, session, 0.6);
      choices.push(session.kernels());
      session.dispose();
    }
    assert.deepEqual(choices[0], choices[1]);
  }
});

test('the lists of parts and costs are those of the addon, which reads and names every one', () => {
  const tuning = table(1);
  assert.deepEqual(Object.keys(builtinTuning()), tuningParts);
  const names = new Set([tuningName(tuning)]);
  for (const part of tuningParts) {
    assert.deepEqual(Object.keys(builtinTuning()[part]), costNames);
    const { [part]: _, ...without } = tuning;
    assert.throws(() => loadAddon().tuningName(without as Tuning), new RegExp(`tuning\\.${part}`));
    for (const cost of costNames) names.add(tuningName({ ...tuning, [part]: { ...costs(1), [cost]: 2 } }));
  }
  assert.equal(names.size, 1 + tuningParts.length * costNames.length);
});

test('what is no table is refused, with the cost that is wrong', async () => {
  for (const [wrong, words] of [
    [null, /table/],
    [{}, /tuning\.fp32/],
    [{ ...much, bf16: { ...costs(1), entryOfRun: -1 } }, /tuning\.bf16\.entryOfRun.*-1/],
    [{ ...much, linear: { ...costs(1), splitOfVector: Number.NaN } }, /tuning\.linear\.splitOfVector.*NaN/],
    [{ ...much, fp32: { entryOfRun: 1 } }, /tuning\.fp32\.entryOfPlace.*undefined/],
  ] as const) {
    await assert.rejects(openSession({ tuning: wrong as unknown as Tuning }), {
      code: 'invalid-argument',
      message: words,
    });
  }
  assert.deepEqual(checkTuning({ ...much, more: 1 }), much);
});

// ------------------------------------------------------------------------------------------- measurement

test('measured costs are finite and on the grid, and the event loop goes on meanwhile', async () => {
  let turns = 0;
  const clock = setInterval(() => turns++, 5);
  const addon = loadAddon();
  const { run, end } = addon.tuningMeasure(1, 1);
  const tuning = await end;
  addon.dispose(run);
  clearInterval(clock);
  assert.ok(tuning, 'it was not stopped');
  assert.ok(turns > 3, `${turns} turns`);
  assert.deepEqual(checkTuning(tuning), tuning);
  for (const part of tuningParts) {
    for (const name of costNames) {
      const cost: number = tuning[part][name];
      const onGrid: number =
        cost === 0 ? 0 : Number((2 ** (Math.round(Math.log2(cost) * 4) / 4)).toPrecision(3));
      assert.equal(cost, onGrid, `${part}.${name}`);
    }
    // Whatever the machine: places and vectors cost something.
    assert.ok(tuning[part].entryOfPlace + tuning[part].entryOfRun > 0 && tuning[part].gradientOfVector > 0);
  }
  assert.equal(tuning.linear.splitOfVector, 0);
});

test('a measurement is stopped by its signal, in the middle too, with the reason', async () => {
  const reason = new Error('enough');
  await assert.rejects(measureTuning({ signal: AbortSignal.abort(reason) }), reason);
  const stop = new AbortController();
  setTimeout(() => stop.abort(reason), 100);
  await assert.rejects(measureTuning({ signal: stop.signal, threads: 2 }), reason);
  await assert.rejects(measureTuning({ threads: 0 }), { code: 'invalid-argument' });
});

test('the end of the process or of the worker in the middle of a measurement is safe', () => {
  const library = JSON.stringify(new URL('../lib/index.js', import.meta.url).href);
  const measure = `import(${library}).then(({ measureTuning }) => measureTuning())`;
  const worker = `const { Worker } = require('node:worker_threads');
    const one = new Worker(${JSON.stringify(measure)}, { eval: true });
    setTimeout(() => one.terminate().then(() => process.exit(7)), 700);`;
  for (const script of [`${measure}; setTimeout(() => process.exit(7), 700);`, worker]) {
    const { status, signal, stderr } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
    assert.deepEqual([status, signal], [7, null], stderr);
  }
});

// -------------------------------------------------------------------------------------------------- runs

test('a run keeps its table, and whoever goes on with it or looks at it uses that one', async () => {
  assert.deepEqual((await readTuning(join(tuned, 'tuning.json'))).tuning, nothing);
  assert.ok(fingerprintOf(tuned).endsWith(` tuning=${tuningName(nothing)}`));
  const [, , last] = await kernelsOf(tuned);
  assert.deepEqual(
    last?.layers.map(({ forward }) => forward),
    ['sparse', 'sparse', 'sparse'],
  );
  assert.deepEqual((await verifyRun(tuned)).problems, []);
  // The report's command makes it again with the same table.
  assert.match(
    (await reportExtras(tuned)).commands[0] ?? '',
    /--tuning \S+\/tuned\/tuning\.json --out again$/,
  );
  // More levels, in two job processes, and copies: nobody names the table again.
  const more = join(folder, 'more');
  cpSync(tuned, more, { recursive: true });
  const deeper = recipe({}, { levels: 3 });
  const found = await runExperiment(deeper, { out: more, threads: 2, jobs: 2 });
  assert.ok(found.complete, JSON.stringify(found.problems));
  assert.equal(found.fingerprints.length, 1);
  const stability = await measureStability(more, { orders: 2, samples: 0, threads: 2, levels: [1] });
  assert.ok(stability.complete, JSON.stringify(stability.problems));
  assert.equal(read(more, 'tuning.json'), read(tuned, 'tuning.json'));
  // As one command with the table from the start.
  const once = join(folder, 'once');
  await runExperiment(deeper, { out: once, threads: 1, tuning: nothing });
  const units = (run: string, ids: Set<string>) =>
    new Map([...bitsOf(run)].filter(([path]) => ids.has(path.split('/')[1] ?? '')));
  const ids = new Set(readdirSync(join(once, 'units')));
  assert.equal(firstDifference(units(once, ids), units(more, ids)), null);
});

test('another table than the run began with is refused as other bits, unless that is allowed', async () => {
  const out = join(folder, 'other');
  cpSync(tuned, out, { recursive: true });
  const before = read(out, 'tuning.json');
  const asked = { out, threads: 1, tuning: much };
  await assert.rejects(runExperiment(recipe(), asked), {
    code: 'different-bits',
    message: new RegExp(`not tuning=${tuningName(nothing)}`),
  });
  const deeper = recipe({}, { levels: 3 });
  const { fingerprints } = await runExperiment(deeper, { ...asked, allowDifferentBits: true });
  assert.equal(fingerprints.length, 2);
  assert.equal(read(out, 'tuning.json'), before);
});

test('a damaged, foreign or lost table is an error that says what helps, and the right one helps', async () => {
  const out = join(folder, 'damaged');
  cpSync(tuned, out, { recursive: true });
  const path = join(out, 'tuning.json');
  const { problems: none, commands: _, ...looked } = await verifyRun(tuned);
  assert.deepEqual(none, []);
  const refused = async (words: RegExp) => {
    const expected = { code: 'corrupt-file', message: words };
    for (const one of [() => runExperiment(recipe(), { out }), () => kernelsOf(out)])
      await assert.rejects(one, expected);
    await assert.rejects(measureStability(out), expected);
    // Everything else is looked at as well.
    const { problems, commands, ...found } = await verifyRun(out);
    assert.deepEqual([{ ...found, run: tuned }, commands], [looked, []]);
    assert.deepEqual(
      problems.map(({ id, kind }) => [id, kind]),
      [['tuning.json', 'table']],
    );
    assert.match(problems[0]?.message ?? '', words);
    const shown = lthTrain('show', out, '--kernels');
    assert.deepEqual(
      [shown.status, shown.stdout],
      [1, lthTrain('show', tuned).stdout.replaceAll(tuned, out)],
    );
    assert.match(shown.stderr, words);
    const verified = lthTrain('verify', out);
    assert.equal(verified.status, 1);
    assert.match(verified.stdout, words);
    assert.match(verified.stdout, /1 problems$/m);
  };
  writeFileSync(path, read(tuned, 'tuning.json').replace('"entryOfRun": 0', '"entryOfRun": 1'));
  await refused(/tuning\.json: its seal is not.*--tuning FILE/);
  await writeRecord(path, { format: 99, kind: 'tuning' });
  await refused(/tuning\.json: is no table of costs/);
  await writeTuning(path, much, null);
  await refused(new RegExp(`is table ${tuningName(much)}, and the run began with ${tuningName(nothing)}`));
  rmSync(path);
  await refused(new RegExp(`tuning\\.json is missing.*${tuningName(nothing)}`));
  const { complete } = await runExperiment(recipe(), { out, tuning: nothing });
  assert.ok(complete);
  assert.equal(read(path), read(tuned, 'tuning.json'));
});

test('with other bits allowed, a run and its analyses go on without the table that is lost or damaged, and say so', async () => {
  const out = join(folder, 'lost');
  cpSync(tuned, out, { recursive: true });
  for (const [spoil, levels, words] of [
    [
      () => rmSync(join(out, 'tuning.json')),
      3,
      /by the table that a new run would have: .*tuning\.json is missing/,
    ],
    [
      () => writeFileSync(join(out, 'tuning.json'), '{}'),
      4,
      /by the table that a new run would have: .*its seal/,
    ],
  ] as const) {
    spoil();
    const notices: string[] = [];
    const options = {
      threads: 2,
      allowDifferentBits: true,
      onEvent: (event: ExperimentEvent) => void (event.type === 'notice' && notices.push(event.message)),
    };
    const { complete, fingerprints } = await runExperiment(recipe({}, { levels }), { ...options, out });
    assert.ok(complete);
    assert.equal(fingerprints.length, 2);
    assert.match(notices.join('\n'), words);
    const stability = await measureStability(out, { ...options, orders: 2, samples: 0, levels: [levels] });
    assert.ok(stability.complete);
    assert.equal(notices.length, 2);
  }
  // Somebody's own file is not overwritten.
  assert.equal(read(out, 'tuning.json'), '{}');
});

test('runs with the built-in table hold none, and go on with it whatever a machine has', async () => {
  const out = join(folder, 'builtin');
  await runExperiment(recipe(), { out, threads: 1, tuning: 'builtin' });
  assert.ok(!existsSync(join(out, 'tuning.json')));
  assert.doesNotMatch(fingerprintOf(out), /tuning/);
  const before = process.env.LTH_TUNING;
  process.env.LTH_TUNING = file;
  try {
    const { complete } = await runExperiment(recipe(), { out, threads: 1 });
    assert.ok(complete && !existsSync(join(out, 'tuning.json')));
    // A record that is missing is written again, as its cure says, and the run stays what it was.
    const units = readdirSync(join(out, 'units'));
    for (const name of ['requests.json', 'experiment.json']) {
      rmSync(join(out, name));
      const again = await runExperiment(recipe(), { out, threads: 1 });
      assert.ok(again.complete && !existsSync(join(out, 'tuning.json')), name);
      assert.doesNotMatch(fingerprintOf(out), /tuning/);
      assert.deepEqual(readdirSync(join(out, 'units')), units);
    }
    // What LTH_TUNING names is for new runs.
    const named = join(folder, 'named');
    await runExperiment(recipe({}, { levels: 0 }), { out: named, threads: 1 });
    assert.deepEqual((await readTuning(join(named, 'tuning.json'))).tuning, nothing);
    // Nothing is chosen by a table here.
    for (const kernels of ['dense', 'sparse'] as const) {
      const chosen = join(folder, kernels);
      await runExperiment(recipe({ kernels }, { levels: 0 }), { out: chosen, threads: 1 });
      assert.ok(!existsSync(join(chosen, 'tuning.json')));
    }
    process.env.LTH_TUNING = join(folder, 'missing.json');
    await assert.rejects(runExperiment(recipe(), { out: join(folder, 'none') }), { code: 'io' });
  } finally {
    process.env.LTH_TUNING = before;
  }
});

test("somebody's own tuning.json in a folder without a run is not overwritten", async () => {
  const out = join(folder, 'own');
  cpSync(tuned, out, { recursive: true });
  for (const name of ['experiment.json', 'requests.json', 'recipe.yaml', 'units'])
    rmSync(join(out, name), { recursive: true });
  // What a killed first command leaves: the next one goes on with its table.
  await runExperiment(recipe({}, { levels: 0 }), { out, threads: 1 });
  assert.ok(fingerprintOf(out).endsWith(` tuning=${tuningName(nothing)}`));
  rmSync(join(out, 'experiment.json'));
  writeFileSync(join(out, 'tuning.json'), '{"mine": true}');
  for (const tuning of [much, 'builtin'])
    await assert.rejects(runExperiment(recipe(), { out, threads: 1, tuning }), { code: 'corrupt-file' });
  assert.equal(read(out, 'tuning.json'), '{"mine": true}');
});

// ----------------------------------------------------------------------------------------- command line

const cache = join(folder, 'cache');
const environment = { ...process.env, LTH_CACHE: cache, LTH_TUNING: '' };
const lthTrain = (...args: string[]) =>
  spawnSync(process.execPath, [executable, ...args], { encoding: 'utf8', cwd: folder, env: environment });
const yaml = join(folder, 'tiny.yaml');
writeFileSync(
  yaml,
  `name: tiny
network: lenet-20-12
data: { set: mnist-10k, validation: 504 }
training: { steps: 40it, batch: 60, optimiser: { type: adam, learningRate: 0.0012 }, evaluateEvery: 20it }
pruning: { levels: 1, fraction: 0.5 }
`,
);

test('the first run of a machine says that it measures, and a signal before there is a run ends it with 75', async () => {
  const out = join(folder, 'first');
  const { child, ended } = start(['run', yaml, '--out', out], { LTH_CACHE: cache, LTH_TUNING: '' }, 60_000);
  child.stderr?.on('data', (text) => {
    if (/measuring once/.test(String(text))) child.kill('SIGTERM');
  });
  const { code, out: stdout, err } = await ended;
  assert.match(err, /measuring once what sparse products cost on this machine: about \d+ seconds/);
  assert.deepEqual([code, stdout], [75, ''], err);
  assert.ok(!existsSync(out));
  assert.match(lthTrain('doctor').stdout, /tuning +no table yet/);
});

test('tune: the table on stdout, words on stderr; new runs take it, and doctor knows it', async () => {
  const tune = lthTrain('tune', '--json');
  assert.equal(tune.status, 0, tune.stderr);
  const found = JSON.parse(tune.stdout) as { name: string; machine: object; tuning: Tuning };
  assert.deepEqual(found.machine, JSON.parse(JSON.stringify(thisMachine())));
  assert.equal(found.name, tuningName(found.tuning));
  assert.match(tune.stderr, /measuring for about \d+ seconds\nwritten to .*\n/);
  const run = lthTrain('run', yaml, '--out', 'by-machine', '--json');
  assert.equal(run.status, 0, run.stderr);
  assert.doesNotMatch(run.stderr, /measuring/);
  assert.deepEqual((await readTuning(join(folder, 'by-machine', 'tuning.json'))).tuning, found.tuning);
  assert.match(lthTrain('doctor').stdout, new RegExp(`tuning +table ${found.name}`));
  const { tuning } = JSON.parse(lthTrain('doctor', '--json').stdout) as {
    tuning: { path: string; state: string };
  };
  assert.equal(tuning.state, `table ${found.name}`);

  // A table that cannot be trusted is never replaced on the quiet.
  copyFileSync(file, tuning.path);
  const foreign = lthTrain('run', yaml, '--out', 'foreign');
  assert.deepEqual([foreign.status, /is of another machine.*lth-train tune/.test(foreign.stderr)], [1, true]);
  writeFileSync(tuning.path, 'nonsense');
  const corrupt = lthTrain('run', yaml, '--out', 'corrupt');
  assert.deepEqual([corrupt.status, corrupt.stderr.includes(tuning.path)], [1, true]);
  assert.match(lthTrain('doctor').stdout, /tuning +.*lth-train tune/);
  assert.ok(!existsSync(join(folder, 'corrupt')) && !existsSync(join(folder, 'foreign')));
});

test('one process measures at a time: tune and first runs wait for the other, and say so', async () => {
  const place = join(folder, 'measured-elsewhere');
  const lockFile = join(place, 'tuning', '.lock');
  mkdirSync(join(place, 'tuning'), { recursive: true });
  const waiting = /another process measures this machine, waiting for it\n/;
  for (const [args, code] of [
    [['tune'], 143],
    [['tune', '--out', join(folder, 'elsewhere.json')], 143],
    [['run', yaml, '--out', join(folder, 'elsewhere')], 75],
  ] as [string[], number][]) {
    const lock = loadAddon().lockTry(lockFile);
    assert.ok(lock);
    const { child, ended } = start(args, { LTH_CACHE: place, LTH_TUNING: '' }, 60_000);
    let heard = '';
    child.stderr?.on('data', (text) => {
      const before = heard;
      heard += text;
      if (waiting.test(heard) && !waiting.test(before)) {
        assert.doesNotMatch(heard, /measuring/);
        loadAddon().dispose(lock);
      }
      if (/measuring/.test(heard) && !/measuring/.test(before)) {
        // Nobody else may now.
        assert.equal(loadAddon().lockTry(lockFile), null);
        child.kill('SIGTERM');
      }
    });
    const end = await ended;
    assert.equal(end.code, code, end.err);
    assert.match(end.err, waiting);
    assert.match(end.err, /measuring/);
  }
});

test('run --tuning takes builtin or a file, and says what is wrong with it', () => {
  const builtin = lthTrain('run', yaml, '--out', 'as-built', '--tuning', 'builtin');
  assert.equal(builtin.status, 0, builtin.stderr);
  assert.ok(!existsSync(join(folder, 'as-built', 'tuning.json')));
  const other = lthTrain('run', yaml, '--out', 'as-built', '--tuning', file);
  assert.deepEqual([other.status, /was made under.*tuning=/.test(other.stderr)], [1, true]);
  for (const [name, words] of [
    [join(folder, 'none.json'), /none\.json: ENOENT/],
    [yaml, /tiny\.yaml: /],
  ] as const) {
    const { status, stderr } = lthTrain('run', yaml, '--out', 'wrong', '--tuning', name);
    assert.deepEqual([status, words.test(stderr)], [1, true], stderr);
  }
  for (const out of [folder, join(folder, 'nowhere', 'table.json')]) {
    const { status, stderr } = lthTrain('tune', '--out', out);
    assert.deepEqual([status, /for --out/.test(stderr)], [2, true], stderr);
  }
  for (const threads of ['0', String(availableParallelism() + 1)])
    assert.equal(lthTrain('tune', '--threads', threads).status, 2, threads);
});

test('the place of a table in the cache is of the CPU, the instruction set and the kernels', () => {
  const path = machineTuningPath();
  const { isa } = loadAddon().info();
  if (isa === 'portable') return;
  const other = spawnSync(process.execPath, [executable, 'doctor', '--json'], {
    encoding: 'utf8',
    env: { ...process.env, LTH_ISA: 'portable' },
  });
  const { tuning } = JSON.parse(other.stdout) as { tuning: { path: string } };
  assert.notEqual(tuning.path, path);
});
