/** The program as its users start it: what it prints where, and how it ends. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Result } from '../lib/experiment/Result.js';
import { packageRoot } from '../lib/package.js';
import './helpers/builtinTuning.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-cli-'));
after(() => rmSync(folder, { recursive: true }));

const executable = join(packageRoot, 'bin', 'lth-train.js');

function lthTrain(...args: string[]) {
  return spawnSync(process.execPath, [executable, ...args], { encoding: 'utf8', cwd: folder });
}

const recipe = join(folder, 'tiny.yaml');
writeFileSync(
  recipe,
  `name: tiny
network: lenet-20-12
data: { set: mnist-10k, validation: 504 }
training:
  steps: 120
  batch: 60
  optimiser: { type: adam, learningRate: 0.0012 }
  evaluateEvery: 30it
pruning: { levels: 2, fraction: 0.5 }
`,
);

/** A run that all tests of this file look at. */
const run = lthTrain('run', recipe, '--out', 'first', '--replicates', '2', '--json');

test('run --json: the results alone on stdout, one JSON object; everything else on stderr', () => {
  assert.equal(run.status, 0, run.stderr);
  assert.equal(run.stdout.trim().split('\n').length, 1);
  const summary = JSON.parse(run.stdout) as { run: string; complete: boolean; results: Result[] };
  assert.equal(summary.run, 'first');
  assert.equal(summary.complete, true);
  // Level 0 once, then three branches of two levels; two replicates.
  assert.equal(summary.results.length, 2 * (1 + 2 * 3));
  for (const result of summary.results) {
    assert.ok(['imp', 'random', 'reinit'].includes(result.branch));
    assert.equal(result.rewind, 0);
    assert.equal(result.method, 'iterative');
    assert.equal(result.updates, 120);
    assert.ok(
      Number.isInteger(result.noise) && Number.isInteger(result.level) && Number.isInteger(result.replicate),
    );
    assert.ok(result.testAccuracy !== null && result.testAccuracy > 0.5 && result.testAccuracy <= 1);
    assert.ok(result.validationAccuracy !== null && result.densityOverall > 0 && result.densityPrunable <= 1);
  }
  assert.match(run.stderr, /units, .* updates; about [\d.]+ [KM]iB on disk/);
  assert.match(run.stderr, /replicate 1, rewind 0, level 2, reinit: 25\.0\d % left, test accuracy/);
  assert.ok(!run.stderr.includes('\u001b'), 'no terminal codes where there is no terminal');
});

test('show prints levels x branches with density, accuracy, early stopping and what matches, by the rule it states', () => {
  const { status, stdout } = lthTrain('show', 'first');
  assert.equal(status, 0);
  const rows = stdout.split('\n').filter((line) => /^ +[012] /.test(line));
  assert.equal(rows.length, 3);
  assert.match(rows[0] ?? '', /100\.00 +100\.00 +\d\d\.\d\d \[\d\d\.\d\d-\d\d\.\d\d\] .* dense$/);
  assert.match(rows[2] ?? '', /^ +2 +25\.0\d +25\.0\d( +\d\d\.\d\d \[\d\d\.\d\d-\d\d\.\d\d\]){3}( +\d+){3}/);
  assert.match(stdout, /matching: mean test accuracy of imp at least/);
  assert.match(stdout, /prunable weights remaining +o imp +x random +\+ reinit/);
});

test('show --json says what run --json said', () => {
  const { status, stdout } = lthTrain('show', 'first', '--json');
  assert.equal(status, 0);
  assert.equal(stdout, run.stdout);
});

test('show --kernels: layers x levels, which products are dense and which sparse; the recipe may say it', () => {
  const { status, stdout } = lthTrain('show', 'first', '--kernels');
  assert.equal(status, 0);
  const [, table = ''] = stdout.split('kernels by level');
  assert.match(table, /level +0 +1 +2\n *prunable % +100\.00 +50\.0\d +25\.0\d\n +fc1 +d-d +d-d/);
  const choose = ['--kernels', 'sparse', '--out', 'sparse'];
  assert.equal(lthTrain('run', recipe, ...choose).status, 0);
  const of = JSON.parse(lthTrain('show', 'sparse', '--kernels', '--json').stdout) as {
    kernels: { level: number; layers: object[] }[];
  };
  assert.deepEqual(
    of.kernels.map(({ level }) => level),
    [0, 1, 2],
  );
  assert.deepEqual(of.kernels[2]?.layers[1], {
    layer: 'fc2',
    forward: 'sparse',
    inputGradient: 'sparse',
    weightGradient: 'dense',
  });
  assert.match(lthTrain('run', recipe, '--kernels', 'none').stderr, /kernels: .*"none"/);
  const oracle = lthTrain('run', recipe, '--kernels', 'sparse', '--set', 'training.executor=autograd');
  assert.deepEqual(
    [oracle.status, /kernels: sparse is not to be had on executor autograd/.test(oracle.stderr)],
    [2, true],
  );
});

