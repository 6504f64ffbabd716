// Readers of files from outside. Each must return, or throw an LthError.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { Binary, Int32, Table, tableToIPC, Utf8, vectorFromArray } from 'apache-arrow';
import { MaskFile } from '../../bench/maskFile.js';
import { readIdx } from '../../lib/data/idx.js';
import { readShard } from '../../lib/data/shards.js';
import { readTarGz, TarReader } from '../../lib/data/tar.js';
import { sealOfValue } from '../../lib/files.js';
import { loadRecipe, toYaml } from '../../lib/recipe/load.js';
import { metricsBatch } from '../../lib/session/arrow.js';
import { CompiledNetwork } from '../../lib/session/CompiledNetwork.js';
import { readCheckpoint } from '../../lib/store/Checkpoints.js';
import { readMetrics, writeMetrics } from '../../lib/store/metrics.js';
import { RunFolder } from '../../lib/store/RunFolder.js';
import { FORMAT } from '../../lib/store/records.js';
import { appendBatch, noRows } from '../../lib/store/rows.js';

import { tar as tarOf } from '../helpers/cifar.js';

export interface Target {
  /** Valid inputs. */
  seeds(): Promise<Buffer[]>;
  read(input: Buffer): Promise<void>;
}

// In memory: a million inputs would wear out a disk.
const folder = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'lth-fuzz-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

function file(name: string, bytes: Buffer): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

const images = Buffer.from([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 9, 255, 0, 7]);
const labels = Buffer.from([0, 0, 8, 1, 0, 0, 0, 2, 1, 0]);

/** The first byte says whether the rest is the file, or is packed by gzip, so that mutations get through its checksum. */
const idx: Target = {
  async seeds() {
    return [images, labels, gzipSync(images), Buffer.concat([gzipSync(labels), gzipSync(Buffer.alloc(0))])]
      .map((bytes) => Buffer.concat([Buffer.from([0]), bytes]))
      .concat([images, labels].map((bytes) => Buffer.concat([Buffer.from([1]), bytes])));
  },
  async read(input) {
    const rest = input.subarray(1);
    const read = await readIdx(file('idx', (input[0] ?? 0) % 2 ? gzipSync(rest, { level: 1 }) : rest));
    const dimensions = read[3] ?? 0;
    const view = new DataView(read.buffer, read.byteOffset);
    let size = 1;
    for (let d = 0; d < dimensions; d++) size *= view.getUint32(4 + 4 * d);
    assert.equal(read.length, 4 + 4 * dimensions + size);
  },
};

async function metricsOf(rows: number): Promise<Buffer> {
  const some = () => Float64Array.from({ length: rows }, (_, i) => 1 / (i + 2));
  const step = Int32Array.from({ length: rows }, (_, i) => i * 100);
  const split = Int8Array.from({ length: rows }, (_, i) => i % 3);
  const columns = { loss: some(), accuracy: some(), learningRate: some(), examples: some(), seconds: some() };
  const written = noRows();
  if (rows > 0) appendBatch(written, metricsBatch({ rows, step, split, ...columns }), 0);
  await writeMetrics(folder, written);
  return readFileSync(join(folder, 'metrics.arrow'));
}

const metrics: Target = {
  seeds: async () => [await metricsOf(1), await metricsOf(3), await metricsOf(0)],
  async read(input) {
    const rows = await readMetrics(file('input.arrow', input));
    assert.ok(rows.length * 37 <= input.length, 'more rows than bytes');
    for (const row of rows) assert.ok(['train', 'validation', 'test'].includes(row.split) && row.step >= 0);
  },
};

const small = `name: small
network:
  name: tiny
  input: [4]
  classes: 2
  layers:
    - { name: fc1, type: linear, units: 3 }
    - { name: relu1, type: relu }
    - { name: fc2, type: linear, units: 2, input: relu1, bias: false }
data: { set: mnist-10k, validation: 10 }
training:
  steps: 2ep50it
  batch: 60
  optimiser: { type: adam, learningRate: 1e-3 }
  evaluateEvery: 1.7%
pruning: { levels: 2 }
`;
const other = `{"name": "a/b", "network": "lenet-300-100", "data": {"set": "mnist", "validation": 0},
"training": {"steps": 20, "batch": 1, "optimiser": {"type": "sgd", "learningRate": 0.1, "momentum": 0.9},
"schedule": {"milestones": ["5it", "7it"], "warmup": "1it"}, "evaluateEvery": "5it"},
"pruning": {"levels": 1, "pooling": "layerwise", "rates": {"fc3.weight": 0.1}}, "controls": [], "seed": 3}`;
const aliases = `name: &n x
network: *n
data: &d {set: a, validation: 1}
training: {steps: 1it, batch: 1, optimiser: {type: sgd, learningRate: 1}, evaluateEvery: 1it}
pruning: {levels: 0} # comment
description: |
  two
  lines
`;

