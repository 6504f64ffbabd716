import { z } from 'zod';
import { branchNames, controlNames } from '../recipe/branches.js';
import { firstIssue } from '../recipe/issues.js';
import { completeTuning, costNames, isNewer, ofEach, tuningParts } from '../session/tuning.js';

/**
 * Format of the JSON files in a run folder.
 * 2: `fingerprints`, `removed`; checkpoints and failures.
 */
export const FORMAT = 2;

const sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'expected 64 hexadecimal digits');
const count = z.int().min(0);
const name = z.string().min(1).max(300);
const accuracy = z.number().min(0).max(1).nullable();
const noise = z.int().min(0);
/** Infinity and NaN are null in JSON: a training that ran away has no loss. */
const loss = z.number().nullable();

const file = z.strictObject({
  bytes: count,
  sha256,
  /** Taken away by the retention rule (`--keep needed`), not lost. */
  removed: z.literal(true).optional(),
});

/** A picture in a file that could not be read, in whose place another one of its batch was. */
const replacedPicture = z.strictObject({
  /** Whose examples it is one of: "validation" is held out of the training set. */
  split: z.enum(['train', 'validation', 'test']),
  /** Below the folder of the training or the test set. */
  name: z.string().min(1).max(10_000),
});
export type ReplacedPicture = z.infer<typeof replacedPicture>;
/** In order of split and name. Not there where no pictures are read, and in folders of before it was kept. */
const replacedPictures = z.array(replacedPicture).max(100_000_000).optional();

const result = z.strictObject({
  branch: z.enum(branchNames),
  replicate: count,
  level: count,
  noise,
  densityPrunable: z.number().min(0).max(1),
  densityOverall: z.number().min(0).max(1),
  testAccuracy: accuracy,
  validationAccuracy: accuracy,
  testLoss: loss,
  validationLoss: loss,
  earlyStop: count.nullable(),
  earlyStopTestAccuracy: accuracy,
  updates: count,
  diverged: z.boolean(),
  /** How many different ones; null where the unit's `replacedPictures` is not there, or that of one before it. */
  replacedPictures: z.strictObject({ training: count, evaluation: count }).nullable().default(null),
  seconds: z.number().min(0),
});

const between = {
  replicate: count,
  rewind: count,
  method: z.enum(['iterative', 'oneshot']),
  level: count,
  noises: z.tuple([noise, noise]),
  densityPrunable: z.number().min(0).max(1),
};
const distance = z.number().min(0);
const angle = z.number().min(0).max(180).nullable();
const stability = z.strictObject({
  kind: z.enum(['order', 'pruning']),
  branch: z.enum(['imp', 'random', 'reinit']),
  ...between,
  /** Not there in folders of before it was kept. */
  testAccuracies: z.tuple([accuracy, accuracy]).default([null, null]),
  scope: z.enum(['masked', 'all']),
  distance,
  angle,
  layers: z.array(z.strictObject({ name, distance, angle })).max(1_000_000),
});
const errors = z.array(z.number().min(0).max(1)).min(2).max(10_000);
const connectivity = z.strictObject({
  branch: z.enum(['dense', 'imp', 'random', 'reinit']),
  ...between,
  statistics: z.enum(['interpolated', 'reestimated']),
  alphas: errors,
  testError: errors,
  trainError: errors,
  trainExamples: count,
  barrier: z.strictObject({ test: distance, train: distance }),
});

/** Of LibTorch, device, instruction set, kernels: those under which updates of the unit were made, in order. */
const fingerprints = z.array(name).min(1).max(1000);

/** What `unit.json` says: written last, so a unit is finished exactly when it is there. */
export const unitRecord = z.strictObject({
  format: z.literal(FORMAT),
  id: name,
  kind: z.enum(['dense', 'prune', 'train', 'copy', 'distance', 'interpolation']),
  label: name,
  /** Hash of all that decides the unit's bits. */
  key: sha256,
  fingerprints,
  files: z.record(name, file),
  /** dense: the unit it went on from, whose metrics come before its own. */
  from: name.nullable(),
  diverged: z.boolean(),
  /** Updates made by this unit. */
  updates: count,
  /** One per training that is a result: of each rewind point for the dense run. */
  result: result.nullable(),
  rewind: count.nullable(),
  method: z.enum(['iterative', 'oneshot']).nullable(),
  seconds: z.number().min(0),
  replacedPictures,
  /** distance: one sample, for each scope. */
  stability: z.array(stability).length(2).optional(),
  /** interpolation: one line. */
  connectivity: connectivity.optional(),
});
export type UnitRecord = z.infer<typeof unitRecord>;

