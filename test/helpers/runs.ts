import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after } from 'node:test';
import { runExperiment } from '../../lib/experiment/run.js';
import { packageRoot } from '../../lib/package.js';
import type { Recipe } from '../../lib/recipe/Recipe.js';
import type { UnitRecord } from '../../lib/store/records.js';
import './builtinTuning.js';

export const executable = join(packageRoot, 'bin', 'lth-train.js');

/** A folder that goes when the tests of the file are done. */
export function temporaryFolder(name: string): string {
  const folder = mkdtempSync(join(tmpdir(), `lth-${name}-`));
  after(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** A finished run in a folder of its own, and what copies it for a test that changes it. */
export async function runToCopy(folder: string, recipe: Recipe): Promise<{ run: string; fresh(): string }> {
  const run = join(folder, 'run');
  await runExperiment(recipe, { out: run, threads: 2 });
  let copies = 0;
  const fresh = () => {
    const path = join(folder, `copy-${copies++}`);
    cpSync(run, path, { recursive: true });
    return path;
  };
  return { run, fresh };
}

/** A record but for what a clock decides. */
function timeless(text: string): string {
  const { seconds, seal, files, result, ...record } = JSON.parse(text) as UnitRecord & { seal: string };
  const compared = Object.entries(files).filter(([name]) => name !== 'times.arrow');
  return JSON.stringify({ ...record, files: compared, result: result && { ...result, seconds: 0 } });
}

/**
 * What a run folder holds, file by file: the bits of all that no clock decides. That of times.arrow is only that it is
 * there, and locks are no content; any other file counts, so that what should not be there shows.
 */
export function bitsOf(run: string): Map<string, string> {
  const bits = new Map<string, string>();
  const files = readdirSync(run, { recursive: true, withFileTypes: true }).filter((one) => one.isFile());
  for (const { name, parentPath } of files) {
    if (name === '.lock') continue;
    const path = join(parentPath, name);
    const content = () => (name === 'unit.json' ? timeless(readFileSync(path, 'utf8')) : readFileSync(path));
    const sum = name === 'times.arrow' ? 'there' : createHash('sha256').update(content()).digest('hex');
    bits.set(path.slice(run.length + 1), sum);
  }
  return new Map([...bits].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** In words, where a run folder is not what another one is; null where it is. */
export function firstDifference(expected: Map<string, string>, found: Map<string, string>): string | null {
  for (const [file, sum] of expected) {
    if (!found.has(file)) return `${file} is missing`;
    if (found.get(file) !== sum) return `${file} has other bits`;
  }
  for (const file of found.keys()) if (!expected.has(file)) return `${file} should not be there`;
  return null;
}

/** Ids of the units that are finished. */
export function finishedUnits(run: string): string[] {
  const units = join(run, 'units');
  if (!existsSync(units)) return [];
  return readdirSync(units).filter((id) => existsSync(join(units, id, 'unit.json')));
}

/** The part of a folder's bits that finished units own. */
export function finishedBits(bits: Map<string, string>, ids: string[]): Map<string, string> {
  return new Map([...bits].filter(([file]) => ids.includes(file.split('/')[1] ?? '')));
}

/** Writes the recipe of a run that takes seconds: every kind of unit and file is in it, at k = 0 and later. */
export function writeRecipe(path: string, steps: number): string {
  const name = basename(path, '.yaml');
  const text = `name: ${name}
network: lenet-20-12
data: { set: mnist-10k, validation: 504 }
training:
  steps: ${steps}it
  batch: 60
  optimiser: { type: adam, learningRate: 0.0012 }
  evaluateEvery: ${steps / 4}it
  metricsEvery: 10it
pruning: { levels: 2, fraction: 0.5 }
rewind: [0it, 25it]
replicates: 2
`;
  writeFileSync(path, text);
  return path;
}
