/** Folders of JPEG and PNG files: how they are listed, what becomes of a picture, and batches over native memory. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { LoaderResult } from '../bench/loader.js';
import { loadAddon } from '../lib/native/load.js';
import { packageRoot } from '../lib/package.js';
import {
  type BatchesOptions,
  nativeCrop,
  type PictureBatch,
  type PictureCrop,
  Pictures,
} from '../lib/session/Pictures.js';
import { pixel, png, sample, withoutSample, writeFiles } from './helpers/pictures.js';
import { ask, without } from './helpers/python.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-pictures-'));
after(() => rmSync(folder, { recursive: true }));

const { jpeg } = loadAddon().info();
const withoutJpeg: string | false = jpeg.built ? false : jpeg.reason;

let made = 0;
/** A new folder with these files. */
function filesIn(files: Record<string, Buffer | string>): string {
  const root = join(folder, `set-${made++}`);
  mkdirSync(root);
  writeFiles(root, files);
  return root;
}

const paths = (set: Pictures) => Array.from({ length: set.count }, (_, row) => set.path(row));

async function collect(set: Pictures, options: BatchesOptions): Promise<PictureBatch[]> {
  const all: PictureBatch[] = [];
  for await (const batch of set.batches(options)) all.push(batch);
  return all;
}

/** Three classes of pictures whose bytes tell them apart. */
const small = filesIn(
  Object.fromEntries(
    Array.from({ length: 11 }, (_, i) => [`class-${i % 3}/p${i}.png`, png(20 + i, 30 - i, i)]),
  ),
);

// ------------------------------------------------------------------------------------------- folders

test('class folders are listed by name, and files in them; other files are left alone', async () => {
  const root = filesIn({
    ...{ 'b/2.JPEG': '', 'b/10.jpg': '', 'a/x.png': '', 'a/.hidden.JPEG': '', 'a/notes.txt': '' },
    ...{ 'README.md': '', '.cache/z.JPEG': '' },
  });
  symlinkSync(join(root, 'a'), join(root, 'c'));
  const set = await Pictures.open(root);
  assert.deepEqual(set.classes, ['a', 'b', 'c']);
  assert.deepEqual(
    paths(set),
    ['a/x.png', 'b/10.jpg', 'b/2.JPEG', 'c/x.png'].map((name) => join(root, name)),
  );
  assert.deepEqual([...set.labels], [0, 1, 1, 2]);
  assert.equal(set.digest, (await Pictures.open(root)).digest);
  writeFileSync(join(root, 'a', 'y.png'), '');
  assert.notEqual(set.digest, (await Pictures.open(root)).digest);
});

test('train and val are parts of one set: labels of both count in the classes of train', async () => {
  const root = filesIn({ 'train/a/1.png': '', 'train/b/2.png': '', 'train/c/3.png': '', 'val/c/4.png': '' });
  const { train, validation } = await Pictures.openParts(root);
  assert.deepEqual(train.classes, ['a', 'b', 'c']);
  assert.deepEqual(validation.classes, ['a', 'b', 'c']);
  assert.deepEqual([...validation.labels], [2]);
});

test('a flat val takes its classes from a ground-truth file, by name or number', async () => {
  const root = filesIn({
    ...{ 'train/n01/1.JPEG': '', 'train/n02/2.JPEG': '', 'val/v_2.JPEG': '', 'val/v_1.JPEG': '' },
    ...{ 'val/v_3.JPEG': '', 'val.txt': 'v_1.JPEG 1\nv_2.JPEG n01\nv_3.JPEG 0\n' },
    'kaggle.csv': 'ImageId,PredictionString\r\nv_1,n02 1 2 3 4\r\nv_2,n01 1 2 3 4 n01 5 6 7 8\r\nv_3,n01\r\n',
  });
  for (const name of ['val.txt', 'kaggle.csv']) {
    const { validation } = await Pictures.openParts(root, { groundTruth: join(root, name) });
    assert.deepEqual(
      paths(validation),
      ['v_1.JPEG', 'v_2.JPEG', 'v_3.JPEG'].map((one) => join(root, 'val', one)),
    );
    assert.deepEqual([...validation.labels], [1, 0, 0]);
  }
});

