/** Pictures that cannot be read: who opens a run later sees how many there were and which, whatever stopped it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, test } from 'node:test';
import { measureConnectivity } from '../lib/experiment/analyse.js';
import type { ExperimentEvent } from '../lib/experiment/Event.js';
import { runExperiment } from '../lib/experiment/run.js';
import { summarise } from '../lib/experiment/summary.js';
import { readRecord, writeRecord } from '../lib/files.js';
import { loadAddon } from '../lib/native/load.js';
import { parseRecipe } from '../lib/recipe/schema.js';
import { renderReport } from '../lib/report/report.js';
import { renderTable } from '../lib/report/terminal.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Dataset } from '../lib/session/Dataset.js';
import { Session } from '../lib/session/Session.js';
import { RunFolder } from '../lib/store/RunFolder.js';
import type { ReplacedPicture, UnitRecord } from '../lib/store/records.js';
import { Faults, withoutFaults } from './helpers/faults.js';
import { png, writeFiles } from './helpers/pictures.js';
import { bitsOf, executable, finishedUnits, firstDifference } from './helpers/runs.js';

const folder = mkdtempSync(join(realpathSync(tmpdir()), 'lth-replaced-'));
const { jpeg } = loadAddon().info();
const skip: string | false = jpeg.built ? false : jpeg.reason;
const faults = withoutFaults || skip ? undefined : new Faults(folder);
after(() => {
  faults?.dispose();
  rmSync(folder, { recursive: true });
});

const pictures = join(folder, 'pictures');
writeFiles(
  pictures,
  Object.fromEntries([
    ...Array.from({ length: 45 }, (_, i) => [`train/class-${i % 3}/p${i}.JPEG`, png(20 + i, 30, i)]),
    ...Array.from({ length: 9 }, (_, i) => [`val/class-${i % 3}/p${i}.JPEG`, png(24, 20 + i, i)]),
  ]),
);
const recipe = parseRecipe(
  {
    name: 'replaced',
    network: {
      name: 'small',
      input: [3, 16, 16],
      classes: 3,
      layers: [
        { name: 'conv1', type: 'conv', channels: 4, kernel: 3 },
        { name: 'bn1', type: 'batchnorm' },
        { name: 'relu1', type: 'relu' },
        { name: 'conv2', type: 'conv', channels: 4, kernel: 3 },
        { name: 'pool', type: 'globalpool' },
        { name: 'fc', type: 'linear', units: 3 },
      ],
    },
    data: {
      set: 'imagenet',
      folder: pictures,
      validation: 5,
      crop: {
        training: { kind: 'random-resized', size: 16 },
        evaluation: { kind: 'centre', size: 16, resize: 18 },
      },
    },
    rewind: ['2it'],
    controls: ['snip', 'grasp'],
    training: {
      steps: '4it', // one epoch: each picture comes once
      batch: 10,
      optimiser: { type: 'sgd', learningRate: 0.05, momentum: 0.9 },
      evaluateEvery: '2it',
      metricsEvery: '1it',
    },
    pruning: { levels: 1, fraction: 0.5, pooling: 'global', method: 'oneshot' },
  },
  'test',
);
const file = join(folder, 'replaced.yaml');
writeFileSync(file, JSON.stringify(recipe));

const { train, test: test_ } = await Dataset.open('imagenet', pictures, { crop: recipe.data.crop as never });
const session = await Session.open({
  network: CompiledNetwork.compile(recipe.network),
  train,
  test: test_,
  validation: 5,
  seed: recipe.seed,
  batch: 10,
  optimiser: recipe.training.optimiser,
});
/** Rows that are trained on from one step to another. */
const rowsOf = (from: number, to: number, noise: number) =>
  Array.from({ length: to - from }, (_, i) => [...session.batchIndices(from + i, noise)]).flat();
const trained = rowsOf(0, 4, 0);
const heldOut = Array.from({ length: 45 }, (_, row) => row).filter((row) => !trained.includes(row));
/** Of the first and the third update of the dense run, both before a checkpoint. */
const broken = [trained[3], trained[24]] as [number, number];
const nameOf = (row: number) => train.pictures?.name(row) as string;
const named = (split: ReplacedPicture['split'], rows: number[], of = nameOf) =>
  rows.map((row) => ({ split, name: of(row) })).sort((a, b) => (a.name < b.name ? -1 : 1));
