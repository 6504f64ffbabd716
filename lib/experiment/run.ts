import { randomUUID } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import type { Tuning } from '../native/AddonTypes.js';
import { checkInteger, checkNumber, checkOneOf, LthError, wrongValue } from '../native/errors.js';
import type { Recipe } from '../recipe/Recipe.js';
import { parseRecipe } from '../recipe/schema.js';
import { builtinTuning, checkTuning } from '../session/tuning.js';
import { Beginning, untilBegun } from '../store/Beginning.js';
import { cureOfBits, RunFolder } from '../store/RunFolder.js';
import type { Analysis, UnitRecord } from '../store/records.js';
import { diskBytes } from './disk.js';
import type { ExperimentEvent, UnitEvent } from './Event.js';
import { runJobs } from './jobs.js';
import { Meter } from './Meter.js';
import { checkNewRun, openPlan } from './openPlan.js';
import { type Plan, requestOf } from './plan.js';
import type { RunSummary } from './Result.js';
import type { Keep } from './retention.js';
import { runPlan } from './scheduler.js';
import { sideBySide } from './sideBySide.js';
import { summarise } from './summary.js';
import { type Cadence, defaultCadence } from './training.js';
import { tuningByName, tuningForRun } from './tuning.js';
import type { Workplace } from './Workplace.js';

export interface RunOptions {
  /** The run folder; created if missing. Finished units in it are not done again. */
  out: string;
  /** Of all jobs together. Default: all cores. Never changes a bit of the results. */
  threads?: number;
  /** Processes that share the units. Default 1: this one. Never changes a bit of the results. */
  jobs?: number;
  /**
   * Trainings that each process has in work at a time, which share its threads and what memory there is. Default: as many as
   * threads; of pictures in files one. Never changes a bit of the results.
   */
  sideBySide?: number;
  /**
   * When a training saves what it has: whatever comes first. Default: every 30 seconds, less often where saving would
   * take more than 1 % of the time. Both null: only when it is stopped. Never changes a bit of the results.
   */
  checkpoint?: { seconds?: number | null; updates?: number | null };
  /** Which weights stay on disk: "all", or only those "needed" to go on (see retention.ts). Default "all". */
  keep?: Keep;
  /** Go on where another LibTorch, instruction set, device or table of costs made the bits so far. Default false. */
  allowDifferentBits?: boolean;
  /**
   * The table by which products are chosen (OpenOptions.tuning), or the path of a file that holds one. Default: the run
   * folder's; of a new one what LTH_TUNING names, else this machine's, which is measured first where it has none. An
   * existing run refuses another one than its own as other bits.
   */
  tuning?: Tuning | string;
  /** Saves and stops at the step at hand. */
  signal?: AbortSignal;
  onEvent?: (event: ExperimentEvent) => void;
}

function cadenceOf({ checkpoint }: Pick<RunOptions, 'checkpoint'>): Cadence {
  if (checkpoint === undefined) return defaultCadence;
  const { seconds = null, updates = null } = checkpoint;
  if (seconds !== null && !(checkNumber(seconds, 'checkpoint.seconds', 0, 1e6) > 0))
    throw wrongValue('number above 0', 'checkpoint.seconds', seconds);
  if (updates !== null) checkInteger(updates, 'checkpoint.updates', 1, 2 ** 31 - 1);
  return { seconds, updates, largestShare: Number.POSITIVE_INFINITY };
}

/**
 * Runs an experiment: IMP with rewinding and its controls, for all replicates and rewind points of the recipe.
 * @returns the results so far; `stopped` where the signal ended it before all was done. Units that failed are in
 *   `problems`: the next run tries them again.
 * @throws LthError "recipe", "io", "corrupt-file", "other-experiment", "different-bits", "no-cuda"; the signal's reason
 *   where it came before there was anything to save.
 */
export async function runExperiment(
  asked: Recipe,
  options: RunOptions,
): Promise<RunSummary & { stopped: boolean }> {
  // A recipe made in JavaScript is checked as one in a file is; its folder may be read from another place later.
  const recipe = parseRecipe(asked, 'recipe');
  if (recipe.data.folder) recipe.data.folder = resolve(recipe.data.folder);
  const checked = checkRunOptions(options);
  const named = typeof options.tuning === 'string' ? await tuningByName(options.tuning) : options.tuning;
  const tuningOf = () =>
    tuningForRun(recipe, options.out, {
      asked: named && checkTuning(named),
      allowDifferentBits: checked.allowDifferentBits,
      signal: options.signal,
      onNotice: (message) => checked.tell({ type: 'notice', message }),
    });
  const { workplace, plan, experiment } = await begin(recipe, options.out, checked, tuningOf);
  try {
    const tuning = workplace.tuning ?? builtinTuning();
    await carryOut(workplace, plan, { fingerprint: experiment.fingerprint, tuning }, checked);
  } finally {
    workplace.dispose();
  }
  const summary = await summarise(options.out, recipe);
  return { ...summary, stopped: options.signal?.aborted === true && !summary.complete };
}

