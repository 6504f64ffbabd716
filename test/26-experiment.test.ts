import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import type { ExperimentEvent } from '../lib/experiment/Event.js';
import type { Result } from '../lib/experiment/Result.js';
import { type RunOptions, runExperiment } from '../lib/experiment/run.js';
import { summarise } from '../lib/experiment/summary.js';
import { packageRoot } from '../lib/package.js';
import type { Recipe } from '../lib/recipe/Recipe.js';
import { curves } from '../lib/report/matching.js';
import { Masks } from '../lib/session/Masks.js';
import { Snapshot } from '../lib/session/Snapshot.js';
import { network } from './helpers/digits.js';
import { tinyRecipe } from './helpers/tiny.js';
import './helpers/builtinTuning.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-experiment-'));
after(() => rmSync(folder, { recursive: true }));

const recipe = tinyRecipe;

interface Told {
  started: string[];
  plan: Extract<ExperimentEvent, { type: 'plan' }> | undefined;
  fractions: number[];
}

async function run(name: string, what: Recipe, options: Partial<RunOptions> = {}) {
  const told: Told = { started: [], plan: undefined, fractions: [] };
  const onEvent = (event: ExperimentEvent) => {
    if (event.type === 'plan') told.plan = event;
    if (event.type === 'unit-start') told.started.push(event.label);
    if (event.type === 'progress') told.fractions.push(event.fraction);
    options.onEvent?.(event);
  };
  const summary = await runExperiment(what, { threads: 2, ...options, out: join(folder, name), onEvent });
  return { ...summary, ...told };
}

const timeless = (results: Result[]) => results.map((result) => ({ ...result, seconds: 0 }));
const units = (name: string) => readdirSync(join(folder, name, 'units')).sort();
const unit = (name: string, id: string, file: string) => join(folder, name, 'units', id, file);
/** Checksums of every file of every unit that no clock decides. */
function bits(name: string, ...leftOut: string[]): Map<string, string> {
  const all = new Map<string, string>();
  for (const id of units(name)) {
    for (const file of readdirSync(join(folder, name, 'units', id))) {
      if (/\.(safetensors|arrow)$/.test(file) && file !== 'times.arrow' && !leftOut.includes(file))
        all.set(
          `${id}/${file}`,
          createHash('sha256')
            .update(readFileSync(unit(name, id, file)))
            .digest('hex'),
        );
    }
  }
  return all;
}
const stamps = (name: string) =>
  units(name).map((id) => `${id} ${statSync(unit(name, id, 'unit.json')).mtimeMs}`);

const first = await run('whole', recipe());

test('a recipe.yaml of someone else is never written over', async () => {
  const out = join(folder, 'foreign');
  mkdirSync(out);
  writeFileSync(join(out, 'recipe.yaml'), '# mine');
  await assert.rejects(run('foreign', recipe()), {
    code: 'other-experiment',
    message: /recipe\.yaml is not from a run.*--out/,
  });
  assert.equal(readFileSync(join(out, 'recipe.yaml'), 'utf8'), '# mine');
  assert.ok(!existsSync(join(out, 'experiment.json')));
});

test('as many units are side by side as may be, and how many changes no bit', async () => {
  for (const [sideBySide, most] of [
    [1, 1],
    [2, 2],
    [9, 3],
    [undefined, 3],
  ]) {
    const name = `side-by-side-${sideBySide}`;
    const working = new Set<string>();
    let seen = 0;
    await run(name, recipe(), {
      threads: 3,
      ...(sideBySide === undefined ? {} : { sideBySide }),
      onEvent: (event) => {
        if (event.type === 'unit-start') working.add(event.id);
        if (event.type === 'unit-end') working.delete(event.id);
        seen = Math.max(seen, working.size);
      },
    });
    assert.equal(seen, most, name);
    assert.deepEqual(bits(name), bits('whole'));
  }
  await assert.rejects(run('none', recipe(), { sideBySide: 0 }), { code: 'invalid-argument' });
});