test('a folder that cannot be used is refused with the place and what is wrong', async () => {
  const root = filesIn({
    ...{ 'train/a/1.JPEG': '', 'train/b/notes.txt': '', 'flat/1.JPEG': '', 'other/z/1.JPEG': '' },
    ...{ 'devkit.txt': '490\n361\n', 'short.txt': 'x.JPEG 0\n', 'wrong.txt': '1.JPEG n99\n' },
  });
  const at = (name: string) => join(root, name);
  const refused = async (work: Promise<unknown>, code: string, ...parts: (string | RegExp)[]) => {
    await assert.rejects(work, (error: Error & { code: string }) => {
      assert.equal(error.code, code, error.message);
      for (const part of parts) assert.ok(error.message.match(part), `${error.message} lacks ${part}`);
      return true;
    });
  };
  const classes = ['a', 'b'];
  await refused(Pictures.open(at('train')), 'io', /train\/b/, /holds no \.JPEG/);
  await refused(Pictures.open(at('none')), 'io', /none/, /no such folder/);
  await refused(Pictures.open(at('flat')), 'io', /flat/, /ground-truth file/);
  await refused(Pictures.open(at('other'), { classes }), 'io', /no class z/);
  await refused(Pictures.open(at('flat'), { classes, groundTruth: at('none.txt') }), 'io', /none\.txt/);
  await refused(
    Pictures.open(at('flat'), { classes, groundTruth: at('devkit.txt') }),
    'corrupt-file',
    /devkit\.txt: line 1/,
    /order of its own/,
  );
  await refused(
    Pictures.open(at('flat'), { classes, groundTruth: at('short.txt') }),
    'corrupt-file',
    /short\.txt: has no line for 1\.JPEG/,
  );
  await refused(
    Pictures.open(at('flat'), { classes, groundTruth: at('wrong.txt') }),
    'corrupt-file',
    /line 1.*n99/,
  );
});

test('without libjpeg-turbo and libpng a picture is an error that says what to install', {
  skip: jpeg.built ? 'they are here' : false,
}, async () => {
  const set = await Pictures.open(small);
  await assert.rejects(
    collect(set, { batch: 2, crop: { kind: 'centre', size: 8, resize: 8 } }),
    /apt install libjpeg-dev libpng-dev/,
  );
});

// ------------------------------------------------------------------------------------------- batches

const crop: PictureCrop = { kind: 'random-resized', size: 16 };

