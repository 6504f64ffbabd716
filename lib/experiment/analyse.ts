import { checkInteger, checkOneOf, LthError, wrongValue } from '../native/errors.js';
import type { Steps } from '../recipe/Recipe.js';
import { toUpdates } from '../recipe/steps.js';
import { builtinTuning } from '../session/tuning.js';
import { RunFolder } from '../store/RunFolder.js';
import type { Analysis, ConnectivityAnalysis, StabilityAnalysis } from '../store/records.js';
import { placesOf, planAnalysis } from './analyses.js';
import { openPlan } from './openPlan.js';
import { type Plan, planRequests, requestOf } from './plan.js';
import type { ConnectivityResult, Problem, StabilityResult, UnitCounts } from './Result.js';
import { carryOut, checkRunOptions, type RunOptions } from './run.js';
import { countsOf, problemsOf } from './summary.js';
import { survey } from './survey.js';
import { tuningForRun } from './tuning.js';

export interface AnalysisOptions extends Omit<RunOptions, 'out' | 'tuning'> {
  /** Default: all of the run. */
  rewind?: Steps[];
  /** Default: the last level that all of these rewind points have. */
  levels?: number[];
  /** Trainings from each (W_k, m), each under a data order of its own; all pairs are compared. Raising it continues. */
  orders?: number;
}

export interface StabilityOptions extends AnalysisOptions {
  /** Data orders under which the dense network and the subnetwork are compared, for each replicate. Default 1. */
  samples?: number;
  /** Default: imp and random. */
  branches?: StabilityResult['branch'][];
}

export interface ConnectivityOptions extends AnalysisOptions {
  /** Default: dense, imp and random. */
  branches?: ConnectivityResult['branch'][];
  /** Points on the line, both ends included. Default 30, as in the paper. */
  alphas?: number;
  /** Of the training set, evenly spaced over it. Default: all. */
  trainExamples?: number;
  /** Running statistics of batch norm on the line; see ConnectivityResult. Default "interpolated". */
  statistics?: ConnectivityResult['statistics'];
}

export interface AnalysisSummary<R> {
  /** The run folder. */
  run: string;
  recipe: string;
  /** All is done that can be done for what was asked. */
  complete: boolean;
  /** The signal ended it before. */
  stopped: boolean;
  /** Of this analysis and of what it needs. */
  units: UnitCounts;
  problems: Problem[];
  results: R[];
}

/**
 * Measures how stable a run's subnetworks are to data order and to pruning (paper section 2): trains `orders` copies of
 * each and takes all pairs, and compares the subnetwork with the dense network under the same data order. Work goes to
 * the run folder as units; what is done is not done again, and what of the run itself is missing is made first.
 * @returns every sample for both scopes.
 * @throws LthError as runExperiment, and "io" where there is no run, "recipe" where it has no such level or does not
 * rewind weights (`retraining`).
 */
export async function measureStability(
  run: string,
  options: StabilityOptions = {},
): Promise<AnalysisSummary<StabilityResult>> {
  const orders = checkInteger(options.orders ?? 4, 'orders', 2, 1000);
  const samples = checkInteger(options.samples ?? 1, 'samples', 0, 1000);
  const branches = checkBranches(options.branches ?? ['imp', 'random'], ['imp', 'random', 'reinit'] as const);
  const analysis = ({ rewind, levels }: Places): StabilityAnalysis => {
    checkLevels(run, levels);
    return { kind: 'stability', rewind, levels, orders, samples, branches };
  };
  return analyse(run, options, analysis, ({ stability }) => stability ?? []);
}

/**
 * Measures the error on the straight line between copies that were trained from the same W_k, or m * W_k, under
 * different noise (linear mode connectivity). The copies are those of `measureStability`.
 * @throws LthError as measureStability.
 */
