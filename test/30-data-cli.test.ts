/** `lth-train data`: where data sets are found, and the commands as their users start them. No server but on loopback. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';
import { datasetFolder, datasetPlaces, datasetSource } from '../lib/data/catalogue.js';
import type { Fetched } from '../lib/data/fetch.js';
import { cacheFolder } from '../lib/data/folders.js';
import type { PlainFile } from '../lib/data/sources.js';
import { LthError } from '../lib/native/errors.js';
import { packageRoot } from '../lib/package.js';
import { Dataset } from '../lib/session/Dataset.js';
import { honest, type Mirror, mirror, stallAfter, status } from './helpers/mirror.js';
import './helpers/builtinTuning.js';

const root = mkdtempSync(join(tmpdir(), 'lth-data-cli-'));
const mirrors: Mirror[] = [];
after(async () => {
  rmSync(root, { recursive: true });
  await Promise.all(mirrors.map((one) => one.close()));
});
delete process.env.LTH_DATA;
process.env.LTH_CACHE = join(root, 'cache');

/** Not spawnSync: the server it talks to is in this process. */
function start(...args: string[]) {
  const executable = join(packageRoot, 'bin', 'lth-train.js');
  const child = spawn(process.execPath, [executable, ...args], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].on('data', (text) => {
      output[name] += text;
    });
  }
  const end = new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) =>
    child.on('close', (code) => resolve({ code, ...output })),
  );
  return { child, end };
}
const lthTrain = (...args: string[]) => start(...args).end;

async function serve(...args: Parameters<typeof mirror>): Promise<Mirror> {
  const one = await mirror(...args);
  mirrors.push(one);
  return one;
}

const original = [process.env.LTH_TEST_DATA, join(packageRoot, '..', 'shared', 'data')]
  .flatMap((folder) => (folder ? [join(folder, 'mnist')] : []))
  .find((folder) => existsSync(folder));
const withoutMnist = original ? false : 'no MNIST in ../shared/data or LTH_TEST_DATA';

test('a data set is looked for in LTH_DATA, then in the cache; without it the error says what to do', () => {
  const [own, cached] = [join(root, 'own', 'mnist'), join(root, 'cache', 'data', 'mnist')];
  assert.throws(
    () => datasetFolder('mnist', null),
    (error) =>
      error instanceof LthError &&
      error.code === 'io' &&
      ['lth-train data fetch mnist', 'data.folder', 'LTH_DATA', cached].every((word) =>
        error.message.includes(word),
      ),
  );
  mkdirSync(cached, { recursive: true });
  assert.equal(datasetFolder('mnist', null), cached);
  process.env.LTH_DATA = join(root, 'own');
  try {
    assert.equal(datasetFolder('mnist', null), cached, 'LTH_DATA has no mnist');
    mkdirSync(own, { recursive: true });
    assert.equal(datasetFolder('mnist', null), own);
    assert.equal(datasetFolder('mnist', 'elsewhere'), 'elsewhere');
    assert.match(datasetFolder('mnist-10k', null), /mnist-10k$/);
  } finally {
    delete process.env.LTH_DATA;
    for (const made of ['own', 'cache']) rmSync(join(root, made), { recursive: true });
  }
});

test('the cache is where the install step keeps LibTorch', async () => {
  const script = (await import(join(packageRoot, 'scripts', 'libtorch.mjs'))) as { cacheFolder(): string };
  const { LTH_CACHE, XDG_CACHE_HOME } = process.env;
  const check = (path: string) => {
    assert.equal(cacheFolder(), path);
    assert.equal(script.cacheFolder(), path);
  };
  try {
    check(join(root, 'cache'));
    delete process.env.LTH_CACHE;
    process.env.XDG_CACHE_HOME = join(root, 'xdg');
    check(join(root, 'xdg', 'lth-train'));
    delete process.env.XDG_CACHE_HOME;
    check(join(homedir(), '.cache', 'lth-train'));
  } finally {
    process.env.LTH_CACHE = LTH_CACHE;
    if (XDG_CACHE_HOME !== undefined) process.env.XDG_CACHE_HOME = XDG_CACHE_HOME;
  }
});

test('data list tells where each data set is or how to get it', async () => {
  const { code, stdout } = await lthTrain('data', 'list');
  assert.equal(code, 0);
  assert.match(stdout, /^mnist-10k: 10,000 real MNIST digits.*\n {2}\/.*mnist-10k$/m);
  assert.match(stdout, /^fashion-mnist: .*\n {2}not here: run `lth-train data fetch fashion-mnist`$/m);
  assert.match(stdout, /^imagenet: .*\n {2}not here: .*image-net\.org.*data\.folder/m);
  const fetched = await lthTrain('data', 'fetch', 'imagenet');
  assert.equal(fetched.code, 2);
  assert.match(fetched.stderr, /image-net\.org/);
  const json = await lthTrain('data', 'list', '--json');
  assert.deepEqual(JSON.parse(json.stdout), datasetPlaces());
  assert.deepEqual(
    datasetPlaces().map(({ set, folder }) => [set, folder !== null]),
    [
      ['mnist-10k', true],
      ['mnist', false],
      ['fashion-mnist', false],
      ['cifar-10', false],
      ['cifar-100', false],
      ['imagenet', false],
    ],
  );
});

