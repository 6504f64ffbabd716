/** Pictures packed into shards: what is in them, the same bytes whatever happens meanwhile, and trainings on them. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { tableFromIPC } from 'apache-arrow';
import type { LoaderResult } from '../bench/loader.js';
import { type PackEvent, type PackOptions, packPictures } from '../lib/data/pack.js';
import { digestOf, readManifest, readShard } from '../lib/data/shards.js';
import { verifyShards } from '../lib/data/verifyShards.js';
import { writeRecord } from '../lib/files.js';
import { LthError } from '../lib/native/errors.js';
import { loadAddon } from '../lib/native/load.js';
import { packageRoot } from '../lib/package.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Dataset } from '../lib/session/Dataset.js';
import { type BatchesOptions, type PictureBatch, Pictures } from '../lib/session/Pictures.js';
import { Session } from '../lib/session/Session.js';
import { differences } from './helpers/digits.js';
import { Faults, withoutFaults } from './helpers/faults.js';
import { png, sample, withoutSample, writeFiles } from './helpers/pictures.js';
import { ask, without } from './helpers/python.js';

const folder = mkdtempSync(join(realpathSync(tmpdir()), 'lth-shards-'));
after(() => rmSync(folder, { recursive: true }));

const { jpeg } = loadAddon().info();
const skip: string | false = jpeg.built ? false : jpeg.reason;
const executable = join(packageRoot, 'bin', 'lth-train.js');

let made = 0;
const fresh = (name: string) => join(folder, `${name}-${made++}`);

/** 60 pictures for training and 12 to test with, in three classes; two of them cannot be decoded. */
const originals = join(folder, 'originals');
const broken = ['class-1/p04.png', 'class-2/p05.png'];
const noPictures: Record<string, Buffer | string> = {
  'class-1/p04.png': png(40, 50, 4).subarray(0, 90),
  'class-2/p05.png': '',
};
writeFiles(
  originals,
  Object.fromEntries(
    [60, 12].flatMap((n, part) =>
      Array.from({ length: n }, (_, i) => {
        const name = `class-${i % 3}/p${String(i).padStart(2, '0')}.png`;
        const bytes = (part === 0 ? noPictures[name] : undefined) ?? png(30 + i, 90 - i, i + 60 * part);
        return [`${part === 0 ? 'train' : 'val'}/${name}`, bytes];
      }),
    ),
  ),
);
/** Some ten shards. */
const small = { shortSide: 24, shardSize: 3000 };

async function packed(out: string, options: PackOptions = small, from = originals) {
  const events: PackEvent[] = [];
  const result = await packPictures(from, out, { ...options, onEvent: (event) => events.push(event) });
  return { result, events };
}

/** Every file below a folder but locks, by name. */
function filesOf(root: string): Map<string, Buffer> {
  const names = readdirSync(root, { recursive: true, encoding: 'utf8' }).sort();
  return new Map(
    names
      .filter((name) => !name.endsWith('.lock') && statSync(join(root, name)).isFile())
      .map((name) => [name, readFileSync(join(root, name))]),
  );
}

