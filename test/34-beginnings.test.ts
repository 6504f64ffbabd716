/** A run that is just beginning: who looks for it waits, and what comes to nothing leaves nothing. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { runExperiment } from '../lib/experiment/run.js';
import { LthError } from '../lib/native/errors.js';
import { loadAddon } from '../lib/native/load.js';
import { toYaml } from '../lib/recipe/load.js';
import type { Recipe } from '../lib/recipe/Recipe.js';
import { builtinTuning } from '../lib/session/tuning.js';
import { RunFolder } from '../lib/store/RunFolder.js';
import { writeTuning } from '../lib/store/tuningFile.js';
import { killAll, send, start } from './helpers/processes.js';
import { temporaryFolder } from './helpers/runs.js';
import { tinyRecipe } from './helpers/tiny.js';

const folder = temporaryFolder('beginnings');
after(killAll);
const at = (...parts: string[]) => join(folder, ...parts);
const PATIENCE = 60_000;

const recipe = tinyRecipe({ rewind: ['0it'], controls: ['random'] }, { levels: 1 });
writeFileSync(at('tiny.yaml'), toYaml(recipe));
await writeTuning(at('table.json'), builtinTuning(), null);
const table = readFileSync(at('table.json'));

/** A `run` that has its folder and no more: its table comes through a pipe into which nobody has written yet. */
async function heldRun(name: string) {
  const pipe = at(`${name}.pipe`);
  assert.equal(spawnSync('mkfifo', [pipe]).status, 0);
  const run = start(['run', at('tiny.yaml'), '--out', at(name)], { LTH_TUNING: pipe }, PATIENCE);
  while (!loadAddon().lockHeld(at(name, '.lock'))) {
    assert.equal(run.child.exitCode, null, 'it has not begun');
    await sleep(5);
  }
  return { run, release: () => writeFile(pipe, table) };
}

const waits = (name: string) => `${at(name)}: a run begins there, waiting for it\n`;

test('commands that read a run wait for one that begins, say so once, and find it', async () => {
  const { run, release } = await heldRun('new');
  const commands = [
    ['stability', at('new'), '--orders', '2', '--samples', '0', '--branches', 'imp', '--threads', '1'],
    ['overlap', at('new')],
    ['show', at('new')],
    ['verify', at('new')],
    ['report', at('new'), '--out', at('page.html')],
    ['watch', at('new')],
  ].map((args) => {
    const command = start(args, {}, PATIENCE);
    const heard = new Promise<void>((resolve) => command.child.stderr?.once('data', () => resolve()));
    return { name: args[0], heard, ...command };
  });
  await Promise.all(commands.map(({ heard }) => heard));
  assert.ok(!RunFolder.is(at('new')));
  await release();
  for (const { name, ended } of commands) {
    const { code, err } = await ended;
    assert.equal(code, 0, `${name}: ${err}`);
    assert.equal(err.split(waits('new')).length, 2, `${name}: ${err}`);
  }
  assert.equal((await run.ended).code, 0);
  assert.ok(existsSync(at('page.html')));
});

test('where the run that begins is killed, they end as where there is none, and the next run begins anew', async () => {
  const { run } = await heldRun('killed');
  const show = start(['show', at('killed')], {}, PATIENCE);
  const connectivity = start(['connectivity', at('killed')], {}, PATIENCE);
  await Promise.all(
    [show, connectivity].map(({ child }) => new Promise((go) => child.stderr?.once('data', go))),
  );
  send(run.group, 'SIGKILL');
  for (const { ended } of [show, connectivity]) {
    const { code, err } = await ended;
    assert.equal(code, 1);
    assert.equal(err, `${waits('killed')}lth-train: ${at('killed')} is no run: it has no requests.json\n`);
  }
  await run.ended;
  assert.ok((await runExperiment(recipe, { out: at('killed'), threads: 1 })).complete);
});

test('nobody waits for a folder in which nobody begins', async () => {
  mkdirSync(at('empty'));
  writeFileSync(at('empty', '.lock'), '');
  for (const name of ['empty', 'nowhere']) {
    const { code, err } = await start(['show', at(name)], {}, PATIENCE).ended;
    assert.deepEqual([code, err], [1, `lth-train: ${at(name)} is no run: it has no requests.json\n`]);
  }
});

test('a signal ends the wait, with 75 where the command would have saved', async () => {
  const { run, release } = await heldRun('waited');
  for (const [args, wanted] of [
    [['stability', at('waited')], 75],
    [['show', at('waited')], 143],
  ] as [string[], number][]) {
    const { child, group, ended } = start(args, {}, PATIENCE);
    await new Promise((go) => child.stderr?.once('data', go));
    send(group, 'SIGTERM');
    assert.equal((await ended).code, wanted);
  }
  await release();
  assert.equal((await run.ended).code, 0);
});

test('two runs that begin in one folder share it, by the table of the first', async () => {
  const { run, release } = await heldRun('both');
  const other = builtinTuning();
  other.linear = { ...other.linear, entryOfRun: other.linear.entryOfRun + 1 };
  await writeTuning(at('other.json'), other, null);
  const second = start(
    ['run', at('tiny.yaml'), '--out', at('both')],
    { LTH_TUNING: at('other.json') },
    PATIENCE,
  );
  await new Promise((go) => second.child.stderr?.once('data', go));
  assert.ok(!RunFolder.is(at('both')));
  await release();
  assert.equal((await second.ended).err.split(waits('both')).length, 2);
  for (const { ended } of [run, second]) {
    const { code, err } = await ended;
    assert.equal(code, 0, err);
  }
});

test('where the addon is not built nothing is made', async () => {
  const { code, err } = await start(
    ['run', at('tiny.yaml'), '--out', at('not', 'built')],
    { LTH_ADDON: at('no.node') },
    PATIENCE,
  ).ended;
  assert.equal(code, 1, err);
  assert.match(err, /no\.node/);
  assert.ok(!existsSync(at('not')));
});

test('a run that comes to nothing takes back what it made of its folder, and nothing else', async () => {
  const wrong = { ...recipe, data: { ...recipe.data, set: 'mnist', folder: at('no-data') } };
  const fails = (out: string, value: Recipe = wrong) =>
    assert.rejects(runExperiment(value, { out, threads: 1 }), (error) => error instanceof LthError);
  await fails(at('deep', 'er', 'run'));
  assert.ok(!existsSync(at('deep')));
  mkdirSync(at('deep'));
  writeFileSync(at('deep', 'note'), 'mine');
  await fails(at('deep', 'er', 'run'));
  assert.deepEqual(readdirSync(at('deep')), ['note']);
  // Refused later, where the run's own files would be written.
  writeFileSync(at('deep', 'recipe.yaml'), 'mine');
  await fails(at('deep'), recipe);
  assert.deepEqual(readdirSync(at('deep')).sort(), ['note', 'recipe.yaml']);
  // What is in use is not touched.
  await runExperiment(recipe, { out: at('deep', 'run'), threads: 1 });
  await fails(at('deep', 'run'));
  assert.ok(RunFolder.is(at('deep', 'run')) && existsSync(at('deep', 'run', '.lock')));
});
