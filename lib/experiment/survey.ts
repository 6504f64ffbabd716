import { z } from 'zod';
import { LthError } from '../native/errors.js';
import { firstIssue } from '../recipe/issues.js';
import type { Recipe } from '../recipe/Recipe.js';
import { Checkpoints } from '../store/Checkpoints.js';
import { type Pulse, readPulse } from '../store/Heartbeat.js';
import { RunFolder } from '../store/RunFolder.js';
import type { Analysis, UnitRecord } from '../store/records.js';
import { addAnalyses, planAnalysis } from './analyses.js';
import { type Experiment, type Plan, planRequests, requestOf, type Unit } from './plan.js';

export type UnitState = 'done' | 'running' | 'waiting' | 'failed' | 'impossible' | 'damaged';

/** Where one unit of a run is, as its folder tells. */
export interface UnitStatus {
  unit: Unit;
  state: UnitState;
  /** Updates made so far: of a unit in work what it last told, else what its newest checkpoint saved. */
  updates: number;
  record: UnitRecord | null;
  pulse: Pulse | null;
  /** Of "failed" and "damaged": why. */
  message: string | null;
}

export interface Survey {
  folder: RunFolder;
  recipe: Recipe;
  plan: Plan;
  units: UnitStatus[];
}

/** What planning needs of experiment.json. */
const experimentSchema = z.looseObject({
  network: z.looseObject({}),
  data: z.looseObject({}),
  training: z.looseObject({ steps: z.int().min(1) }),
  seed: z.int().min(0),
  updatesPerEpoch: z.int().min(1),
  fingerprint: z.string(),
});

async function experimentOf(folder: RunFolder): Promise<Experiment> {
  // The seal was right, so this is of another version at worst.
  const value = await folder.experiment();
  const parsed = experimentSchema.safeParse(value);
  if (!parsed.success)
    throw new LthError('corrupt-file', `${folder.path}/experiment.json: ${firstIssue(parsed.error, value)}`);
  // The units' keys are hashes of its parts, in the order in which they were written.
  return value as Experiment;
}

/**
 * The plan of a run folder, without its data: of one recipe, of one analysis, or of all that commands on it asked for.
 * @throws LthError "corrupt-file", "recipe".
 */
async function planOf(
  folder: RunFolder,
  recipe: Recipe,
  asked: Recipe | undefined,
  analysis: Analysis | undefined,
): Promise<Plan> {
  const experiment = await experimentOf(folder);
  if (asked) return planRequests(recipe, [requestOf(asked)], experiment);
  const plan = planRequests(recipe, await folder.requests(), experiment);
  return analysis ? planAnalysis(plan, recipe, analysis) : addAnalyses(plan, recipe, await folder.analyses());
}

/**
 * Where every unit of a run is, also while it is going on elsewhere; nothing is changed.
 * @param asked what is looked for; default: what all commands on the folder asked for.
 * @param analysis look for what this one needs instead.
 * @throws LthError "io" where there is no run, "corrupt-file" for a damaged experiment.json or recipe.yaml.
 */
export async function survey(path: string, asked?: Recipe, analysis?: Analysis): Promise<Survey> {
  const folder = RunFolder.open(path);
  const recipe = asked ?? (await folder.recipe());
  const plan = await planOf(folder, recipe, asked, analysis);
  const units: UnitStatus[] = [];
  const lost = new Set<string>();
  for (const unit of plan.units) {
    const status = await statusOf(folder, unit);
    if (status.state === 'waiting' && unit.needs.some((id) => lost.has(id))) status.state = 'impossible';
    if (status.state === 'impossible' || status.record?.diverged) lost.add(unit.id);
    units.push(status);
  }
  return { folder, recipe, plan, units };
}

async function statusOf(folder: RunFolder, unit: Unit): Promise<UnitStatus> {
  const status: UnitStatus = { unit, state: 'waiting', updates: 0, record: null, pulse: null, message: null };
  try {
    const record = await folder.record(unit.id);
    if (record) return { ...status, state: 'done', updates: unit.updates, record };
  } catch (error) {
    if (!(error instanceof LthError) || error.code !== 'corrupt-file') throw error;
    return { ...status, state: 'damaged', message: error.message };
  }
  const [checkpoint] = await Checkpoints.steps(folder.unit(unit.id));
  const first =
    unit.kind === 'dense'
      ? unit.to - unit.updates
      : unit.kind === 'train' || unit.kind === 'copy'
        ? unit.rewind
        : 0;
  if (checkpoint !== undefined) status.updates = Math.max(0, checkpoint - first);
  if (folder.locked(unit.id)) {
    const pulse = await readPulse(folder.unit(unit.id));
    return { ...status, state: 'running', updates: Math.max(status.updates, pulse?.updates ?? 0), pulse };
  }
  const failure = await folder.failure(unit.id);
  return failure ? { ...status, state: 'failed', message: failure.message } : status;
}
