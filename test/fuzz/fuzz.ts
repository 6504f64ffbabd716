// Runs a target on its corpus, then on mutations of it. A finding names the target and the input's number.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { LthError } from '../../lib/native/errors.js';
import { packageRoot } from '../../lib/package.js';
import { mutated } from './mutate.js';
import { type Target, targets } from './targets.js';

/** MiB of resident memory, Node and the addon included: inputs are some thousand bytes, so more is runaway. */
const MOST_MEMORY = 1024;
const MOST_SECONDS = 20;
/** Longer files of the corpus are looked at, but not mutated: they are slow on purpose. */
const LONGEST_SEED = 2000;

export interface Summary {
  inputs: number;
  accepted: number;
  /** Kinds of answers, with how often each was given. */
  outcomes: Map<string, number>;
  peak: number;
}

const corpusOf = (name: string) => join(packageRoot, 'test', 'corpus', name);

function corpusFiles(name: string): Buffer[] {
  const folder = corpusOf(name);
  return readdirSync(folder)
    .sort()
    .map((file) => readFileSync(join(folder, file)));
}

/** A message's kind: paths, words in quotes and numbers are the input's own. */
function kindOf(message: string): string {
  return message
    .replace(/^--set .*: /s, '--set: ')
    .replace(/(JSON|Unexpected|Bad|Expected|Unterminated|No number).*JSON.*/s, 'no JSON')
    .replace(/".*"/gs, '#')
    .replace(/\S*[/\d]\S*/g, '#')
    .replace(/received .*/s, '')
    .replace(/(unknown key|place|column \S+ is not|anchor:?|tag|source:) .*/is, '$1')
    .replace(/[^ -~]+/g, '#')
    .slice(0, 60);
}

async function outcomeOf(target: Target, input: Buffer): Promise<string> {
  let outcome = 'accepted';
  try {
    await target.read(input);
  } catch (error) {
    if (!(error instanceof LthError)) throw error;
    outcome = `${error.code}: ${kindOf(error.message)}`;
  }
  for (const key in {}) throw new Error(`Object.prototype has got a ${key}`);
  return outcome;
}

/** Ends the process where an input takes too long: a loop without end lets nothing else on this thread do it. */
function watch(name: string): { inputs: Int32Array; stop(): void } {
  const inputs = new Int32Array(new SharedArrayBuffer(4));
  const code = `const { inputs, name, seconds } = require('node:worker_threads').workerData;
    let last = -1;
    setInterval(() => {
      if (inputs[0] === last) {
        require('node:fs').writeSync(2, 'fuzz: ' + name + ', input ' + last + ' takes too long\\n');
        process.kill(process.pid, 'SIGKILL');
      }
      last = inputs[0];
    }, seconds * 1000);`;
  const worker = new Worker(code, { eval: true, workerData: { inputs, name, seconds: MOST_SECONDS } });
  worker.unref();
  return { inputs, stop: () => void worker.terminate() };
}

/** @throws Error naming the input, with the reader's own as its cause. */
export async function fuzz(name: string, count: number, first = 0): Promise<Summary> {
  const target = targets[name];
  if (!target) throw new Error(`There is no target ${name}. Targets: ${Object.keys(targets).join(', ')}.`);
  const valid = await target.seeds();
  const seeds = [...valid, ...corpusFiles(name)];
  const summary: Summary = { inputs: 0, accepted: 0, outcomes: new Map(), peak: 0 };
  const watcher = watch(name);
  const look = async (input: Buffer, what: string) => {
    try {
      const outcome = await outcomeOf(target, input);
      summary.outcomes.set(outcome, (summary.outcomes.get(outcome) ?? 0) + 1);
      if (outcome === 'accepted') summary.accepted++;
    } catch (cause) {
      throw new Error(`${name}, ${what}: ${JSON.stringify(input.toString('latin1'))}`, { cause });
    }
    watcher.inputs[0] = ++summary.inputs;
    if (summary.inputs % 100 !== 0) return;
    summary.peak = process.resourceUsage().maxRSS >> 10;
    if (summary.peak > MOST_MEMORY) throw new Error(`${name}, ${what}: ${summary.peak} MiB are in use`);
  };
  try {
    for (const [i, seed] of seeds.entries()) await look(seed, `seed ${i}`);
    const short = seeds.filter((seed) => seed.length <= LONGEST_SEED);
    for (let i = first; i < first + count; i++)
      await look(mutated(i, short, Math.min(valid.length, short.length)), `input ${i}`);
  } finally {
    watcher.stop();
  }
  return summary;
}

/** Adds to the corpus an input, as small as may be, for each outcome that it does not reach yet. */
export async function keepNew(name: string, count: number): Promise<void> {
  const target = targets[name] as Target;
  mkdirSync(corpusOf(name), { recursive: true });
  const valid = await target.seeds();
  const seeds = [...valid, ...corpusFiles(name)];
  const known = new Set<string>();
  for (const seed of seeds) known.add(await outcomeOf(target, seed));
  const short = seeds.filter((seed) => seed.length <= LONGEST_SEED);
  for (let i = 0; i < count; i++) {
    const input = mutated(i, short, Math.min(valid.length, short.length));
    const outcome = await outcomeOf(target, input);
    if (known.has(outcome)) continue;
    known.add(outcome);
    writeFileSync(join(corpusOf(name), `input-${i}`), await smallest(target, input, outcome));
    console.log(`input-${i}: ${outcome}`);
  }
}

async function smallest(target: Target, input: Buffer, outcome: string): Promise<Buffer> {
  for (let piece = Math.max(input.length >> 1, 1); ; piece >>= 1) {
    for (let at = 0; at < input.length; ) {
      const shorter = Buffer.concat([input.subarray(0, at), input.subarray(at + piece)]);
      if ((await outcomeOf(target, shorter)) === outcome) input = shorter;
      else at += piece;
    }
    if (piece <= 1) return input;
  }
}