const evaluated = [
  ...named('validation', [heldOut[1] as number]),
  ...named('test', [4], (row) => test_.pictures?.name(row) as string),
];
/** Start of image, JFIF's segment, and a table that ends too early. */
const truncatedJpeg = Buffer.from('ffd8ffe000104a46494600010100000100010000ffdb004300080606', 'hex');
writeFileSync(join(pictures, 'train', nameOf(broken[0])), truncatedJpeg);
writeFileSync(join(pictures, 'train', nameOf(broken[1])), '');
writeFileSync(join(pictures, 'train', evaluated[0]?.name as string), truncatedJpeg);
writeFileSync(join(pictures, 'val', evaluated[1]?.name as string), '');

const recordsOf = (run: string) =>
  finishedUnits(run).map(
    (id) => JSON.parse(readFileSync(join(run, 'units', id, 'unit.json'), 'utf8')) as UnitRecord,
  );
const run = (out: string, env: Record<string, string> = {}, more: string[] = []) =>
  spawnSync(
    process.execPath,
    [executable, 'run', file, '--out', out, '--threads', '1', '--checkpoint-every', '1it', ...more],
    { encoding: 'utf8', env: { ...process.env, ...env } },
  );

const whole = join(folder, 'whole');
const first = skip ? null : run(whole, faults?.env);
const calls = faults?.calls() ?? [];

test('every unit records which pictures were replaced, and every training how many', { skip }, async () => {
  assert.equal(first?.status, 0, first?.stderr);
  const records = recordsOf(whole);
  assert.equal(records.length, 8);
  for (const { kind, replacedPictures, result, label } of records) {
    const isBroken = (row: number) => broken.includes(row);
    if (kind === 'prune') {
      const byScores = / by (snip|grasp)/.test(label);
      const rows = [...session.scoreIndices()].filter(isBroken);
      assert.deepEqual(replacedPictures, byScores ? named('train', rows) : undefined, label);
      continue;
    }
    const [from, to] = kind === 'dense' && result === null ? [0, 2] : [2, 4];
    const rows = rowsOf(from, to, result?.noise ?? 0).filter(isBroken);
    assert.deepEqual(replacedPictures, [...named('train', rows), ...evaluated], label);
    // The dense run is one training, wherever rewind points cut it.
    const training = kind === 'dense' ? 2 : rows.length;
    if (result) assert.deepEqual(result.replacedPictures, { training, evaluation: 2 }, label);
  }
  assert.deepEqual(
    records
      .filter(({ kind }) => kind === 'dense')
      .map(({ result }) => result !== null)
      .sort(),
    [false, true],
  );
});

test('kills and resumes, threads and jobs change no number', { skip: skip || withoutFaults }, () => {
  const expected = bitsOf(whole);
  const renames = calls.filter(({ kind }) => kind === 'rename');
  const points = renames.flatMap(({ path }, i) =>
    /^checkpoint-\d+\.json/.test(basename(path)) ? [i + 1] : [],
  );
  assert.ok(points.length >= 5, `${points.length} checkpoints`);
  // In both parts of the dense run, and in one of the trainings after it.
  for (const at of points.slice(0, 3)) {
    const out = join(folder, `killed-${at}`);
    faults?.order({ at, action: 'kill after', kinds: ['rename'] });
    assert.equal(run(out, faults?.env).signal, 'SIGKILL');
    faults?.order();
    const again = run(out, { LTH_TEST: 'again' }, ['--threads', '2']);
    assert.equal(again.status, 0, again.stderr);
    assert.match(again.stderr, /goes on after 1 updates/);
    assert.equal(firstDifference(expected, bitsOf(out)), null, `killed at rename ${at}`);
  }
  const jobs = join(folder, 'jobs');
  const ended = run(jobs, {}, ['--threads', '2', '--jobs', '2']);
  assert.equal(ended.status, 0, ended.stderr);
  assert.equal(firstDifference(expected, bitsOf(jobs)), null);
});

