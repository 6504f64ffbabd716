/** CIFAR-10 and CIFAR-100 in all of their layouts: one data set with one digest, or an error that names file and place. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { datasetPlaces } from '../lib/data/catalogue.js';
import { type CifarSet, cifar10, cifar100, readCifar } from '../lib/data/cifar.js';
import { fetchDataset } from '../lib/data/fetch.js';
import type { Source } from '../lib/data/sources.js';
import { LthError } from '../lib/native/errors.js';
import { loadAddon } from '../lib/native/load.js';
import { packageRoot } from '../lib/package.js';
import { Dataset } from '../lib/session/Dataset.js';
import { binaryOf, type TarMember, tar, tiny10, tiny100, tinyBatches, writeBinary } from './helpers/cifar.js';
import { cutAfter, honest, type Mirror, mirror } from './helpers/mirror.js';
import { ask, withoutPython } from './helpers/python.js';

const root = mkdtempSync(join(tmpdir(), 'lth-cifar-'));
const mirrors: Mirror[] = [];
after(async () => {
  rmSync(root, { recursive: true });
  await Promise.all(mirrors.map((one) => one.close()));
});

let folders = 0;
function newFolder(): string {
  const path = join(root, String(folders++));
  mkdirSync(path);
  return path;
}

async function infoOf(set: CifarSet, folder: string) {
  const { train, test } = await readCifar(set, folder);
  return { train: loadAddon().datasetInfo(train), test: loadAddon().datasetInfo(test) };
}

async function refused(promise: Promise<unknown>, code: string, ...says: string[]): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.ok(error instanceof LthError, `an LthError, not ${error}`);
    assert.equal(error.code, code, error.message);
    for (const what of says) assert.ok(error.message.includes(what), `${what} in ${error.message}`);
    return true;
  });
}

function writePickles(folder: string, set: CifarSet, fortran = false): void {
  mkdirSync(folder, { recursive: true });
  const files = tinyBatches(set).map(({ python, labels, pictures }) => {
    const column = (i: number) => labels.map((record) => record[i] as number);
    return {
      path: join(folder, python),
      labels: set.coarse > 0 ? { coarse_labels: column(0), fine_labels: column(1) } : { labels: column(0) },
      pictures,
      fortran,
    };
  });
  ask('cifar_pickles.py', { files });
}

const membersOf = (set: CifarSet): TarMember[] => [
  { name: `${set.folders.binary}/`, type: '5' },
  { name: `${set.folders.binary}/readme.html`, bytes: Buffer.from('<html>') },
  ...tinyBatches(set).map((batch) => ({
    name: `${set.folders.binary}/${batch.binary}`,
    bytes: binaryOf(batch),
  })),
];

function writeTar(folder: string, set: CifarSet, members: TarMember[]): string {
  const path = join(folder, set.archives.binary);
  writeFileSync(path, gzipSync(tar(members)));
  return path;
}

const binary10 = newFolder();
writeBinary(binary10, tiny10);
const binary100 = newFolder();
writeBinary(binary100, tiny100);

test('the binary layout is read, in the folder and in the one that the archive makes', async () => {
  const { train, test } = await infoOf(tiny10, binary10);
  assert.deepEqual([train.count, test.count, train.classes], [15, 3, 10]);
  assert.deepEqual(train.shape, [3, 32, 32]);
  assert.equal(train.mean.length, 3);
  assert.notEqual(train.digest, test.digest);
  const outer = newFolder();
  writeBinary(join(outer, 'cifar-10-batches-bin'), tiny10);
  assert.deepEqual(await infoOf(tiny10, outer), { train, test });
  const hundred = await infoOf(tiny100, binary100);
  assert.deepEqual([hundred.train.count, hundred.test.count, hundred.train.classes], [3, 3, 100]);
});

test("Python's layout is the same data set with the same digest", { skip: withoutPython }, async () => {
  for (const set of [tiny10, tiny100]) {
    const expected = await infoOf(set, set === tiny10 ? binary10 : binary100);
    for (const fortran of [false, true]) {
      const flat = newFolder();
      writePickles(flat, set, fortran);
      assert.deepEqual(await infoOf(set, flat), expected);
    }
    const outer = newFolder();
    writePickles(join(outer, set.folders.python), set);
    assert.deepEqual(await infoOf(set, outer), expected);
    const packed = newFolder();
    const { status } = spawnSync('tar', [
      'czf',
      join(packed, set.archives.python),
      '-C',
      outer,
      set.folders.python,
    ]);
    if (status === 0) assert.deepEqual(await infoOf(set, packed), expected);
  }
});

test('archives are read as they are, and nothing is unpacked to disk', async () => {
  for (const [set, plain] of [
    [tiny10, binary10],
    [tiny100, binary100],
  ] as const) {
    const folder = newFolder();
    writeTar(folder, set, membersOf(set));
    assert.deepEqual(await infoOf(set, folder), await infoOf(set, plain));
    assert.deepEqual(datasetPlaces().length > 0 && existsSync(join(folder, set.folders.binary)), false);
    const { status } = spawnSync('tar', ['czf', join(folder, 'other.tar.gz'), '-C', plain, '.']);
    if (status !== 0) continue;
    const byTar = newFolder();
    copyFileSync(join(folder, 'other.tar.gz'), join(byTar, set.archives.binary));
    assert.deepEqual(await infoOf(set, byTar), await infoOf(set, plain));
  }
});

test('a folder without the set, and one that lacks files of it, are named', async () => {
  const folder = newFolder();
  await refused(
    Dataset.open('cifar-10', folder),
    'io',
    folder,
    'cifar-10-binary.tar.gz',
    'cifar-10-python.tar.gz',
  );
  await refused(Dataset.open('cifar-100', folder), 'io', 'cifar-100-binary.tar.gz');
  for (const name of ['data_batch_1.bin', 'test_batch.bin'])
    copyFileSync(join(binary10, name), join(folder, name));
  await refused(readCifar(tiny10, folder), 'io', folder, 'data_batch_2.bin, data_batch_3.bin');
  // A folder of that name is no file.
  const train = newFolder();
  mkdirSync(join(train, 'train'));
  await refused(readCifar(tiny100, train), 'io', 'cifar-100-binary.tar.gz');
});

test('binary files that are cut, longer, empty or of other labels are named, with the record', async () => {
  const record = 3073;
  const cases: [bytes: Buffer, says: string[]][] = [
    [Buffer.alloc(0), ['0 bytes', `${3 * record}`]],
    [Buffer.alloc(3 * record - 1), [`${3 * record - 1} bytes`]],
    [Buffer.alloc(2 * record), [`${2 * record} bytes`, '3 of them']],
    [Buffer.alloc(3 * record + 1), [`has ${3 * record + 1} bytes, more than the ${3 * record}`]],
    [Buffer.alloc(3 * record, 10), ['record 0: its label is 10, expected 0 to 9']],
  ];
  for (const [bytes, says] of cases) {
    const folder = newFolder();
    writeBinary(folder, tiny10);
    writeFileSync(join(folder, 'data_batch_3.bin'), bytes);
    await refused(readCifar(tiny10, folder), 'corrupt-file', 'data_batch_3.bin', ...says);
  }
  const folder = newFolder();
  writeBinary(folder, tiny100);
  writeFileSync(join(folder, 'train.bin'), Buffer.alloc(3 * 3074, 20));
  await refused(readCifar(tiny100, folder), 'corrupt-file', 'train.bin', 'coarse label is 20');
});

test('a file of gigabytes takes no memory', async () => {
  const folder = newFolder();
  writeBinary(folder, tiny10);
  truncateSync(join(folder, 'data_batch_1.bin'), 2 ** 40);
  const before = process.memoryUsage.rss();
  await refused(readCifar(tiny10, folder), 'corrupt-file', 'data_batch_1.bin', `${2 ** 40} bytes`);
  writeBinary(folder, tiny10);
  truncateSync(join(folder, 'data_batch_1.bin'), 0);
  assert.ok(process.memoryUsage.rss() - before < 256 * 2 ** 20);
});

test('pickles that are cut, are no pickles or would call something are refused, and nothing is called', async () => {
  const made = join(root, 'made');
  const command = `touch ${made}`;
  const call = `\x80\x02cposix\nsystem\nU${String.fromCharCode(command.length)}${command}\x85R.`;
  const cases: [bytes: Buffer, says: string][] = [
    [Buffer.from('hello'), 'no pickle of protocol 2'],
    [Buffer.from(call, 'latin1'), 'posix system, which no CIFAR file has'],
    [Buffer.from('\x80\x02T\xff\xff\xff\x7f', 'latin1'), 'truncated'],
    [Buffer.from('\x80\x02}.', 'latin1'), 'no numpy array'],
    [Buffer.alloc(30_000, 0x28), 'no pickle of protocol 2'],
  ];
  for (const [bytes, says] of cases) {
    const folder = newFolder();
    for (const batch of tinyBatches(tiny10)) writeFileSync(join(folder, batch.python), bytes);
    await refused(readCifar(tiny10, folder), 'corrupt-file', 'data_batch_1', says);
  }
  assert.ok(!existsSync(made));
});

test('archives that are cut, damaged, hostile or of other files are refused by name', async () => {
  const members = membersOf(tiny10);
  const whole = gzipSync(tar(members));
  const folder = newFolder();
  const path = join(folder, tiny10.archives.binary);
  const read = (bytes: Buffer) => {
    writeFileSync(path, bytes);
    return readCifar(tiny10, folder);
  };
  for (const length of [0, 1, 10, 100, whole.length >> 1, whole.length - 8, whole.length - 1])
    await refused(read(whole.subarray(0, length)), 'corrupt-file', path);
  for (const behind of ['\0', 'garbage'])
    await refused(read(Buffer.concat([whole, Buffer.from(behind)])), 'corrupt-file', path, 'gzip');
  const plain = tar(members);
  await refused(read(plain), 'corrupt-file', path, 'gzip');
  const zipped = (...changed: TarMember[]) => read(gzipSync(tar([...members, ...changed])));
  await refused(zipped(members[2] as TarMember), 'corrupt-file', 'holds data_batch_1.bin twice');
  for (const type of ['1', '2', 'L', 'x', 'g'])
    await refused(zipped({ name: 'data_batch_1.bin', type }), 'corrupt-file', `is of kind "${type}"`);
  await refused(zipped({ name: 'big', size: '77777777777' }), 'corrupt-file', '8589934591 bytes');
  await refused(zipped({ name: 'odd', size: 'abcdefghijk' }), 'corrupt-file', 'its size is no number');
  await refused(read(gzipSync(tar(members.slice(0, -1)))), 'corrupt-file', 'holds no test_batch.bin');
  await refused(
    read(gzipSync(tar([{ name: 'data_batch_1.bin', bytes: Buffer.alloc(9220) }]))),
    'corrupt-file',
    '9220 bytes, more than the 9219',
  );
  await refused(read(gzipSync(plain.subarray(0, -1024))), 'corrupt-file', 'its tar has no end');
  await refused(read(gzipSync(plain.subarray(0, 5000))), 'corrupt-file', 'truncated inside its tar');
  const damaged = Buffer.from(plain);
  damaged.writeUInt8(0x37, 1536);
  await refused(read(gzipSync(damaged)), 'corrupt-file', 'the checksum of its header is wrong');
  const crowd = Array.from({ length: 1001 }, (_, i) => ({ name: `file-${i}` }));
  await refused(read(gzipSync(tar(crowd))), 'corrupt-file', 'more than 1000 files');
  // Nothing of all this has been written anywhere.
  assert.deepEqual(existsSync(join(folder, 'data_batch_1.bin')), false);
});

test('an archive that unpacks to gigabytes is left early', async () => {
  const folder = newFolder();
  const zeros = Buffer.alloc(2 ** 28);
  writeTar(folder, tiny10, [{ name: 'filler', bytes: zeros }]);
  const before = process.memoryUsage.rss();
  await refused(readCifar(tiny10, folder), 'corrupt-file', 'unpacks to more than 268435456 bytes');
  assert.ok(process.memoryUsage.rss() - before < 256 * 2 ** 20);
});

const sum = (kind: string, bytes: Buffer) => createHash(kind).update(bytes).digest('hex');

function sourceOf(set: CifarSet, archive: Buffer, server: Mirror, md5 = sum('md5', archive)): Source {
  const files = tinyBatches(set).map((batch) => {
    const bytes = binaryOf(batch);
    return { name: batch.binary, bytes: bytes.length, sha256: sum('sha256', bytes) };
  });
  return {
    name: 'tiny-cifar',
    mirrors: [server.url],
    files: [{ name: set.archives.binary, largest: 2 ** 20, md5, files }],
  };
}

async function serve(...args: Parameters<typeof mirror>): Promise<Mirror> {
  const one = await mirror(...args);
  mirrors.push(one);
  return one;
}

test('an archive is fetched, gone on with where it broke, kept as it is, and read', async () => {
  const archive = gzipSync(tar(membersOf(tiny10)));
  const name = tiny10.archives.binary;
  const folder = newFolder();
  const server = await serve({ [name]: archive }, cutAfter(300, join(folder, `${name}.part`)), honest);
  const source = sourceOf(tiny10, archive, server);
  const { files } = await fetchDataset(source, { folder, backoffMs: 1 });
  assert.deepEqual(files, [{ name, bytes: archive.length, state: 'fetched' }]);
  assert.equal(server.asked[1]?.range, 'bytes=300-');
  assert.deepEqual(readFileSync(join(folder, name)), archive);
  assert.deepEqual(await infoOf(tiny10, folder), await infoOf(tiny10, binary10));
  const again = await fetchDataset(source, { folder });
  assert.deepEqual([again.files[0]?.state, server.asked.length], ['there', 2]);
  const copy = newFolder();
  const copied = await fetchDataset(source, { folder: copy, from: folder });
  assert.equal(copied.files[0]?.state, 'copied');
  assert.deepEqual(readFileSync(join(copy, name)), archive);
  await refused(fetchDataset(source, { folder: newFolder(), from: newFolder() }), 'io', `holds no ${name}`);
});

test('an archive of another MD5, or of other files behind the right one, never gets its name', async () => {
  const archive = gzipSync(tar(membersOf(tiny10)));
  const other = gzipSync(
    tar(membersOf(tiny10).map((one) => ({ ...one, bytes: one.bytes?.map((x) => x ^ 1) as Buffer }))),
  );
  const name = tiny10.archives.binary;
  const server = await serve({ [name]: other }, honest);
  for (const [md5, says] of [
    [sum('md5', archive), 'its MD5 is'],
    [sum('md5', other), 'the SHA-256 of data_batch_1.bin in it is'],
  ] as const) {
    const folder = newFolder();
    const source = sourceOf(tiny10, archive, server, md5);
    await refused(fetchDataset(source, { folder, backoffMs: 1 }), 'io', says);
    assert.ok(!existsSync(join(folder, name)));
  }
});

const original = [process.env.LTH_TEST_DATA, join(packageRoot, '..', 'shared', 'data')]
  .flatMap((folder) => (folder ? [join(folder, 'cifar10')] : []))
  .find((folder) => existsSync(join(folder, 'decode.mjs')));

test('the real CIFAR-10: its counts, mean and deviation', {
  skip: original ? false : 'no CIFAR-10 in ../shared/data or LTH_TEST_DATA',
}, async (t) => {
  const folder = newFolder();
  const { status, stderr } = spawnSync(process.execPath, [join(original as string, 'decode.mjs'), folder], {
    encoding: 'utf8',
  });
  if (status !== 0) return t.skip(`it cannot be unpacked here: ${stderr}`);
  const { train, test } = await Dataset.open('cifar-10', folder);
  assert.deepEqual([train.info.count, test.info.count, train.info.classes], [50_000, 10_000, 10]);
  const rounded = (values: number[]) => values.map((value) => value.toFixed(4));
  assert.deepEqual(rounded(train.info.mean), ['0.4914', '0.4822', '0.4465']);
  assert.deepEqual(rounded(train.info.std), ['0.2470', '0.2435', '0.2616']);
  await refused(
    readCifar({ ...cifar10, train: cifar10.train.slice(0, 1), test: cifar100.test }, folder),
    'io',
    'test.bin',
  );
});
