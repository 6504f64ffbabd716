// Readers of files from outside: whatever the bytes, they return or throw an LthError. `npm run fuzz` runs more.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { tableFromIPC } from 'apache-arrow';
import { readIdx } from '../lib/data/idx.js';
import { LthError } from '../lib/native/errors.js';
import { loadRecipe } from '../lib/recipe/load.js';
import { readMetrics } from '../lib/store/metrics.js';
import { fuzz } from './fuzz/fuzz.js';
import { targets } from './fuzz/targets.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-fuzz-test-'));
after(() => rmSync(folder, { recursive: true }));

function file(name: string, bytes: string | Buffer): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

for (const [name, count] of Object.entries({
  idx: 1000,
  metrics: 3000,
  recipe: 500,
  set: 500,
  records: 1000,
  tar: 3000,
  targz: 500,
  masks: 1000,
  shard: 3000,
})) {
  test(`${name}: the corpus and ${count} mutations are read or refused, in bounded memory`, async () => {
    const { accepted, outcomes } = await fuzz(name, count);
    assert.ok(accepted > count / 100, `only ${accepted} were accepted: mutations reach nothing`);
    assert.ok(outcomes.size > 10, [...outcomes.keys()].join('\n'));
  });
}

test('metrics are read as apache-arrow reads them', async () => {
  for (const bytes of (await targets.metrics?.seeds()) ?? []) {
    const expected = tableFromIPC(bytes).toArray();
    assert.deepEqual(
      await readMetrics(file('metrics.arrow', bytes)),
      expected.map((row) => row.toJSON()),
    );
  }
});

test('metrics whose counts promise gigabytes are refused by name', async () => {
  const [good = Buffer.alloc(0)] = (await targets.metrics?.seeds()) ?? [];
  for (let at = 0; at + 4 <= good.length; at += 4) {
    const bad = Buffer.from(good);
    bad.writeUInt32LE(0x7fffffff, at);
    const path = file('huge.arrow', bad);
    await readMetrics(path).catch((error: unknown) => {
      assert.ok(error instanceof LthError && error.code === 'corrupt-file', String(error));
      assert.ok(error.message.startsWith(path), error.message);
    });
  }
});

test('a recipe nested without end is refused, and Node lives on', () => {
  for (const opening of ['[', '{', '{a: ', '- ', '? ', '? [']) {
    const path = file('deep.yaml', opening.repeat(20_000));
    assert.throws(() => loadRecipe(path), { code: 'recipe', message: /deep/ });
  }
});

test('a recipe of nothing but errors in one line is refused in seconds', () => {
  const path = file('errors.yaml', `[${','.repeat(60_000)}]`);
  assert.throws(() => loadRecipe(path), { code: 'recipe', message: /line 1/ });
});

test('--set reaches no prototype', () => {
  const path = join(folder, 'own.yaml');
  writeFileSync(path, readFileSync(new URL('../../lib/recipe/recipes/quickstart.yaml', import.meta.url)));
  for (const set of [
    'network={name: x}',
    'pruning.rates.__proto__={polluted: 1}',
    'network.constructor.a=1',
  ]) {
    assert.throws(() => loadRecipe(path, { set: [set, 'network.__proto__.polluted=1'] }), { code: 'recipe' });
  }
  assert.equal(Reflect.get({}, 'polluted'), undefined);
});

test('bytes behind the end of a gzip file are called so', async () => {
  const idxLabels = Buffer.from([0, 0, 8, 1, 0, 0, 0, 2, 1, 0]);
  for (const behind of ['\0', '\0\0\0\0', 'garbage']) {
    const path = file('more.gz', Buffer.concat([gzipSync(idxLabels), Buffer.from(behind)]));
    await assert.rejects(readIdx(path), { code: 'corrupt-file', message: /broken gzip/ });
  }
});