function lthTrain(args: string[], env: Record<string, string> = {}) {
  return spawnSync(process.execPath, [executable, ...args], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
}
const packArgs = (out: string) => [
  ...['data', 'pack', originals, '--out', out],
  ...['--short-side', '24', '--shard-size', '3000'],
];

async function collect(set: Pictures, options: BatchesOptions): Promise<PictureBatch[]> {
  const all: PictureBatch[] = [];
  for await (const batch of set.batches(options)) all.push(batch);
  return all;
}

/** What all comparisons are with. */
const whole = join(folder, 'whole');
const first = skip ? undefined : await packed(whole);
const expected = skip ? new Map<string, Buffer>() : filesOf(whole);

const refused = (work: Promise<unknown>, code: string, ...parts: RegExp[]) =>
  assert.rejects(work, (error: Error) => {
    assert.ok(error instanceof LthError && error.code === code, String(error));
    for (const part of parts) assert.match(error.message, part);
    return true;
  });

// ------------------------------------------------------------------------------------------------- packing

test('a folder becomes shards of both parts, with its rows, classes and labels, in its order', {
  skip,
}, async () => {
  assert.ok(first);
  assert.deepEqual(
    first.result.parts.map(({ part, pictures, broken, state }) => [part, pictures, broken, state]),
    [
      ['train', 60, 2, 'packed'],
      ['val', 12, 0, 'packed'],
    ],
  );
  assert.ok((first.result.parts[0]?.shards ?? 0) > 5);
  const before = await Pictures.openParts(originals);
  const after = await Pictures.openParts(whole);
  for (const part of ['train', 'validation'] as const) {
    const [from, to] = [before[part], after[part]];
    assert.deepEqual(to.classes, from.classes);
    assert.deepEqual(to.labels, from.labels);
    assert.deepEqual(
      Array.from({ length: to.count }, (_, row) => to.name(row)),
      Array.from({ length: from.count }, (_, row) => from.name(row)),
    );
    assert.notEqual(to.digest, from.digest);
  }
  assert.equal(after.train.digest, first.result.parts[0]?.digest);
  assert.match(after.train.path(59), /train\/shard-\d{5}\.arrow: class-2\/p59\.png$/);
  const manifest = await readManifest(join(whole, 'train'));
  for (const { file, bytes } of manifest.shards)
    assert.equal(statSync(join(whole, 'train', file)).size, bytes);
});

test('a picture that cannot be decoded is told, listed, and keeps its row and bytes, so that readers replace it', {
  skip,
}, async () => {
  const told = first?.events.filter((event) => event.type === 'broken') ?? [];
  assert.deepEqual(
    told.map(({ path }) => path).sort(),
    broken.map((name) => join(originals, 'train', name)),
  );
  const { shards } = await readManifest(join(whole, 'train'));
  const listed = shards.flatMap((shard) => shard.broken);
  assert.deepEqual(listed.map(({ name }) => name).sort(), broken);
  for (const { name, why } of listed) assert.ok(why.includes(name) && !why.includes(folder), why);
  const { train } = await Pictures.openParts(whole);
  const batches = await collect(train, {
    crop: { kind: 'centre', size: 16, resize: 16 },
    batch: 60,
    shuffle: false,
  });
  const failures = batches.flatMap((batch) => batch.failures);
  assert.deepEqual(failures.map(({ row }) => train.name(row)).sort(), broken);
  for (const { path, taken, row } of failures) {
    assert.equal(path, train.path(row));
    assert.notEqual(taken, row);
  }
});

test('of a file that is too large for any reader the row is empty, listed with its size; folder and shards tell of it alike', {
  skip,
}, async () => {
  const from = fresh('large');
  writeFiles(from, { 'a/1.png': png(20, 30, 1), 'a/2.JPEG': '', 'b/3.png': png(20, 30, 3) });
  truncateSync(join(from, 'a/2.JPEG'), 256 * 2 ** 20 + 1);
  for (const options of [small, {}]) {
    const out = fresh('large-shards');
    const { events } = await packed(out, options, from);
    const [told] = events.filter((event) => event.type === 'broken');
    assert.equal(told?.kept, false);
    assert.match(told?.why ?? '', /2\.JPEG: has 268435457 bytes, expected at most 268435456/);
    const { shards } = await readManifest(out);
    assert.deepEqual(
      shards.flatMap(({ broken }) => broken.map(({ name, why }) => [name, /has 268435457 bytes/.test(why)])),
      [['a/2.JPEG', true]],
    );
    assert.ok(shards.reduce((sum, { bytes }) => sum + bytes, 0) < 20_000);
    for (const root of [from, out]) {
      const set = await Pictures.open(root);
      const [batch] = await collect(set, {
        crop: { kind: 'centre', size: 16, resize: 16 },
        batch: 3,
        shuffle: false,
      });
      assert.deepEqual(
        batch?.failures.map(({ row, taken, path }) => [row, taken, path]),
        [[1, 2, set.path(1)]],
      );
    }
  }
});

test('pyarrow opens shards; pictures in them are JPEGs of at most that short side, in shape, grey or RGB as they were', {
  skip: skip || without('pyarrow, PIL') || withoutSample,
}, async () => {
  const from = fresh('odd');
  const odd = join(sample, 'oddities-derived');
  const names = readdirSync(odd).sort();
  for (const [i, name] of names.entries()) {
    mkdirSync(join(from, `class-${i % 2}`), { recursive: true });
    cpSync(join(odd, name), join(from, `class-${i % 2}`, name));
  }
  writeFiles(from, { 'class-1/small.png': png(20, 31, 1), "class-1/it's a ä.png": png(80, 200, 2) });
  const out = fresh('shards');
  const { result } = await packed(out, { shortSide: 48 }, from);
  assert.equal(result.parts.length, 1);
  const pictures = await Pictures.open(from);
  interface Answer {
    columns: [string, string][];
    metadata: Record<string, string>;
    labels: number[];
    names: string[];
    pictures: {
      bytes: number;
      mode?: string;
      format?: string;
      size?: [number, number];
      orientation?: number;
    }[];
  }
  const [answer] = ask<Answer[]>('shards.py', { shards: [join(out, 'shard-00000.arrow')] });
  assert.ok(answer);
  assert.deepEqual(answer.columns, [
    ['image', 'binary'],
    ['label', 'int32'],
    ['name', 'string'],
  ]);
  assert.deepEqual(answer.labels, [...pictures.labels]);
  const rows = Array.from({ length: pictures.count }, (_, row) => pictures.name(row));
  assert.deepEqual(answer.names, rows);
  const { metadata } = answer;
  assert.deepEqual(JSON.parse(metadata.classes ?? ''), ['class-0', 'class-1']);
  assert.equal(metadata.shortSide, '48');
  assert.equal(metadata.quality, '90');
  assert.equal(metadata.digest, pictures.digest);
  assert.equal(metadata.version, '1');
  assert.match(metadata.encoder ?? '', /^libjpeg-turbo [\d.]+, restart markers every 64 pixels$/);
  const bytesOf = (name: string) => readFileSync(join(from, name));
  for (const [i, one] of answer.pictures.entries()) {
    const name = rows[i] as string;
    if (/truncated/.test(name)) {
      assert.equal(one.bytes, bytesOf(name).length);
      continue;
    }
    const { height, width } = await loadAddon().pictureDecode(bytesOf(name), name);
    const shrink = Math.min(1, 48 / Math.min(height, width));
    assert.equal(one.format, 'JPEG', name);
    assert.equal(one.mode, /gray/.test(name) ? 'L' : 'RGB', name);
    for (const [side, was] of [
      [one.size?.[0], width],
      [one.size?.[1], height],
    ] as const)
      assert.ok(side !== undefined && Math.abs(side - was * shrink) <= 0.5, `${name}: ${side} of ${was}`);
    const exif = /exif-(\d)/.exec(name);
    if (exif) assert.equal(one.orientation, Number(exif[1]), name);
  }
});

test('crops of packed pictures are those of the originals, but for what a JPEG loses; files kept as they are lose none', {
  skip: skip || withoutSample,
}, async () => {
  const from = fresh('photographs');
  const all = join(sample, 'original');
  for (const wnid of readdirSync(all).sort().slice(0, 12))
    cpSync(join(all, wnid), join(from, wnid), { recursive: true });
  const [resized, kept] = [fresh('resized'), fresh('kept')];
  await packed(resized, { shortSide: 256, quality: 95 }, from);
  await packed(kept, {}, from);
  const crop = { kind: 'centre', size: 128, resize: 128, filter: 'bicubic' } as const;
  const batchOf = async (root: string) => {
    const [batch] = await collect(await Pictures.open(root), { crop, batch: 12, shuffle: false });
    return batch as PictureBatch;
  };
  const [a, b, c] = [await batchOf(from), await batchOf(resized), await batchOf(kept)];
  assert.deepEqual(c.images, a.images);
  assert.deepEqual(b.labels, a.labels);
  const distance = a.images.reduce((sum, value, i) => sum + Math.abs(value - (b.images[i] as number)), 0);
  assert.ok(distance / a.images.length < 3, `${distance / a.images.length}`);
});

test('threads change no byte, and the same command does nothing more', { skip }, async () => {
  for (const threads of [1, 5]) {
    const out = fresh('threads');
    await packed(out, { ...small, threads });
    assert.deepEqual(filesOf(out), expected);
  }
  const { result, events } = await packed(whole);
  assert.deepEqual(
    result.parts.map(({ state }) => state),
    ['there', 'there'],
  );
  assert.equal(events.filter(({ type }) => type === 'shard').length, 0);
  assert.deepEqual(filesOf(whole), expected);
});

test('a stopped pack goes on where it was, with the same bytes; shards that are whole stay', {
  skip,
}, async () => {
  const out = fresh('stopped');
  const controller = new AbortController();
  let shards = 0;
  const onEvent = ({ type }: PackEvent) => {
    if (type === 'shard' && ++shards === 3) controller.abort();
  };
  await assert.rejects(packPictures(originals, out, { ...small, onEvent, signal: controller.signal }), {
    name: 'AbortError',
  });
  const written = (await readManifest(join(out, 'train'))).shards;
  assert.ok(written.length >= 3 && written.length <= 4, `${written.length}`);
  await refused(Pictures.open(join(out, 'train')), 'invalid-argument', /of 60 pictures are packed/);
  assert.match((await verifyShards(out)).problems.join(), /not packed to its end/);
  const times = written.map(({ file }) => statSync(join(out, 'train', file)).mtimeMs);
  const { events } = await packed(out);
  assert.deepEqual(
    written.map(({ file }) => statSync(join(out, 'train', file)).mtimeMs),
    times,
  );
  const [part] = events.filter((event) => event.type === 'part');
  assert.equal(
    part?.done,
    written.reduce((sum, one) => sum + one.pictures, 0),
  );
  assert.deepEqual(filesOf(out), expected);
});

test('a pack that is killed in any write, sync or rename goes on with the same bytes', {
  skip: skip || withoutFaults,
}, async () => {
  const out = fresh('killed');
  mkdirSync(out);
  const faults = new Faults(out);
  try {
    assert.equal(lthTrain(packArgs(out), faults.env).status, 0);
    const calls = faults.calls().filter(({ kind }) => kind !== 'read').length;
    assert.ok(calls > 100, `${calls}`);
    for (const share of [0.02, 0.31, 0.57, 0.84]) {
      rmSync(out, { recursive: true });
      mkdirSync(out);
      faults.order({ at: Math.ceil(share * calls), action: 'kill in the middle' });
      const { signal } = lthTrain(packArgs(out), faults.env);
      assert.equal(signal, 'SIGKILL');
      faults.order();
      const { status, stderr } = lthTrain(packArgs(out), faults.env);
      assert.equal(status, 0, stderr);
      assert.deepEqual(filesOf(out), expected, `killed at ${share}`);
    }
  } finally {
    faults.dispose();
  }
});

test('a full disk is told in one line; what is packed stays, and the same command goes on', {
  skip: skip || withoutFaults,
}, () => {
  const out = fresh('full');
  mkdirSync(out);
  const faults = new Faults(out);
  try {
    for (let time = 0; time < 2; time++) {
      faults.order({ at: 100, action: 'ENOSPC', kinds: ['write'], times: 1_000_000 });
      const { status, stderr } = lthTrain(packArgs(out), faults.env);
      assert.equal(status, 1, stderr);
      const line = stderr.trim().split('\n').at(-1) ?? '';
      assert.match(line, /^lth-train: .*No space left on device/);
      assert.ok(line.includes(join(out, 'train')), line);
      assert.equal([...filesOf(out).keys()].filter((name) => name.endsWith('.tmp')).length, 0);
    }
    assert.ok(existsSync(join(out, 'train', 'shard-00000.arrow')));
    faults.order();
    assert.equal(lthTrain(packArgs(out), faults.env).status, 0);
    assert.deepEqual(filesOf(out), expected);
  } finally {
    faults.dispose();
  }
});

test('SIGTERM stops a pack, which says so, ends with 75 and leaves no temporary; two packs of one folder wait for one another', {
  skip,
}, async () => {
  const out = fresh('signalled');
  const start = () => {
    const child = spawn(process.execPath, [executable, ...packArgs(out)], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let err = '';
    const shard = new Promise<void>((resolve) =>
      child.stderr.on('data', (text) => {
        err += text;
        if (/shard-/.test(err)) resolve();
      }),
    );
    const end = new Promise<number | null>((resolve) => child.on('close', resolve));
    return { child, shard, end: end.then((code) => ({ code, err })) };
  };
  const one = start();
  await one.shard;
  one.child.kill('SIGTERM');
  const { code, err: said } = await one.end;
  // It may have been faster than the signal.
  assert.ok(
    code === 75 ? /SIGTERM: stopping; .* the same command goes on/.test(said) : code === 0,
    `${code}: ${said}`,
  );
  assert.equal([...filesOf(out).keys()].filter((name) => name.endsWith('.tmp')).length, 0);
  for (const { code: ended, err } of await Promise.all([start().end, start().end]))
    assert.equal(ended, 0, err);
  assert.deepEqual(filesOf(out), expected);
});

test('another pack in the folder is refused, and told in what it differs', { skip }, async () => {
  const other = (options: PackOptions, from = originals) => packPictures(from, whole, options);
  await refused(other({ ...small, shortSide: 32 }), 'invalid-argument', /--short-side 24, not 32/);
  await refused(other({ shardSize: 6000 }), 'invalid-argument', /--short-side 24, not none/);
  await refused(other({ ...small, quality: 80 }), 'invalid-argument', /--quality 90, not 80/);
  await refused(other({ ...small, shardSize: 7000 }), 'invalid-argument', /--shard-size 3000, not 7000/);
  const more = fresh('more');
  cpSync(originals, more, { recursive: true });
  writeFiles(more, { 'train/class-0/new.png': png(20, 20) });
  await refused(
    other(small, more),
    'invalid-argument',
    /whole\/train: holds another pack, of other pictures/,
  );
  await refused(
    other(small, join(originals, 'val')),
    'invalid-argument',
    /whole\/train holds shards of another/,
  );
  const plain = fresh('plain');
  await packed(plain, small, join(originals, 'val'));
  await refused(packPictures(originals, plain), 'invalid-argument', /plain-\d+ holds shards of another/);
  await refused(packPictures(originals, more), 'invalid-argument', /more-\d+\/train: holds other files/);
  await refused(packPictures(whole, fresh('twice')), 'invalid-argument', /packed already/);
  await refused(packPictures(originals, join(originals, 'shards')), 'invalid-argument', /lies in the folder/);
  await refused(packPictures(join(folder, 'none'), fresh('none')), 'io', /no such folder/);
  // Of a version that wrote no restart markers: read as before, but nothing of other bytes comes behind it.
  const older = fresh('older');
  cpSync(join(whole, 'val'), older, { recursive: true });
  const manifest = await readManifest(older);
  manifest.settings.encoder = 'libjpeg-turbo 2.1.5';
  await writeRecord(join(older, 'shards.json'), manifest);
  assert.equal((await Pictures.open(older)).count, 12);
  await refused(
    packPictures(join(originals, 'val'), older, small),
    'invalid-argument',
    /of encoder libjpeg-turbo 2\.1\.5, not libjpeg-turbo [\d.]+, restart markers every 64 pixels/,
  );
});

test('a lost shard is made again, alone; where its pictures have changed that is refused', {
  skip,
}, async () => {
  const [out, from] = [fresh('lost'), fresh('changing')];
  cpSync(originals, from, { recursive: true });
  await packed(out, small, from);
  assert.deepEqual(filesOf(out), expected);
  rmSync(join(out, 'train', 'shard-00002.arrow'));
  truncateSync(join(out, 'train', 'shard-00004.arrow'), 100);
  const { result, events } = await packed(out, small, from);
  assert.equal(result.parts[0]?.state, 'packed');
  assert.equal(events.filter(({ type }) => type === 'shard').length, 2);
  assert.deepEqual(filesOf(out), expected);
  rmSync(join(out, 'train', 'shard-00000.arrow'));
  writeFiles(from, { 'train/class-0/p00.png': png(60, 60, 99) });
  await refused(packed(out, small, from), 'corrupt-file', /shard-00000\.arrow.*have changed/);
});

// ---------------------------------------------------------------------------------- verifying, damaged shards

test('verify reads every byte: a flipped bit, a cut shard and a touched list are found, by name', {
  skip,
}, async () => {
  const right = lthTrain(['data', 'verify', whole]);
  assert.equal(right.status, 0, right.stderr);
  assert.match(right.stdout, /72 pictures, 2 of which were broken when they were packed: all is right/);
  const out = fresh('damaged');
  cpSync(whole, out, { recursive: true });
  const at = (name: string) => join(out, name);
  const bytes = readFileSync(at('train/shard-00001.arrow'));
  bytes[Math.floor(bytes.length / 2)] = (bytes[Math.floor(bytes.length / 2)] ?? 0) ^ 1;
  writeFileSync(at('train/shard-00001.arrow'), bytes);
  truncateSync(at('train/shard-00003.arrow'), 2000);
  rmSync(at('train/shard-00004.arrow'));
  writeFileSync(
    at('val/shards.json'),
    readFileSync(at('val/shards.json'), 'utf8').replace('"from": 0', '"from": 1'),
  );
  const { problems } = await verifyShards(out);
  assert.equal(problems.length, 4, problems.join('\n'));
  assert.match(problems[1] ?? '', /shard-00001\.arrow: its SHA-256 is/);
  assert.match(problems[2] ?? '', /shard-00003\.arrow: has 2000 bytes/);
  assert.match(problems[3] ?? '', /shard-00004\.arrow: there is no such file/);
  assert.match(problems[0] ?? '', /val\/shards\.json: its seal/);
  const wrong = lthTrain(['data', 'verify', out, '--json']);
  assert.equal(wrong.status, 1);
  assert.deepEqual(JSON.parse(wrong.stdout).problems, problems);
  await refused(verifyShards(originals), 'io', /holds no shards\.json/);
  rmSync(at('train/shards.json'));
  assert.match((await verifyShards(out)).problems[0] ?? '', /train: holds shards and no shards\.json/);
});

test('a shard that is cut anywhere, or garbage, is corrupt-file with its name, and never a crash', {
  skip,
}, async () => {
  const path = join(whole, 'train', 'shard-00000.arrow');
  const good = readFileSync(path);
  const bad = join(folder, 'bad.arrow');
  const tried = async (bytes: Buffer) => {
    writeFileSync(bad, bytes);
    return readShard(bad, 3).catch((error: unknown) => {
      assert.ok(error instanceof LthError && error.code === 'corrupt-file', String(error));
      assert.ok(error.message.startsWith(bad), error.message);
      return null;
    });
  };
  assert.ok(await tried(good));
  for (let length = 0; length < good.length; length += 97)
    assert.equal(await tried(good.subarray(0, length)), null, `cut at ${length}`);
  assert.equal(await tried(Buffer.from('garbage'.repeat(100))), null);
  assert.equal(await tried(readFileSync(join(originals, 'val/class-0/p00.png'))), null);
  // Every number of the heads, as large or as negative as it can be.
  let accepted = 0;
  const footer = good.length - 10 - good.readInt32LE(good.length - 10);
  for (const [from, to] of [
    [0, 1200],
    [footer, good.length],
  ] as const)
    for (let at = from; at + 4 <= to; at += 4)
      for (const value of [0x7fffffff, 0xffffffff, 0x80000000]) {
        const changed = Buffer.from(good);
        changed.writeUInt32LE(value, at);
        const layout = await tried(changed);
        if (!layout) continue;
        accepted++;
        for (let row = 0; row < layout.rows; row++)
          assert.ok((layout.begins[row] as number) + (layout.lengths[row] as number) <= good.length);
      }
  assert.ok(accepted > 0);
  // Of a whole folder: told when it is opened.
  const out = fresh('cut');
  cpSync(join(whole, 'train'), out, { recursive: true });
  truncateSync(join(out, 'shard-00001.arrow'), 3000);
  await refused(Pictures.open(out), 'corrupt-file', /shard-00001\.arrow/);
  appendFileSync(join(out, 'shards.json'), ' x');
  await refused(Pictures.open(out), 'corrupt-file', /shards\.json/);
});

test('a shard that shrinks while it is read from is an error with its name: none of its pictures is replaced', {
  skip,
}, async () => {
  const out = fresh('shrinking');
  cpSync(join(whole, 'train'), out, { recursive: true });
  const set = await Pictures.open(out);
  truncateSync(join(out, 'shard-00001.arrow'), 300);
  const options = { crop: { kind: 'centre', size: 16, resize: 16 }, batch: 60, shuffle: false } as const;
  await refused(collect(set, options), 'io', /shard-00001\.arrow: ends at byte/);
});

test('the layout of a shard is the one that apache-arrow reads', { skip }, async () => {
  const path = join(whole, 'train', 'shard-00001.arrow');
  const bytes = readFileSync(path);
  const table = tableFromIPC(bytes);
  const { rows, begins, lengths, labels, names } = await readShard(path, 3);
  assert.equal(rows, table.numRows);
  const read = names.toString().split('\0');
  for (let row = 0; row < rows; row++) {
    const one = table.get(row)?.toJSON();
    const begin = begins[row] as number;
    assert.deepEqual(Buffer.from(one?.image), bytes.subarray(begin, begin + (lengths[row] as number)));
    assert.equal(one?.label, labels[row]);
    assert.equal(one?.name, read[row]);
  }
});

// ------------------------------------------------------------------------------------------------ training

const network = {
  name: 'small',
  input: [3, 16, 16] as [number, number, number],
  classes: 3,
  layers: [
    { name: 'conv', type: 'conv' as const, channels: 4, kernel: 3, padding: 1 },
    { name: 'relu', type: 'relu' as const },
    { name: 'pool', type: 'globalpool' as const },
    { name: 'fc', type: 'linear' as const, units: 3 },
  ],
};
const crop = {
  training: { kind: 'random-resized', size: 16 },
  evaluation: { kind: 'centre', size: 16, resize: 20 },
} as const;

test('the data set imagenet is read from shards as from a folder; files kept as they are train to the same bits', {
  skip,
}, async () => {
  const kept = fresh('kept');
  await packed(kept, { shardSize: 20_000 });
  const trained = async (
    root: string,
    options: { threads?: number; workers?: number; cut?: number } = {},
  ) => {
    const { cut, ...rest } = options;
    const open = async () =>
      Session.open({
        network: CompiledNetwork.compile(network),
        ...(await Dataset.open('imagenet', root, { crop })),
        validation: 5,
        seed: 3,
        batch: 8,
        optimiser: { type: 'sgd', learningRate: 0.05, momentum: 0.9 },
        ...rest,
      });
    let session = await open();
    if (cut !== undefined) {
      await session.trainToEnd({ until: cut });
      const snapshot = await session.snapshot();
      session.dispose();
      session = await open();
      await session.load(snapshot);
    }
    await session.trainToEnd({ until: 9 });
    return {
      snapshot: await session.snapshot(),
      test: await session.evaluate('test'),
      told: session.replacedPictures().map(({ path }) => path),
    };
  };
  const [folderRun, keptRun] = [await trained(originals), await trained(kept)];
  assert.deepEqual(differences(keptRun.snapshot, folderRun.snapshot), []);
  assert.equal(keptRun.test.loss, folderRun.test.loss);
  const packedRun = await trained(whole);
  assert.notDeepEqual(differences(packedRun.snapshot, folderRun.snapshot), []);
  for (const path of packedRun.told)
    assert.match(path, /whole\/train\/shard-\d+\.arrow: class-[12]\/p0[45]\.png/);
  assert.ok(packedRun.told.length > 0);
  for (const options of [{ threads: 1, workers: 1 }, { threads: 2, workers: 5 }, { cut: 4 }])
    assert.deepEqual(differences((await trained(whole, options)).snapshot, packedRun.snapshot), []);
});

test('batches of shards are the same for any number of workers; ranks have each picture of an epoch once', {
  skip,
}, async () => {
  const { train } = await Pictures.openParts(whole);
  const base = { crop: crop.training, batch: 12, seed: 5, until: 10 };
  const bytes = (batches: PictureBatch[]) =>
    batches.map(({ step, images, rows }) => [step, Buffer.from(images).toString('hex'), ...rows]);
  const one = bytes(await collect(train, { ...base, workers: 1 }));
  assert.deepEqual(bytes(await collect(train, { ...base, workers: 4, ahead: 5 })), one);
  const sound = Int32Array.from({ length: 60 }, (_, i) => i).filter(
    (row) => !broken.includes(train.name(row)),
  );
  const alone = await collect(train, { ...base, rows: sound });
  const ranks = await Promise.all(
    [0, 1, 2].map((rank) => collect(train, { ...base, rows: sound, rank, ranks: 3 })),
  );
  for (const [step, batch] of alone.entries()) {
    assert.deepEqual(
      ranks.flatMap((of) => [...(of[step]?.rows ?? [])]),
      [...batch.rows],
    );
    assert.equal(
      Buffer.compare(Buffer.concat(ranks.map((of) => of[step]?.images as Uint8Array)), batch.images),
      0,
    );
  }
  const epoch = ranks.flatMap((of) => of.slice(0, 5).flatMap(({ rows }) => [...rows]));
  assert.deepEqual(
    epoch.sort((a, b) => a - b),
    [...sound],
  );
  const later = await collect(train, { ...base, rows: sound, rank: 2, ranks: 3, from: 6 });
  assert.deepEqual(bytes(later), bytes(ranks[2] ?? []).slice(6));
  await refused(collect(train, { ...base, rank: 3, ranks: 3 }), 'invalid-argument', /rank/);
});

test('val is packed with the classes of train, flat with a ground truth too; labels come with the shards', {
  skip,
}, async () => {
  const from = fresh('flat');
  writeFiles(from, {
    ...{ 'train/a/1.png': png(30, 40, 1), 'train/b/2.png': png(30, 40, 2) },
    ...{ 'val/x.png': png(30, 40, 3), 'val/y.png': png(30, 40, 4), 'val.txt': 'x.png 1\ny.png a\n' },
  });
  const out = fresh('flat-shards');
  const groundTruth = join(from, 'val.txt');
  await refused(packPictures(from, out), 'io', /ground-truth/);
  await packed(out, { ...small, groundTruth }, from);
  const { validation } = await Pictures.openParts(out);
  assert.deepEqual(validation.classes, ['a', 'b']);
  assert.deepEqual([...validation.labels], [1, 0]);
  await refused(Pictures.openParts(out, { groundTruth }), 'invalid-argument', /have their labels/);
  await refused(Pictures.open(join(out, 'val'), { classes: ['a', 'c'] }), 'io', /other classes/);
});

test("a packed set's digest says its settings and every byte", { skip }, async () => {
  const digests = new Set<string>();
  for (const options of [
    small,
    { ...small, quality: 91 },
    { ...small, shortSide: 23 },
    { shardSize: 6000 },
  ]) {
    const { result } = await packed(fresh('digest'), options);
    digests.add(result.parts[0]?.digest as string);
  }
  assert.equal(digests.size, 4);
  assert.ok(digests.has(first?.result.parts[0]?.digest as string));
  const manifest = await readManifest(join(whole, 'train'));
  assert.equal(digestOf(manifest), first?.result.parts[0]?.digest);
});

// -------------------------------------------------------------------------------------------- command line

test('data pack prints what it packed, and words its options; bench loader reads shards beside their originals', {
  skip,
}, () => {
  const out = fresh('cli');
  const { status, stdout, stderr } = lthTrain(packArgs(out));
  assert.equal(status, 0, stderr);
  assert.match(
    stdout,
    /train: 60 pictures, 2 of them broken in \d+ shards, .*; digest [0-9a-f]{64}\n.*val: 12/,
  );
  assert.match(stderr, /shard-00000\.arrow: \d+ pictures/);
  assert.match(stderr, /p05\.png: cannot be packed, kept as it is: /);
  const again = lthTrain([...packArgs(out), '--json']);
  const { parts } = JSON.parse(again.stdout);
  assert.deepEqual(
    parts.map(({ state }: { state: string }) => state),
    ['there', 'there'],
  );
  for (const [args, words] of [
    [['data', 'pack', originals], /--out/],
    [[...packArgs(out), '--shard-size', '12PB'], /256MiB/],
    [[...packArgs(out), '--quality', '101'], /between 1 and 100/],
    [[...packArgs(out), '--quality', '50'], /another pack/],
  ] as const) {
    const wrong = lthTrain([...args]);
    assert.equal(wrong.status, 2, wrong.stderr);
    assert.match(wrong.stderr, words);
  }
  const options = ['--no-reference', '--rounds', '1', '--passes', '1', '--batch', '16', '--size', '16'];
  const bench = lthTrain(['bench', 'loader', out, '--against', originals, '--json', ...options]);
  assert.equal(bench.status, 0, bench.stderr);
  const result = JSON.parse(bench.stdout) as LoaderResult;
  assert.deepEqual(
    result.sides.map(({ name }) => name),
    ['lth-train', 'libjpeg-turbo alone', 'lth-train, originals'],
  );
  assert.equal(result.images, 58);
  assert.equal(result.failures.length, 4);
  const alone = lthTrain(['bench', 'loader', out, ...options.slice(1)]);
  assert.equal(alone.status, 0, alone.stderr);
  assert.match(alone.stderr, /--against names the folder of their originals/);
});