test('batches are views over native memory: images, labels, rows, and the same as Arrow columns', {
  skip: withoutJpeg,
}, async () => {
  const set = await Pictures.open(small);
  const whole: PictureCrop = { kind: 'central', size: 16, fraction: 1 };
  const [first, second, third, ...rest] = await collect(set, {
    batch: 4,
    crop: whole,
    shuffle: false,
    channelsLast: true,
  });
  assert.ok(first && second && third && rest.length === 0);
  assert.deepEqual(first.shape, [4, 16, 16, 3]);
  assert.deepEqual(third.shape, [3, 16, 16, 3]);
  assert.deepEqual([...first.rows, ...second.rows, ...third.rows], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  assert.deepEqual([...first.labels, ...second.labels, ...third.labels], [...set.labels]);
  // Row 0 is p0 of 20 x 30: its red runs from 0 to 29 along a row, its green by threes down a column.
  assert.deepEqual(pixel(0, 0, 29), [29, 0, 29]);
  const red = Array.from({ length: 16 }, (_, x) => first.images[x * 3] as number);
  assert.ok(
    red.every((value, x) => Math.abs(value - ((x + 0.5) * 30) / 16 + 0.5) <= 1.3),
    red.join(' '),
  );
  const records = first.records();
  assert.equal(records.numRows, 4);
  assert.deepEqual(
    records.schema.fields.map(({ name }) => name),
    ['image', 'label', 'row'],
  );
  assert.equal(records.getChildAt(0)?.data[0]?.values.buffer, first.images.buffer);
  assert.deepEqual(records.get(1)?.toJSON().image, first.images.subarray(768, 1536));
  // Node 20 sends a copy instead, later versions throw: either way the memory stays here.
  const before = Buffer.from(first.images);
  try {
    structuredClone(first.images.buffer, { transfer: [first.images.buffer as ArrayBuffer] });
  } catch (error) {
    assert.equal((error as Error).name, 'DataCloneError');
  }
  assert.equal(Buffer.compare(before, first.images), 0);
});

test('batches are the same for any number of workers, and any step can be begun with', {
  skip: withoutJpeg,
}, async () => {
  const set = await Pictures.open(small);
  const bytes = (batches: PictureBatch[]) =>
    batches.map(({ step, images, rows }) => [step, Buffer.from(images).toString('hex'), ...rows]);
  const base = { crop, batch: 4, until: 9, seed: 5 };
  const one = bytes(await collect(set, { ...base, workers: 1, ahead: 1 }));
  assert.equal(one.length, 9);
  assert.deepEqual(bytes(await collect(set, { ...base, workers: 5 })), one);
  assert.deepEqual(bytes(await collect(set, { ...base, from: 7 })), one.slice(7));
  assert.notDeepEqual(bytes(await collect(set, { ...base, noise: 1 })), one);
  assert.notDeepEqual(bytes(await collect(set, { ...base, replicate: 1 })), one);
});

test('a broken picture is named with its path and replaced; a batch of nothing else is an error', {
  skip: withoutJpeg,
}, async () => {
  const root = filesIn({
    'a/1.png': png(9, 9, 1),
    'a/2.JPEG': '',
    'a/3.png': png(9, 9, 3),
    'a/4.JPEG': 'no picture',
  });
  const set = await Pictures.open(root);
  const [batch] = await collect(set, { batch: 4, crop, shuffle: false });
  assert.deepEqual([...(batch?.rows ?? [])], [0, 2, 2, 0]);
  assert.deepEqual(
    batch?.failures.map(({ position, row, taken, path }) => [position, row, taken, path]),
    [
      [1, 1, 2, join(root, 'a', '2.JPEG')],
      [3, 3, 0, join(root, 'a', '4.JPEG')],
    ],
  );
  assert.match(batch?.failures[1]?.why ?? '', /4\.JPEG: is neither a JPEG nor a PNG/);
  await assert.rejects(collect(set, { batch: 2, crop, shuffle: false, rows: Int32Array.of(1, 3) }), {
    code: 'corrupt-file',
    message: /none of the 2 pictures of batch 0/,
  });
});

test('leaving the loop stops the threads, a signal too, and so does the end of the process', {
  skip: withoutJpeg,
}, async () => {
  const set = await Pictures.open(small);
  const endless = { crop, batch: 3, until: 2 ** 31 - 1 };
  let count = 0;
  for await (const batch of set.batches(endless)) {
    assert.equal(batch.step, count++);
    if (count === 5) break;
  }
  const controller = new AbortController();
  await assert.rejects(
    (async () => {
      for await (const { step } of set.batches({ ...endless, signal: controller.signal }))
        if (step === 3) controller.abort();
    })(),
    { name: 'AbortError' },
  );
  for (const end of ['process.exit(7)', 'throw new Error("as it may")']) {
    const program = `import { Pictures } from ${JSON.stringify(join(packageRoot, 'dist/lib/index.js'))};
      const set = await Pictures.open(${JSON.stringify(small)});
      for await (const { step } of set.batches({ crop: { kind: 'random-resized', size: 64 }, batch: 3, until: 2 ** 31 - 1 }))
        if (step === 4) ${end};`;
    const { status, signal, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
      encoding: 'utf8',
      timeout: 60_000,
    });
    assert.equal(signal, null, stderr);
    assert.equal(status, end.startsWith('process') ? 7 : 1, stderr);
  }
});

