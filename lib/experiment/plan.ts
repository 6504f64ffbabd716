import { createHash } from 'node:crypto';
import type { NativeNetwork, ScheduleOptions } from '../native/AddonTypes.js';
import { LthError } from '../native/errors.js';
import { type Branch, type BranchRule, ruleOf } from '../recipe/branches.js';
import type { Recipe } from '../recipe/Recipe.js';
import { toUpdates } from '../recipe/steps.js';
import type { Request } from '../store/records.js';
import type { ConnectivityResult, Result, StabilityResult } from './Result.js';

/** All step counts of a recipe in updates. */
export interface ResolvedSteps {
  updatesPerEpoch: number;
  total: number;
  rewind: number[];
  milestones: number[];
  warmup: number;
  linear: ScheduleOptions['linear'];
  exponential: ScheduleOptions['exponential'];
  evaluateEvery: number;
  metricsEvery: number;
}

/** @throws LthError "recipe": a step count that makes no sense, rewind >= the training's length. */
export function resolveSteps(recipe: Recipe, updatesPerEpoch: number): ResolvedSteps {
  const { training } = recipe;
  const total = toUpdates(training.steps, 'training.steps', { updatesPerEpoch });
  if (total < 1)
    throw new LthError(
      'recipe',
      `training.steps: expected at least one update but received "${training.steps}"`,
    );
  const scale = { updatesPerEpoch, total };
  const rewind = recipe.rewind.map((text) => {
    const k = toUpdates(text, 'rewind', scale);
    if (k >= total)
      throw new LthError(
        'recipe',
        `rewind: expected less than the ${total} updates of the training but received "${text}" (${k} updates)`,
      );
    return k;
  });
  const warmup = toUpdates(training.schedule.warmup, 'training.schedule.warmup', scale);
  const { linear, exponential } = training.schedule;
  const finetunes = recipe.retraining === 'finetune' || recipe.controls.includes('finetune');
  if (finetunes && warmup >= total)
    throw new LthError(
      'recipe',
      `training.schedule.warmup: fine-tuning goes on at the schedule's last rate, so expected less than the ${total} updates of the training but received "${training.schedule.warmup}"`,
    );
  const every = exponential
    ? toUpdates(exponential.every, 'training.schedule.exponential.every', scale)
    : null;
  if (every === 0)
    throw new LthError('recipe', 'training.schedule.exponential.every: expected at least one update');
  return {
    updatesPerEpoch,
    total,
    rewind: [...new Set(rewind)].sort((a, b) => a - b),
    milestones: training.schedule.milestones.map((text) =>
      toUpdates(text, 'training.schedule.milestones', scale),
    ),
    warmup,
    linear: linear ? { to: linear.to, steps: total } : null,
    exponential: exponential && every !== null ? { ...exponential, every } : null,
    evaluateEvery: toUpdates(training.evaluateEvery, 'training.evaluateEvery', scale),
    metricsEvery: toUpdates(training.metricsEvery, 'training.metricsEvery', scale),
  };
}

interface UnitBase {
  /** `slug-hash`: the folder's name. */
  id: string;
  key: string;
  label: string;
  replicate: number;
  /** Units whose results this one reads. */
  needs: string[];
  /** Updates it makes if nothing is there yet. */
  updates: number;
}

/** The dense run from step `from` to step `to`, with noise 0. */
export interface DenseUnit extends UnitBase {
  kind: 'dense';
  /** The dense unit it goes on from; null: from initialisation. */
  from: string | null;
  to: number;
  /** The whole training: level 0 of every branch. */
  last: boolean;
}

/** The masks of level n out of the weights of the training before, or of the rewind point. */
export interface PruneUnit extends UnitBase {
  kind: 'prune';
  /** Masks pruned further; null: all ones. */
  masks: string | null;
  weights: string;
  /** 1: iterative; n: one-shot to level n. */
  levels: number;
  /** "weights": by their magnitude, as the recipe says; else by scores in one pool, as many as IMP's levels leave. */
  by: 'weights' | Exclude<BranchRule['masks'], 'imp' | 'own'>;
  inverted: boolean;
}

