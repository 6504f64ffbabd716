import { z } from 'zod';
import type { NativeLayer, NativeNetwork, WeightInitialisation } from '../native/AddonTypes.js';
import { LthError } from '../native/errors.js';
import { firstIssue } from '../recipe/issues.js';
import type { Extent, Initialisation, Layer, Network } from './Network.js';

const name = z
  .string()
  .min(1)
  .max(200)
  .regex(/^[A-Za-z0-9_.-]+$/, 'may hold letters, digits, _ . and - only');
const deviation = z.number().gt(0).max(1000);
const initialisation = z.union([
  z.enum(['glorot-normal', 'glorot-uniform', 'kaiming-normal', 'variance-scaling']),
  z.strictObject({ varianceScaling: deviation }),
  z.strictObject({ normal: deviation }),
  z.strictObject({ truncatedNormal: deviation }),
]);
const extent = (least: number) => {
  const one = z.int().min(least).max(1000);
  return z.union([one, z.tuple([one, one])]);
};
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
  z.strictObject({
    ...single,
    type: z.literal('conv'),
    channels: z.int().min(1).max(1_000_000),
    kernel: extent(1),
    stride: extent(1).optional(),
    padding: extent(0).optional(),
    bias: z.boolean().optional(),
    prunable: z.boolean().optional(),
    initialisation: initialisation.optional(),
  }),
  z.strictObject({
    ...single,
    type: z.literal('batchnorm'),
    epsilon: z.number().gt(0).max(1).optional(),
    momentum: z.number().gt(0).max(1).optional(),
    zeroScale: z.boolean().optional(),
  }),
  z.strictObject({
    ...single,
    type: z.literal('maxpool'),
    kernel: extent(1),
    stride: extent(1).optional(),
    padding: extent(0).optional(),
    ceil: z.boolean().optional(),
  }),
  z.strictObject({
    ...single,
    type: z.literal('avgpool'),
    kernel: extent(1),
    stride: extent(1).optional(),
    padding: extent(0).optional(),
  }),
  z.strictObject({ ...single, type: z.literal('globalpool') }),
  z.strictObject({ ...single, type: z.literal('dropout'), probability: z.number().min(0).lt(1) }),
  z.strictObject({ name, type: z.literal('add'), inputs: z.array(name).min(2).max(64) }),
  z.strictObject({ name, type: z.literal('concat'), inputs: z.array(name).min(2).max(64) }),
]);

/** The form of a network description; whether its shapes fit is checked when it is compiled. */
export const networkSchema = z.strictObject({
  name,
  input: z.array(z.int().min(1).max(1_000_000)).min(1).max(3),
  classes: z.int().min(1).max(1_000_000),
  initialisation: initialisation.optional(),
  layers: z.array(layer).min(1).max(100_000),
  auxiliary: z
    .array(z.strictObject({ layer: name, weight: z.number().gt(0).max(1000) }))
    .max(16)
    .optional(),
});

/**
 * Fills in what a description leaves out: inputs (the layer before), bias and prunable (true), initialisation.
 * @throws LthError "invalid-argument" naming the place, e.g. `layers.2.units`.
 */
export function resolveNetwork(network: Network): NativeNetwork {
  const parsed = networkSchema.safeParse(network);
  if (!parsed.success)
    throw new LthError('invalid-argument', `Network description: ${firstIssue(parsed.error, network)}`);
  const {
    name: title,
    input,
    classes,
    initialisation: usual = 'glorot-normal',
    layers,
    auxiliary,
  } = parsed.data;
  let previous = 'input';
  const resolved = layers.map((one): NativeLayer => {
    const inputs = 'inputs' in one ? one.inputs : [one.input ?? previous];
    previous = one.name;
    return { name: one.name, type: one.type, inputs, ...details(one, usual) };
  });
  return { name: title, input, classes, layers: resolved, ...(auxiliary?.length ? { auxiliary } : {}) };
}

/** As the native side has it. */
function drawn(one: Initialisation): { initialisation: WeightInitialisation; initialisationScale?: number } {
  if (typeof one === 'string') return { initialisation: one };
  if ('varianceScaling' in one)
    return { initialisation: 'variance-scaling', initialisationScale: one.varianceScaling };
  if ('normal' in one) return { initialisation: 'normal', initialisationScale: one.normal };
  return { initialisation: 'truncated-normal', initialisationScale: one.truncatedNormal };
}

const both = (extent: Extent): [number, number] => (typeof extent === 'number' ? [extent, extent] : extent);

/** Fields in one order, and most of them only where they mean something or are not the usual: units' keys hash them. */
function details(layer: Layer, usual: Initialisation): Omit<NativeLayer, 'name' | 'type' | 'inputs'> {
  const plain = { units: 0, bias: false, prunable: false, ...drawn(usual) };
  switch (layer.type) {
    case 'linear': {
      const { units, bias = true, prunable = true, initialisation = usual } = layer;
      return { units, bias, prunable, ...drawn(initialisation) };
    }
    case 'conv': {
      const { channels: units, bias = false, prunable = true, initialisation = usual } = layer;
      const { kernel, stride = 1, padding = 0 } = layer;
      const window = { kernel: both(kernel), stride: both(stride), padding: both(padding) };
      return { units, bias, prunable, ...drawn(initialisation), ...window };
    }
    case 'maxpool':
    case 'avgpool': {
      const { kernel, stride = kernel, padding = 0 } = layer;
      const ceil = layer.type === 'maxpool' && layer.ceil ? { ceil: true } : {};
      return { ...plain, kernel: both(kernel), stride: both(stride), padding: both(padding), ...ceil };
    }
    case 'batchnorm': {
      const { epsilon = 1e-5, momentum = 0.1, zeroScale = false } = layer;
      return { ...plain, epsilon, momentum, ...(zeroScale ? { zeroScale } : {}) };
    }
    case 'dropout':
      return { ...plain, probability: layer.probability };
    default:
      return plain;
  }
}
