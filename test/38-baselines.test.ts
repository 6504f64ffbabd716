/** Retraining methods, pruning at the rewind point and their ablations, beside IMP in one run. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { measureStability } from '../lib/experiment/analyse.js';
import type { ExperimentEvent } from '../lib/experiment/Event.js';
import { openPlan } from '../lib/experiment/openPlan.js';
import type { TrainUnit } from '../lib/experiment/plan.js';
import { repairRun } from '../lib/experiment/repair.js';
import { runExperiment } from '../lib/experiment/run.js';
import { verifyRun } from '../lib/experiment/verify.js';
import type { LthError } from '../lib/native/errors.js';
import { resnet } from '../lib/networks/resnet.js';
import type { Branch, Control } from '../lib/recipe/branches.js';
import { loadRecipe } from '../lib/recipe/load.js';
import type { Recipe } from '../lib/recipe/Recipe.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Masks } from '../lib/session/Masks.js';
import { Snapshot } from '../lib/session/Snapshot.js';
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

/** Weights of each tensor that the masks of a unit keep. */
const keptBy = async (name: string, unit: string) => {
  const masks = await Masks.read(network, join(folder, name, 'units', unit, 'masks.safetensors'));
  return { masks, kept: [...masks.tensors().values()].map(({ remaining }) => remaining) };
};

test('random and -shuffle keep as many weights of each tensor as the masks they permute, at other places', async () => {
  const { plan, workplace } = await openPlan(recipe());
  workplace.dispose();
  const shuffled = plan.units.filter((unit) => unit.kind === 'train' && unit.rule.shuffled) as TrainUnit[];
  assert.deepEqual(
    shuffled.map(({ branch, level }) => `${branch} ${level}`),
    ['random 1', 'snip-shuffle 1', 'random 2', 'snip-shuffle 2'],
  );
  for (const unit of shuffled) {
    const [given, own] = [await keptBy('whole', unit.masks), await keptBy('whole', unit.id)];
    assert.deepEqual(own.kept, given.kept, unit.label);
    assert.ok(!own.masks.nestedIn(given.masks), unit.label);
  }
});

test('one pool over all layers: scores and random-global spread the weights as they like', async () => {
  const { plan, workplace } = await openPlan(recipe());
  workplace.dispose();
  const spread = async (branch: string) => {
    const unit = plan.units.find((one) => one.kind === 'train' && one.branch === branch && one.level === 2);
    return (await keptBy('whole', (unit as TrainUnit).masks)).kept;
  };
  const imp = await spread('imp');
  for (const branch of ['random-global', 'magnitude', 'snip', 'synflow']) {
    const kept = await spread(branch);
    assert.notDeepEqual(kept, imp, branch);
    assert.equal(
      kept.reduce((a, b) => a + b),
      imp.reduce((a, b) => a + b),
      branch,
    );
  }
});

/** Stops a run at an event, lets it go on, and compares what its units hold with the run that was not stopped. */
async function stopAndGoOn(branch: Control, at: (event: ExperimentEvent) => boolean): Promise<string[]> {
  const stop = new AbortController();
  const what = recipe({ controls: [branch] });
  const out = join(folder, `stopped-${branch}`);
  const cut = await runExperiment(what, {
    out,
    threads: 2,
    // Short of the 35 updates, so that a stop after the first rows is one in the middle on any machine.
    checkpoint: { updates: 7 },
    signal: stop.signal,
    onEvent: (event) => at(event) && stop.abort(),
  });
  assert.deepEqual([cut.complete, cut.stopped], [false, true]);
  const resumed: string[] = [];
  const whole = await runExperiment(what, {
    out,
    threads: 1,
    onEvent: (event) => {
      if (event.type === 'unit-start' && event.resumed > 0) resumed.push(event.label);
    },
  });
  assert.equal(whole.complete, true);
  const ids = finishedUnits(out);
  assert.ok(ids.some((id) => id.includes(`l02-${branch}-`)));
  const expected = finishedBits(bitsOf(join(folder, 'whole')), ids);
  assert.equal(firstDifference(expected, finishedBits(bitsOf(out), ids)), null);
  return resumed;
}

for (const branch of ['lr-rewind', 'finetune', 'imp-invert', 'snip-shuffle', 'snip-reinit'] as const) {
  test(`stopped in the middle of ${branch}, a run goes on to the same bits`, async () => {
    const units = join(folder, `stopped-${branch}`, 'units');
    // Rows come at 30, 40 and 50, checkpoints at 28, 35, ...: by the second row there is one, and the end is far.
    const resumed = await stopAndGoOn(
      branch,
      ({ type }) =>
        type === 'progress' &&
        (readdirSync(units, { recursive: true }) as string[]).some(
          (path) => path.includes(`l02-${branch}-`) && /checkpoint-\d+\.json$/.test(path),
        ),
    );
    assert.ok(resumed.includes(`replicate 0, rewind 25, level 2, ${branch}`), `${resumed}`);
  });
}

test('stopped while SynFlow prunes, a run prunes again and has the same bits', async () => {
  const label = 'replicate 0, rewind 25, level 2, pruning by synflow';
  const resumed = await stopAndGoOn('synflow', (one) => one.type === 'unit-start' && one.label === label);
  // A pruning is made again from its start. Trainings go on: those beside it, or, where it was quicker than the stop, the
  // one after it.
  assert.ok(
    resumed.every((one) => !/pruning/.test(one)),
    `${resumed}`,
  );
});

