/** Stability and connectivity of control "reinit", and the accuracies beside distances. */
import assert from 'node:assert/strict';
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { measureConnectivity, measureStability } from '../lib/experiment/analyse.js';
import { openPlan } from '../lib/experiment/openPlan.js';
import { summarise } from '../lib/experiment/summary.js';
import { survey } from '../lib/experiment/survey.js';
import { verifyRun } from '../lib/experiment/verify.js';
import { readRecord, writeRecord } from '../lib/files.js';
import { renderStability } from '../lib/report/analyses.js';
import { renderReport } from '../lib/report/report.js';
import { Snapshot } from '../lib/session/Snapshot.js';
import { readMetrics } from '../lib/store/metrics.js';
import { differences, network } from './helpers/digits.js';
import { bitsOf, finishedUnits, firstDifference, runToCopy, temporaryFolder } from './helpers/runs.js';
import { tinyRecipe } from './helpers/tiny.js';

const folder = temporaryFolder('reinit');
const recipe = tinyRecipe({ controls: ['reinit'] });
const { fresh } = await runToCopy(folder, recipe);
const whole = fresh();
const asked = { orders: 2, threads: 2, branches: ['imp', 'reinit'] } as const;
const first = await measureStability(whole, { ...asked, branches: [...asked.branches] });
const snapshotOf = (path: string, id: string) =>
  Snapshot.read(network, join(path, 'units', id, 'snapshot.safetensors'));

test('reinit is compared only where it is asked for: with copies of its own, pruned and not', async () => {
  const places = first.results
    .filter(({ scope }) => scope === 'masked')
    .map(({ branch, kind, rewind, level }) => `${branch} ${kind} k${rewind} l${level}`);
  const expected = ['imp', 'reinit'].flatMap((branch) =>
    [0, 25].flatMap((k) => ['order', 'pruning'].map((kind) => `${branch} ${kind} k${k} l2`)),
  );
  assert.deepEqual(places.sort(), expected.sort());
  const copies = finishedUnits(whole).filter((id) => id.includes('-copy-'));
  // Of two rewind points: two copies of each branch, and one that is not pruned for each.
  assert.equal(copies.filter((id) => id.includes('-l02-reinit-copy-')).length, 4);
  assert.equal(copies.filter((id) => id.includes('-l02-reinit-dense-copy-')).length, 2);
  assert.equal(copies.length, 12);
  const { results } = await measureStability(fresh(), { orders: 2, threads: 2 });
  assert.deepEqual([...new Set(results.map(({ branch }) => branch))].sort(), ['imp', 'random']);
  const imp = ({ branch }: { branch: string }) => branch === 'imp';
  assert.deepEqual(results.filter(imp), first.results.filter(imp), 'copies of others are what they were');
});

test("its copies start from the initialisation of the run's own control, under the noise u_i", async () => {
  const { workplace, plan } = await openPlan(recipe);
  const { units } = await survey(whole);
  let looked = 0;
  for (const { unit } of units) {
    if (unit.kind !== 'copy' || unit.branch !== 'reinit') continue;
    looked++;
    const control = plan.units.find(
      (one) =>
        one.kind === 'train' && one.branch === 'reinit' && one.rewind === unit.rewind && one.level === 2,
    );
    assert.ok(control?.kind === 'train');
    assert.equal(unit.draw, control.noise, 'as fresh as the control');
    // By hand: a fresh session, reinitialised at k with the masks, trained under u_i.
    workplace.folder = (await survey(whole)).folder;
    const session = await workplace.openSession(unit.replicate, 1, plan.steps);
    if (unit.masks) await session.setMasks(await workplace.masks(unit.masks));
    await session.initialise(control.noise);
    session.setStep(unit.rewind);
    await session.trainToEnd({ until: plan.steps.total, noise: unit.noise, evaluate: [] });
    const [own, copy] = [await session.snapshot(), await snapshotOf(whole, unit.id)];
    const wrong = differences(own, copy).filter((name) => copy.tensors().has(name));
    assert.deepEqual(wrong, [], unit.label);
    session.dispose();
  }
  assert.equal(looked, 6);
  workplace.dispose();
});

test("accuracies of a sample are the copies' own at the end of their training, in the table too", async () => {
  const { units } = await survey(whole);
  for (const { unit, record } of units) {
    if (unit.kind !== 'distance') continue;
    for (const { testAccuracies } of record?.stability ?? [])
      for (const [i, id] of unit.copies.entries()) {
        const rows = await readMetrics(join(whole, 'units', id, 'metrics.arrow'));
        assert.equal(testAccuracies[i], rows.findLast(({ split }) => split === 'test')?.accuracy);
        assert.ok((testAccuracies[i] ?? 0) > 0.1);
      }
  }
  const lines = renderStability(first.results, { scope: 'masked', layers: false }).split('\n');
  const head = lines[2] ?? '';
  assert.match(head, /imp distance +random distance +ratio +reinit distance +ratio +imp angle/);
  assert.match(head, /imp test % +random test % +reinit test % +dense test %$/);
  const mine = first.results.filter(
    (one) => one.branch === 'imp' && one.rewind === 0 && one.kind === 'order' && one.scope === 'masked',
  );
  const accuracies = mine.flatMap((one) => one.testAccuracies) as number[];
  const [low, high] = [Math.min(...accuracies), Math.max(...accuracies)].map((one) => (one * 100).toFixed(2));
  assert.ok(
    lines.some((line) => line.includes('data order') && line.includes(`[${low}-${high}]`)),
    `${low}-${high}`,
  );
});

test('folders of before accuracies were kept are read and verified; forged accuracies are found', async () => {
  const path = join(folder, 'older');
  cpSync(whole, path, { recursive: true });
  const change = async (id: string, how: (one: Record<string, unknown>) => Record<string, unknown>) => {
    const file = join(path, 'units', id, 'unit.json');
    const record = await readRecord(file);
    const samples = record.stability as Record<string, unknown>[];
    await writeRecord(file, { ...record, stability: samples.map(how) });
  };
  const [old, forged] = finishedUnits(path).filter((id) => id.includes('-order-')) as [string, string];
  await change(old, ({ testAccuracies: _, ...rest }) => rest);
  assert.deepEqual((await verifyRun(path)).problems, []);
  const without = (await summarise(path)).stability.filter(({ testAccuracies: [a] }) => a === null);
  assert.equal(without.length, 2);
  await change(forged, (one) => ({ ...one, testAccuracies: [1, 1] }));
  assert.deepEqual(
    (await verifyRun(path)).problems.map(({ id }) => id),
    [forged],
  );
});

test('lines between copies of reinit take those of stability; report and verify know them', async () => {
  const path = join(folder, 'lines');
  cpSync(whole, path, { recursive: true });
  const before = finishedUnits(path).length;
  const found = await measureConnectivity(path, { branches: ['reinit'], alphas: 3, threads: 2 });
  assert.equal(finishedUnits(path).length, before + 2, 'two lines and nothing trained');
  assert.deepEqual(
    found.results.map(({ branch, rewind }) => `${branch} ${rewind}`),
    ['reinit 0', 'reinit 25'],
  );
  assert.deepEqual((await verifyRun(path)).problems, []);
  const page = renderReport([await summarise(path)]);
  assert.match(page, /reinit, data order/);
  assert.match(page, /reinit, test/);
});

test('neither threads nor jobs change a bit of them', async () => {
  const shared = fresh();
  await measureStability(shared, { orders: 2, threads: 1, jobs: 2, branches: ['imp', 'reinit'] });
  assert.equal(firstDifference(bitsOf(whole), bitsOf(shared)), null);
});
