import { LthError } from '../native/errors.js';
import type { Recipe } from '../recipe/Recipe.js';
import type { Analysis } from '../store/records.js';
import {
  type CopyUnit,
  type DenseUnit,
  type DistanceUnit,
  drawOf,
  freshNoise,
  hash,
  type InterpolationUnit,
  type Plan,
  type TrainUnit,
  type Unit,
} from './plan.js';

/**
 * The i-th data order u_i under which copies are trained: the same for the dense network and all subnetworks of a
 * replicate, so that pruning is compared under one u and dense copies serve every level; never that of a level's own
 * training, which may have decided the masks.
 */
export function copyNoise(i: number): number {
  return freshNoise('copy', i);
}

/** A subnetwork (W_k, m), or the dense network at k; W_k is a fresh initialisation where there is a draw. */
interface Place {
  branch: CopyUnit['branch'];
  replicate: number;
  rewind: number;
  level: number;
  start: DenseUnit;
  masks: Unit | null;
  draw: number | null;
}

/** Of control "reinit" the network that is not pruned is one of its own. */
const unprunedReinit = ({ branch, masks }: Place) => branch === 'reinit' && masks === null;
const slugOf = (place: Place, method: string) => {
  const { branch, replicate, rewind, level } = place;
  return branch === 'dense'
    ? `r${replicate}-k${rewind}-dense`
    : `r${replicate}-k${rewind}-${method}-l${String(level).padStart(2, '0')}-${branch}${unprunedReinit(place) ? '-dense' : ''}`;
};
const wordsOf = (place: Place) => {
  const { branch, replicate, rewind, level } = place;
  return branch === 'dense'
    ? `replicate ${replicate}, rewind ${rewind}, dense`
    : `replicate ${replicate}, rewind ${rewind}, level ${level}, ${branch}${unprunedReinit(place) ? ' unpruned' : ''}`;
};

/** Units of analyses, each once: copies are shared between kinds of analyses, levels and branches. */
class Planner {
  readonly units = new Map<string, Unit>();
  private readonly byId: Map<string, Unit>;

  constructor(
    private readonly plan: Plan,
    private readonly recipe: Recipe,
  ) {
    this.byId = new Map(plan.units.map((unit) => [unit.id, unit]));
  }

  add(analysis: Analysis): void {
    for (const place of this.places(analysis)) {
      const pairs: [number, number][] = [];
      for (let a = 0; a < analysis.orders; a++)
        for (let b = a + 1; b < analysis.orders; b++) pairs.push([a, b]);
      if (analysis.kind === 'connectivity') {
        for (const pair of pairs) this.line(place, pair, analysis);
        continue;
      }
      for (const [a, b] of pairs) this.distance(place, 'order', this.copy(place, a), this.copy(place, b));
      const dense: Place =
        place.branch === 'reinit'
          ? { ...place, masks: null }
          : { ...place, branch: 'dense', level: 0, masks: null };
      for (let i = 0; i < analysis.samples; i++)
        this.distance(place, 'pruning', this.copy(dense, i), this.copy(place, i));
    }
  }

  private places({ rewind, levels, branches }: Analysis): Place[] {
    const places: Place[] = [];
    for (const unit of this.plan.units) {
      const { replicate } = unit;
      if (
        unit.kind === 'dense' &&
        !unit.last &&
        rewind.includes(unit.to) &&
        branches.some((b) => b === 'dense')
      )
        places.push({
          ...{ branch: 'dense', replicate, rewind: unit.to, level: 0, start: unit },
          ...{ masks: null, draw: null },
        });
      if (!isPoint(unit) || !rewind.includes(unit.rewind) || !levels.includes(unit.level)) continue;
      // The initialisation of the run's own control at this place.
      const fresh = freshNoise('reinit', unit.rewind, unit.method, unit.level);
      const reinit = drawOf({ noise: this.recipe.noise === 'same' ? 0 : fresh, level: unit.level });
      const start = this.byId.get(unit.start) as DenseUnit;
      const masks = this.byId.get(unit.masks) as Unit;
      for (const branch of branches) {
        if (branch === 'dense') continue;
        const draw = branch === 'reinit' ? reinit : null;
        places.push({ branch, replicate, rewind: unit.rewind, level: unit.level, start, masks, draw });
      }
    }
    return places;
  }

  private unit<U extends Unit>(slug: string, keyed: unknown, unit: Omit<U, 'id' | 'key'>): U {
    const key = hash(keyed);
    const id = `${slug}-${key.slice(0, 12)}`;
    const known = this.units.get(id);
    if (known) return known as U;
    const whole = { ...unit, id, key } as U;
    this.units.set(id, whole);
    return whole;
  }

  private copy(place: Place, i: number): CopyUnit {
    const { branch, replicate, rewind, start, masks, draw } = place;
    const noise = copyNoise(i);
    const { total } = this.plan.steps;
    const keyed = {
      kind: 'copy',
      branch,
      start: start.key,
      masks: masks?.key ?? null,
      ...(draw === null ? {} : { draw }),
      noise,
      optimiser: this.recipe.rewindOptimiser,
      until: total,
      replicate,
    };
    return this.unit<CopyUnit>(`${slugOf(place, this.recipe.pruning.method)}-copy-${i}`, keyed, {
      kind: 'copy',
      label: `${wordsOf(place)}, copy ${i}`,
      replicate,
      needs: [start.id, ...(masks ? [masks.id] : [])],
      updates: total - rewind,
      branch,
      rewind,
      start: start.id,
      masks: masks?.id ?? null,
      draw,
      index: i,
      noise,
    });
  }