export async function measureConnectivity(
  run: string,
  options: ConnectivityOptions = {},
): Promise<AnalysisSummary<ConnectivityResult>> {
  const orders = checkInteger(options.orders ?? 2, 'orders', 2, 1000);
  const alphas = checkInteger(options.alphas ?? 30, 'alphas', 2, 10_000);
  const branches = checkBranches(options.branches ?? ['dense', 'imp', 'random'], [
    'dense',
    'imp',
    'random',
    'reinit',
  ] as const);
  const statistics = checkOneOf(options.statistics ?? 'interpolated', 'statistics', [
    'interpolated',
    'reestimated',
  ]);
  const wanted = options.trainExamples;
  const analysis = ({ rewind, levels, trainExamples: all }: Places): ConnectivityAnalysis => {
    if (wanted !== undefined) checkInteger(wanted, 'trainExamples', 1, all);
    const trainExamples = wanted === undefined || wanted === all ? null : wanted;
    if (!branches.includes('dense')) checkLevels(run, levels);
    return { kind: 'connectivity', rewind, levels, orders, branches, alphas, statistics, trainExamples };
  };
  return analyse(run, options, analysis, ({ connectivity }) => (connectivity ? [connectivity] : []));
}

function checkLevels(run: string, levels: number[]): void {
  if (levels.length === 0)
    throw new LthError('recipe', `--levels: ${run} has no level beside the dense network`);
}

/** In one order, so that the same question is the same request. */
function checkBranches<B extends string>(asked: readonly B[], all: readonly B[]): B[] {
  for (const branch of asked) checkOneOf(branch, 'branches', all);
  const branches = all.filter((branch) => asked.includes(branch));
  if (branches.length === 0) throw wrongValue(`some of ${all.join(', ')}`, 'branches', asked);
  return branches;
}

interface Places {
  rewind: number[];
  levels: number[];
  trainExamples: number;
}

async function analyse<R>(
  run: string,
  options: AnalysisOptions,
  analysisOf: (places: Places) => Analysis,
  resultsOf: (record: { stability?: StabilityResult[]; connectivity?: ConnectivityResult }) => R[],
): Promise<AnalysisSummary<R>> {
  const checked = checkRunOptions(options);
  const there = RunFolder.open(run);
  const recipe = await there.recipe();
  if (recipe.retraining !== 'rewind')
    throw new LthError(
      'recipe',
      `${run}: copies start from the rewind point, and this run's imp from final weights (retraining: ${recipe.retraining}). \`lth-train run ${run}/recipe.yaml --set retraining=rewind --out NEW\` makes a run that can be analysed.`,
    );
  const { workplace, experiment } = await openPlan(recipe, () =>
    tuningForRun(recipe, run, {
      allowDifferentBits: checked.allowDifferentBits,
      signal: checked.signal,
      onNotice: (message) => checked.tell({ type: 'notice', message }),
    }),
  );
  const tuning = workplace.tuning ?? builtinTuning();
  let analysis: Analysis;
  try {
    const whole = planRequests(recipe, await there.requests(), experiment);
    const places = placesOf(whole, run, {
      rewind: options.rewind ? updatesOf(options.rewind, whole) : null,
      levels: options.levels ?? null,
    });
    analysis = analysisOf({ ...places, trainExamples: workplace.trainExamples });
    workplace.folder = await RunFolder.create(run, recipe, experiment, {
      allowDifferentBits: checked.allowDifferentBits,
      request: requestOf(recipe),
      analysis,
      tuning,
    });
    const plan = planAnalysis(whole, recipe, analysis);
    await carryOut(workplace, plan, { fingerprint: experiment.fingerprint, tuning }, checked, analysis);
  } finally {
    workplace.dispose();
  }
  const found = await survey(run, undefined, analysis);
  const units = countsOf(found);
  const complete = units.done + units.impossible === units.total;
  return {
    run,
    recipe: recipe.name,
    complete,
    stopped: options.signal?.aborted === true && !complete,
    units,
    problems: problemsOf(found),
    results: found.units.flatMap(({ record }) => (record ? resultsOf(record) : [])),
  };
}

function updatesOf(rewind: Steps[], { steps }: Plan): number[] {
  const scale = { updatesPerEpoch: steps.updatesPerEpoch, total: steps.total };
  return rewind.map((text) => toUpdates(text, '--rewind', scale));
}