test('show, its JSON and the report say how many and which', { skip }, async () => {
  const summary = await summarise(whole);
  const all = [...named('train', broken), ...evaluated];
  assert.deepEqual(summary.replacedPictures, all);
  const counts = summary.results.map(({ branch, replacedPictures }) => [branch, replacedPictures]);
  assert.deepEqual(counts[0], ['imp', { training: 2, evaluation: 2 }]);
  assert.equal(counts.length, 4);
  for (const text of [renderTable(summary), renderReport([summary])]) {
    assert.match(text, /4 pictures could not be read, and others .*[34] in each training/);
    for (const { name } of all) assert.ok(text.includes(name), name);
  }
  const none = { ...summary, replacedPictures: [] };
  assert.doesNotMatch(renderTable(none) + renderReport([none]), /could not be read/);
});

test('copies, and lines between them, tell of theirs too', { skip }, async () => {
  const out = join(folder, 'lines');
  cpSync(whole, out, { recursive: true });
  const notices: string[] = [];
  const onEvent = (event: ExperimentEvent) => {
    if (event.type === 'notice') notices.push(event.message);
  };
  const before = finishedUnits(out);
  await measureConnectivity(out, { branches: ['dense'], alphas: 2, threads: 1, onEvent });
  const added = finishedUnits(out).filter((id) => !before.includes(id));
  const records = recordsOf(out).filter(({ id }) => added.includes(id));
  assert.deepEqual(records.map(({ kind }) => kind).sort(), ['copy', 'copy', 'interpolation']);
  for (const { kind, replacedPictures } of records) {
    assert.deepEqual(
      replacedPictures?.filter(({ split }) => split === 'test'),
      evaluated.slice(1),
      kind,
    );
    // A line is looked at on all of the training set.
    if (kind === 'interpolation')
      assert.deepEqual(replacedPictures, [...named('train', broken), ...evaluated.slice(1)]);
  }
  assert.ok(notices.some((words) => words.includes(join(pictures, 'val', evaluated[1]?.name as string))));
});

test('what earlier versions wrote is read, and where it is not known it is not counted', {
  skip: skip || withoutFaults,
}, async () => {
  /** Takes the fields out of a record, as if it were from before them. */
  const age = async (path: string) => {
    const { replacedPictures, result, ...record } = (await readRecord(path)) as unknown as UnitRecord;
    const { replacedPictures: counts, ...rest } = result ?? { replacedPictures: null };
    await writeRecord(path, { ...record, ...(result !== undefined && { result: result && rest }) });
  };
  const old = join(folder, 'old');
  cpSync(whole, old, { recursive: true });
  for (const id of finishedUnits(old)) await age(join(old, 'units', id, 'unit.json'));
  const summary = await summarise(old);
  assert.deepEqual(summary.replacedPictures, []);
  assert.deepEqual([...new Set(summary.results.map((one) => one.replacedPictures))], [null]);
  assert.doesNotMatch(renderTable(summary), /could not be read/);
  assert.equal((await runExperiment(recipe, { out: old, threads: 1 })).complete, true);

  // A checkpoint of before does not say what was met up to there.
  const renames = calls.filter(({ kind }) => kind === 'rename');
  const at = renames.findIndex(({ path }) => basename(path).startsWith('checkpoint-3.json')) + 1;
  const cut = join(folder, 'cut');
  faults?.order({ at, action: 'kill after', kinds: ['rename'] });
  assert.equal(run(cut, faults?.env).signal, 'SIGKILL');
  faults?.order();
  const unit = readdirSync(join(cut, 'units')).find((id) => !finishedUnits(cut).includes(id)) as string;
  await age(join(cut, 'units', unit, 'checkpoint-3.json'));
  await runExperiment(recipe, { out: cut, threads: 1 });
  const record = await RunFolder.open(cut).record(unit);
  assert.deepEqual([record?.replacedPictures, record?.result?.replacedPictures], [undefined, null]);
  assert.deepEqual((await summarise(cut)).results[0]?.replacedPictures, null);
});