/** One training k -> T of a subnetwork. */
export interface TrainUnit extends UnitBase {
  kind: 'train';
  branch: Result['branch'];
  method: Result['method'];
  level: number;
  rewind: number;
  /** The dense unit at k; where the final weights are trained on, the training that made them. */
  start: string;
  /** Pruning whose masks are taken as they are, or permuted within each layer. */
  masks: string;
  rule: BranchRule;
  noise: number;
}

/** One more training k -> T of a subnetwork or of the dense network, to compare with others of its kind. */
export interface CopyUnit extends UnitBase {
  kind: 'copy';
  branch: ConnectivityResult['branch'];
  rewind: number;
  /** The dense unit at k. */
  start: string;
  /** IMP's masks of the level: taken as they are (imp, reinit), or their counts (random); null: none. */
  masks: string | null;
  /** reinit: the initialisation that it starts from, at k; null: from W_k. */
  draw: number | null;
  /** i of its data order u_i, and u_i's noise id. */
  index: number;
  noise: number;
}

interface ComparisonBase extends UnitBase {
  method: Result['method'];
  level: number;
  rewind: number;
  copies: [string, string];
  noises: [number, number];
}

/** Distance and angle between two copies, under the subnetwork's masks. */
export interface DistanceUnit extends ComparisonBase {
  kind: 'distance';
  of: StabilityResult['kind'];
  branch: StabilityResult['branch'];
  masks: string;
}

/** Errors on the line between two copies. */
export interface InterpolationUnit extends ComparisonBase {
  kind: 'interpolation';
  branch: ConnectivityResult['branch'];
  masks: string | null;
  alphas: number;
  statistics: ConnectivityResult['statistics'];
  /** null: all. */
  trainExamples: number | null;
}

export type Unit = DenseUnit | PruneUnit | TrainUnit | CopyUnit | DistanceUnit | InterpolationUnit;

export interface Plan {
  units: Unit[];
  steps: ResolvedSteps;
}

/**
 * All that decides bits, but for the numbers that may grow (levels, replicates, rewind points): two commands on one
 * run folder must agree in it.
 */
export interface Experiment {
  network: Pick<NativeNetwork, 'input' | 'classes' | 'layers'>;
  data: {
    set: string;
    validation: number;
    /** Left out where there is none, as augment. */
    subset?: number;
    normalise: Recipe['data']['normalise'];
    crop?: Recipe['data']['crop'];
    upright?: boolean;
    /** Left out where there is none: keys of experiments from before it was there stay what they were. */
    augment?: { crop: number; flip: boolean };
    figures: unknown;
  };
  training: Pick<
    Recipe['training'],
    'batch' | 'microBatch' | 'labelSmoothing' | 'average' | 'optimiser' | 'precision' | 'executor'
  > & {
    steps: number;
    milestones: number[];
    gamma: number;
    warmup: number;
    linear?: ScheduleOptions['linear'];
    exponential?: ScheduleOptions['exponential'];
    evaluateEvery: number;
    metricsEvery: number;
  };
  pruning: Pick<Recipe['pruning'], 'fraction' | 'pooling' | 'rates' | 'method'>;
  rewindOptimiser: Recipe['rewindOptimiser'];
  /** Not there for "rewind", so that experiments keep what they were before there was a choice. */
  retraining?: Exclude<Recipe['retraining'], 'rewind'>;
  noise: Recipe['noise'];
  seed: number;
  /** Follows from the data, the split and the batch: what step counts in epochs mean. */
  updatesPerEpoch: number;
  /** LibTorch, device, instruction set, kernels, table of costs: the same experiment has other bits on other ones (contract 4). */
  fingerprint: string;
}