test('networks with batch norm have the same branches; running statistics are never pruned', async () => {
  const network = { ...resnet(8, { width: 0.25 }), input: [1, 28, 28] };
  const what = tinyRecipe(
    {
      network,
      rewind: ['4it'],
      controls: ['random', 'lr-rewind', 'finetune', 'snip', 'grasp-shuffle', 'synflow', 'magnitude-reinit'],
    },
    { pooling: 'global', rates: {} },
    { steps: '12it', schedule: { milestones: ['8it'], gamma: 0.1, warmup: '0it' } },
  );
  const { complete, results } = await run('batchnorm', what, 2);
  assert.equal(complete, true);
  for (const level of [1, 2])
    assert.equal(new Set(results.filter((r) => r.level === level).map((r) => r.densityPrunable)).size, 1);
  assert.deepEqual((await verifyRun(join(folder, 'batchnorm'))).problems, []);
  const compiled = CompiledNetwork.compile(network);
  for (const branch of ['finetune', 'synflow', 'grasp-shuffle']) {
    const id = unitOf('batchnorm', `l02-${branch}-`);
    const snapshot = await Snapshot.read(
      compiled,
      join(folder, 'batchnorm', 'units', id, 'snapshot.safetensors'),
    );
    for (const [name, { values }] of snapshot.tensors())
      if (/running_var/.test(name))
        assert.ok(
          values.every((x) => x > 0),
          `${branch} ${name}`,
        );
  }
});

test('verify finds nothing wrong', async () => {
  assert.deepEqual((await verifyRun(join(folder, 'whole'))).problems, []);
});

test('--keep needed: what an iteration goes on from stays; what repair needs of removed weights is made again', async () => {
  const what = tinyRecipe({ rewind: ['25it'], controls: ['lr-rewind', 'snip'] }, { levels: 3 });
  const out = join(folder, 'lean');
  const options = { out, threads: 2, keep: 'needed' } as const;
  assert.equal((await runExperiment(what, options)).complete, true);
  const weights = readdirSync(join(out, 'units')).filter((id) =>
    existsSync(join(out, 'units', id, 'snapshot.safetensors')),
  );
  assert.deepEqual(weights.map((id) => id.replace(/-[0-9a-f]{12}$/, '')).sort(), [
    'r0-dense-25it',
    'r0-dense-60it',
    'r0-k25-iterative-l03-imp',
    'r0-k25-iterative-l03-lr-rewind',
  ]);
  const before = bitsOf(out);
  const { plan, workplace } = await openPlan(what);
  workplace.dispose();
  const last = plan.units.find(
    (unit) => unit.kind === 'train' && unit.branch === 'lr-rewind' && unit.level === 3,
  ) as TrainUnit;
  truncateSync(join(out, 'units', last.masks, 'masks.safetensors'), 50);
  const moved = await repairRun(out, await verifyRun(out));
  // The masks, the training whose weights they are of, and the one which that went on from; the dense one is there.
  assert.deepEqual(
    moved.map((path) => path.replace(/.*damaged\/|-[0-9a-f]{12}$/g, '')),
    ['r0-k25-iterative-l03-prune', 'r0-k25-iterative-l02-lr-rewind', 'r0-k25-iterative-l01-lr-rewind'],
  );
  assert.equal((await runExperiment(what, options)).complete, true);
  rmSync(join(out, 'damaged'), { recursive: true });
  assert.equal(firstDifference(before, bitsOf(out)), null);
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

test('copies are refused where imp does not rewind weights, with what to type', async () => {
  await assert.rejects(measureStability(join(folder, 'finetuned')), (error: LthError) => {
    assert.equal(error.code, 'recipe');
    assert.match(error.message, /retraining: finetune.*--set retraining=rewind --out NEW/);
    return true;
  });
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

test('the recipes of the two papers are built in, with their values and figures', () => {
  const renda = loadRecipe('cifar10/rewinding-vs-finetuning');
  assert.deepEqual([renda.training.steps, renda.training.batch], ['71108it', 128]);
  assert.deepEqual(renda.training.optimiser, {
    type: 'sgd',
    learningRate: 0.1,
    momentum: 0.9,
    nesterov: false,
    weightDecay: 2e-4,
  });
  assert.deepEqual(renda.controls, ['lr-rewind', 'finetune']);
  const figure = (branch: Branch, rewind: string, level: number) =>
    renda.paper?.figures.find((one) => one.branch === branch && one.rewind === rewind && one.level === level)
      ?.accuracy;
  assert.equal(figure('imp', '0it', 10), 0.8668);
  assert.equal(figure('lr-rewind', '0it', 10), 0.9101);
  assert.equal(figure('imp', '4688it', 10), 0.91);
  assert.equal(figure('imp', '20317it', 5), 0.9221);
  assert.equal(figure('finetune', '20317it', 10), 0.8858);
  const missing = loadRecipe('cifar10/pruning-at-init');
  assert.deepEqual([missing.training.steps, missing.pruning.method], ['160ep', 'oneshot']);
  for (const control of ['snip', 'snip-shuffle', 'grasp-invert', 'synflow-reinit', 'random-global'] as const)
    assert.ok(missing.controls.includes(control), control);
  assert.equal(missing.paper, null);
});
