/** Full disks, failing disks, damaged files and company: what is finished is never lost, and the same command goes on. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { makeFolder } from '../lib/files.js';
import { CommandLine } from './helpers/commandLine.js';
import type { Ended } from './helpers/driver.js';
import { type Action, type Call, type CallKind, Faults, withoutFaults } from './helpers/faults.js';
import {
  bitsOf,
  executable,
  finishedBits,
  finishedUnits,
  firstDifference,
  writeRecipe,
} from './helpers/runs.js';

const folder = mkdtempSync(join(realpathSync(tmpdir()), 'lth-damage-'));
const faults = withoutFaults ? undefined : new Faults(folder);
const commands = new CommandLine(faults?.env ?? {});
after(() => {
  commands.end();
  faults?.dispose();
  rmSync(folder, { recursive: true });
});

const recipe = writeRecipe(join(folder, 'faults.yaml'), 60);
/** One unit after another, so that the n-th call is the same one each time: dense to 25, dense, prune, imp, random. */
const small = [
  '--levels',
  '1',
  '--replicates',
  '1',
  '--rewind',
  '25it',
  '--set',
  'controls=[random]',
  '--checkpoint-every',
  '20it',
];
const runArgs = (out: string, threads = 1) => {
  return ['run', recipe, '--out', out, '--threads', String(threads), ...small];
};
const run = (out: string, threads = 1) => commands.run(...runArgs(out, threads));

const whole = join(folder, 'whole');
const first = await run(whole);
assert.equal(first.code, 0, first.err);
const expected = bitsOf(whole);
const calls = faults?.calls() ?? [];

const nameOf = (path: string) => basename(path).replace(/\.\d+\.\d+\.tmp$/, '');

/** `at` most of these calls: one of each kind on each kind of file, each time in another unit. */
function sample(kinds: readonly CallKind[], at: number): { kind: CallKind; nth: number }[] {
  const classes = new Map<string, { kind: CallKind; nth: number }[]>();
  const counts = new Map<CallKind, number>();
  for (const call of calls) {
    const nth = (counts.get(call.kind) ?? 0) + 1;
    counts.set(call.kind, nth);
    if (!kinds.includes(call.kind)) continue;
    const what = /^r\d+-/.test(nameOf(call.path)) ? 'unit' : nameOf(call.path);
    const key = `${call.kind} ${what}`;
    classes.set(key, [...(classes.get(key) ?? []), { kind: call.kind, nth }]);
  }
  const each = [...classes.values()].map((points, i) => points[i % points.length]);
  const stride = Math.max(1, each.length / at);
  return Array.from({ length: Math.min(at, each.length) }, (_, i) => each[Math.floor(i * stride)]).filter(
    (point) => point !== undefined,
  );
}

/** Exit code 1, and besides progress one line that gives place and reason; no stack. */
function assertOneLine(ended: Ended, hit: Call, reason: RegExp, words: string): void {
  assert.equal(ended.code, 1, `${words}: ${ended.err}`);
  const lines = ended.err
    .trim()
    .split('\n')
    .filter((line) => !/^(\d+ units, |replicate \d)/.test(line));
  assert.equal(lines.length, 1, `${words}: ${ended.err}`);
  assert.match(lines[0] ?? '', /^lth-train: /, words);
  assert.match(lines[0] ?? '', reason, words);
  // A folder that cannot be made is named by the one that it would have been in.
  const place = hit.kind === 'mkdir' ? dirname(hit.path) : hit.path.replace(/\.\d+\.\d+\.tmp$/, '');
  assert.ok(lines[0]?.includes(place), `${words}: ${lines[0]} does not name ${place}`);
}

