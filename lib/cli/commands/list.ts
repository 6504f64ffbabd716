import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Command } from 'commander';
import { countsOf } from '../../experiment/summary.js';
import { survey } from '../../experiment/survey.js';
import { fromFileSystem } from '../../files.js';
import { LthError } from '../../native/errors.js';
import { RunFolder } from '../../store/RunFolder.js';
import { duration, size, table } from '../words.js';

/** Run folders lie at most so deep: recipes' names hold slashes. */
const DEPTH = 4;

async function runsIn(folder: string, depth = DEPTH): Promise<string[]> {
  if (RunFolder.is(folder)) return [folder];
  if (depth === 0) return [];
  // What may not be looked into is no reason to hide the rest.
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const found: string[] = [];
  for (const entry of entries.sort((a, b) => a.name.localeCompare(b.name))) {
    if (entry.isDirectory() && !entry.name.startsWith('.') && entry.name !== 'node_modules')
      found.push(...(await runsIn(join(folder, entry.name), depth - 1)));
  }
  return found;
}

async function describe(run: string) {
  try {
    const found = await survey(run);
    const units = countsOf(found);
    const total = found.units.reduce((sum, { unit }) => sum + unit.updates, 0);
    const made = found.units.reduce((sum, { updates }) => sum + updates, 0);
    const state =
      units.running > 0
        ? 'running'
        : units.failed + units.damaged > 0
          ? 'failed'
          : units.done + units.impossible === units.total
            ? 'complete'
            : 'stopped';
    const { folder, recipe } = found;
    return {
      run,
      recipe: recipe.name,
      state,
      units,
      fraction: total === 0 ? 1 : made / total,
      bytes: await folder.bytes(),
      lastChange: await folder.lastChange(),
      problem: null,
    };
  } catch (error) {
    // One that cannot be read must not hide the others.
    const known = error instanceof LthError ? error : fromFileSystem(error);
    if (!known) throw error;
    return {
      run,
      recipe: null,
      state: 'damaged',
      units: null,
      fraction: 0,
      bytes: 0,
      lastChange: null,
      problem: known.message,
    };
  }
}

export function listCommand(): Command {
  return new Command('list')
    .description('runs in a folder: how far each one is, whether it is going on')
    .argument('[folder]', 'where run folders are', 'runs')
    .option('--json', 'as one JSON array')
    .action(async (folder: string, options: { json?: boolean }) => {
      if (!existsSync(folder)) throw new LthError('io', `${folder}: there is no such folder`);
      const runs = [];
      for (const run of await runsIn(folder)) runs.push(await describe(run));
      if (options.json) {
        process.stdout.write(`${JSON.stringify(runs)}\n`);
        return;
      }
      const rows = runs.map((one) => [
        one.run,
        one.recipe ?? '?',
        one.state,
        one.units ? `${one.units.done}/${one.units.total}` : '?',
        `${(one.fraction * 100).toFixed(0)} %`,
        size(one.bytes),
        one.problem ??
          (one.units && one.units.impossible > 0
            ? `${one.units.impossible} not to be made: a training diverged; `
            : '') +
            (one.lastChange === null
              ? 'nothing yet'
              : `${duration((Date.now() - one.lastChange) / 1000)} ago`),
      ]);
      process.stdout.write(
        runs.length === 0
          ? `no runs in ${folder}\n`
          : `${table([['run', 'recipe', 'state', 'units', 'updates', 'disk', 'last change'], ...rows])}\n`,
      );
    });
}
