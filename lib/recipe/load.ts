import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { LthError } from '../native/errors.js';
import { packageRoot } from '../package.js';
import { didYouMean } from './nearest.js';
import type { Recipe } from './Recipe.js';
import { knownKeys, parseRecipe } from './schema.js';
import { parseYaml } from './yaml.js';

const builtInFolder = join(packageRoot, 'lib', 'recipe', 'recipes');
/** Room for a network of some thousand layers; comparing keys with keys takes the square of their number. */
const LARGEST_RECIPE = 1 << 18;

/** What the command line may say on top of a recipe. */
export interface RecipeOverrides {
  /** `key=value` with a dotted key and a YAML value, e.g. `training.batch=128`. */
  set?: string[];
  levels?: number;
  replicates?: number;
  rewind?: string[];
  seed?: number;
  device?: string;
  deviceMode?: string;
  kernels?: string;
}

/** Names of the built-in recipes, e.g. "quickstart". */
export function recipeNames(folder = ''): string[] {
  return readdirSync(join(builtInFolder, folder), { withFileTypes: true })
    .flatMap((entry) => {
      const path = folder ? `${folder}/${entry.name}` : entry.name;
      if (entry.isDirectory()) return recipeNames(path);
      return path.endsWith('.yaml') ? [path.slice(0, -'.yaml'.length)] : [];
    })
    .sort();
}

/** A built-in recipe's YAML as it stands in the package. */
export function recipeText(name: string): string {
  if (/\.(ya?ml|json)$/.test(name)) throw new LthError('recipe', `${name}: there is no such file`);
  if (!recipeNames().includes(name)) {
    throw new LthError(
      'recipe',
      `There is no recipe "${name}".${didYouMean(name, recipeNames())} Recipes: ${recipeNames().join(', ')}.`,
    );
  }
  return readFileSync(join(builtInFolder, `${name}.yaml`), 'utf8');
}

function readRecipeFile(path: string): string {
  try {
    const info = statSync(path);
    if (!info.isFile()) throw new LthError('recipe', `${path} is not a file`);
    if (info.size > LARGEST_RECIPE)
      throw new LthError('recipe', `${path} has ${info.size} bytes; a recipe has at most ${LARGEST_RECIPE}`);
    return readFileSync(path, 'utf8');
  } catch (cause) {
    if (cause instanceof LthError) throw cause;
    throw new LthError('io', cause instanceof Error ? cause.message : String(cause), { cause });
  }
}

type Plain = Record<string, unknown>;
const isPlain = (value: unknown): value is Plain =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function applySet(root: Plain, assignment: string): void {
  const equals = assignment.indexOf('=');
  if (equals < 1) throw new LthError('recipe', `--set: expected key=value but received "${assignment}"`);
  const path = keyPath(assignment.slice(0, equals));
  const last = path.pop() as string;
  let at = root;
  for (const [i, key] of path.entries()) {
    at[key] ??= {};
    if (!isPlain(at[key])) {
      const place = path.slice(0, i + 1).join('.');
      throw new LthError(
        'recipe',
        `--set ${assignment}: ${place} is ${JSON.stringify(at[key])}, which has no keys`,
      );
    }
    at = at[key] as Plain;
  }
  at[last] = parseYaml(assignment.slice(equals + 1), `--set ${assignment}`, 0);
}

/** Splits a dotted key; below `pruning.rates` the rest is one parameter's name, which holds a dot itself. */
function keyPath(key: string): string[] {
  if (key.split('.').includes('__proto__')) throw new LthError('recipe', `--set: unknown key "${key}".`);
  const rates = /^pruning\.rates\.(.+)$/.exec(key);
  if (rates?.[1]) return ['pruning', 'rates', rates[1]];
  const path = key.split('.');
  for (let i = 0; i < path.length; i++) {
    const known = knownKeys(path.slice(0, i));
    const part = path[i] ?? '';
    // A network of one's own is checked as a whole, later.
    if (known.length === 0 || path[0] === 'network') break;
    if (!known.includes(part))
      throw new LthError('recipe', `--set: unknown key "${key}".${didYouMean(part, known)}`);
  }
  return path;
}

/**
 * A built-in recipe by name, or a YAML or JSON file, with what the command line says on top.
 * @throws LthError "recipe", or "io" for a file that cannot be read.
 */
export function loadRecipe(nameOrFile: string, overrides: RecipeOverrides = {}): Recipe {
  const isFile = !recipeNames().includes(nameOrFile) && existsSync(nameOrFile);
  const source = isFile ? nameOrFile : `recipe ${nameOrFile}`;
  const value = parseYaml(isFile ? readRecipeFile(nameOrFile) : recipeText(nameOrFile), source, 100);
  if (!isPlain(value)) throw new LthError('recipe', `${source}: expected keys and values`);
  for (const assignment of overrides.set ?? []) applySet(value, assignment);
  if (overrides.levels !== undefined)
    value.pruning = { ...(isPlain(value.pruning) ? value.pruning : {}), levels: overrides.levels };
  if (overrides.replicates !== undefined) value.replicates = overrides.replicates;
  if (overrides.rewind !== undefined) value.rewind = overrides.rewind;
  if (overrides.seed !== undefined) value.seed = overrides.seed;
  if (overrides.device !== undefined) value.device = overrides.device;
  if (overrides.deviceMode !== undefined) value.deviceMode = overrides.deviceMode;
  if (overrides.kernels !== undefined) value.kernels = overrides.kernels;
  return parseRecipe(value, source);
}

/** The resolved recipe as it is kept in the run folder; `loadRecipe` reads it back to the same value. */
export function toYaml(recipe: Recipe): string {
  return stringify(recipe);
}
