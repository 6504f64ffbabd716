/** Masks of all levels of an IMP in one file: what a benchmark takes for those of a real run. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MaskFile } from '../bench/maskFile.js';
import { firstPrunings } from '../lib/experiment/overlap.js';
import { survey } from '../lib/experiment/survey.js';
import { sealOfValue } from '../lib/files.js';
import { LthError } from '../lib/native/errors.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Masks } from '../lib/session/Masks.js';
import { CommandLine } from './helpers/commandLine.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-mask-files-'));
const cli = new CommandLine({});
after(() => {
  cli.end();
  rmSync(folder, { recursive: true });
});

const network = CompiledNetwork.compile('lenet-20-12');
const path = join(folder, 'small.masks');
const made = {
  command: 'none',
  recipe: 'none',
  steps: '1it',
  seed: 0,
  rewind: 0,
  replicate: 0,
  method: 'iterative' as const,
};

async function nested(levels: number): Promise<Masks[]> {
  const scores = await Masks.randomScores(network, 1, 0);
  const all: Masks[] = [];
  let remaining = network.summary.counts.prunable;
  for (let level = 1; level <= levels; level++) {
    remaining = Math.floor(remaining * 0.7);
    all.push(await (all.at(-1) ?? Masks.ones(network)).pruneByScores(scores, { remaining }));
  }
  return all;
}

const bits = (masks: Masks) =>
  [...masks.tensors().values()].map(({ vector }) => Buffer.from(vector.data[0]?.values as Uint8Array));

function refused(name: string, bytes: Buffer, message: RegExp): void {
  const file = join(folder, name);
  writeFileSync(file, bytes);
  assert.throws(
    () => MaskFile.read(file),
    (error) =>
      error instanceof LthError &&
      error.code === 'corrupt-file' &&
      message.test(error.message) &&
      error.message.startsWith(file),
    name,
  );
}

test('masks of all levels are read as they were written, and are nested', async () => {
  const all = await nested(9);
  await MaskFile.write(path, all, made);
  const file = MaskFile.read(path);
  assert.equal(file.header.levels, 9);
  assert.deepEqual(file.header.made, made);
  let before = await file.at(network, 0);
  assert.equal(before.density.prunable, 1);
  for (let level = 1; level <= 9; level++) {
    const read = await file.at(network, level);
    assert.deepEqual(bits(read), bits(all[level - 1] as Masks), `level ${level}`);
    assert.equal(read.density.prunable, file.densityAt(level));
    assert.ok(read.nestedIn(before));
    before = read;
  }
  assert.equal(file.nearest(1), 0);
  assert.equal(file.nearest(0.7), 1);
  assert.equal(file.nearest(0.5), 2);
  assert.equal(file.nearest(1e-6), 9);
});

test('masks that are not nested, and levels that there are not, are refused', async () => {
  const [a, b] = (await nested(2)) as [Masks, Masks];
  await assert.rejects(MaskFile.write(join(folder, 'no.masks'), [b, a], made), { code: 'invalid-argument' });
  assert.ok(!existsSync(join(folder, 'no.masks')));
  await assert.rejects(MaskFile.read(path).at(network, 10), { code: 'invalid-argument' });
  await assert.rejects(MaskFile.read(path).at(CompiledNetwork.compile('lenet-20-13'), 1), {
    code: 'wrong-shape',
    message: /small\.masks.*lenet-20-12.*lenet-20-13/,
  });
});

test('a file that is cut off, changed at any place, or says something else than it holds is refused by its name', () => {
  const good = readFileSync(path);
  const end = good.indexOf('\n');
  const { seal, ...header } = JSON.parse(good.subarray(0, end).toString());
  assert.equal(seal, sealOfValue(header));
  const body = good.subarray(end + 1);
  const sealed = (changes: object, rest = body) => {
    const value = { ...header, ...changes };
    return Buffer.concat([Buffer.from(`${JSON.stringify({ ...value, seal: sealOfValue(value) })}\n`), rest]);
  };
  assert.doesNotThrow(() => {
    writeFileSync(join(folder, 'again.masks'), sealed({}));
    MaskFile.read(join(folder, 'again.masks'));
  });
  for (const length of [0, 1, end, end + 1, good.length - 1])
    refused('cut.masks', good.subarray(0, length), /no line of JSON|bytes of levels/);
  for (let i = 0; i < good.length; i += 1 + Math.floor(good.length / 200)) {
    const bad = Buffer.from(good);
    bad[i] = (bad[i] as number) ^ 0x11;
    refused('changed.masks', bad, /./);
  }
  refused('json.masks', Buffer.from('not JSON\n'), /its first line is no JSON/);
  refused('array.masks', Buffer.from('[]\n'), /no JSON object/);
  refused('format.masks', sealed({ format: 2 }), /format/);
  refused('more.masks', sealed({ what: 1 }), /what/);
  refused('levels.masks', sealed({ levels: 8 }), /counts/);
  refused('weights.masks', sealed({ tensors: header.tensors.slice(1) }), /counts/);
  refused('long.masks', Buffer.concat([good, Buffer.alloc(1)]), /bytes of levels/);
  const huge = { ...header.tensors[0], shape: [2 ** 20, 2 ** 20] };
  refused(
    'huge.masks',
    sealed({ tensors: [huge], remaining: [2 ** 40, ...header.remaining.slice(1)] }),
    /more than it may/,
  );
});

test('levels that are not those of the counts are found where they are used', async () => {
  const good = readFileSync(path);
  const end = good.indexOf('\n');
  const { seal, ...header } = JSON.parse(good.subarray(0, end).toString());
  const remaining = [...header.remaining];
  remaining[3] += 1;
  const value = { ...header, remaining };
  const file = join(folder, 'counts.masks');
  writeFileSync(
    file,
    Buffer.concat([
      Buffer.from(`${JSON.stringify({ ...value, seal: sealOfValue(value) })}\n`),
      good.subarray(end + 1),
    ]),
  );
  const read = MaskFile.read(file);
  await read.at(network, 2);
  await assert.rejects(read.at(network, 3), { code: 'corrupt-file', message: /level 3/ });
});

test('the masks that come with the package fit their networks, level after level', async () => {
  const names = await MaskFile.shipped();
  assert.ok(names.includes('lenet-300-100'));
  for (const name of names) {
    const file = await MaskFile.open(name, undefined);
    assert.ok(statSync(file.path).size < 200_000, name);
    assert.equal(file.header.network, name);
    assert.match(file.header.made.command, /^lth-train run /);
    const whole = CompiledNetwork.compile(name);
    let before = await file.at(whole, 0);
    for (let level = 1; level <= file.header.levels; level++) {
      const masks = await file.at(whole, level);
      assert.ok(masks.nestedIn(before), `${name}, level ${level}`);
      before = masks;
    }
    assert.ok(before.density.prunable < 0.02, name);
    whole.dispose();
  }
  await assert.rejects(MaskFile.open('vgg-11', undefined), {
    code: 'invalid-argument',
    message: /vgg-11.*lenet-300-100/,
  });
});

test("bench masks packs a run's masks: the same as the run has", async () => {
  const recipe = join(folder, 'tiny.yaml');
  writeFileSync(
    recipe,
    `name: tiny
network: lenet-20-12
data: { set: mnist-10k, validation: 504 }
training:
  steps: 40it
  batch: 60
  optimiser: { type: adam, learningRate: 0.0012 }
  evaluateEvery: 20it
pruning: { levels: 3, fraction: 0.5 }
controls: [random]
`,
  );
  const run = join(folder, 'run');
  assert.equal((await cli.run('run', recipe, '--out', run)).code, 0);
  const out = join(folder, 'run.masks');
  const ended = await cli.run(
    'bench',
    'masks',
    '--run',
    run,
    '--out',
    out,
    '--command',
    'lth-train run tiny',
  );
  assert.equal(ended.code, 0, ended.err);
  const file = MaskFile.read(out);
  assert.deepEqual(file.header.made, {
    command: 'lth-train run tiny',
    recipe: 'tiny',
    steps: '40it',
    seed: 1,
    rewind: 0,
    replicate: 0,
    method: 'iterative',
  });
  const found = await survey(run);
  const units = firstPrunings(found);
  assert.equal(units.length, 3);
  for (const [i, [unit]] of units.entries()) {
    const masks = await Masks.read(network, await found.folder.file(unit.id, 'masks.safetensors'));
    assert.deepEqual(bits(await file.at(network, i + 1)), bits(masks));
  }
  const none = await cli.run(
    'bench',
    'masks',
    '--run',
    join(folder, 'nowhere'),
    '--out',
    out,
    '--command',
    'x',
  );
  assert.equal(none.code, 1);
});