test('what is asked for wrongly ends with 2, and nothing is fetched', async () => {
  for (const [args, words] of [
    [['mnits'], /There is no data set "mnits"\. Did you mean "mnist"\?/],
    [['toString'], /There is no data set "toString"/],
    [['mnist-10k'], /mnist-10k comes with the package/],
    [[], /missing required argument 'set'/],
    [['mnist', '--form', 'x'], /Did you mean --from\?/],
    [['mnist', '--from', 'x', '--mirror', 'http://127.0.0.1/'], /cannot be used with/],
    [['mnist', '--mirror', 'ftp://127.0.0.1/'], /Expected an http\(s\) URL/],
    [['mnist', '--to', ''], /Expected a folder for --to/],
  ] as [string[], RegExp][]) {
    const { code, stdout, stderr } = await lthTrain('data', 'fetch', ...args);
    assert.deepEqual([code, stdout], [2, ''], `${args.join(' ')}: ${stderr}`);
    assert.match(stderr, words);
  }
  assert.ok(!existsSync(join(root, 'cache')));
});

test('what goes wrong in doing it ends with 1, in words that name the place', async () => {
  const server = await serve({}, status(404));
  for (const [args, words] of [
    [['--mirror', server.url], `${server.url}train-images-idx3-ubyte.gz: HTTP 404`],
    [['--from', join(root, 'nowhere')], `${join(root, 'nowhere')} holds neither`],
    [['--from', root, '--to', '/proc/lth-train'], '/proc/lth-train'],
  ] as [string[], string][]) {
    const { code, stdout, stderr } = await lthTrain('data', 'fetch', 'mnist', ...args);
    assert.deepEqual([code, stdout], [1, ''], stderr);
    assert.ok(stderr.includes(words), stderr);
  }
});

test('a fetch that is interrupted leaves what it has for the next one', async () => {
  const bytes = Buffer.alloc(100_000, 7);
  const server = await serve({ 'train-images-idx3-ubyte.gz': bytes }, stallAfter(60_000));
  const folder = join(root, 'interrupted');
  const part = join(folder, 'train-images-idx3-ubyte.gz.part');
  const { child, end } = start('data', 'fetch', 'mnist', '--mirror', server.url, '--to', folder);
  while (child.exitCode === null && statSync(part, { throwIfNoEntry: false })?.size !== 60_000)
    await sleep(20);
  child.kill('SIGINT');
  const { code, stdout } = await end;
  assert.deepEqual([code, stdout], [130, '']);
  assert.deepEqual(readFileSync(part), bytes.subarray(0, 60_000));
});

test('the real MNIST: fetched, opened by its name, copied, and all of it the same', {
  skip: withoutMnist,
}, async () => {
  const from = original as string;
  const wanted = datasetSource('mnist').files as PlainFile[];
  const names = wanted.map(({ name }) => `${name}.gz`);
  const files = Object.fromEntries(names.map((name) => [name, readFileSync(join(from, name))]));
  const server = await serve(files, honest);
  const fetched = await lthTrain('data', 'fetch', 'mnist', '--mirror', server.url);
  const folder = join(root, 'cache', 'data', 'mnist');
  assert.deepEqual([fetched.code, fetched.stdout], [0, `${folder}\n`], fetched.stderr);
  assert.match(fetched.stderr, /^t10k-labels-idx1-ubyte\.gz: fetched, 4542 bytes$/m);
  assert.ok(!fetched.stderr.includes('\u001b'), 'no terminal codes where there is no terminal');
  for (const name of names) assert.deepEqual(readFileSync(join(folder, name)), files[name]);

  const again = await lthTrain('data', 'fetch', 'mnist', '--mirror', server.url, '--json');
  const { files: there, ...where } = JSON.parse(again.stdout) as Fetched;
  assert.deepEqual(where, { set: 'mnist', folder });
  assert.deepEqual(
    there,
    names.map((name) => ({ name, bytes: files[name]?.length, state: 'there' })),
  );
  assert.equal(server.asked.length, 4);

  const { train, test: tests } = await Dataset.open('mnist');
  assert.deepEqual([train.info.count, tests.info.count], [60_000, 10_000]);
  const copy = join(root, 'copy');
  const copied = await lthTrain('data', 'fetch', 'mnist', '--from', folder, '--to', copy, '--json');
  assert.deepEqual(
    (JSON.parse(copied.stdout) as Fetched).files.map(({ state }) => state),
    ['copied', 'copied', 'copied', 'copied'],
  );
  assert.deepEqual(readdirSync(copy).sort(), ['.lock', ...names].sort());
  assert.equal(gunzipSync(files[names[0] as string] as Buffer).length, wanted[0]?.bytes);
  rmSync(join(root, 'cache'), { recursive: true });
});