/** @param context the compiled network's description, the data's figures, the session's fingerprint. */
export function experimentOf(
  recipe: Recipe,
  steps: ResolvedSteps,
  context: { network: NativeNetwork; data: unknown; fingerprint: string },
): Experiment {
  const { training, pruning } = recipe;
  const { input, classes, layers } = context.network;
  const { set, validation, subset, normalise, augment, crop, upright } = recipe.data;
  return {
    network: { input, classes, layers },
    data: {
      ...{ set, validation, normalise },
      ...(subset === null ? {} : { subset }),
      ...(augment ? { augment } : {}),
      ...(crop ? { crop } : {}),
      ...(upright ? { upright } : {}),
      figures: context.data,
    },
    training: {
      batch: training.batch,
      // Units called "labelSmoothing" were trained without it by mistake.
      ...(training.labelSmoothing !== undefined && { smoothing: training.labelSmoothing }),
      ...(training.microBatch !== undefined && { microBatch: training.microBatch }),
      ...(training.average && { average: training.average }),
      optimiser: training.optimiser,
      precision: training.precision,
      executor: training.executor,
      steps: steps.total,
      milestones: steps.milestones,
      gamma: training.schedule.gamma,
      warmup: steps.warmup,
      ...(steps.linear && { linear: steps.linear }),
      ...(steps.exponential && { exponential: steps.exponential }),
      evaluateEvery: steps.evaluateEvery,
      metricsEvery: steps.metricsEvery,
    },
    pruning: {
      fraction: pruning.fraction,
      pooling: pruning.pooling,
      rates: pruning.rates,
      method: pruning.method,
    },
    rewindOptimiser: recipe.rewindOptimiser,
    ...(recipe.retraining === 'rewind' ? {} : { retraining: recipe.retraining }),
    noise: recipe.noise,
    seed: recipe.seed,
    updatesPerEpoch: steps.updatesPerEpoch,
    fingerprint: context.fingerprint,
  };
}

export const hash = (value: unknown) => createHash('sha256').update(JSON.stringify(value)).digest('hex');

/** A noise id in [1, 2^48] from what the training is; never 0, which is the dense run's. */
export function freshNoise(...parts: (string | number)[]): number {
  return 1 + Number.parseInt(hash(parts).slice(0, 12), 16);
}

/** The initialisation of control "reinit": as fresh as its noise. */
export const drawOf = ({ noise, level }: { noise: number; level: number }) => (noise === 0 ? level : noise);

/**
 * The experiment as a list of units in an order that respects their needs (paper Algorithm 1, LMC Algorithm 2):
 * for each replicate the dense run through all rewind points, then level after level prune, rewind, train, and each
 * control and baseline beside it. Keys hash only what decides a unit's bits, so levels, replicates and rewind points may
 * grow.
 */