test('a run gives level 0 and every branch of every level for each rewind point, T - k updates each', async () => {
  assert.equal(first.complete, true);
  assert.equal(first.stopped, false);
  const lines = first.results.map((r) => `k${r.rewind} l${r.level} ${r.branch} ${r.updates}`);
  const expected = [0, 25].flatMap((k) => [
    `k${k} l0 imp 60`,
    ...[1, 2].flatMap((level) =>
      ['imp', 'random', 'reinit'].map((branch) => `k${k} l${level} ${branch} ${60 - k}`),
    ),
  ]);
  assert.deepEqual([...lines].sort(), expected.sort());
  for (const r of first.results) {
    const counts = [15680, 240, 120].map((n, i) => {
      let left = n;
      for (let level = 0; level < r.level; level++) left -= Math.floor(left * (i === 2 ? 0.25 : 0.5));
      return left;
    });
    assert.equal(r.densityPrunable, counts.reduce((a, b) => a + b) / 16040);
    assert.ok(r.testAccuracy !== null && r.testAccuracy > 0.1 && r.validationAccuracy !== null);
    assert.ok(r.earlyStop !== null && r.earlyStop >= r.rewind && r.earlyStop <= 60 && r.earlyStop % 20 === 0);
  }
});

test('rewind points share the dense run, and level 0 is one training', async () => {
  assert.equal(units('whole').filter((id) => id.includes('dense')).length, 3);
  const level0 = first.results.filter((r) => r.level === 0);
  assert.equal(new Set(level0.map((r) => r.testLoss)).size, 1);
  assert.ok(level0.every((r) => r.noise === 0));
  const noises = first.results.filter((r) => r.level > 0).map((r) => r.noise);
  assert.equal(new Set(noises).size, noises.length, 'each later training has a fresh noise id');
  assert.ok(!noises.includes(0));
});

test('progress goes forward from 0 to 1', async () => {
  assert.ok(first.fractions.length > 0);
  first.fractions.forEach((fraction, i) => {
    assert.ok(fraction >= (first.fractions[i - 1] ?? 0) && fraction <= 1, String(first.fractions));
  });
});

test('the same command again does nothing and says the same', async () => {
  const before = stamps('whole');
  const again = await run('whole', recipe());
  assert.deepEqual(again.started, []);
  assert.equal(again.plan?.done, again.plan?.units);
  assert.deepEqual(again.results, first.results);
  assert.deepEqual(stamps('whole'), before);
  assert.deepEqual((await summarise(join(folder, 'whole'))).results, first.results);
});

test('1 thread and 2 threads, side by side or not, give the same bits in every file', async () => {
  const one = await run('one-thread', recipe(), { threads: 1 });
  assert.deepEqual(timeless(one.results), timeless(first.results));
  assert.deepEqual(bits('one-thread'), bits('whole'));
});

test('raising levels, replicates and rewind points continues, with the bits of asking for all at once', async () => {
  await run('grown', recipe({ rewind: ['0it'], controls: ['random'] }, { levels: 1 }));
  const before = stamps('grown');
  const levels = await run('grown', recipe({ rewind: ['0it'] }));
  assert.ok(
    levels.started.length > 0 && levels.started.every((label) => /level 2|reinit/.test(label)),
    String(levels.started),
  );
  const grown = await run('grown', recipe());
  assert.ok(
    grown.started.every((label) => /25/.test(label)),
    String(grown.started),
  );
  assert.deepEqual(
    before.filter((line) => !stamps('grown').includes(line)),
    [],
    'what was finished is not touched',
  );
  assert.deepEqual(timeless(grown.results), timeless(first.results));
  // How the dense run was cut into units is the only difference.
  assert.deepEqual(bits('grown', 'metrics.arrow'), bits('whole', 'metrics.arrow'));
  const replicates = await run('grown', recipe({ replicates: 2 }));
  assert.ok(
    replicates.started.every((label) => /replicate 1/.test(label)),
    String(replicates.started),
  );
  assert.equal(replicates.results.length, 28);
});

