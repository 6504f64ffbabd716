import { z } from 'zod';
import { LthError } from '../native/errors.js';
import { networkSchema } from '../networks/validate.js';
import { branchNames, type Control, controlNames } from './branches.js';
import { firstIssue } from './issues.js';
import { didYouMean } from './nearest.js';
import type { Recipe } from './Recipe.js';
import { isSteps } from './steps.js';

const steps = z
  .union([z.string(), z.int().min(0)])
  .transform(String)
  .refine(isSteps, 'expected updates as 500it, 2ep, 2ep50it, 1.7% or a whole number');
const fraction = z.number().gt(0).lt(1);
const positive = z.number().gt(0).max(1e6);
const beta = z.number().min(0).lt(1);
const seed = z.int().min(0).max(Number.MAX_SAFE_INTEGER);

const side = z.int().min(1).max(4096);
const filter = z.enum(['bilinear', 'bicubic']).optional();
const colour = z.enum(['brightness-chroma', 'inception']).optional();
const crop = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('random-resized'),
    size: side,
    filter,
    area: z.tuple([z.number().gt(0).max(1), z.number().gt(0).max(1)]).optional(),
    aspect: z.tuple([z.number().min(0.1).max(10), z.number().min(0.1).max(10)]).optional(),
    flip: z.boolean().optional(),
    colour,
  }),
  z.strictObject({
    kind: z.literal('scaled-random'),
    size: side,
    filter,
    shortSide: z.tuple([z.int().min(1).max(8192), z.int().min(1).max(8192)]).optional(),
    flip: z.boolean().optional(),
    colour,
  }),
  z.strictObject({ kind: z.literal('centre'), size: side, filter, resize: z.int().min(1).max(8192) }),
  z.strictObject({
    kind: z.literal('central'),
    size: side,
    filter,
    fraction: z.number().gt(0).max(1).optional(),
  }),
]);

const decay = {
  weightDecay: z.number().min(0).max(1).default(0),
  // Left out where it is for everything: part of what units' keys are hashes of.
  decayed: z.enum(['without-norms', 'weights']).optional(),
};
const optimiser = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('sgd'),
    learningRate: positive,
    momentum: beta.default(0),
    nesterov: z.boolean().default(false),
    ...decay,
  }),
  z.strictObject({
    type: z.literal('rmsprop'),
    learningRate: positive,
    decay: beta.default(0.9),
    momentum: beta.default(0),
    epsilon: z.number().min(0).max(1).default(1e-10),
    ...decay,
  }),
  z.strictObject({
    type: z.literal('adam'),
    learningRate: positive,
    beta1: beta.default(0.9),
    beta2: beta.default(0.999),
    epsilon: z.number().gt(0).max(1).default(1e-8),
    ...decay,
  }),
]);

const sections = {
  data: z.strictObject({
    set: z.string().min(1),
    folder: z.string().min(1).nullable().default(null),
    validation: z.int().min(0),
    subset: z.int().min(1).nullable().default(null),
    normalise: z
      .union([
        z.boolean(),
        z.strictObject({
          mean: z.array(z.number().min(0).max(1)).length(3),
          std: z.array(z.number().gt(0).max(1)).length(3),
        }),
      ])
      .default(true),
    // Of pictures in files; left out otherwise.
    crop: z.strictObject({ training: crop, evaluation: crop }).optional(),
    groundTruth: z.string().min(1).optional(),
    upright: z.boolean().optional(),
    augment: z
      .strictObject({ crop: z.int().min(0).max(16), flip: z.boolean() })
      .nullable()
      .default(null),
  }),
  training: z.strictObject({
    steps,
    batch: z
      .int()
      .min(1)
      .max(1 << 20),
    microBatch: z
      .int()
      .min(1)
      .max(1 << 20)
      .optional(),
    labelSmoothing: z.number().gt(0).max(1).optional(),
    average: z.strictObject({ decay: fraction, warmup: z.boolean().default(false) }).optional(),
    optimiser,
    schedule: z
      .strictObject({
        milestones: z.array(steps).max(1000).default([]),
        gamma: z.number().gt(0).max(1).default(0.1),
        warmup: steps.default('0it'),
        linear: z.strictObject({ to: z.number().min(0).max(1e6) }).optional(),
        exponential: z
          .strictObject({ factor: fraction, every: steps, floor: z.number().min(0).max(1).default(0) })
          .optional(),
      })
      .prefault({}),
    precision: z.enum(['fp32', 'bf16', 'fp64']).default('fp32'),
    executor: z.enum(['direct', 'autograd']).default('direct'),
    evaluateEvery: steps,
    metricsEvery: steps.default('100it'),
  }),
  pruning: z.strictObject({
    levels: z.int().min(0).max(1000),
    fraction: fraction.default(0.2),
    pooling: z.enum(['global', 'layerwise']).default('global'),
    // In one order, because they are part of what units' keys are hashes of.
    rates: z
      .record(z.string(), fraction)
      .default({})
      .transform((rates) => Object.fromEntries(Object.entries(rates).sort(([a], [b]) => (a < b ? -1 : 1)))),
    method: z.enum(['iterative', 'oneshot']).default('iterative'),
  }),
};

