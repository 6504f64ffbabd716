/** Networks on digits whose layers are in every constellation that executors have to get right. */
import type { Network } from '../../lib/networks/Network.js';

/** Every operation there is, with readers of one value in several places, no bias, and a sum of three. */
export const residual: Network = {
  name: 'residual',
  input: [1, 28, 28],
  classes: 10,
  initialisation: 'kaiming-normal',
  layers: [
    { name: 'flat', type: 'flatten' },
    { name: 'stem', type: 'linear', units: 33 },
    { name: 'a', type: 'linear', units: 33, bias: false },
    { name: 'a-relu', type: 'relu' },
    { name: 'b', type: 'linear', units: 33, input: 'stem', prunable: false },
    { name: 'sum', type: 'add', inputs: ['a-relu', 'stem', 'b'] },
    { name: 'sum-relu', type: 'relu' },
    { name: 'twice', type: 'add', inputs: ['sum-relu', 'sum-relu'] },
    { name: 'head', type: 'linear', units: 10 },
  ],
};
/** Windows that overhang and do not divide their input, both kinds of batch norm, a fused and an open sum. */
export const convolutional: Network = {
  name: 'convolutional',
  input: [1, 28, 28],
  classes: 10,
  layers: [
    { name: 'stem', type: 'conv', channels: 6, kernel: [5, 3], stride: 2, padding: [2, 1], bias: true },
    { name: 'stem-bn', type: 'batchnorm', momentum: 0.2 },
    { name: 'stem-relu', type: 'relu' },
    { name: 'pool', type: 'maxpool', kernel: 3, stride: 2, padding: 1 },
    { name: 'main', type: 'conv', channels: 9, kernel: 3, padding: 1 },
    { name: 'short', type: 'conv', channels: 9, kernel: 1, input: 'pool', prunable: false },
    { name: 'short-bn', type: 'batchnorm' },
    { name: 'main-bn', type: 'batchnorm', input: 'main', epsilon: 1e-3 },
    { name: 'sum', type: 'add', inputs: ['main-bn', 'short-bn'] },
    { name: 'sum-relu', type: 'relu' },
    { name: 'last', type: 'conv', channels: 9, kernel: 3, padding: 1 },
    { name: 'twice', type: 'add', inputs: ['last', 'sum-relu', 'sum'] },
    { name: 'mean', type: 'globalpool' },
    { name: 'hidden', type: 'linear', units: 12 },
    { name: 'hidden-bn', type: 'batchnorm' },
    { name: 'hidden-relu', type: 'relu' },
    { name: 'head', type: 'linear', units: 10 },
  ],
};
/** Flatten before everything that reads vectors, of images that images are made of too; logits of a convolution. */
export const flattened: Network = {
  name: 'flattened',
  input: [1, 28, 28],
  classes: 10,
  layers: [
    { name: 'pixels', type: 'flatten' },
    // Many pixels are always 0: a small epsilon would make much of their rounding.
    { name: 'pixels-bn', type: 'batchnorm', epsilon: 0.1 },
    { name: 'pixels-fc', type: 'linear', units: 60 },
    { name: 'stem', type: 'conv', channels: 15, kernel: 7, stride: 7, input: 'input' },
    { name: 'pool', type: 'maxpool', kernel: 2, stride: 2 },
    { name: 'pool-flat', type: 'flatten' },
    { name: 'pool-relu', type: 'relu' },
    { name: 'pool-bn', type: 'batchnorm' },
    { name: 'stem-relu', type: 'relu', input: 'stem' },
    { name: 'wide', type: 'conv', channels: 60, kernel: 4 },
    { name: 'wide-flat', type: 'flatten' },
    { name: 'sum', type: 'add', inputs: ['pool-bn', 'wide-flat', 'pixels-fc', 'pool-flat'] },
    { name: 'hidden', type: 'linear', units: 10 },
    { name: 'narrow', type: 'conv', channels: 10, kernel: 1, input: 'wide' },
    { name: 'narrow-flat', type: 'flatten' },
    { name: 'logits', type: 'add', inputs: ['hidden', 'narrow-flat'] },
  ],
};
/**
 * Most of its weights are in linear layers: behind flattened images as in Conv-2, of the pixels, of a vector that two of them
 * read, with and without biases, whose features are no multiple of a vector; batch norm between them.
 */
export const headed: Network = {
  name: 'headed',
  input: [1, 28, 28],
  classes: 10,
  layers: [
    { name: 'pixels', type: 'flatten' },
    { name: 'pixels-fc', type: 'linear', units: 45 },
    {
      name: 'conv1',
      type: 'conv',
      channels: 6,
      kernel: 3,
      stride: 2,
      padding: 1,
      bias: true,
      input: 'input',
    },
    { name: 'conv1-relu', type: 'relu' },
    { name: 'conv2', type: 'conv', channels: 9, kernel: 3, padding: 1, bias: true },
    { name: 'conv2-relu', type: 'relu' },
    { name: 'flat', type: 'flatten' },
    { name: 'fc1', type: 'linear', units: 61 },
    { name: 'fc1-relu', type: 'relu' },
    { name: 'fc2', type: 'linear', units: 45, bias: false },
    { name: 'fc2-bn', type: 'batchnorm', epsilon: 1e-2 },
    { name: 'fc2-relu', type: 'relu' },
    { name: 'short', type: 'linear', units: 45, input: 'fc1-relu' },
    { name: 'kept', type: 'linear', units: 45, input: 'fc2-relu', prunable: false },
    { name: 'sum', type: 'add', inputs: ['kept', 'short', 'pixels-fc'] },
    { name: 'sum-relu', type: 'relu' },
    { name: 'out', type: 'linear', units: 10 },
  ],
};
/** Its logits are an image. */
export const pooled: Network = {
  name: 'pooled',
  input: [1, 28, 28],
  classes: 10,
  layers: [
    { name: 'conv', type: 'conv', channels: 10, kernel: 28, bias: true },
    { name: 'flat', type: 'flatten' },
  ],
};