test('wrong options are refused in words', async () => {
  const set = await Pictures.open(small);
  const refused = (options: object, message: RegExp) =>
    assert.rejects(collect(set, { batch: 4, crop, ...options } as BatchesOptions), {
      code: 'invalid-argument',
      message,
    });
  await refused({ batch: 0 }, /integer between 1 and .* for batch/);
  await refused(
    { crop: { kind: 'center', size: 8 } },
    /random-resized, scaled-random, centre, central for crop.kind/,
  );
  await refused({ crop: { kind: 'centre', size: 224, resize: 200 } }, /between 224 and 8192 for crop.resize/);
  await refused({ crop: { kind: 'random-resized', size: 8, area: [0.5, 0.2] } }, /crop.area\[1\]/);
  await refused(
    { crop: { kind: 'central', size: 8, filter: 'nearest' } },
    /bilinear, bicubic for crop.filter/,
  );
  await refused({ rows: Int32Array.of(11) }, /between 0 and 10 for rows/);
  assert.throws(() => set.path(11), /between 0 and 10 for row/);
});

// -------------------------------------------------------------------------------- against Pillow's pixels

interface Distance {
  mean: number;
  max: number;
}
interface Answer {
  size: [number, number];
  whole: Distance;
  crops: Distance[];
}

const crops: PictureCrop[] = [
  { kind: 'random-resized', size: 224 },
  { kind: 'random-resized', size: 64, filter: 'bicubic', flip: false },
  { kind: 'scaled-random', size: 224, filter: 'bicubic' },
  { kind: 'centre', size: 224, resize: 256 },
  { kind: 'central', size: 299, filter: 'bicubic' },
];

/** Our pixels of these files, and how far Pillow's are from them. */
async function compare(files: string[]) {
  const addon = loadAddon();
  const pictures = [];
  for (const [i, path] of files.entries()) {
    const bytes = readFileSync(path);
    const write = (name: string, pixels: Uint8Array) => {
      const to = join(folder, `${i}-${name}`);
      writeFileSync(to, pixels);
      return to;
    };
    const whole = write('whole', (await addon.pictureDecode(bytes, path)).pixels);
    const made = [];
    for (const [n, one] of crops.entries()) {
      const native = nativeCrop(one);
      const { box, cut, flip, pixels } = await addon.pictureCrop(bytes, path, {
        ...{ crop: native, upright: false, seed: 1, replicate: 0, noise: 0, epoch: 0, example: i },
      });
      made.push({
        box,
        cut,
        flip,
        size: native.size,
        filter: native.filter,
        pixels: write(`crop-${n}`, pixels),
      });
    }
    pictures.push({ path, whole, crops: made });
  }
  const answers = ask<Answer[]>('pictures.py', { pictures });
  return pictures.map((picture, i) => ({ ...picture, answer: answers[i] as Answer }));
}

const skip = withoutJpeg || withoutSample || without('PIL');

test('real pictures: whole ones are those of Pillow, crops within a grey level, within two where the transform made them smaller', {
  skip,
}, async () => {
  const classes = readdirSync(join(sample, 'original')).sort();
  const files = classes
    .filter((_, i) => i % 9 === 0)
    .map((wnid) => {
      const path = join(sample, 'original', wnid);
      return join(path, readdirSync(path).sort()[0] as string);
    });
  assert.ok(files.length > 50);
  let [resized, shrunk] = [0, 0];
  for (const { path, crops: made, answer } of await compare(files)) {
    assert.ok(answer.whole.mean < 0.01 && answer.whole.max <= 1, `${path}: ${JSON.stringify(answer.whole)}`);
    for (const [n, { mean }] of answer.crops.entries()) {
      const { box, size } = made[n] as (typeof made)[number];
      const smaller = Math.min(box.height, box.width) >= 4 * size;
      assert.ok(
        mean < (smaller ? 2 : 0.35),
        `${path} ${JSON.stringify(crops[n])} ${JSON.stringify(box)}: ${mean}`,
      );
      if (smaller) shrunk++;
      else resized++;
    }
  }
  assert.ok(resized > 100 && shrunk > 10, `${resized} ${shrunk}`);
});