/** The run's folder and all that works in it. The caller disposes of the workplace. */
async function begin(
  recipe: Recipe,
  out: string,
  { allowDifferentBits, signal, tell }: ReturnType<typeof checkRunOptions>,
  tuningOf: () => Promise<Tuning>,
): ReturnType<typeof openPlan> {
  const beginning = await Beginning.of(out);
  let workplace: Workplace | undefined;
  try {
    // The one that was first decides by which table products are chosen.
    const onWait = (message: string) => tell({ type: 'notice', message });
    if (!beginning && !(await untilBegun(out, onWait, signal))) signal?.throwIfAborted();
    // Everything that can be wrong with the recipe is found before anything is written.
    const opened = await openPlan(recipe, tuningOf);
    workplace = opened.workplace;
    if (!RunFolder.is(out)) checkNewRun(recipe, workplace);
    workplace.folder = await RunFolder.create(out, recipe, opened.experiment, {
      allowDifferentBits,
      request: requestOf(recipe),
      tuning: workplace.tuning ?? builtinTuning(),
      ...(beginning && { lock: beginning.lock }),
    });
    return opened;
  } catch (error) {
    workplace?.dispose();
    await beginning?.undo();
    throw error;
  } finally {
    beginning?.end();
  }
}

/** Options with defaults. @throws LthError "invalid-argument". */
export function checkRunOptions(options: Omit<RunOptions, 'out' | 'tuning'>) {
  return {
    threads: checkInteger(options.threads ?? availableParallelism(), 'threads', 1, 1024),
    jobs: checkInteger(options.jobs ?? 1, 'jobs', 1, 1024),
    sideBySide:
      options.sideBySide === undefined ? null : checkInteger(options.sideBySide, 'sideBySide', 1, 1024),
    keep: checkOneOf(options.keep ?? 'all', 'keep', ['all', 'needed']),
    cadence: cadenceOf(options),
    allowDifferentBits: options.allowDifferentBits ?? false,
    tell: options.onEvent ?? (() => {}),
    signal: options.signal,
  };
}

/** Does what is left of a plan, here or in several processes. */
export async function carryOut(
  workplace: Workplace,
  plan: Plan,
  { fingerprint, tuning }: { fingerprint: string; tuning: Tuning },
  options: ReturnType<typeof checkRunOptions>,
  analysis: Analysis | null = null,
): Promise<void> {
  const { threads, jobs, keep, cadence, allowDifferentBits, tell, signal } = options;
  const { folder, recipe } = workplace;
  const only = allowDifferentBits ? null : fingerprint;
  const finished = await finishedUnits(folder, plan, only, analysis !== null);
  const meter = new Meter(plan, tell);
  for (const id of finished.keys()) {
    await folder.cleanFinished(id);
    meter.finishedBefore(id);
  }
  const atOnce = sideBySide(recipe, { jobs, threads }, options.sideBySide);
  tell({
    type: 'plan',
    units: plan.units.length,
    done: finished.size,
    updates: meter.totalUpdates,
    ...diskBytes(plan, recipe, workplace.network.summary.counts, { keep, trainings: jobs * atOnce }),
  });
  const how = { cadence, keep, allowDifferentBits, fingerprint, sideBySide: atOnce };
  const onEvent = (event: UnitEvent) => meter.take(event);
  const command = randomUUID();
  if (jobs === 1) await runPlan(plan, workplace, { ...how, threads, command, finished, signal, onEvent });
  else await runJobs({ recipe, tuning, analysis, folder, how, jobs, threads, command, signal, onEvent });
}

/**
 * Records of the plan's units that are done. One that cannot be read is left for the scheduler to complain of.
 * @param only the fingerprint that all must have; null: any.
 * @throws LthError "different-bits".
 */
export async function finishedUnits(
  folder: RunFolder,
  plan: Plan,
  only: string | null,
  ofAnalysis = false,
): Promise<Map<string, UnitRecord>> {
  const finished = new Map<string, UnitRecord>();
  for (const unit of plan.units) {
    try {
      const record = await folder.record(unit.id);
      if (record?.key !== unit.key) continue;
      const other = record.fingerprints.find((one) => only !== null && one !== only);
      if (other)
        throw new LthError(
          'different-bits',
          `${folder.unit(unit.id)} was made under "${other}", and this is "${only}": to go on from it would mix bits. ` +
            cureOfBits(ofAnalysis),
        );
      finished.set(unit.id, record);
    } catch (error) {
      if (!(error instanceof LthError) || error.code !== 'corrupt-file') throw error;
    }
  }
  return finished;
}