test('the mode of a device is refused where there is none, and where there is no such mode', () => {
  const refused = (...args: string[]) => {
    const { status, stderr } = lthTrain('plan', 'quickstart', ...args);
    assert.equal(status, 2);
    return stderr;
  };
  assert.match(
    refused('--device-mode', 'fast'),
    /deviceMode: fast is not to be had on device cpu: deterministic/,
  );
  assert.match(
    refused('--device-mode', 'slow'),
    /deviceMode: .*"deterministic"\|"fast", but received "slow"/,
  );
});

test('the rule of matching also holds for one replicate', () => {
  const one = lthTrain(
    'run',
    recipe,
    '--out',
    'one',
    '--levels',
    '1',
    '--set',
    'pruning.fraction=0.01',
    '--json',
  );
  const { levels } = JSON.parse(one.stdout) as { levels: { level: number; matching: boolean }[] };
  assert.deepEqual(
    levels.map(({ level }) => level),
    [0, 1],
  );
  assert.equal(typeof levels[1]?.matching, 'boolean');
  assert.match(lthTrain('show', 'one').stdout, /^ +1 +99\.0\d +99\.0\d +\d\d\.\d\d +\d\d\.\d\d/m);
});

test('the same command again does nothing; options change what they name', () => {
  const stamps = () => readdirSync(join(folder, 'first', 'units')).sort();
  const before = stamps();
  const again = lthTrain('run', recipe, '--out', 'first', '--replicates', '2', '--json');
  assert.equal(again.stdout, run.stdout);
  assert.match(again.stderr, /units are done already/);
  assert.deepEqual(stamps(), before);
  const set = ['--set', 'controls=[random]', '--set', 'training.optimiser.learningRate=0.002'];
  const options = [
    '--levels',
    '1',
    '--rewind',
    '20it,1ep',
    '--seed',
    '5',
    '--device',
    'cpu',
    '--threads',
    '1',
  ];
  const other = lthTrain(
    'run',
    recipe,
    '--out',
    'other',
    '--json',
    ...options,
    ...set,
    '--set',
    'training.steps=2ep',
  );
  assert.equal(other.status, 0, other.stderr);
  const { results } = JSON.parse(other.stdout) as { results: Result[] };
  assert.deepEqual(
    results.map((r) => `${r.rewind} ${r.level} ${r.branch} ${r.updates}`),
    ['20 0 imp 250', '20 1 imp 230', '20 1 random 230', '125 0 imp 250', '125 1 imp 125', '125 1 random 125'],
  );
  const kept = readFileSync(join(folder, 'other', 'recipe.yaml'), 'utf8');
  assert.match(kept, /seed: 5/);
  assert.match(kept, /learningRate: 0\.002/);
});

test('without --out a run goes to runs/NAME, and a JSON recipe does as well', () => {
  const json = join(folder, 'tiny.json');
  const network = {
    name: 'softmax',
    input: [1, 28, 28],
    classes: 10,
    layers: [
      { name: 'flat', type: 'flatten' },
      { name: 'fc', type: 'linear', units: 10 },
    ],
  };
  const value = {
    name: 'studies/softmax',
    network,
    data: { set: 'mnist-10k', validation: 0 },
    training: {
      steps: '1ep',
      batch: 500,
      optimiser: { type: 'sgd', learningRate: 0.1 },
      evaluateEvery: '1ep',
    },
    pruning: { levels: 1 },
    controls: [],
  };
  writeFileSync(json, JSON.stringify(value));
  const child = lthTrain('run', json);
  assert.equal(child.status, 0, child.stderr);
  assert.ok(existsSync(join(folder, 'runs', 'studies', 'softmax', 'recipe.yaml')));
  assert.match(child.stdout, /studies\/softmax: runs\/studies\/softmax\n/);
});

test('recipes lists the built-in recipes with what they are, and prints one that can be run as it stands', () => {
  const list = lthTrain('recipes');
  assert.equal(list.status, 0);
  assert.match(list.stdout, /^quickstart +LeNet-300-100 on 10,000 real MNIST digits/m);
  const one = lthTrain('recipes', 'quickstart');
  assert.match(one.stdout, /^name: quickstart$/m);
  writeFileSync(join(folder, 'printed.yaml'), one.stdout);
  const short = ['--levels', '0', '--replicates', '1', '--set', 'training.steps=20', '--json'];
  const child = lthTrain('run', 'printed.yaml', '--out', 'printed', ...short);
  assert.equal(child.status, 0, child.stderr);
  assert.equal(JSON.parse(child.stdout).results.length, 1);
});