/** A run that is hit, what it leaves, and the same command after it. */
async function hitAndGoOn(
  point: { kind: CallKind; nth: number },
  fault: { action: Action; times: number; kinds: readonly CallKind[] },
  reason: RegExp,
  threads = 1,
): Promise<void> {
  const out = join(folder, 'hit');
  rmSync(out, { recursive: true, force: true });
  // From the n-th call of its kind on: the number among all calls that the fault is for.
  const among = calls.filter((call) => fault.kinds.includes(call.kind));
  const ours = among.filter((call) => call.kind === point.kind)[point.nth - 1] as Call;
  faults?.order({
    at: among.indexOf(ours) + 1,
    action: fault.action,
    kinds: fault.kinds,
    times: fault.times,
  });
  const ended = await run(out, threads);
  const hit = faults?.calls().find((call) => call.hit);
  faults?.order();
  const words = `${fault.action}, ${fault.times === 1 ? 'once' : 'from then on'}, at ${point.kind} ${nameOf(ours.path)} (${point.nth})`;
  assert.ok(hit, `${words}: was not reached`);
  assertOneLine(ended, hit, reason, words);
  const ids = finishedUnits(out);
  const kept = bitsIfThere(out);
  assert.equal(
    firstDifference(finishedBits(expected, ids), finishedBits(kept, ids)),
    null,
    `${words}: what was finished`,
  );
  const again = await run(out, threads);
  assert.equal(again.code, 0, `${words}: ${again.err}`);
  assert.equal(firstDifference(expected, bitsOf(out)), null, words);
}

function bitsIfThere(out: string): Map<string, string> {
  if (!existsSync(out)) return new Map();
  // Checkpoints go after the unit is finished: one that is left is removed by the next command.
  return new Map([...bitsOf(out)].filter(([file]) => !/\/(checkpoint|interval)-/.test(file)));
}

const growing = ['create', 'mkdir', 'write', 'sync', 'close'] as const;
const all = [...growing, 'rename', 'unlink'] as const;
const forever = 2 ** 40;

test('the fault points are there: every kind of call on every kind of file', { skip: withoutFaults }, () => {
  const seen = new Set(calls.map((call) => `${call.kind} ${nameOf(call.path)}`));
  for (const file of ['recipe.yaml', 'experiment.json', 'unit.json', 'snapshot.safetensors']) {
    for (const kind of ['create', 'write', 'sync', 'close', 'rename']) {
      assert.ok(seen.has(`${kind} ${file}`), `${kind} ${file}`);
    }
  }
  assert.ok(
    calls.some((call) => call.kind === 'sync' && call.path === whole),
    'the folder itself',
  );
});

test('a full disk: one line that says where and why; nothing is lost; the same command goes on', {
  skip: withoutFaults,
}, async () => {
  const points = sample(growing, 25);
  assert.ok(points.length >= 20, String(points.length));
  for (const [i, point] of points.entries()) {
    const times = i % 2 === 0 ? 1 : forever;
    await hitAndGoOn(point, { action: 'ENOSPC', times, kinds: growing }, /no space left on device/i);
  }
});

test('a full quota is told where the file system tells it, at close too', {
  skip: withoutFaults,
}, async () => {
  for (const point of sample(['close'], 2)) {
    await hitAndGoOn(point, { action: 'EDQUOT', times: 1, kinds: growing }, /disk quota exceeded/i);
  }
});

test('a disk that fails to sync a file or a folder', { skip: withoutFaults }, async () => {
  for (const [i, point] of sample(['sync'], 6).entries()) {
    const times = i % 2 === 0 ? 1 : forever;
    await hitAndGoOn(point, { action: 'EIO', times, kinds: ['sync'] }, /input\/output error|i\/o error/i);
  }
});

test('a rename that fails', { skip: withoutFaults }, async () => {
  for (const point of sample(['rename'], 3)) {
    await hitAndGoOn(
      point,
      { action: 'EIO', times: 1, kinds: ['rename'] },
      /input\/output error|i\/o error/i,
    );
  }
});

test('a folder that becomes read-only in the middle: not even temporary files can be removed then', {
  skip: withoutFaults,
}, async () => {
  for (const point of sample(all, 7)) {
    const reason = /file system is read-only|read-only file system/i;
    await hitAndGoOn(point, { action: 'EROFS', times: forever, kinds: all }, reason);
  }
});

