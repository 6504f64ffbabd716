import { z } from 'zod';
import type { NativeLayer, NativeNetwork } from '../native/AddonTypes.js';
import { LthError } from '../native/errors.js';
import { firstIssue } from '../recipe/issues.js';
import type { Network } from './Network.js';

const name = z
  .string()
  .min(1)
  .max(200)
  .regex(/^[A-Za-z0-9_.-]+$/, 'may hold letters, digits, _ . and - only');
const initialisation = z.enum(['glorot-normal', 'kaiming-normal']);
const single = { name, input: name.optional() };

const layer = z.discriminatedUnion('type', [
  z.strictObject({ ...single, type: z.literal('flatten') }),
  z.strictObject({
    ...single,
    type: z.literal('linear'),
    units: z.int().min(1).max(10_000_000),
    bias: z.boolean().optional(),
    prunable: z.boolean().optional(),
    initialisation: initialisation.optional(),
  }),
  z.strictObject({ ...single, type: z.literal('relu') }),
  z.strictObject({ name, type: z.literal('add'), inputs: z.array(name).min(2).max(64) }),
]);

/** The form of a network description; whether its shapes fit is checked when it is compiled. */
export const networkSchema = z.strictObject({
  name,
  input: z.array(z.int().min(1).max(1_000_000)).min(1).max(3),
  classes: z.int().min(1).max(1_000_000),
  initialisation: initialisation.optional(),
  layers: z.array(layer).min(1).max(100_000),
});

/**
 * Fills in what a description leaves out: inputs (the layer before), bias and prunable (true), initialisation.
 * @throws LthError "invalid-argument" naming the place, e.g. `layers.2.units`.
 */
export function resolveNetwork(network: Network): NativeNetwork {
  const parsed = networkSchema.safeParse(network);
  if (!parsed.success)
    throw new LthError('invalid-argument', `Network description: ${firstIssue(parsed.error, network)}`);
  const { name: title, input, classes, initialisation: usual = 'glorot-normal', layers } = parsed.data;
  let previous = 'input';
  const resolved = layers.map((one): NativeLayer => {
    const inputs = one.type === 'add' ? one.inputs : [one.input ?? previous];
    previous = one.name;
    const linear = one.type === 'linear' ? one : undefined;
    return {
      name: one.name,
      type: one.type,
      inputs,
      units: linear?.units ?? 0,
      bias: linear?.bias ?? linear !== undefined,
      prunable: linear?.prunable ?? linear !== undefined,
      initialisation: linear?.initialisation ?? usual,
    };
  });
  return { name: title, input, classes, layers: resolved };
}