test('masks on disk are nested from level to level, and pruned weights are +0 in every file', async () => {
  for (const id of units('whole')) {
    const level2 = /^(.*)-l02-prune-/.exec(id)?.[1];
    if (!level2) continue;
    const outerId = units('whole').find((other) => other.startsWith(`${level2}-l01-prune-`)) as string;
    const inner = await Masks.read(network, unit('whole', id, 'masks.safetensors'));
    const outer = await Masks.read(network, unit('whole', outerId, 'masks.safetensors'));
    assert.ok(inner.nestedIn(outer));
    for (const branch of ['imp', 'random', 'reinit']) {
      const training = units('whole').find((other) => other.startsWith(`${level2}-l02-${branch}-`)) as string;
      const snapshot = await Snapshot.read(network, unit('whole', training, 'snapshot.safetensors'));
      const own = unit('whole', training, 'masks.safetensors');
      const masks = existsSync(own) ? await Masks.read(network, own) : inner;
      if (branch === 'random') assert.ok(!masks.nestedIn(inner));
      for (const [name, { vector }] of masks.tensors()) {
        const { values } = snapshot.tensors().get(name) as { values: ArrayLike<number> };
        let wrong = 0;
        for (let i = 0; i < values.length; i++) if (!vector.get(i) && !Object.is(values[i], 0)) wrong++;
        assert.equal(wrong, 0, `${training} ${name}`);
      }
    }
  }
});

test('an aborted run keeps what is finished; the same command then gives the bits of the undisturbed run', async () => {
  const controller = new AbortController();
  let ended = 0;
  const stopped = await run('aborted', recipe(), {
    signal: controller.signal,
    onEvent: (event) => {
      if (event.type === 'unit-end' && ++ended === 5) controller.abort();
    },
  });
  assert.equal(stopped.stopped, true);
  assert.equal(stopped.complete, false);
  const kept = units('aborted').filter((id) => existsSync(unit('aborted', id, 'unit.json')));
  assert.ok(kept.length >= 5 && kept.length < units('whole').length);
  const resumed = await run('aborted', recipe());
  assert.equal(resumed.plan?.done, kept.length);
  assert.deepEqual(timeless(resumed.results), timeless(first.results));
  assert.deepEqual(bits('aborted'), bits('whole'));
});

test('two commands on one folder share the work', async () => {
  const [a, b] = await Promise.all([
    run('shared', recipe(), { threads: 1 }),
    run('shared', recipe(), { threads: 1 }),
  ]);
  assert.deepEqual(timeless(a.results), timeless(first.results));
  assert.deepEqual(timeless(b.results), timeless(first.results));
  assert.equal(a.started.length + b.started.length, units('shared').length, 'nothing is done twice');
  assert.ok(
    Math.min(a.started.length, b.started.length) >= 3,
    `${a.started.length} and ${b.started.length} units`,
  );
  assert.deepEqual(bits('shared'), bits('whole'));
});

test('one-shot pruning takes every mask from the dense run', async () => {
  const { results } = await run('oneshot', recipe({ rewind: ['0it'], controls: [] }, { method: 'oneshot' }));
  assert.deepEqual(
    results.map((r) => [r.method, r.level, r.densityPrunable]),
    first.results
      .filter((r) => r.rewind === 0 && r.branch === 'imp')
      .map((r) => ['oneshot', r.level, r.densityPrunable]),
  );
});

test('noise "same" keeps the data order of the dense run; "fresh" does not', async () => {
  const { results } = await run('same', recipe({ noise: 'same', rewind: ['0it'] }));
  assert.ok(results.every((r) => r.noise === 0));
});

test('a training that diverges is a result; what depends on it is left out, and the run is complete', async () => {
  const training = {
    ...recipe().training,
    optimiser: { type: 'sgd' as const, learningRate: 1e6, momentum: 0, nesterov: false, weightDecay: 0 },
  };
  for (const [name, rewind] of [
    ['diverged', ['0it']],
    ['diverged-early', ['25it']],
  ] as const) {
    const { results, complete } = await run(name, recipe({ training, rewind: [...rewind] }));
    assert.deepEqual(
      results.map((r) => [r.branch, r.level, r.diverged, r.testAccuracy, r.earlyStop]),
      [['imp', 0, true, null, null]],
      name,
    );
    assert.equal(complete, true, name);
  }
});

test('a folder of another experiment is refused, and left as it is', async () => {
  const before = stamps('whole');
  const yaml = readFileSync(join(folder, 'whole', 'recipe.yaml'), 'utf8');
  for (const other of [
    recipe({ seed: 2 }),
    recipe({}, { fraction: 0.4 }),
    recipe({ network: 'lenet-20-13' }),
  ]) {
    await assert.rejects(run('whole', other), { code: 'other-experiment' });
  }
  assert.deepEqual(stamps('whole'), before);
  assert.equal(readFileSync(join(folder, 'whole', 'recipe.yaml'), 'utf8'), yaml);
});

