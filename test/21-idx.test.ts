import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { readIdx } from '../lib/data/idx.js';
import { LthError } from '../lib/native/errors.js';
import { Dataset } from '../lib/session/Dataset.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-idx-'));
after(() => rmSync(folder, { recursive: true }));

function idx(type: number, dimensions: number[], data: number[]): Buffer {
  const head = Buffer.alloc(4 + 4 * dimensions.length);
  head.writeUInt8(type, 2);
  head.writeUInt8(dimensions.length, 3);
  dimensions.forEach((size, d) => {
    head.writeUInt32BE(size, 4 + 4 * d);
  });
  return Buffer.concat([head, Buffer.from(data)]);
}

function file(name: string, bytes: Buffer): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

const pixels = Array.from({ length: 3 * 4 }, (_, i) => i * 20);
const images = idx(8, [3, 2, 2], pixels);
const labels = idx(8, [3], [0, 1, 2]);
const goodImages = file('images', images);
const goodLabels = file('labels', labels);

async function refused(promise: Promise<unknown>, code: string, ...says: (string | RegExp)[]): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.ok(error instanceof LthError, `an LthError, not ${error}`);
    assert.equal(error.code, code, error.message);
    for (const what of says) assert.match(error.message, typeof what === 'string' ? new RegExp(what) : what);
    return true;
  });
}

test('images and labels of an IDX pair become a data set, plain or gzip', async () => {
  const plain = await Dataset.fromIdx(goodImages, goodLabels, 3);
  assert.equal(plain.info.count, 3);
  assert.deepEqual(plain.info.shape, [1, 2, 2]);
  const zipped = await Dataset.fromIdx(
    file('zipped-images', gzipSync(images)),
    file('zipped-labels.gz', gzipSync(labels)),
    3,
  );
  assert.deepEqual(zipped.info, plain.info);
  const mean = pixels.reduce((sum, x) => sum + x / 255, 0) / pixels.length;
  assert.ok(Math.abs((plain.info.mean[0] as number) - mean) < 1e-12);
});

test('examples in memory become the data set that files of them are', async () => {
  const made = await Dataset.fromBytes(Uint8Array.from(pixels), Int32Array.of(0, 1, 2), {
    shape: [1, 2, 2],
    classes: 3,
  });
  const { digest, ...info } = made.info;
  const { digest: _, ...expected } = (await Dataset.fromIdx(goodImages, goodLabels, 3)).info;
  assert.deepEqual(info, expected);
  const others = [
    Dataset.fromBytes(Uint8Array.from(pixels), Int32Array.of(0, 1, 1), { shape: [1, 2, 2], classes: 3 }),
    Dataset.fromBytes(Uint8Array.from(pixels), Int32Array.of(0, 1, 2), { shape: [2, 2, 1], classes: 3 }),
    Dataset.fromBytes(
      Uint8Array.from(pixels, (x) => x ^ 1),
      Int32Array.of(0, 1, 2),
      {
        shape: [1, 2, 2],
        classes: 3,
      },
    ),
  ];
  const digests = (await Promise.all(others)).map((one) => one.info.digest);
  assert.equal(new Set([digest, ...digests]).size, 4);
});

test('examples in memory that are not as many as their labels, and labels that are no class, are refused', async () => {
  const bytes = new Uint8Array(12);
  const of = (labels: number[], shape = [1, 2, 2], classes = 3) =>
    Dataset.fromBytes(bytes, Int32Array.from(labels), { shape, classes });
  await refused(of([0, 1]), 'wrong-shape', /2 examples of shape \(1,2,2\) are 4 bytes each, .* 12 bytes/);
  await refused(of([0, 1], [5]), 'wrong-shape', /5 bytes each/);
  await refused(of([]), 'invalid-argument', 'at least one');
  await refused(of([0, 3, 1]), 'invalid-argument', 'label 1 is 3, expected 0 to 2');
  await refused(of([0, -1, 1]), 'invalid-argument', 'label 1 is -1');
  for (const shape of [[], [1, 1, 2, 2], [0, 2, 2], [1.5, 2, 2]])
    await refused(of([0, 1, 2], shape), 'invalid-argument', 'options.shape');
  const good = Int32Array.of(0, 1, 2);
  const shape = [4];
  const wrong: [unknown, unknown, unknown, string][] = [
    [bytes, [0, 1, 2], { shape, classes: 3 }, 'labels'],
    [bytes, null, { shape, classes: 3 }, 'labels'],
    [new Float32Array(12), good, { shape, classes: 3 }, 'images'],
    [new Uint8Array(new SharedArrayBuffer(12)), good, { shape, classes: 3 }, 'images'],
    [bytes, good, { classes: 3 }, 'shape'],
    [bytes, good, undefined, 'shape'],
    [bytes, good, { shape, classes: 0 }, 'classes'],
  ];
  for (const [images, labels, options, says] of wrong)
    await refused(
      Reflect.apply(Dataset.fromBytes, Dataset, [images, labels, options]) as Promise<Dataset>,
      'invalid-argument',
      says,
    );
});