test('several units at once on a full disk: still one line', { skip: withoutFaults }, async () => {
  for (const point of sample(['write'], 2)) {
    await hitAndGoOn(
      point,
      { action: 'ENOSPC', times: forever, kinds: growing },
      /no space left on device/i,
      2,
    );
  }
});

test('temporary files at the top of a run folder go too', async () => {
  const out = join(folder, 'leftovers');
  cpSync(whole, out, { recursive: true });
  for (const name of ['recipe.yaml', 'experiment.json']) writeFileSync(join(out, `${name}.1.2.tmp`), 'half');
  assert.equal((await run(out)).code, 0);
  assert.equal(firstDifference(expected, bitsOf(out)), null);
});

test('temporary files that a command cannot remove stop it in words', { skip: withoutFaults }, async () => {
  const out = join(folder, 'unremovable');
  cpSync(whole, out, { recursive: true });
  const id = finishedUnits(out).find((unit) => unit.includes('-random-')) as string;
  rmSync(join(out, 'units', id, 'unit.json'));
  writeFileSync(join(out, 'units', id, 'unit.json.1.2.tmp'), 'half');
  faults?.order({ at: 1, action: 'EROFS', kinds: ['unlink'], times: forever });
  const ended = await run(out);
  const hit = faults?.calls().find((call) => call.hit) as Call;
  faults?.order();
  assertOneLine(ended, hit, /read-only/i, 'unlink');
  assert.equal((await run(out)).code, 0);
  assert.equal(firstDifference(expected, bitsOf(out)), null);
});

test('a file that cannot be read is named, with the reason', { skip: withoutFaults }, async () => {
  for (const [unit, name] of [
    [/l01-imp/, 'unit.json'],
    [/l01-imp/, 'snapshot.safetensors'],
    [/l01-prune/, 'masks.safetensors'],
  ] as const) {
    const path = join('units', finishedUnits(whole).find((one) => unit.test(one)) as string, name);
    const out = join(folder, 'unreadable');
    rmSync(out, { recursive: true, force: true });
    cpSync(whole, out, { recursive: true });
    // A first run that fails at no read tells which read is the first of this file.
    faults?.order({ at: forever, action: 'EIO', kinds: ['read'] });
    await commands.run(...runArgs(out), '--levels', '2');
    const reads = faults?.calls().filter((call) => call.kind === 'read') ?? [];
    const at = 1 + reads.findIndex((call) => call.path === join(out, path));
    rmSync(out, { recursive: true });
    cpSync(whole, out, { recursive: true });
    faults?.order({ at, action: 'EIO', kinds: ['read'] });
    const ended = await commands.run(...runArgs(out), '--levels', '2');
    const hit = faults?.calls().find((call) => call.hit) as Call;
    faults?.order();
    assert.equal(hit.path, join(out, path));
    assertOneLine(ended, hit, /input\/output error|i\/o error|EIO/i, path);
  }
});

test('writes that take only a part are gone on with', { skip: withoutFaults }, async () => {
  const out = join(folder, 'short');
  faults?.order({ at: 1, action: 'short write', kinds: ['write'], times: forever });
  const ended = await run(out);
  const hits = faults?.calls().filter((call) => call.hit).length ?? 0;
  faults?.order();
  assert.equal(ended.code, 0, ended.err);
  assert.ok(hits > 500, String(hits));
  assert.equal(firstDifference(expected, bitsOf(out)), null);
});

/** A mount of this test's own, or why there is none. */
function mounted(target: string, ...args: string[]): string | false {
  mkdirSync(target, { recursive: true });
  const { status, stderr, error } = spawnSync('mount', [...args, target], { encoding: 'utf8' });
  return status === 0 ? false : `mount is not permitted here: ${(error?.message ?? stderr).trim()}`;
}