  private comparison(place: Place, a: CopyUnit, b: CopyUnit) {
    const { replicate, level, rewind, masks } = place;
    return {
      replicate,
      needs: [a.id, b.id, ...(masks ? [masks.id] : [])],
      updates: 0,
      method: this.recipe.pruning.method,
      level,
      rewind,
      copies: [a.id, b.id] as [string, string],
      noises: [a.noise, b.noise] as [number, number],
    };
  }

  private distance(place: Place, of: DistanceUnit['of'], a: CopyUnit, b: CopyUnit): void {
    const keyed = {
      kind: 'distance',
      of,
      branch: place.branch,
      copies: [a.key, b.key],
      masks: place.masks?.key,
    };
    const names = of === 'order' ? `${a.index}-${b.index}` : `${b.index}`;
    this.unit<DistanceUnit>(`${slugOf(place, this.recipe.pruning.method)}-${of}-${names}`, keyed, {
      kind: 'distance',
      label: `${wordsOf(place)}, stability to ${of === 'order' ? 'data order' : 'pruning'} ${names}`,
      ...this.comparison(place, a, b),
      of,
      branch: place.branch as DistanceUnit['branch'],
      masks: (place.masks as Unit).id,
    });
  }

  private line(place: Place, pair: [number, number], o: Extract<Analysis, { kind: 'connectivity' }>): void {
    const [a, b] = [this.copy(place, pair[0]), this.copy(place, pair[1])];
    const { alphas, statistics, trainExamples } = o;
    const keyed = { kind: 'interpolation', copies: [a.key, b.key], alphas, statistics, trainExamples };
    const names = `${a.index}-${b.index}`;
    this.unit<InterpolationUnit>(`${slugOf(place, this.recipe.pruning.method)}-line-${names}`, keyed, {
      kind: 'interpolation',
      label: `${wordsOf(place)}, line between copies ${names}`,
      ...this.comparison(place, a, b),
      branch: place.branch,
      masks: place.masks?.id ?? null,
      alphas,
      statistics,
      trainExamples,
    });
  }
}

/** IMP's trainings stand for the subnetworks of a run. */
function isPoint(unit: Unit): unit is TrainUnit {
  return unit.kind === 'train' && unit.branch === 'imp';
}

/** A run's plan and the units of all analyses of it. */
export function addAnalyses(plan: Plan, recipe: Recipe, analyses: Analysis[]): Plan {
  const planner = new Planner(plan, recipe);
  for (const analysis of analyses) planner.add(analysis);
  return { ...plan, units: [...plan.units, ...planner.units.values()] };
}

/** One analysis and what it needs of the run, and nothing else. */
export function planAnalysis(plan: Plan, recipe: Recipe, analysis: Analysis): Plan {
  const planner = new Planner(plan, recipe);
  planner.add(analysis);
  const units = [...plan.units, ...planner.units.values()];
  const needed = new Set(planner.units.keys());
  // Each unit stands behind what it needs.
  for (const unit of [...units].reverse())
    if (needed.has(unit.id)) for (const id of unit.needs) needed.add(id);
  return { ...plan, units: units.filter((unit) => needed.has(unit.id)) };
}

/**
 * Rewind points and levels of a run that an analysis is about.
 * @param asked default: all rewind points, and the last level that all of these have.
 * @throws LthError "recipe" where the run has no such place, with what to type.
 */
export function placesOf(
  plan: Plan,
  run: string,
  asked: { rewind: number[] | null; levels: number[] | null },
): { rewind: number[]; levels: number[] } {
  const points = plan.units.filter(isPoint);
  const rewind = [...new Set(asked.rewind ?? plan.steps.rewind)].sort((a, b) => a - b);
  const foreign = rewind.find((k) => !plan.steps.rewind.includes(k));
  if (foreign !== undefined)
    throw new LthError(
      'recipe',
      `--rewind: ${run} has no rewind point ${foreign}, it has ${plan.steps.rewind.join(', ')}. ` +
        `\`lth-train run ${run}/recipe.yaml --out ${run} --rewind ...\` adds some.`,
    );
  const last = Math.min(
    ...rewind.map((k) => Math.max(0, ...points.filter((one) => one.rewind === k).map((one) => one.level))),
  );
  const levels = [...new Set(asked.levels ?? (last > 0 ? [last] : []))].sort((a, b) => a - b);
  for (const level of levels) {
    const lacking = rewind.find((k) => !points.some((one) => one.rewind === k && one.level === level));
    if (lacking === undefined) continue;
    throw new LthError(
      'recipe',
      `--levels: ${run} has no level ${level} at rewind point ${lacking}; all have levels 1 to ${last}. ` +
        `\`lth-train run ${run}/recipe.yaml --out ${run} --levels ${level}\` adds it.`,
    );
  }
  return { rewind, levels };
}