/** What `checkpoint-STEP.json` says: written after the files that it names, so they are whole where it is there. */
export const checkpointRecord = z.strictObject({
  format: z.literal(FORMAT),
  id: name,
  key: sha256,
  fingerprints,
  /** Where the unit's training began: the same unit may begin elsewhere when rewind points are added. */
  start: count,
  step: count,
  /** Seconds that the training took so far. */
  seconds: z.number().min(0),
  /** In updates and evaluations up to here, the step's own included as far as it got. */
  replacedPictures,
  snapshot: z.strictObject({ name, bytes: count, sha256 }),
  /** Metrics since the training's start, one file for each interval between checkpoints. */
  intervals: z.array(z.strictObject({ name, bytes: count, sha256 })).max(1_000_000),
});
export type CheckpointRecord = z.infer<typeof checkpointRecord>;

/** What `failure.json` says of a unit that could not be done; the next command tries it again. */
export const failureRecord = z.strictObject({
  format: z.literal(FORMAT),
  id: name,
  label: name,
  code: name,
  message: z.string().max(100_000),
  /** Of the command that failed: its own other jobs do not try again. */
  command: name,
  time: z.string().max(100),
});
export type FailureRecord = z.infer<typeof failureRecord>;

const cost = z.number().min(0).max(1e6);
const costs = z.strictObject(ofEach(costNames, () => cost));

/** Format of a table of costs on disk, which lives longer than a run folder's. */
export const TUNING_FORMAT = 1;

/** What `tuning.json` of a run and a machine's file in the cache say. */
export const tuningRecord = z.strictObject({
  format: z.literal(TUNING_FORMAT),
  kind: z.literal('tuning'),
  /** What it was measured on, and the version of the kernels; null where a program made it. */
  machine: z.strictObject({ cpu: name, isa: name, kernels: name }).nullable(),
  tuning: z
    .strictObject(ofEach(tuningParts, (part) => (isNewer(part) ? costs.optional() : costs)))
    .transform((table) => completeTuning(table)),
});
export type TuningRecord = z.infer<typeof tuningRecord>;

/** What may grow from command to command on one run folder. */
const request = z.strictObject({
  levels: count,
  replicates: count,
  rewind: z.array(name).min(1).max(1000),
  controls: z.array(z.enum(controlNames)).max(controlNames.length),
});
export type Request = z.infer<typeof request>;

/** Where comparisons are made: at these rewind points (in updates) and levels of all replicates. */
const places = {
  rewind: z.array(count).min(1).max(1000),
  levels: z.array(count).max(1000),
  /** Copies trained from each place, each under a noise of its own; all pairs are compared. */
  orders: z.int().min(2).max(1000),
};

/** What was asked for about a run's subnetworks, beside the run itself. */
const analysis = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('stability'),
    ...places,
    /** Comparisons of dense network and subnetwork, for each replicate. */
    samples: z.int().min(0).max(1000),
    branches: z
      .array(z.enum(['imp', 'random', 'reinit']))
      .min(1)
      .max(3),
  }),
  z.strictObject({
    kind: z.literal('connectivity'),
    ...places,
    branches: z
      .array(z.enum(['dense', 'imp', 'random', 'reinit']))
      .min(1)
      .max(4),
    alphas: z.int().min(2).max(10_000),
    statistics: z.enum(['interpolated', 'reestimated']),
    /** Of the training set; null: all. */
    trainExamples: z.int().min(1).nullable(),
  }),
]);
export type Analysis = z.infer<typeof analysis>;
export type StabilityAnalysis = Extract<Analysis, { kind: 'stability' }>;
export type ConnectivityAnalysis = Extract<Analysis, { kind: 'connectivity' }>;

/** What `requests.json` says: all that commands on the folder asked for, but for what another one includes. */
export const requestsRecord = z.strictObject({
  format: z.literal(FORMAT),
  requests: z.array(request).min(1).max(10_000),
  /** Not there in folders of before there were any. */
  analyses: z.array(analysis).max(10_000).default([]),
  /** The last command's recipe, with all defaults. */
  recipe: z.unknown(),
});

/** @throws Error in words: the first thing that is wrong. */
export function parseRecord<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new Error(firstIssue(parsed.error, value));
  return parsed.data;
}