test('a data set with the same figures and other labels is another experiment', async () => {
  const data = join(folder, 'digits');
  cpSync(join(packageRoot, 'data', 'mnist-10k'), data, { recursive: true });
  const path = join(data, 'train-labels-idx1-ubyte.gz');
  const labels = gunzipSync(readFileSync(path));
  labels.subarray(8).reverse();
  writeFileSync(path, gzipSync(labels));
  const { data: same } = recipe();
  await assert.rejects(run('whole', recipe({ data: { ...same, folder: data } })), (error: Error) => {
    assert.match(error.message, /another experiment: data\.figures\.0\.digest is/);
    return true;
  });
});

test('what is complete is judged by what was asked for, and rewind points are those asked for', async () => {
  const dense = await run('asked', recipe({ rewind: ['25it'] }, { levels: 0 }));
  assert.deepEqual(
    dense.results.map((r) => [r.rewind, r.level]),
    [[25, 0]],
  );
  assert.equal(dense.complete, true);
  const twice = await run('asked', recipe({ rewind: ['30it', '50%'] }, { levels: 0 }));
  assert.equal(twice.complete, true);
  assert.equal((await run('asked', recipe({ replicates: 2, controls: [] }, { levels: 1 }))).complete, true);
  const fewer = await run('asked', recipe({ rewind: ['0it'], controls: [] }, { levels: 2 }));
  assert.equal(fewer.complete, true, 'one replicate and one rewind point went further');
  assert.equal((await summarise(join(folder, 'asked'))).complete, true);
  const more = recipe({ rewind: ['0it'], replicates: 3, controls: [] }, { levels: 2 });
  assert.equal((await summarise(join(folder, 'asked'), more)).complete, false);
});

test('seconds of the dense run count all its parts', async () => {
  const dense = first.results.find((r) => r.level === 0) as Result;
  const parts = units('whole')
    .filter((id) => id.startsWith('r0-dense-'))
    .map((id) => JSON.parse(readFileSync(unit('whole', id, 'unit.json'), 'utf8')).seconds as number);
  assert.equal(parts.length, 3);
  assert.ok(dense.seconds > Math.max(...parts.slice(0, 2)));
});

test('an error stops what is running at its next step, and leaves no lock', async () => {
  const id = units('whole').find((name) => /k0-.*-l01-random/.test(name)) as string;
  mkdirSync(join(folder, 'blocked', 'units'), { recursive: true });
  writeFileSync(join(folder, 'blocked', 'units', id), 'in the way');
  await assert.rejects(run('blocked', recipe()), { code: 'io' });
  const before = readdirSync(join(folder, 'blocked', 'units')).length;
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(readdirSync(join(folder, 'blocked', 'units')).length, before, 'nothing goes on');
  rmSync(join(folder, 'blocked', 'units', id));
  const { results } = await run('blocked', recipe());
  assert.deepEqual(timeless(results), timeless(first.results));
});

test('a flipped bit in what a unit reads is found before it is used', async () => {
  await run('flipped', recipe({ rewind: ['25it'], controls: [] }, { levels: 1 }));
  const id = units('flipped').find((name) => name.includes('dense-25it')) as string;
  const path = unit('flipped', id, 'snapshot.safetensors');
  const bytes = readFileSync(path);
  bytes[bytes.length - 100] = (bytes[bytes.length - 100] as number) ^ 1;
  writeFileSync(path, bytes);
  const { problems, complete } = await run('flipped', recipe({ rewind: ['25it'], controls: [] }));
  assert.equal(complete, false);
  assert.deepEqual(
    problems.map(({ state, label }) => [state, label]),
    [['failed', 'replicate 0, rewind 25, level 2, imp']],
  );
  assert.match(problems[0]?.message ?? '', /dense-25it.*snapshot\.safetensors: its SHA-256 is/);
});

test('the same step counts in other words are the same experiment', async () => {
  const training = { ...recipe().training, steps: '60', evaluateEvery: '20it' };
  const { started } = await run('whole', recipe({ training }));
  assert.deepEqual(started, []);
});

