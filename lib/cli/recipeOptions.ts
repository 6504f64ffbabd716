import { resolve } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import type { RunOptions } from '../experiment/run.js';
import { wrongValue } from '../native/errors.js';
import { loadRecipe, type RecipeOverrides } from '../recipe/load.js';
import type { Recipe } from '../recipe/Recipe.js';
import { integer, list, repeated } from './options.js';

/** How the work is done, which changes no bit of it. */
export interface WorkFlags {
  threads?: number;
  jobs?: number;
  sideBySide?: number;
  keep?: 'all' | 'needed';
  checkpointEvery?: RunOptions['checkpoint'];
}

export interface RecipeOptions extends RecipeOverrides, WorkFlags {
  out?: string;
}

/** `30s`, `500it`, both between a comma, or `never`. */
export function cadence(text: string): RunOptions['checkpoint'] {
  const found: { seconds: number | null; updates: number | null } = { seconds: null, updates: null };
  if (text === 'never') return found;
  for (const part of text.split(',')) {
    const match = /^(?:(\d+(?:\.\d+)?)(s|min)|(\d+)it)$/.exec(part.trim());
    const seconds = match?.[1] ? Number(match[1]) * (match[2] === 'min' ? 60 : 1) : null;
    const updates = match?.[3] ? Number(match[3]) : null;
    if ((seconds === null && updates === null) || seconds === 0 || updates === 0)
      throw new InvalidArgumentError('Expected 30s, 5min, 500it, two of them between a comma, or never.');
    if (seconds !== null) found.seconds = seconds;
    if (updates !== null) found.updates = updates;
  }
  return found;
}

export function keep(text: string): string {
  if (text !== 'all' && text !== 'needed') throw new InvalidArgumentError('Expected all or needed.');
  return text;
}

/** The options of commands that train. */
export function takesWork(command: Command, keeps: string): Command {
  return command
    .option('--threads <n>', 'threads of all jobs together (default: all cores)', integer(1, 1024))
    .option('--jobs <n>', 'processes that share the units (default: 1)', integer(1, 1024))
    .option(
      '--side-by-side <n>',
      'trainings at a time in each process, which share its threads (default: as many as threads; of pictures in files one)',
      integer(1, 1024),
    )
    .option(
      '--keep <rule>',
      `weights that stay on disk: all, or needed to go on${keeps} (default: all)`,
      keep,
    )
    .option(
      '--checkpoint-every <cadence>',
      '30s, 500it, both between a comma, or never (default: 30s, at most 1 % of the time)',
      cadence,
    );
}

export function workOptions(flags: WorkFlags): Omit<RunOptions, 'out' | 'tuning'> {
  const { threads, jobs, sideBySide, keep, checkpointEvery } = flags;
  return {
    ...(threads === undefined ? {} : { threads }),
    ...(jobs === undefined ? {} : { jobs }),
    ...(sideBySide === undefined ? {} : { sideBySide }),
    ...(keep === undefined ? {} : { keep }),
    ...(checkpointEvery === undefined ? {} : { checkpoint: checkpointEvery }),
  };
}

/** The argument and options of commands that take a recipe. */
export function takesRecipe(command: Command): Command {
  const described = command
    .argument('<recipe>', 'name of a built-in recipe, or a YAML or JSON file')
    .option(
      '--set <key=value>',
      'change any value of the recipe, e.g. training.batch=128 (repeatable)',
      repeated,
    )
    .option('--levels <n>', 'pruning levels', integer(0, 1000))
    .option('--replicates <n>', 'replicates', integer(1, 10_000))
    .option('--rewind <steps>', 'rewind points, e.g. 0it,500it,1.7% (repeatable)', list)
    .option('--seed <n>', 'seed of everything random', integer(0))
    .option('--device <device>', 'cpu, cuda or cuda:N')
    .option(
      '--device-mode <mode>',
      'on CUDA: deterministic, the same bits each time, or fast, algorithms chosen by the clock',
    )
    .option('--kernels <rule>', 'products of pruned layers: auto (sparse where cheaper), dense or sparse')
    .option('--out <folder>', 'run folder (default: runs/<recipe>)');
  return takesWork(described, '');
}

export function recipeOf(name: string, options: RecipeOptions): { recipe: Recipe; out: string } {
  const recipe = loadRecipe(name, options);
  if (options.out === '') throw wrongValue('a folder', '--out', options.out);
  if (recipe.data.folder) recipe.data.folder = resolve(recipe.data.folder);
  return { recipe, out: options.out ?? `runs/${recipe.name}` };
}