test("odd pictures are Pillow's too: CMYK, grey, PNG under another name, progressive, arithmetic, restart markers", {
  skip,
}, async () => {
  const odd = join(sample, 'oddities-derived');
  const files = readdirSync(odd).filter((name) => !/truncated|arithmetic/.test(name));
  assert.ok(files.length >= 13);
  for (const { path, answer } of await compare(files.map((name) => join(odd, name)))) {
    assert.ok(answer.whole.mean < 0.01 && answer.whole.max <= 1, `${path}: ${JSON.stringify(answer.whole)}`);
    for (const { mean } of answer.crops) assert.ok(mean < 2, `${path}: ${mean}`);
  }
  // Pillow's own libjpeg has no arithmetic coding; the same picture lies there coded in other ways.
  const pixels = async (name: string) =>
    (await loadAddon().pictureDecode(readFileSync(join(odd, name)), name)).pixels;
  assert.deepEqual(await pixels('tench.arithmetic.JPEG'), await pixels('tench.progressive.JPEG'));
  const truncated = join(odd, 'tench.truncated.JPEG');
  await assert.rejects(loadAddon().pictureDecode(readFileSync(truncated), truncated), {
    code: 'corrupt-file',
    message: /tench\.truncated\.JPEG: truncated/,
  });
});

test("EXIF's eight orientations are one picture once they are applied, and ignored unless that is asked for", {
  skip: withoutJpeg || withoutSample,
}, async () => {
  const native = nativeCrop({ kind: 'central', size: 96, fraction: 1 });
  const pixels = async (orientation: number, upright: boolean) => {
    const path = join(sample, 'oddities-derived', `tench.exif-${orientation}.JPEG`);
    const key = { seed: 1, replicate: 0, noise: 0, epoch: 0, example: 0 };
    return (await loadAddon().pictureCrop(readFileSync(path), path, { crop: native, upright, ...key }))
      .pixels;
  };
  const distance = (a: Uint8Array, b: Uint8Array) =>
    a.reduce((sum, value, i) => sum + Math.abs(value - (b[i] as number)), 0) / a.length;
  const upright = await pixels(1, true);
  for (const orientation of [2, 3, 4, 5, 6, 7, 8]) {
    assert.ok(distance(await pixels(orientation, true), upright) < 3, `${orientation}`);
    assert.ok(distance(await pixels(orientation, false), upright) > 10, `${orientation}`);
  }
});

// --------------------------------------------------------------------------------------------- bench loader

test('bench loader --json counts pictures and names those that cannot be read; doctor names the libraries', {
  skip: withoutJpeg,
}, () => {
  const root = filesIn({
    'train/a/1.png': png(40, 40, 1),
    'train/a/2.JPEG': 'none',
    'train/b/3.png': png(50, 60, 3),
  });
  const lthTrain = (...args: string[]) => {
    const child = spawnSync(process.execPath, [join(packageRoot, 'bin', 'lth-train.js'), ...args], {
      encoding: 'utf8',
    });
    assert.equal(child.status, 0, child.stderr);
    return child.stdout;
  };
  const options = [
    '--no-reference',
    '--rounds',
    '2',
    '--passes',
    '1',
    '--batch',
    '3',
    '--size',
    '16',
    '--workers',
    '1',
  ];
  const result = JSON.parse(lthTrain('bench', 'loader', root, '--json', ...options)) as LoaderResult;
  assert.equal(result.images, 2);
  assert.ok(Math.abs(result.megapixels - 0.0046) < 1e-9);
  assert.deepEqual(
    result.failures.map(({ path }) => path),
    [join(root, 'train/a/2.JPEG')],
  );
  assert.deepEqual(
    result.sides.map(({ name }) => name),
    ['lth-train', 'libjpeg-turbo alone'],
  );
  for (const { rate, perWorker } of result.sides)
    assert.ok(rate.n === 2 && rate.median > 0 && perWorker === rate.median);
  assert.match(
    lthTrain('bench', 'loader', root, ...options),
    /2 pictures of 2 kpixel.*\n.*libjpeg-turbo[\s\S]*could not be read: .*2\.JPEG/,
  );
  assert.match(lthTrain('doctor'), /JPEG +libjpeg-turbo \d.*, libpng \d/);
});