const paper = z.strictObject({
  source: z.string().min(1).max(1000),
  figures: z
    .array(
      z.strictObject({
        branch: z.enum(branchNames),
        level: z.int().min(0).max(1000),
        densityPrunable: z.number().gt(0).max(1).optional(),
        rewind: z
          .union([z.string(), z.int().min(0)])
          .transform(String)
          .refine((text) => /^\d{1,9}(it)?$/.test(text), 'expected updates as 500it or a whole number')
          .optional(),
        accuracy: z.number().min(0).max(1),
        spread: z.number().min(0).max(1).optional(),
      }),
    )
    .max(10_000),
});

/** Ablations of IMP that are controls under older names. */
const otherNames: Record<string, Control> = { 'imp-shuffle': 'random', 'imp-reinit': 'reinit' };

function unknownControl(input: unknown): string {
  const known =
    'expected one of random, reinit, lr-rewind, finetune, imp-invert, random-global, or magnitude, snip, grasp, grasp-abs, synflow, alone or with -shuffle, -reinit or -invert';
  if (typeof input !== 'string') return known;
  const other = otherNames[input];
  const hint = other ? ` Did you mean "${other}"?` : didYouMean(input, controlNames);
  return `${known}.${hint}`.replace(/\.$/, '');
}

const schema = z.strictObject({
  // It names the run folder.
  name: z
    .string()
    .min(1)
    .max(200)
    .regex(
      /^[A-Za-z0-9_][A-Za-z0-9_.-]*(\/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$/,
      'expected letters, digits, _ . - and /',
    ),
  description: z.string().max(10_000).default(''),
  network: z.union([z.string().min(1), networkSchema]),
  ...sections,
  rewind: z.array(steps).min(1).max(1000).default(['0it']),
  rewindOptimiser: z.enum(['restore', 'zero']).default('restore'),
  noise: z.enum(['fresh', 'same']).default('fresh'),
  retraining: z.enum(['rewind', 'lr-rewind', 'finetune']).default('rewind'),
  controls: z
    .array(z.enum(controlNames, { error: ({ input }) => unknownControl(input) }))
    .max(controlNames.length)
    .default(['random', 'reinit']),
  replicates: z.int().min(1).max(10_000).default(1),
  seed: seed.default(1),
  device: z
    .string()
    .regex(/^(cpu|cuda(:\d{1,3})?)$/, 'expected cpu, cuda or cuda:N')
    .default('cpu'),
  deviceMode: z.enum(['deterministic', 'fast']).default('deterministic'),
  kernels: z.enum(['auto', 'dense', 'sparse']).default('auto'),
  paper: paper.nullable().default(null),
});

/**
 * Keys that are allowed at a place of the recipe, for suggestions.
 * @param value what is there, where that decides: the kind of a crop, the type of an optimiser.
 */
export function knownKeys(path: PropertyKey[], value?: unknown): string[] {
  let type: z.core.$ZodType | undefined = schema;
  for (const key of path) type = typeAt(type, key);
  return Object.keys(shapeOf(type, value) ?? {});
}

function typeAt(type: z.core.$ZodType | undefined, key: PropertyKey): z.core.$ZodType | undefined {
  if (type instanceof z.ZodUnion)
    return type.options.map((option) => typeAt(option as z.core.$ZodType, key)).find((found) => found);
  if (type instanceof z.ZodArray)
    return typeof key === 'number' ? (type.element as z.core.$ZodType) : undefined;
  return shapeOf(type)?.[String(key)];
}

function shapeOf(
  type: z.core.$ZodType | undefined,
  value?: unknown,
): Record<string, z.core.$ZodType> | undefined {
  if (type instanceof z.ZodObject) return type.shape;
  if (type instanceof z.ZodDefault || type instanceof z.ZodPrefault || type instanceof z.ZodNullable)
    return shapeOf(type.def.innerType, value);
  if (type instanceof z.ZodOptional) return shapeOf(type.def.innerType, value);
  if (type instanceof z.ZodDiscriminatedUnion) {
    const shapes = type.options.map((option) => shapeOf(option) ?? {});
    const { discriminator } = type.def;
    const said = typeof value === 'object' && value !== null ? Reflect.get(value, discriminator) : undefined;
    const its = shapes.find((shape) => z.safeParse(shape[discriminator] as z.ZodType, said).success);
    return its ?? Object.assign({}, ...shapes);
  }
  return undefined;
}

/**
 * A recipe with all defaults, from what a file or `--set` says.
 * @throws LthError "recipe" naming the place, what was expected and what was received.
 */
export function parseRecipe(value: unknown, source: string): Recipe {
  const parsed = schema.safeParse(value);
  if (!parsed.success)
    throw new LthError('recipe', `${source}: ${firstIssue(parsed.error, value, knownKeys)}`);
  const recipe: Recipe = parsed.data as Recipe;
  if (
    recipe.training.optimiser.type === 'sgd' &&
    recipe.training.optimiser.nesterov &&
    recipe.training.optimiser.momentum === 0
  ) {
    throw new LthError('recipe', `${source}: training.optimiser.nesterov needs a momentum above 0`);
  }
  if (recipe.data.augment && recipe.data.crop) {
    throw new LthError(
      'recipe',
      `${source}: data.augment is for data sets in memory: what becomes of pictures in files is data.crop's`,
    );
  }
  const { linear, exponential, milestones } = recipe.training.schedule;
  if ([linear, exponential, milestones.length > 0 || undefined].filter(Boolean).length > 1) {
    throw new LthError('recipe', `${source}: training.schedule: one of milestones, linear and exponential`);
  }
  if (Object.keys(recipe.pruning.rates).length > 0 && recipe.pruning.pooling !== 'layerwise') {
    throw new LthError('recipe', `${source}: pruning.rates needs pruning.pooling layerwise`);
  }
  if (new Set(recipe.controls).size !== recipe.controls.length) {
    throw new LthError('recipe', `${source}: controls: each control may stand once`);
  }
  if (recipe.deviceMode === 'fast' && recipe.device === 'cpu') {
    throw new LthError('recipe', `${source}: deviceMode: fast is not to be had on device cpu: deterministic`);
  }
  if (recipe.kernels !== 'auto' && (recipe.device !== 'cpu' || recipe.training.executor !== 'direct')) {
    const where =
      recipe.device === 'cpu' ? `executor ${recipe.training.executor}` : `device ${recipe.device}`;
    throw new LthError('recipe', `${source}: kernels: ${recipe.kernels} is not to be had on ${where}: auto`);
  }
  if (recipe.controls.some((control) => control === recipe.retraining)) {
    throw new LthError(
      'recipe',
      `${source}: controls: ${recipe.retraining} is what imp does already: retraining`,
    );
  }
  return recipe;
}
