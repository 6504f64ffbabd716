import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { maskOverlap } from '../experiment/overlap.js';
import type { OverlapResult, Result } from '../experiment/Result.js';
import { type Survey, survey, type UnitState } from '../experiment/survey.js';
import { dependsOnTuning } from '../experiment/tuning.js';
import { LthError } from '../native/errors.js';
import { loadRecipe, recipeNames, toYaml } from '../recipe/load.js';
import type { Recipe } from '../recipe/Recipe.js';
import { CompiledNetwork } from '../session/CompiledNetwork.js';
import { Masks } from '../session/Masks.js';
import type { Analysis, Request } from '../store/records.js';

/** Which share of each prunable tensor remains, of one replicate's IMP masks. */
export interface LayerDensities {
  method: Result['method'];
  rewind: number;
  replicate: number;
  tensors: { name: string; size: number }[];
  /** `remaining`: weights of each tensor, in their order. */
  levels: { level: number; remaining: number[] }[];
}

/** What a report tells of a run beside its summary. */
export interface ReportExtras {
  /** YAML of the last command's recipe, with all defaults. */
  recipe: string;
  /** Command lines that make the run again. */
  commands: string[];
  unfinished: { label: string; state: UnitState; updates: number; of: number }[];
  layers: LayerDensities[];
  overlap: OverlapResult[];
  /** Why there is nothing of layers and overlap: a file of masks is damaged. */
  masksProblem: string | null;
}

/** One word of a shell. */
export const quoted = (word: string) =>
  /^[A-Za-z0-9_./:,=@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

/** `--set` for each place where a recipe differs from the built-in one, or null where that cannot say it. */
function settings(recipe: Recipe): string[] | null {
  if (!recipeNames().includes(recipe.name)) return null;
  const found: string[] = [];
  const compare = (here: unknown, there: unknown, place: string) => {
    if (isDeepStrictEqual(here, there)) return;
    const both = [here, there].every((one) => typeof one === 'object' && one !== null && !Array.isArray(one));
    if (!both) found.push(`${place}=${JSON.stringify(here)}`);
    else
      for (const key of new Set([...Object.keys(here as object), ...Object.keys(there as object)]))
        compare(
          Reflect.get(here as object, key),
          Reflect.get(there as object, key),
          place ? `${place}.${key}` : key,
        );
  };
  compare(recipe, loadRecipe(recipe.name), '');
  try {
    return isDeepStrictEqual(loadRecipe(recipe.name, { set: found }), recipe) ? found : null;
  } catch {
    // `--set` has no words for it: a key that is not there any more, say. The file has.
    return null;
  }
}

/** So that the run that is made again has the same bits on another machine too. */
function tuningWords(path: string, recipe: Recipe): string[] {
  if (!dependsOnTuning(recipe)) return [];
  const own = join(path, 'tuning.json');
  return ['--tuning', existsSync(own) ? own : 'builtin'];
}

function runCommands(path: string, recipe: Recipe, requests: Request[]): string[] {
  return requests.map(({ levels, replicates, rewind, controls }) => {
    const asked = { ...recipe, pruning: { ...recipe.pruning, levels }, replicates, rewind, controls };
    const set = settings(asked);
    const own = [`--levels=${levels}`, `--replicates=${replicates}`, `--rewind=${rewind.join(',')}`];
    const words = set
      ? [recipe.name, ...set.flatMap((one) => ['--set', one])]
      : [`${path}/recipe.yaml`, ...own, '--set', `controls=${JSON.stringify(controls)}`];
    return ['lth-train', 'run', ...words, ...tuningWords(path, recipe), '--out', 'again']
      .map(quoted)
      .join(' ');
  });
}

function analysisCommand(one: Analysis): string {
  const words = [one.kind, 'again', '--rewind', one.rewind.join(','), '--orders', String(one.orders)];
  const levels = one.levels.filter((level) => level > 0);
  if (levels.length > 0) words.push('--levels', levels.join(','));
  words.push('--branches', one.branches.join(','));
  if (one.kind === 'stability') words.push('--samples', String(one.samples));
  else words.push('--alphas', String(one.alphas));
  if (one.kind === 'connectivity' && one.statistics !== 'interpolated')
    words.push('--statistics', one.statistics);
  if (one.kind === 'connectivity' && one.trainExamples !== null)
    words.push('--train-examples', String(one.trainExamples));
  return ['lth-train', ...words].map(quoted).join(' ');
}

/** Of the first replicate whose masks are there, for each rewind point and method. */
async function layersOf({ folder, recipe, units }: Survey): Promise<LayerDensities[]> {
  const network = CompiledNetwork.compile(recipe.network);
  const found = new Map<string, LayerDensities>();
  const finished = new Set(units.filter(({ state }) => state === 'done').map(({ unit }) => unit.id));
  try {
    for (const { unit } of units) {
      if (unit.kind !== 'train' || unit.branch !== 'imp' || !finished.has(unit.masks)) continue;
      const { method, rewind, replicate, level } = unit;
      const key = `${method} ${rewind}`;
      const before = found.get(key);
      if (before && before.replicate !== replicate) continue;
      const masks = await Masks.read(network, await folder.file(unit.masks, 'masks.safetensors'));
      const tensors = [...masks.tensors()];
      const here = before ?? {
        method,
        rewind,
        replicate,
        tensors: tensors.map(([name, { size }]) => ({ name, size })),
        levels: [],
      };
      here.levels.push({ level, remaining: tensors.map(([, { remaining }]) => remaining) });
      found.set(key, here);
      masks.dispose();
    }
  } finally {
    network.dispose();
  }
  return [...found.values()];
}

type OfMasks = Pick<ReportExtras, 'layers' | 'overlap' | 'masksProblem'>;

async function ofMasks(found: Survey): Promise<OfMasks> {
  try {
    return {
      layers: await layersOf(found),
      overlap: await maskOverlap(found.folder.path),
      masksProblem: null,
    };
  } catch (error) {
    // The page says so; what the records tell is as good as before.
    if (!(error instanceof LthError) || error.code !== 'corrupt-file') throw error;
    return { layers: [], overlap: [], masksProblem: error.message };
  }
}

/**
 * What a report wants to know of a run folder beside `summarise`.
 * @param options.masks false: masks are not read, so there is nothing of layers and overlap. Default true.
 * @throws LthError "io" where there is no run, "corrupt-file" for a damaged experiment.json or requests.json.
 */
export async function reportExtras(path: string, options: { masks?: boolean } = {}): Promise<ReportExtras> {
  const found = await survey(path);
  const { folder, recipe, units } = found;
  return {
    recipe: toYaml(recipe),
    commands: [
      ...runCommands(path, recipe, await folder.requests()),
      ...(await folder.analyses()).map(analysisCommand),
    ],
    unfinished: units.flatMap(({ unit, state, updates }) =>
      state === 'done' ? [] : [{ label: unit.label, state, updates, of: unit.updates }],
    ),
    ...(options.masks === false ? { layers: [], overlap: [], masksProblem: null } : await ofMasks(found)),
  };
}