test('results of another instruction set are never mixed in', async () => {
  const code = `
    import { runExperiment } from '${new URL('../lib/experiment/run.js', import.meta.url)}';
    import { loadRecipe } from '${new URL('../lib/recipe/load.js', import.meta.url)}';
    const out = '${join(folder, 'one-thread')}';
    try {
      const { results } = await runExperiment(loadRecipe(out + '/recipe.yaml'), { out, threads: 1 });
      console.log('results ' + results.length);
    } catch (error) {
      console.log('refused ' + error.code);
    }`;
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    env: { ...process.env, LTH_ISA: 'portable' },
    encoding: 'utf8',
  });
  assert.match(child.stdout, /^refused /, child.stdout + child.stderr);
});

test('what cannot be is refused before anything is written', async () => {
  for (const wrong of [
    recipe({ rewind: ['60it'] }),
    recipe({ rewind: ['100%'] }),
    recipe({ network: 'lenet' }),
  ]) {
    await assert.rejects(run('never', wrong), { code: 'recipe' });
  }
  await assert.rejects(run('never', recipe({}, { rates: { 'fc9.weight': 0.1 } })), /fc9\.weight/);
  await assert.rejects(run('never', recipe(), { threads: 0 }), { code: 'invalid-argument' });
  assert.ok(!existsSync(join(folder, 'never')));
});

test('a recipe made in JavaScript is checked as one in a file is', async () => {
  for (const wrong of [{ controls: ['foo'] }, { noise: 'x' }, { replicates: 0 }, { rewind: '5it' }]) {
    await assert.rejects(run('never', { ...recipe(), ...wrong } as unknown as Recipe), { code: 'recipe' });
  }
  const fixed = recipe({}, { rates: {} });
  const description = { name: 'fixed', input: [1, 28, 28], classes: 10 };
  const layers = [
    { name: 'flat', type: 'flatten' as const },
    { name: 'fc', type: 'linear' as const, units: 10, prunable: false },
  ];
  await assert.rejects(run('never', { ...fixed, network: { ...description, layers } }), /nothing prunable/);
});

test('levels that would find nothing left to prune are refused, and those of older runs are no tickets', async () => {
  const layers = [
    { name: 'flat', type: 'flatten' as const },
    { name: 'narrow', type: 'linear' as const, units: 1, prunable: false },
    { name: 'fc', type: 'linear' as const, units: 10 },
  ];
  const network = { name: 'few', input: [1, 28, 28], classes: 10, layers };
  const few = (levels: number) =>
    recipe({ network, rewind: ['0it'], controls: [] }, { fraction: 0.1, rates: {}, levels });
  await assert.rejects(run('dry', few(3)), {
    code: 'recipe',
    message: /pruning\.levels: expected at most 1 but received 3: from level 2 on nothing is pruned/,
  });
  const { results } = await run('dry', few(1));
  const last = results.find(({ level }) => level === 1) as Result;
  const [curve] = curves([...results, { ...last, level: 2 }, { ...last, level: 3 }]);
  assert.deepEqual(
    curve?.rows.map((row) => [row.level, row.pruned]),
    [
      [0, true],
      [1, true],
      [2, false],
      [3, false],
    ],
  );
  assert.ok(curve?.rows.slice(2).every((row) => !row.matching && !row.winning));
});

test('a place that cannot be written is an error that names it', async () => {
  writeFileSync(join(folder, 'a-file'), '');
  await assert.rejects(run('a-file/run', recipe()), (error: { code: string; message: string }) => {
    assert.equal(error.code, 'io');
    assert.match(error.message, /a-file/);
    return true;
  });
});

test('a damaged file of a finished unit is named, and nothing is lost', async () => {
  await run('damaged', recipe({ rewind: ['0it'], controls: [] }, { levels: 1 }));
  const id = units('damaged').find((name) => name.includes('l01-prune')) as string;
  writeFileSync(unit('damaged', id, 'masks.safetensors'), 'cut');
  const { problems } = await run('damaged', recipe({ rewind: ['0it'], controls: [] }));
  assert.match(problems[0]?.message ?? '', /masks\.safetensors: has 3 bytes.*verify --repair/);
  writeFileSync(unit('damaged', id, 'unit.json'), '{"format"');
  const summary = await summarise(join(folder, 'damaged'));
  assert.deepEqual(
    summary.problems.map((one) => [one.state, one.label.replace(/.*level/, 'level')]),
    [
      ['damaged', 'level 1, pruning'],
      ['failed', 'level 2, pruning'],
    ],
  );
  assert.equal(summary.results.length, 2, 'the rest is shown');
});