/** What was accepted is written and read again: the same. */
function checkRecipe(read: ReturnType<typeof loadRecipe>): void {
  assert.deepEqual(loadRecipe(file('again.yaml', Buffer.from(toYaml(read)))), read);
}

const recipe: Target = {
  seeds: async () => [small, other, aliases].map((text) => Buffer.from(text)),
  async read(input) {
    checkRecipe(loadRecipe(file('recipe.yaml', input)));
  },
};

/** A line is what stands behind one --set. */
const set: Target = {
  seeds: async () =>
    [
      'training.batch=128',
      'network.layers=[{name: a, type: flatten}, {name: b, type: linear, units: 2}]\nnetwork.classes=2',
      'training.optimiser={type: sgd, learningRate: 0.1}\ntraining.optimiser.momentum=0.9',
      'pruning.pooling=layerwise\npruning.rates.fc1.weight=0.5',
      'rewind=[0it, 5%]\nname="x"\ntraining.schedule.milestones=[]',
    ].map((text) => Buffer.from(text)),
  async read(input) {
    const path = file('set.yaml', Buffer.from(small));
    checkRecipe(loadRecipe(path, { set: input.toString().split('\n') }));
  },
};

const key = 'ab'.repeat(32);
const comparison = {
  branch: 'imp',
  replicate: 0,
  rewind: 0,
  method: 'iterative',
  level: 1,
  noises: [1, 2],
  densityPrunable: 0.5,
};
const recordSeeds: [file: string, record: object][] = [
  [
    'unit.json',
    {
      format: FORMAT,
      id: 'unit',
      kind: 'train',
      label: 'replicate 0, rewind 0, level 1, imp',
      key,
      fingerprints: ['kernels=1'],
      files: { 'snapshot.safetensors': { bytes: 5, sha256: key, removed: true } },
      from: null,
      diverged: false,
      updates: 60,
      result: {
        branch: 'imp',
        replicate: 0,
        level: 1,
        noise: 7,
        densityPrunable: 0.5,
        densityOverall: 0.5,
        testAccuracy: 0.9,
        validationAccuracy: null,
        testLoss: 0.1,
        validationLoss: null,
        earlyStop: 20,
        earlyStopTestAccuracy: 0.9,
        updates: 60,
        diverged: false,
        replacedPictures: { training: 1, evaluation: 1 },
        seconds: 1.5,
      },
      rewind: 0,
      method: 'iterative',
      seconds: 1.5,
      replacedPictures: [
        { split: 'train', name: 'class-0/p3.png' },
        { split: 'test', name: 'class-1/p4.png' },
      ],
      connectivity: {
        ...comparison,
        statistics: 'interpolated',
        alphas: [0, 1],
        testError: [0.1, 0.2],
        trainError: [0, 1],
        trainExamples: 9,
        barrier: { test: 0.05, train: 0.5 },
      },
      stability: ['masked', 'all'].map((scope) => ({
        ...comparison,
        testAccuracies: [0.9, null],
        ...{
          kind: 'order',
          scope,
          distance: 2.5,
          angle: 90,
          layers: [{ name: 'w', distance: 0, angle: null }],
        },
      })),
    },
  ],
  [
    'checkpoint-20.json',
    {
      format: FORMAT,
      id: 'unit',
      key,
      fingerprints: ['kernels=1'],
      start: 0,
      step: 20,
      seconds: 0.5,
      replacedPictures: [{ split: 'validation', name: 'class-0/p3.png' }],
      snapshot: { name: 'checkpoint-20.safetensors', bytes: 5, sha256: key },
      intervals: [{ name: 'interval-20.arrow', bytes: 5, sha256: key }],
    },
  ],
  [
    'requests.json',
    {
      format: FORMAT,
      requests: [{ levels: 2, replicates: 1, rewind: ['0it', '5%'], controls: ['random'] }],
      analyses: [
        { kind: 'stability', rewind: [0], levels: [2], orders: 4, samples: 1, branches: ['imp', 'random'] },
      ],
      recipe: JSON.parse(other),
    },
  ],
  ['experiment.json', { format: FORMAT, fingerprint: 'kernels=1', seed: 1 }],
  [
    'failure.json',
    { format: FORMAT, id: 'unit', label: 'x', code: 'io', message: 'y', command: 'z', time: '' },
  ],
];