test('a file system that is really full', async (t) => {
  const small = join(folder, 'small');
  const refused = mounted(small, '-t', 'tmpfs', '-o', 'size=8k', 'lth-faults');
  if (refused) return t.skip(refused);
  const out = join(small, 'run');
  try {
    const seen: number[] = [];
    for (const size of ['8k', '300k', '520k']) {
      assert.equal(spawnSync('mount', ['-o', `remount,size=${size}`, small]).status, 0);
      const { code, err } = await run(out, 2);
      assert.equal(code, 1, `${size}: ${err}`);
      assert.match(err, /^lth-train: .*\/small\/run.*no space left on device.*$/im, size);
      assert.equal(err.match(/^lth-train: /gm)?.length, 1, err);
      const ids = finishedUnits(out);
      seen.push(ids.length);
      assert.equal(
        firstDifference(finishedBits(expected, ids), finishedBits(bitsIfThere(out), ids)),
        null,
        size,
      );
      assert.ok(![...bitsOf(out).keys()].some((file) => file.endsWith('.tmp')), size);
    }
    assert.ok((seen[0] ?? 0) < (seen.at(-1) ?? 0), `more room, more units: ${seen}`);
    assert.equal(spawnSync('mount', ['-o', 'remount,size=64m', small]).status, 0);
    assert.equal((await run(out)).code, 0);
    assert.equal(firstDifference(expected, bitsOf(out)), null);
  } finally {
    spawnSync('umount', [small]);
  }
});

test('a read-only file system: refused in one line, and still shown', async (t) => {
  const place = join(folder, 'read-only');
  const out = join(place, 'run');
  const source = join(folder, 'read-only-source');
  mkdirSync(source);
  cpSync(whole, join(source, 'run'), { recursive: true });
  const refused = mounted(place, '--bind', source);
  if (refused) return t.skip(refused);
  try {
    if (spawnSync('mount', ['-o', 'remount,ro,bind', place]).status !== 0) {
      return t.skip('a read-only bind mount is not permitted here');
    }
    const ended = await commands.run(...runArgs(out), '--levels', '2');
    assert.equal(ended.code, 1, ended.err);
    assert.match(ended.err, /^lth-train: .*\/read-only\/run.*read-only[^\n]*\n$/i);
    const shown = await commands.run('show', out);
    assert.equal(shown.code, 0, shown.err);
    assert.equal(firstDifference(expected, bitsOf(out)), null);
  } finally {
    spawnSync('umount', [place]);
  }
});

/** A finished run with one bit of one file flipped: in the middle, or where a text has `around`. */
function damaged(unit: RegExp | null, name: string, around?: string): { out: string; path: string } {
  const out = join(folder, 'damaged');
  rmSync(out, { recursive: true, force: true });
  cpSync(whole, out, { recursive: true });
  const id = unit && finishedUnits(out).find((one) => unit.test(one));
  const path = unit ? join(out, 'units', id as string, name) : join(out, name);
  const bytes = readFileSync(path);
  const at = around ? bytes.indexOf(around) + around.length : Math.floor(bytes.length / 2);
  bytes[at] = (bytes[at] as number) ^ 1;
  writeFileSync(path, bytes);
  return { out, path };
}

const more = ['--rewind', '20it,25it,30it', '--levels', '2'];

for (const [what, unit, name] of [
  ['a snapshot at a rewind point', /dense-25it/, 'snapshot.safetensors'],
  ['the snapshot that the next level prunes', /l01-imp/, 'snapshot.safetensors'],
  ['masks that the next level prunes', /l01-prune/, 'masks.safetensors'],
  ['metrics that the rest of the dense run goes on from', /dense-25it/, 'metrics.arrow'],
] as [string, RegExp, string][]) {
  test(`a flipped bit in ${what} is named before it is used`, async () => {
    const { out, path } = damaged(unit, name);
    // As if the run had been killed before: otherwise all that reads the metrics is done.
    const end = finishedUnits(out).find((id) => /dense-60it/.test(id)) as string;
    if (name === 'metrics.arrow') rmSync(join(out, 'units', end, 'unit.json'));
    const { code, err } = await commands.run(...runArgs(out), ...more);
    assert.equal(code, 1, err);
    const lines = err.split('\n').filter((line) => / failed: /.test(line));
    assert.ok(lines.length > 0 && lines.every((line) => line.includes(`${path}: its SHA-256 is `)), err);
    // The rest went on, and what is put aside is made again.
    assert.equal((await commands.run('verify', '--repair', out)).code, 1);
    assert.equal((await commands.run(...runArgs(out), ...more)).code, 0);
    assert.equal((await commands.run('verify', out)).code, 0);
  });
}

