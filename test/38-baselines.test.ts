/** Retraining methods, pruning at the rewind point and their ablations, beside IMP in one run. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { openPlan } from '../lib/experiment/openPlan.js';
import type { TrainUnit } from '../lib/experiment/plan.js';
import { runExperiment } from '../lib/experiment/run.js';
import { verifyRun } from '../lib/experiment/verify.js';
import type { Control } from '../lib/recipe/branches.js';
import type { Recipe } from '../lib/recipe/Recipe.js';
import { Masks } from '../lib/session/Masks.js';
import { readMetrics } from '../lib/store/metrics.js';
import { network } from './helpers/digits.js';
import { bitsOf, finishedBits, finishedUnits, firstDifference } from './helpers/runs.js';
import { tinyRecipe } from './helpers/tiny.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-baselines-'));
after(() => rmSync(folder, { recursive: true }));

const controls: Control[] = [
  'random',
  'lr-rewind',
  'finetune',
  'imp-invert',
  'random-global',
  'magnitude',
  'snip',
  'snip-shuffle',
  'snip-reinit',
  'snip-invert',
  'grasp',
  'grasp-abs',
  'synflow',
];
const training: Partial<Recipe['training']> = {
  schedule: { milestones: ['30it', '50it'], gamma: 0.1, warmup: '0it' },
};
const recipe = (changes: Partial<Recipe> = {}) =>
  tinyRecipe({ rewind: ['25it'], controls, ...changes }, {}, training);
const run = (name: string, what: Recipe, threads: number) =>
  runExperiment(what, { out: join(folder, name), threads });
const unitOf = (name: string, part: string) =>
  readdirSync(join(folder, name, 'units')).find((id) => id.includes(part)) as string;
const rates = async (name: string, part: string) => {
  const rows = await readMetrics(join(folder, name, 'units', unitOf(name, part), 'metrics.arrow'));
  return rows.filter(({ split }) => split === 'train').map(({ learningRate }) => learningRate);
};

const first = await run('whole', recipe(), 2);

test('every branch has a result of every level, with as many weights as IMP', () => {
  assert.equal(first.complete, true);
  for (const level of [1, 2]) {
    const here = first.results.filter((r) => r.level === level);
    assert.deepEqual(
      here.map((r) => r.branch),
      ['imp', ...controls],
    );
    for (const r of here) {
      assert.equal(r.densityPrunable, here[0]?.densityPrunable, r.branch);
      assert.equal(r.updates, 35);
    }
  }
});

test('masks by one score are nested over levels', async () => {
  for (const by of ['snip', 'grasp', 'magnitude', 'random-global']) {
    const { plan, workplace } = await openPlan(recipe());
    const masks = await Promise.all(
      [1, 2].map((level) => {
        const unit = plan.units.find(
          (one) => one.kind === 'train' && one.branch === by && one.level === level,
        );
        return Masks.read(
          network,
          join(folder, 'whole', 'units', (unit as TrainUnit).masks, 'masks.safetensors'),
        );
      }),
    );
    workplace.dispose();
    assert.ok((masks[1] as Masks).nestedIn(masks[0] as Masks), by);
  }
});

test('learning-rate rewinding follows the schedule from k, fine-tuning stays at its last rate', async () => {
  const close = (actual: number[], expected: number[]) => {
    assert.equal(actual.length, expected.length);
    actual.forEach((x, i) => {
      assert.ok(Math.abs(x - (expected[i] as number)) < 1e-12, `${actual}`);
    });
  };
  // Rows at updates 30, 40, 50 and 60 tell the rate of the update before.
  close(await rates('whole', 'l01-imp-'), [2e-3, 2e-4, 2e-4, 2e-5]);
  close(await rates('whole', 'l01-lr-rewind-'), [2e-3, 2e-4, 2e-4, 2e-5]);
  close(await rates('whole', 'l01-finetune-'), [2e-5, 2e-5, 2e-5, 2e-5]);
});

test('they start from the final weights of the dense network, then of their own level before', async () => {
  const { plan, workplace } = await openPlan(recipe());
  workplace.dispose();
  const dense = plan.units.find((unit) => unit.kind === 'dense' && unit.last);
  for (const branch of ['lr-rewind', 'finetune']) {
    const levels = plan.units.filter(
      (unit) => unit.kind === 'train' && unit.branch === branch,
    ) as TrainUnit[];
    assert.deepEqual(
      levels.map(({ start }) => start),
      [dense?.id, levels[0]?.id],
    );
    const prunings = levels.map(({ masks }) => plan.units.find(({ id }) => id === masks));
    assert.deepEqual(
      prunings.map((unit) => unit?.kind === 'prune' && unit.weights),
      [dense?.id, levels[0]?.id],
    );
  }
});

test('one thread gives the same bits, and more controls on a folder redo nothing', async () => {
  await run('grown', recipe({ controls: ['random'] }), 1);
  const path = join(folder, 'grown');
  const ids = finishedUnits(path);
  const before = finishedBits(bitsOf(path), ids);
  const grown = await run('grown', recipe(), 1);
  assert.equal(firstDifference(before, finishedBits(bitsOf(path), ids)), null);
  const timeless = (results: typeof grown.results) => results.map((r) => ({ ...r, seconds: 0 }));
  assert.deepEqual(timeless(grown.results), timeless(first.results));
  const units = (name: string) =>
    new Map([...bitsOf(join(folder, name))].filter(([file]) => file.startsWith('units/')));
  assert.equal(firstDifference(units('whole'), units('grown')), null);
});

test('verify finds nothing wrong', async () => {
  assert.deepEqual((await verifyRun(join(folder, 'whole'))).problems, []);
});

test('retraining of imp itself is another experiment; its default changes no key', async () => {
  const keys = async (what: Recipe) => {
    const { plan, experiment, workplace } = await openPlan(what);
    workplace.dispose();
    return { ids: plan.units.map(({ id }) => id), experiment };
  };
  const plain = await keys(recipe({ controls: [] }));
  assert.ok(!('retraining' in plain.experiment));
  const other = await keys(recipe({ controls: [], retraining: 'lr-rewind' }));
  assert.equal(other.experiment.retraining, 'lr-rewind');
  assert.ok(
    plain.ids.some((id) => id.includes('-imp-')) &&
      !other.ids.some((id) => id.includes('-imp-') && plain.ids.includes(id)),
  );
  const { results } = await run('finetuned', recipe({ controls: [], retraining: 'finetune' }), 2);
  assert.deepEqual(
    results.map((r) => r.testAccuracy),
    first.results
      .filter((r) => r.branch === 'imp' && r.level === 0)
      .map((r) => r.testAccuracy)
      .concat(results.slice(1).map((r) => r.testAccuracy)),
  );
  assert.equal(results.length, 3);
});

test('names of controls are checked, with what was meant', () => {
  const refused = (name: string, words: RegExp) =>
    assert.throws(() => recipe({ controls: [name as Control] }), words);
  refused('snip-shufle', /Did you mean "snip-shuffle"/);
  refused('imp-shuffle', /Did you mean "random"/);
  refused('random-global-shuffle', /expected one of random, reinit/);
  assert.throws(
    () => recipe({ retraining: 'finetune', controls: ['finetune'] }),
    /finetune is what imp does already/,
  );
});