/** The first byte says which record it is; one that is JSON gets the seal that mutations would break. */
const records: Target = {
  seeds: async () =>
    recordSeeds.map(([, record], i) =>
      Buffer.concat([Buffer.from([i]), Buffer.from(JSON.stringify(record))]),
    ),
  async read(input) {
    const name = recordSeeds[(input[0] ?? 0) % recordSeeds.length]?.[0] ?? '';
    const run = join(folder, 'run');
    const unit = join(run, 'units', 'unit');
    mkdirSync(unit, { recursive: true });
    for (const needed of ['requests.json', 'experiment.json']) {
      if (!existsSync(join(run, needed))) writeFileSync(join(run, needed), '{}');
    }
    const store = RunFolder.open(run);
    let text = input.subarray(1).toString();
    try {
      const value = JSON.parse(text);
      if (typeof value === 'object' && value !== null && !Array.isArray(value))
        text = JSON.stringify({ ...value, seal: sealOfValue(value) });
    } catch {
      // Read as it is.
    }
    const path = /unit|checkpoint|failure/.test(name) ? join(unit, name) : join(run, name);
    writeFileSync(path, text);
    if (name === 'unit.json') assert.equal((await store.record('unit'))?.id, 'unit');
    if (name === 'checkpoint-20.json') await readCheckpoint(unit, 20);
    if (name === 'requests.json') await Promise.all([store.requests(), store.analyses(), store.recipe()]);
    if (name === 'experiment.json') await store.experiment();
    if (name === 'failure.json') assert.equal(typeof (await store.failure('unit'))?.message, 'string');
  },
};

/** How many bytes the files of a tar may have, by name. */
const wanted = new Map([
  ['a.bin', 40],
  ['b.bin', 600],
]);
const BLOCK = 512;

/** The checksum that a tar's header should have: mutations get through it. */
function seal(head: Buffer): void {
  head.write('        ', 148);
  const sum = head.reduce((total, byte) => total + byte, 0);
  head.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
}

const folderAndFiles = () => {
  const [a, b] = [Buffer.from('forty bytes at most'), Buffer.alloc(600, 7)];
  return [
    { name: 'batches/', type: '5' },
    { name: 'batches/a.bin', bytes: a },
    { name: 'batches/b.bin', bytes: b },
    { name: 'batches/other.txt', bytes: a },
  ];
};
const oneFile = () => tarOf([{ name: 'a.bin', bytes: Buffer.from('forty bytes at most') }]);

function checkFound(found: Map<string, Buffer>, bytes: Buffer): void {
  for (const [name, content] of found) {
    assert.ok(content.length <= (wanted.get(name) ?? -1), `${name} is longer than it may be`);
    assert.ok(content.length === 0 || bytes.includes(content), `${name} is not in the tar`);
  }
}

/** Headers, found by their own sizes, get their checksums. */
function sealed(bytes: Buffer): Buffer {
  for (let at = 0; at + BLOCK <= bytes.length; ) {
    const head = bytes.subarray(at, at + BLOCK);
    if (head.some((byte) => byte !== 0)) seal(head);
    const size = Number.parseInt(head.toString('latin1', 124, 136), 8) || 0;
    at += BLOCK + Math.ceil(Math.min(size, bytes.length) / BLOCK) * BLOCK;
  }
  return bytes;
}

/** What a reader finds in pieces of some size; it may refuse them. */
function inPieces(bytes: Buffer, piece: number): Map<string, Buffer> {
  const reader = new TarReader('fuzz.tar', wanted);
  for (let at = 0; at < bytes.length; at += piece) reader.push(bytes.subarray(at, at + piece));
  reader.end();
  return reader.found;
}

/**
 * The first byte: bit 0 leaves checksums as they are, bit 1 takes the zeros at the end for granted, bit 2 has garbage
 * behind them; the others are the size of the pieces in which it arrives.
 */
const tar: Target = {
  async seeds() {
    const first = (byte: number, bytes: Buffer) => Buffer.concat([Buffer.from([byte]), bytes]);
    // One block of zeros ends it as well as two do, and shorter ones are mutated more: not all in the zeros.
    const ended = oneFile().subarray(0, 3 * BLOCK);
    const open = oneFile().subarray(0, 2 * BLOCK);
    return [
      first(2 | (7 << 3), open),
      first(0, ended),
      first(1 | (31 << 3), ended),
      first(0, tarOf(folderAndFiles())),
    ];
  },
  async read(input) {
    const how = input[0] ?? 0;
    let bytes: Buffer = Buffer.from(input.subarray(1));
    if (!(how & 1)) bytes = sealed(bytes);
    if (how & 2) bytes = Buffer.concat([bytes, Buffer.alloc(2 * BLOCK)]);
    if (how & 4) bytes = Buffer.concat([bytes, Buffer.from('garbage')]);
    const whole = inPieces(bytes, Math.max(bytes.length, 1));
    checkFound(whole, bytes);
    assert.deepEqual(inPieces(bytes, 1 + (how >> 3) * 23), whole, 'pieces decide what is found');
  },
};

