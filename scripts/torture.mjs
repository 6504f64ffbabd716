// Kills runs, has them go on, and compares every bit with a run that was left alone.
//   npm run torture -- N [--seed S] [--keep] [-- arguments for `lth-train run`, e.g. --checkpoint-every 5it]
// N is the number of kills at random moments, mostly after start-up; half as many are at exact calls (in the middle of
// a write, before a sync, after a rename, ...), a quarter as many are SIGTERM. Then threads, processes and commands
// side by side.
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

const { Faults, callKinds, withoutFaults } = await import('../dist/test/helpers/faults.js').catch(() => {
  console.error('torture: its helpers are not built; `npm run build` first, or `npm run torture`');
  process.exit(2);
});
const { bitsOf, executable, finishedUnits, firstDifference, writeRecipe } = await import(
  '../dist/test/helpers/runs.js'
);
const {
  killAll,
  listensToTerm,
  send,
  start: startCommand,
} = await import('../dist/test/helpers/processes.js');

const dashes = process.argv.indexOf('--', 2);
const own = process.argv.slice(2, dashes < 0 ? undefined : dashes);
const extra = dashes < 0 ? [] : process.argv.slice(dashes + 1);
const { values, positionals } = parseArgs({
  args: own,
  options: { seed: { type: 'string' }, keep: { type: 'boolean', default: false } },
  allowPositionals: true,
});
const wanted = Number(positionals[0] ?? 100);
const seed = Number(values.seed ?? Date.now() % 1_000_000);
if (!Number.isInteger(wanted) || wanted < 1 || !Number.isInteger(seed) || positionals.length > 1) {
  console.error('usage: torture N [--seed S] [--keep] [-- arguments for lth-train run]');
  process.exit(2);
}

/** mulberry32: numbers in [0, 1) that a seed repeats. What a random moment hits, no seed can repeat. */
let state = seed;
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const oneOf = (list) => list[Math.floor(random() * list.length)];

const home = mkdtempSync(join(realpathSync(tmpdir()), 'lth-torture-'));
const runs = join(home, 'runs');
mkdirSync(runs);
const recipe = writeRecipe(join(home, 'torture.yaml'), 200);
const faults = withoutFaults ? null : new Faults(runs);

function start(folder, { args = [], disturbed = true } = {}) {
  const env = disturbed && faults ? faults.env : {};
  return startCommand(['run', recipe, '--out', folder, ...extra, ...args], env, patience);
}

/** How long a run may take; known better after the first one. */
let patience = 300_000;

class Difference extends Error {}
function check(condition, words, end) {
  if (condition) return;
  const told = end ? `\n  exit code ${end.code}, signal ${end.signal}; stderr:\n${end.err}` : '';
  throw new Difference(`${words}${told}`);
}

function checkBits(folder) {
  const difference = firstDifference(reference, bitsOf(folder));
  check(difference === null, `${folder}: ${difference} (undisturbed: ${undisturbed})`);
}

async function finish(folder) {
  faults?.order();
  const end = await start(folder).ended;
  check(end.code === 0, `${folder}: the same command did not finish the run`, end);
  check(end.left === 0, `${folder}: ${end.left} processes outlived their run`, end);
  checkBits(folder);
}

/** What a killed run was doing, from its calls: one that had not returned, else the units that were begun. */
function moment() {
  if (!faults) return 'unknown';
  const calls = faults.calls();
  const under = calls.find((call) => call.hit) ?? calls.find((call) => !call.returned);
  if (under) return under.kind;
  const begun = new Set();
  for (const { kind, path } of calls) {
    const id = /\/units\/([^/]+)\/(\.lock|unit\.json)$/.exec(path);
    if (kind === 'create' && id?.[2] === '.lock') begun.add(id[1]);
    if (kind === 'rename' && id?.[2] === 'unit.json') begun.delete(id[1]);
  }
  if (calls.length === 0) return 'start-up';
  if (begun.size === 0) return 'between units';
  return [...begun].every((id) => id.includes('-prune-')) ? 'pruning' : 'training';
}

const counts = {};
function count(what, where) {
  counts[what] ??= {};
  counts[what][where] = (counts[what][where] ?? 0) + 1;
}

