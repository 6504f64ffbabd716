/** Layers to measure one by one: of a network, or named by their shape. */

import type { ProductLayer } from '../lib/native/AddonTypes.js';
import { LthError } from '../lib/native/errors.js';
import { networkByName } from '../lib/networks/catalogue.js';
import type { Network } from '../lib/networks/Network.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';

export interface BenchLayer extends ProductLayer {
  /** Of the network, those of this very shape, this one among them. */
  same: string[];
}

const PATTERN =
  /^([1-9]\d{0,6})x([1-9]\d{0,6})(?:x([1-9]\d?)x([1-9]\d?)@([1-9]\d{0,3})x([1-9]\d{0,3})(?:\/([1-9]\d?))?(?:\+(\d{1,2}))?)?$/;

/**
 * `KxCxRxS@HxW[/stride][+padding]` is a convolution of K filters (C,R,S) over maps of H x W, padded by half the filter
 * where nothing is said; `KxC` a linear layer of K units that reads C features.
 * @throws LthError "invalid-argument".
 */
export function parseLayer(text: string): BenchLayer {
  const found = PATTERN.exec(text);
  if (!found)
    throw new LthError(
      'invalid-argument',
      `Layer "${text}": expected KxCxRxS@HxW[/stride][+padding], e.g. 64x64x3x3@8x8/2+1, or KxC`,
    );
  const [k, c, r, s, h, w, strideText, paddingText] = found
    .slice(1)
    .map((one) => (one === undefined ? undefined : Number(one)));
  const base = { layer: text, weight: 'layer.weight', inputGradient: true, same: [text] };
  const [units, channels] = [k as number, c as number];
  if (r === undefined || s === undefined || h === undefined || w === undefined)
    return {
      ...base,
      type: 'linear',
      shape: [units, channels],
      input: [channels],
      output: [units],
      stride: [0, 0],
      padding: [0, 0],
    };
  const stride = strideText ?? 1;
  const padding: [number, number] =
    paddingText === undefined ? [Math.floor(r / 2), Math.floor(s / 2)] : [paddingText, paddingText];
  const out = (size: number, kernel: number, pad: number) =>
    Math.floor((size + 2 * pad - kernel) / stride) + 1;
  const output = [units, out(h, r, padding[0]), out(w, s, padding[1])];
  if (output.some((one) => one < 1))
    throw new LthError('invalid-argument', `Layer "${text}": its filter is larger than the padded map`);
  return {
    ...base,
    type: 'conv',
    shape: [units, channels, r, s],
    input: [channels, h, w],
    output,
    stride: [stride, stride],
    padding,
  };
}

const formOf = ({ type, shape, input, stride, padding, inputGradient }: ProductLayer) =>
  JSON.stringify([type, shape, input, stride, padding, inputGradient]);

/**
 * The layers of a network to measure: its convolutions, or where it has none its linear layers, which have no bf16.
 * @param each every one; else one of each shape.
 */
export function layersOf(network: CompiledNetwork, each: boolean): BenchLayer[] {
  const { products, parameters } = network.summary;
  const prunable = new Set(parameters.filter((one) => one.prunable).map(({ name }) => name));
  const convolutional = products.some(({ type }) => type === 'conv');
  const all = products.filter(
    ({ type, weight }) => (!convolutional || type === 'conv') && prunable.has(weight),
  );
  if (each) return all.map((one) => ({ ...one, same: [one.layer] }));
  const forms = new Map<string, BenchLayer>();
  for (const one of all) {
    const before = forms.get(formOf(one));
    if (before) before.same.push(one.layer);
    else forms.set(formOf(one), { ...one, same: [one.layer] });
  }
  return [...forms.values()];
}

/** A network of this layer alone, named "layer"; before it, unless it reads the examples, one that has no weights. */
export function networkOf(layer: BenchLayer): CompiledNetwork {
  const { type, shape, input, stride, padding, inputGradient } = layer;
  const units = shape[0] as number;
  const before: Network['layers'] = inputGradient ? [{ name: 'before', type: 'relu' }] : [];
  return CompiledNetwork.compile({
    name: 'one-layer',
    input: input as Network['input'],
    classes: units,
    layers:
      type === 'linear'
        ? [...before, { name: 'layer', type, units, bias: false }]
        : [
            ...before,
            {
              name: 'layer',
              type,
              channels: units,
              kernel: [shape[2] as number, shape[3] as number],
              stride,
              padding,
              bias: false,
            },
            { name: 'pool', type: 'globalpool' },
          ],
  });
}

/** `(16,16,3,3) on 32x32`, with stride where it is not 1. */
export function describeLayer({ type, shape, input, stride }: ProductLayer): string {
  if (type === 'linear') return `(${shape})`;
  return `(${shape}) on ${input[1]}x${input[2]}${stride[0] === 1 ? '' : `, stride ${stride[0]}`}`;
}

/** Are linear layers all that would be measured? */
export function isLinear(network: string, layers: string[]): boolean {
  if (layers.length > 0) return layers.every((one) => parseLayer(one).type === 'linear');
  return !networkByName(network).layers.some(({ type }) => type === 'conv');
}