test('a flipped bit that makes JSON unreadable is named, by run and by show', async () => {
  for (const [unit, name] of [
    [/l01-imp/, 'unit.json'],
    [null, 'experiment.json'],
  ] as const) {
    const { out, path } = damaged(unit, name, '{\n  ');
    for (const argv of [
      [...runArgs(out), ...more],
      ['show', out],
    ]) {
      const ended = await commands.run(...argv);
      // One damaged unit does not keep show from the others.
      const expectedCode = argv[0] === 'show' && unit ? 0 : 1;
      assert.equal(ended.code, expectedCode, `${argv[0]} ${name}: ${ended.err}`);
      assert.ok(`${ended.out}${ended.err}`.includes(path), ended.err);
    }
  }
});

test('a flipped bit in the figures of experiment.json or requests.json is named, with what helps', async () => {
  for (const figure of ['"batch": ', '"seed": ', '"updatesPerEpoch": ', '"digest": "']) {
    const name = figure === '"seed": ' ? 'requests.json' : 'experiment.json';
    const { out, path } = damaged(null, name, figure);
    const { code, err } = await commands.run(...runArgs(out));
    assert.equal(code, 1, figure);
    assert.match(err, /damaged\/\w+\.json: .* Remove it and give the same `lth-train run` again/, figure);
    rmSync(path);
    assert.equal((await commands.run(...runArgs(out))).code, 0);
    assert.equal(firstDifference(expected, bitsOf(out)), null);
  }
});

test('a flipped bit in recipe.yaml: the next run writes it anew, from what it was asked for', async () => {
  const { out } = damaged(null, 'recipe.yaml', '\nseed: ');
  assert.equal((await run(out)).code, 0);
  assert.equal(firstDifference(expected, bitsOf(out)), null);
});

test('a flipped bit in the results of unit.json is named, by run and by show', async () => {
  const { out, path } = damaged(/l01-imp/, 'unit.json', '"testAccuracy": 0.');
  for (const argv of [runArgs(out), ['show', out]]) {
    const { code, err, out: told } = await commands.run(...argv);
    // show shows the rest, and says what it left out.
    assert.equal(code, argv[0] === 'show' ? 0 : 1, `${argv[0]} used it`);
    assert.ok(`${told}${err}`.includes(path), err);
  }
});

test('a folder is made by many at once, whoever makes the ones above it', async () => {
  for (let round = 0; round < 50; round++) {
    const path = join(folder, 'made', String(round), 'a', 'b');
    await Promise.all(Array.from({ length: 8 }, () => makeFolder(path)));
    assert.ok(existsSync(path));
  }
  // In a process of its own: where it never ended, nothing here could stop it.
  const nowhere = `await (await import('${new URL('../lib/files.js', import.meta.url)}')).makeFolder('/proc/lth/a')`;
  const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', nowhere], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  assert.equal(status, 1);
  assert.match(stderr, /ENOENT/);
});

test('two commands on one folder, as two processes, share the work and give the same bits', async () => {
  const out = join(folder, 'two');
  const ends = [0, 1].map(
    () =>
      new Promise<{ code: number | null; err: string }>((resolve) => {
        const child = spawn(process.execPath, [executable, ...runArgs(out)], {
          stdio: ['ignore', 'ignore', 'pipe'],
        });
        let err = '';
        child.stderr.on('data', (text) => {
          err += text;
        });
        child.on('close', (code) => resolve({ code, err }));
      }),
  );
  for (const { code, err } of await Promise.all(ends)) assert.equal(code, 0, err);
  assert.equal(firstDifference(expected, bitsOf(out)), null);
});