let folders = 0;
/** Disturbs one run again and again, until it ends by itself or was disturbed often enough; then it must finish. */
async function round(name, disturb, number) {
  for (let done = 0; done < number; ) {
    const folder = join(runs, `${name}-${++folders}`);
    for (let left = 1 + Math.floor(random() * 4); left > 0 && done < number; left--) {
      faults?.order();
      if (!(await disturb(folder))) break;
      done++;
    }
    await finish(folder);
    if (!values.keep) rmSync(folder, { recursive: true });
  }
  report();
}

const units = () => [...reference.keys()].filter((file) => file.endsWith('unit.json')).length;
/** The part of a run that is still to be done. */
const share = (folder) => (existsSync(folder) ? 1 - finishedUnits(folder).length / units() : 1);

/**
 * Waits for a moment of a run: one in eight in its start-up, in which there is little to break, the others uniform over
 * the work that is left. Counted from the run's first words, because how fast the machine is changes.
 */
async function someMoment({ child, ended }, folder) {
  const work = random() * (duration - startUp) * share(folder);
  if (random() < 1 / 8) return sleep(random() * startUp);
  await Promise.race([once(child.stderr, 'data'), ended]);
  await Promise.race([sleep(work), ended]);
}

/** SIGKILL at a random moment, to all processes of a run or to any one of them. */
async function killAtRandom(folder) {
  const victims = random() < 0.5 ? (living) => living : (living) => [oneOf(living)];
  const run = start(folder);
  await someMoment(run, folder);
  const killed = send(run.group, 'SIGKILL', victims);
  const end = await run.ended;
  check(killed || end.code === 0, `${folder}: failed, and was not killed`, end);
  check(end.left === 0, `${folder}: ${end.left} processes outlived the one that was killed`, end);
  if (killed) count('SIGKILL at random moments', moment());
  return killed;
}

/** SIGKILL by the process itself, before, after or in the middle of one of the calls that are left to make. */
async function killAtCall(folder) {
  const files = existsSync(folder) ? readdirSync(folder, { recursive: true }) : [];
  const temporary = files.filter((file) => file.endsWith('.tmp')).length;
  const numbers = Object.fromEntries(
    callKinds.map((kind) => [kind, calls.filter((call) => call.kind === kind).length * share(folder)]),
  );
  numbers.unlink += temporary;
  const kind = oneOf(callKinds.filter((one) => numbers[one] >= 1));
  // Only a killed write leaves something to remove: where there is something, that comes first.
  const chosen = temporary > 0 && random() < 0.5 ? 'unlink' : kind;
  if (!chosen) return false;
  const at = 1 + Math.floor(random() * numbers[chosen]);
  const action = oneOf(['kill before', 'kill after', 'kill in the middle']);
  faults.order({ at, action, kinds: [chosen] });
  const end = await start(folder).ended;
  check(end.left === 0, `${folder}: ${end.left} processes outlived the one that was killed`, end);
  const hit = faults.calls().find((call) => call.hit);
  if (!hit) {
    check(end.code === 0, `${folder}: failed, and was not killed`, end);
    return false;
  }
  const when = action === 'kill in the middle' && chosen !== 'write' ? 'kill before' : action;
  count('SIGKILL at exact calls', `${when.slice(5)} ${chosen}`);
  return true;
}

async function terminate(folder) {
  const run = start(folder);
  const { group, ended } = run;
  let gone = false;
  ended.then(() => {
    gone = true;
  });
  await someMoment(run, folder);
  while (!gone && !listensToTerm(group)) await sleep(5);
  const sent = performance.now();
  // Queues tell all processes of a job, or the first one.
  if (!gone) send(group, 'SIGTERM', random() < 0.5 ? (living) => living : () => [group]);
  const end = await ended;
  check(end.left === 0, `${folder}: ${end.left} processes outlived SIGTERM`, end);
  if (end.code === 0) return false;
  // In its last milliseconds Node has taken its listeners away, and all is done and told.
  if (end.signal === 'SIGTERM' && /prunable weights remaining/.test(end.out)) {
    count('SIGTERM', 'after all was done');
    return true;
  }
  check(end.code === 75, `${folder}: SIGTERM ended it otherwise than with 75`, end);
  latest = Math.max(latest, performance.now() - sent);
  count('SIGTERM', moment());
  return true;
}
let latest = 0;