test('what is asked for wrongly ends with 2, in words with the nearest spelling; nothing is written', () => {
  for (const [args, words] of [
    [['run', 'quikstart'], /There is no recipe "quikstart"\. Did you mean "quickstart"\?/],
    [['run', 'quickstart', '--levles', '3'], /unknown option '--levles'\n\(Did you mean --levels\?\)/],
    [['shwo', 'first'], /unknown command 'shwo'\n\(Did you mean show\?\)/],
    [['run', 'quickstart', '--levels', '1.5'], /Expected a whole number/],
    [
      ['run', 'quickstart', '--set', 'pruning.levles=3'],
      /unknown key "pruning\.levles"\. Did you mean "levels"\?/,
    ],
    [
      ['run', 'quickstart', '--set', 'training.optimiser.momentun=0.9'],
      /Did you mean "momentum"\?|unknown key/,
    ],
    [
      ['run', 'quickstart', '--set', 'pruning.levels=many'],
      /pruning\.levels: expected number, but received "many"/,
    ],
    [['run', 'quickstart', '--set', 'pruning.fraction=1'], /pruning\.fraction: .*<1, but received 1 /],
    [['run', 'quickstart', '--set', 'pruning.fraction=0'], /pruning\.fraction: .*>0, but received 0 /],
    [
      ['run', 'quickstart', '--set', 'pruning.rates.fc4.weight=0.1'],
      /no prunable parameter "fc4\.weight"\. Did you mean/,
    ],
    [['run', 'quickstart', '--rewind', '2000it'], /rewind: expected less than the 2000 updates .* "2000it"/],
    [['run', 'quickstart', '--rewind', '5 epochs'], /expected updates as 500it, 2ep, 2ep50it, 1\.7%/],
    [['run', 'quickstart', '--rewind', '120%'], /120%/],
    [['run', 'quickstart', '--set', 'data.set=mnst'], /There is no data set "mnst"\. Did you mean "mnist"\?/],
    [['run', 'quickstart', '--set', 'network=lenet-x'], /There is no network "lenet-x"/],
    [['run', 'quickstart', '--set', 'data.validation=9000'], /validation/],
    [['run', 'quickstart', '--set', 'name=../out'], /name: expected letters/],
    [['run', 'quickstart', '--threads', '0'], /Expected a whole number/],
  ] as [string[], RegExp][]) {
    const child = lthTrain(...args);
    assert.equal(child.status, 2, `${args.join(' ')}: ${child.stderr}`);
    assert.match(child.stderr, words);
    assert.equal(child.stdout, '', args.join(' '));
  }
  assert.ok(!existsSync(join(folder, 'runs', 'quickstart')));
});

test('what goes wrong in doing it ends with 1 and one line that names the place', () => {
  writeFileSync(join(folder, 'broken.yaml'), 'name: [unclosed');
  for (const [args, words] of [
    [['show', 'nowhere'], /nowhere is no run/],
    [['run', recipe, '--out', '/proc/lth-train'], /\/proc\/lth-train/],
    [['run', recipe, '--out', join(recipe, 'run')], /tiny\.yaml/],
    [
      ['run', recipe, '--out', 'first', '--seed', '9'],
      /first holds another experiment: seed is 1 there, 9 here/,
    ],
    [['run', recipe, '--out', 'x', '--set', 'data.folder=/nowhere'], /\/nowhere/],
  ] as [string[], RegExp][]) {
    const child = lthTrain(...args);
    assert.equal(child.status, 1, `${args.join(' ')}: ${child.stderr}`);
    assert.match(child.stderr, words);
    assert.equal(child.stderr.trim().split('\n').length, 1, child.stderr);
  }
  const broken = lthTrain('run', 'broken.yaml');
  assert.equal(broken.status, 2);
  assert.match(broken.stderr, /broken\.yaml/);
});

test('a reader that leaves early is no failure', async () => {
  const child = spawn(process.execPath, [executable, 'recipes', 'quickstart'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stdout.destroy();
  let stderr = '';
  child.stderr.on('data', (text) => {
    stderr += text;
  });
  const code = await new Promise((resolve) => child.on('close', resolve));
  assert.deepEqual([code, stderr], [0, '']);
});

test('a run that is killed goes on where it was, and gives the bits of one that was not', async () => {
  const args = ['run', recipe, '--out', 'killed', '--replicates', '2'];
  const child = spawn(process.execPath, [executable, ...args], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  await new Promise<void>((resolve) => {
    child.stderr.on('data', (text) => {
      if (/level 1/.test(String(text))) resolve();
    });
  });
  child.kill('SIGKILL');
  await new Promise((resolve) => child.on('close', resolve));
  const finished = readdirSync(join(folder, 'killed', 'units')).filter((id) =>
    existsSync(join(folder, 'killed', 'units', id, 'unit.json')),
  );
  assert.ok(finished.length > 0 && finished.length < readdirSync(join(folder, 'first', 'units')).length);
  const resumed = lthTrain(...args, '--json');
  assert.equal(resumed.status, 0, resumed.stderr);
  const timeless = (json: string) =>
    (JSON.parse(json).results as Result[]).map((result) => ({ ...result, seconds: 0 }));
  assert.deepEqual(timeless(resumed.stdout), timeless(run.stdout));
  for (const id of readdirSync(join(folder, 'first', 'units'))) {
    for (const file of readdirSync(join(folder, 'first', 'units', id))) {
      if (file.startsWith('.') || file === 'unit.json' || file === 'times.arrow') continue;
      const [a, b] = ['first', 'killed'].map((name) => readFileSync(join(folder, name, 'units', id, file)));
      assert.ok(a && b && a.equals(b), `${id}/${file}`);
    }
    assert.ok(!readdirSync(join(folder, 'killed', 'units', id)).some((file) => file.endsWith('.tmp')));
  }
});