export function planUnits(recipe: Recipe, steps: ResolvedSteps, experiment: Experiment): Plan {
  const { pruning } = recipe;
  const { network, data, seed } = experiment;
  // The training's length names the units that it ends, not those on its way.
  const { steps: _, ...training } = experiment.training;
  const base = { network, data, training, seed };
  const units = new Map<string, Unit>();
  const add = <U extends Unit>(slug: string, keyed: unknown, unit: Omit<U, 'id' | 'key'>): U => {
    const key = hash(keyed);
    const id = `${slug}-${key.slice(0, 12)}`;
    // Branches may share a pruning: of the dense weights, or by one score.
    const known = units.get(id);
    if (known) return known as U;
    const whole = { ...unit, id, key } as U;
    units.set(id, whole);
    return whole;
  };

  for (let replicate = 0; replicate < recipe.replicates; replicate++) {
    const dense = new Map<number, DenseUnit>();
    let before: DenseUnit | undefined;
    for (const to of [...steps.rewind, steps.total]) {
      const last = to === steps.total;
      const unit: DenseUnit = add<DenseUnit>(
        `r${replicate}-dense-${to}it`,
        { kind: 'dense', base, replicate, to, last },
        {
          kind: 'dense',
          label: last ? `replicate ${replicate}, dense` : `replicate ${replicate}, dense to ${to}`,
          replicate,
          needs: before ? [before.id] : [],
          updates: to - (before?.to ?? 0),
          from: before?.id ?? null,
          to,
          last,
        },
      );
      dense.set(to, unit);
      before = unit;
    }
    for (const k of steps.rewind)
      addLevels(replicate, k, dense.get(k) as DenseUnit, dense.get(steps.total) as DenseUnit);
  }
  return { units: [...units.values()], steps };

  function addLevels(replicate: number, k: number, start: DenseUnit, dense: DenseUnit): void {
    const { method } = pruning;
    const { retraining } = recipe;
    /** What each branch with an iteration of its own goes on from. */
    const before = new Map<Branch, { masks: PruneUnit; trained: TrainUnit }>();
    for (let level = 1; level <= pruning.levels; level++) {
      const where = `replicate ${replicate}, rewind ${k}, level ${level}`;
      const slug = `r${replicate}-k${k}-${method}-l${String(level).padStart(2, '0')}`;
      const common = { fraction: pruning.fraction, pooling: pruning.pooling, rates: pruning.rates };

      /** Masks out of final weights: of the level before, or of the dense training where there is none or one-shot. */
      const pruned = (branch: Branch, inverted: boolean): PruneUnit => {
        const last = method === 'oneshot' ? undefined : before.get(branch);
        const from: Unit = last?.trained ?? dense;
        const levels = method === 'oneshot' ? level : 1;
        const rule = { ...common, levels, ...(inverted ? { highest: true } : {}) };
        const own = branch === 'imp' || (!last && !inverted) ? '' : `, ${branch}`;
        return add<PruneUnit>(
          `${slug}-prune`,
          { kind: 'prune', masks: last?.masks.key ?? null, weights: from.key, rule },
          {
            kind: 'prune',
            label: `${where}, pruning${own}`,
            replicate,
            needs: last ? [last.masks.id, from.id] : [from.id],
            updates: 0,
            masks: last?.masks.id ?? null,
            weights: from.id,
            levels,
            by: 'weights',
            inverted,
          },
        );
      };

      /** Masks out of the weights at k, each level by itself. */
      const scored = (by: Exclude<PruneUnit['by'], 'weights'>, inverted: boolean): PruneUnit =>
        add<PruneUnit>(
          `${slug}-prune`,
          { kind: 'prune', by, inverted, weights: start.key, rule: { ...common, levels: level } },
          {
            kind: 'prune',
            label: `${where}, pruning by ${by}${inverted ? ', inverted' : ''}`,
            replicate,
            needs: [start.id],
            updates: 0,
            masks: null,
            weights: start.id,
            levels: level,
            by,
            inverted,
          },
        );

      const imp = pruned('imp', false);
      for (const branch of ['imp', ...recipe.controls] as const) {
        const rule = ruleOf(branch, retraining);
        const masks =
          branch === 'imp' || rule.masks === 'imp'
            ? imp
            : rule.masks === 'own'
              ? pruned(branch, rule.inverted)
              : scored(rule.masks, rule.inverted);
        const final = rule.weights === 'final';
        const last = method === 'oneshot' ? undefined : before.get(branch);
        const from: Unit = final ? (last?.trained ?? dense) : start;
        const noise = recipe.noise === 'same' ? 0 : freshNoise(branch, k, method, level);
        const keyed = {
          kind: 'train',
          branch,
          start: from.key,
          masks: masks.key,
          noise,
          // Final weights come with no optimiser state: they say by themselves how they go on.
          ...(final ? { retraining: rule.rate, rewind: k } : { optimiser: recipe.rewindOptimiser }),
          until: steps.total,
          replicate,
        };
        const trained = add<TrainUnit>(`${slug}-${branch}`, keyed, {
          kind: 'train',
          label: `${where}, ${branch}`,
          replicate,
          needs: [from.id, masks.id],
          updates: steps.total - k,
          branch,
          method,
          level,
          rewind: k,
          start: from.id,
          masks: masks.id,
          rule,
          noise,
        });
        if (rule.masks === 'own') before.set(branch, { masks, trained });
      }
    }
  }
}

export function requestOf({ pruning, replicates, rewind, controls }: Recipe): Request {
  return { levels: pruning.levels, replicates, rewind, controls };
}

/** The plan of several requests together: each unit once. */
export function planRequests(recipe: Recipe, requests: Request[], experiment: Experiment): Plan {
  const plans = requests.map(({ levels, replicates, rewind, controls }) => {
    const asked = { ...recipe, pruning: { ...recipe.pruning, levels }, replicates, rewind, controls };
    return planUnits(asked, resolveSteps(asked, experiment.updatesPerEpoch), experiment);
  });
  const units = new Map(plans.flatMap((plan) => plan.units.map((unit) => [unit.id, unit])));
  const rewind = [...new Set(plans.flatMap((plan) => plan.steps.rewind))].sort((a, b) => a - b);
  return { units: [...units.values()], steps: { ...(plans[0] as Plan).steps, rewind } };
}