/** Commands at once on one folder; one of them may be killed, the others must end well. */
async function together(name, commands, kill) {
  const folder = join(runs, `${name}-${++folders}`);
  faults?.order();
  const all = commands.map((args) => start(folder, { args }));
  if (kill) someMoment(all[0], folder).then(() => send(all[0].group, 'SIGKILL'));
  const ends = await Promise.all(all.map((one) => one.ended));
  for (const [i, end] of ends.entries()) {
    const killed = kill && i === 0 && end.signal === 'SIGKILL';
    check(killed || end.code === 0, `${folder}: command ${i + 1} of ${commands.length} failed`, end);
  }
  // What the killed one left beside the units is for the next command to remove.
  if (kill) await finish(folder);
  else checkBits(folder);
  count(kill ? 'two commands, one killed' : 'side by side', name);
  if (!values.keep) rmSync(folder, { recursive: true });
}

const print = (text) => console.log(`torture: ${text}`);
const undisturbed = join(runs, 'undisturbed');
let reference;
let duration;
let startUp = 0;
let calls = [];

async function main() {
  print(`${wanted} kills, seed ${seed}${extra.length > 0 ? `, run ${extra.join(' ')}` : ''}, in ${home}`);
  const began = performance.now();
  const { child, ended } = start(undisturbed, { disturbed: false });
  child.stderr.once('data', () => {
    startUp = performance.now() - began;
  });
  const first = await ended;
  check(first.code === 0, 'the undisturbed run failed', first);
  duration = performance.now() - began;
  patience = 60_000 + 20 * duration;
  reference = bitsOf(undisturbed);
  const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
  print(
    `undisturbed: ${seconds(duration)}, start-up ${seconds(startUp)} of it; ${units()} units, ${reference.size} files`,
  );

  if (faults) {
    faults.order();
    const logged = join(runs, 'logged');
    const end = await start(logged).ended;
    check(end.code === 0, 'the logged run failed', end);
    checkBits(logged);
    calls = faults.calls();
    const of = (kind) => `${calls.filter((call) => call.kind === kind).length} ${kind}`;
    print(`fault points: ${callKinds.map(of).join(', ')}`);
  } else {
    print(`LEFT OUT: kills at exact calls, and what the others hit: ${withoutFaults}`);
  }

  await round('random', killAtRandom, wanted);
  if (faults) await round('exact', killAtCall, Math.ceil(wanted / 2));
  await round('term', terminate, Math.ceil(wanted / 4));
  const times = Math.ceil(wanted / 25);
  for (let i = 0; i < times; i++) {
    await together('1 thread', [['--threads', '1']]);
    await together('2 threads', [['--threads', '2']]);
    await together('two commands', [[], []]);
    await together('two commands', [[], []], true);
  }
  const help = spawnSync(process.execPath, [executable, 'run', '--help'], { encoding: 'utf8' }).stdout;
  if (/--jobs/.test(help)) {
    for (let i = 0; i < times; i++) {
      await together('1 job', [['--jobs', '1']]);
      await together('2 jobs', [['--jobs', '2']]);
    }
  } else {
    print('LEFT OUT: --jobs 1 against 2, because `run` has no --jobs');
  }
  report();
}

/** Says what has come in since the last time. */
function report() {
  for (const [what, places] of Object.entries(counts)) {
    const sorted = Object.entries(places).sort((a, b) => b[1] - a[1]);
    const total = sorted.reduce((sum, [, n]) => sum + n, 0);
    print(`${what}: ${total} (${sorted.map(([where, n]) => `${n} ${where}`).join(', ')})`);
    if (what === 'SIGTERM') print(`  to the end of the process: at most ${(latest / 1000).toFixed(1)} s`);
    delete counts[what];
  }
}

for (const name of ['SIGINT', 'SIGTERM']) {
  process.on(name, () => {
    killAll();
    process.exit(name === 'SIGINT' ? 130 : 143);
  });
}
try {
  await main();
  print(`every bit as in the undisturbed run, no file left over, seed ${seed}`);
  if (values.keep) print(`kept: ${home}`);
  else rmSync(home, { recursive: true });
} catch (error) {
  killAll();
  report();
  print(`FAILED with seed ${seed}: ${error instanceof Difference ? error.message : error.stack}`);
  print(`kept: ${home}`);
  process.exitCode = 1;
} finally {
  faults?.dispose();
}