/** The packed file, mutated as it is: what of it is gzip's and what is the archive's own. */
const targz: Target = {
  seeds: async () => [
    gzipSync(oneFile()),
    gzipSync(tarOf(folderAndFiles())),
    gzipSync(oneFile(), { level: 0 }),
  ],
  async read(input) {
    for (const content of (await readTarGz(file('tar.gz', input), wanted)).values())
      assert.ok(content.length <= 600);
  },
};

/** Three pictures, whose bytes are not looked at here. */
const shard: Target = {
  async seeds() {
    const images = vectorFromArray(
      [Buffer.from('one'), Buffer.from('pictures'), Buffer.alloc(0)],
      new Binary(),
    );
    const names = vectorFromArray(['a/1.JPEG', 'b/2.JPEG', 'b/3.JPEG'], new Utf8());
    const table = new Table({ image: images, label: vectorFromArray([0, 1, 1], new Int32()), name: names });
    return [Buffer.from(tableToIPC(table, 'file')), Buffer.from(tableToIPC(table.slice(0, 1), 'file'))];
  },
  async read(input) {
    const { rows, begins, lengths, labels, names } = await readShard(file('shard.arrow', input), 2);
    assert.equal(names.filter((byte) => byte === 0).length, rows);
    for (let row = 0; row < rows; row++) {
      const [begin, length] = [begins[row] as number, lengths[row] as number];
      assert.ok(begin >= 0 && begin + length <= input.length, 'a picture beyond the file');
      assert.ok(labels[row] === 0 || labels[row] === 1);
    }
  },
};

const masked = CompiledNetwork.compile({
  name: 'tiny',
  input: [4],
  classes: 2,
  layers: [
    { name: 'fc1', type: 'linear', units: 3 },
    { name: 'relu1', type: 'relu' },
    { name: 'fc2', type: 'linear', units: 2 },
  ],
});
/** Of 3 x 4 + 2 x 3 weights. */
const levels = Buffer.from([0, 1, 0, 2, 2, 0, 1, 0, 0, 1, 2, 0, 0, 0, 1, 2, 0, 0]);
const left = (level: number) => levels.filter((one) => one === 0 || one > level).length;
const maskHeader = {
  format: 1,
  network: 'tiny',
  levels: 2,
  remaining: [0, 1, 2].map(left),
  tensors: [
    { name: 'fc1.weight', shape: [3, 4] },
    { name: 'fc2.weight', shape: [2, 3] },
  ],
  made: {
    command: 'lth-train run cifar10/resnet20 --set training.steps=600it --levels 21 --replicates 1 '.repeat(
      3,
    ),
    recipe: 'y',
    steps: '9it',
    seed: 1,
    rewind: 0,
    replicate: 0,
    method: 'iterative',
  },
};

/** A line of JSON and levels, which are packed and sealed so that mutations get through; what is no JSON stays as it is. */
function sealedMasks(input: Buffer): Buffer {
  const end = input.indexOf('\n');
  try {
    const header = JSON.parse(input.subarray(0, end).toString()) as Record<string, unknown>;
    const body = brotliCompressSync(input.subarray(end + 1));
    header.body ??= { bytes: body.length, sha256: createHash('sha256').update(body).digest('hex') };
    const line = JSON.stringify({ ...header, seal: sealOfValue(header) });
    return Buffer.concat([Buffer.from(`${line}\n`), body]);
  } catch {
    return input;
  }
}

const masks: Target = {
  seeds: async () =>
    [maskHeader, { ...maskHeader, levels: 1, remaining: [left(0), left(2)] }].map((header) =>
      Buffer.concat([Buffer.from(`${JSON.stringify(header)}\n`), levels]),
    ),
  async read(input) {
    const read = MaskFile.read(file('input.masks', sealedMasks(input)));
    for (let level = 0; level <= read.header.levels; level++) (await read.at(masked, level)).dispose();
  },
};

export const targets: Record<string, Target> = {
  idx,
  metrics,
  recipe,
  set,
  records,
  tar,
  targz,
  masks,
  shard,
};