test('a pipe is refused and not waited for', async () => {
  const pipe = join(folder, 'pipe');
  if (spawnSync('mkfifo', [pipe]).status !== 0) return;
  await refused(readIdx(pipe), 'io', 'pipe', 'not a file');
});

test('a missing file, a folder and an empty file are named', async () => {
  await refused(readIdx(join(folder, 'absent')), 'io', 'absent', 'no such file');
  await refused(readIdx(folder), 'io', folder);
  await refused(readIdx(file('empty', Buffer.alloc(0))), 'corrupt-file', 'empty');
});

test('a file cut anywhere is refused, plain and gzip', async () => {
  const zipped = gzipSync(images);
  for (let length = 1; length < images.length; length++) {
    await refused(readIdx(file('cut', images.subarray(0, length))), 'corrupt-file', 'cut');
  }
  for (let length = 1; length < zipped.length; length++) {
    await refused(readIdx(file('cut.gz', zipped.subarray(0, length))), 'corrupt-file', 'cut.gz');
  }
});

test('a damaged byte in a gzip file is refused, or does not matter', async () => {
  const zipped = gzipSync(images);
  for (let at = 0; at < zipped.length; at++) {
    const damaged = Buffer.from(zipped);
    damaged[at] = (damaged[at] as number) ^ 0x10;
    const read = readIdx(file('damaged.gz', damaged));
    const outcome = await read.catch((error: unknown) => error);
    if (outcome instanceof Uint8Array) assert.deepEqual(gunzipSync(damaged), Buffer.from(outcome));
    else assert.equal((outcome as LthError).code, 'corrupt-file', String(outcome));
  }
});

test('wrong magic, wrong element type and too many dimensions are refused', async () => {
  const wrong = Buffer.from(images);
  wrong.writeUInt32BE(0xdeadbeef, 0);
  await refused(readIdx(file('wrong-magic', wrong)), 'corrupt-file', 'wrong-magic', 'magic');
  await refused(readIdx(file('floats', idx(0x0d, [3, 2, 2], pixels))), 'corrupt-file', 'floats');
  await refused(readIdx(file('deep', idx(8, [1, 1, 1, 1, 1], [0]))), 'corrupt-file', 'deep');
});

test('more bytes than the header says are refused', async () => {
  await refused(
    readIdx(file('long', Buffer.concat([images, Buffer.alloc(1)]))),
    'corrupt-file',
    'long',
    '28',
  );
  await refused(
    readIdx(file('long.gz', gzipSync(Buffer.concat([images, Buffer.alloc(1)])))),
    'corrupt-file',
    'long.gz',
  );
});

test('a header that promises gigabytes allocates nothing', async () => {
  const before = process.memoryUsage.rss();
  for (const dimensions of [
    [0xffffffff, 0xffffffff, 0xffffffff],
    [1 << 20, 1 << 6, 1 << 6],
    [7, 1 << 15, 1 << 15],
  ]) {
    await refused(readIdx(file('huge', idx(8, dimensions, [1, 2, 3, 4]))), 'corrupt-file', 'huge');
    await refused(
      readIdx(file('huge.gz', gzipSync(idx(8, dimensions, [1, 2, 3, 4])))),
      'corrupt-file',
      'huge.gz',
    );
  }
  assert.ok(process.memoryUsage.rss() - before < 256 * 2 ** 20);
});

test('images for labels, other counts and labels out of range are refused by name', async () => {
  await refused(Dataset.fromIdx(goodLabels, goodImages, 3), 'corrupt-file', 'labels');
  await refused(
    Dataset.fromIdx(goodImages, file('four', idx(8, [4], [0, 1, 2, 0])), 3),
    'corrupt-file',
    'four',
  );
  await refused(
    Dataset.fromIdx(goodImages, file('out-of-range', idx(8, [3], [0, 3, 2])), 3),
    'corrupt-file',
    'out-of-range',
    '3',
  );
  await refused(
    Dataset.fromIdx(file('none', idx(8, [0, 2, 2], [])), file('none-labels', idx(8, [0], [])), 3),
    'corrupt-file',
    'none',
  );
});

test('a data set that is not there says where it was looked for', async () => {
  await refused(Dataset.open('mnist', join(folder, 'nowhere')), 'io', 'nowhere: there is no such folder');
  mkdirSync(join(folder, 'bare'));
  await refused(
    Dataset.open('mnist', join(folder, 'bare')),
    'io',
    'bare holds neither',
    'train-images-idx3-ubyte',
  );
  await refused(Dataset.open('mnits'), 'recipe', 'mnist');
  copyFileSync(goodImages, join(folder, 'train-images-idx3-ubyte'));
  await refused(Dataset.open('mnist', folder), 'io', 'train-labels-idx1-ubyte');
});
