/** Networks on digits whose layers are in every constellation that executors have to get right. */
import type { Network } from '../../lib/networks/Network.js';

/** Running statistics without convolutions. */
export const normalised = (units: number): Network => ({
  name: 'normalised',
  input: [1, 28, 28],
  classes: 10,
  layers: [
    { name: 'flatten', type: 'flatten' },
    { name: 'fc1', type: 'linear', units },
    { name: 'bn1', type: 'batchnorm' },
    { name: 'relu1', type: 'relu' },
    { name: 'fc2', type: 'linear', units: 10 },
  ],
});

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
/**
 * Begins as networks of ImageNet do: pictures halved twice, by a convolution and by windows that overlap; then biases, with
 * two readers of one and without ReLU.
 */
export const stemmed: Network = {
  name: 'stemmed',
  input: [1, 28, 28],
  classes: 10,
  layers: [
    { name: 'stem', type: 'conv', channels: 16, kernel: 7, stride: 2, padding: 3 },
    { name: 'stem-bn', type: 'batchnorm' },
    { name: 'stem-relu', type: 'relu' },
    { name: 'pool', type: 'maxpool', kernel: 3, stride: 2, padding: 1 },
    { name: 'main', type: 'conv', channels: 32, kernel: 3, padding: 1, bias: true },
    { name: 'main-relu', type: 'relu' },
    { name: 'pool2', type: 'maxpool', kernel: 2, stride: 2, ceil: true },
    { name: 'a', type: 'conv', channels: 24, kernel: 3, padding: 1, bias: true },
    { name: 'b', type: 'conv', channels: 24, kernel: 1, bias: true, input: 'pool2' },
    { name: 'sum', type: 'add', inputs: ['a', 'b'] },
    { name: 'last', type: 'conv', channels: 16, kernel: 1, bias: true, input: 'sum' },
    { name: 'last-relu', type: 'relu' },
    { name: 'other', type: 'conv', channels: 16, kernel: 3, padding: 1, input: 'last-relu' },
    { name: 'both', type: 'concat', inputs: ['last-relu', 'other'] },
    { name: 'drop', type: 'dropout', probability: 0.1 },
    { name: 'mean', type: 'globalpool' },
    { name: 'head', type: 'linear', units: 10 },
  ],
};
/** Of channels that fill what a CUDA block sums of large images, with and without another term. */
export const wide: Network = {
  name: 'wide',
  input: [1, 28, 28],
  classes: 10,
  layers: [
    { name: 'a', type: 'conv', channels: 64, kernel: 3, padding: 1 },
    { name: 'a-bn', type: 'batchnorm' },
    { name: 'a-relu', type: 'relu' },
    { name: 'b', type: 'conv', channels: 96, kernel: 1 },
    { name: 'b-bn', type: 'batchnorm' },
    { name: 'b-relu', type: 'relu' },
    { name: 'c', type: 'conv', channels: 96, kernel: 1 },
    { name: 'c-bn', type: 'batchnorm' },
    { name: 'sum', type: 'add', inputs: ['c-bn', 'b-relu'] },
    { name: 'sum-relu', type: 'relu' },
    { name: 'mean', type: 'globalpool' },
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
/**
 * Branches that are concatenated: of odd widths, one twice, one in two of them, one that is a concatenation, the whole also
 * part of a sum; means of windows, windows that overhang, dropout, ReLUs of convolutions, kernels along an axis, and a
 * second head.
 */
export const branched: Network = {
  name: 'branched',
  input: [1, 28, 28],
  classes: 10,
  initialisation: 'kaiming-normal',
  layers: [
    { name: 'stem', type: 'conv', channels: 8, kernel: 5, stride: 2, bias: true },
    { name: 'stem-relu', type: 'relu' },
    { name: 'pool', type: 'maxpool', kernel: 3, stride: 2, ceil: true },
    { name: 'a', type: 'conv', channels: 6, kernel: 1, bias: true },
    { name: 'a-relu', type: 'relu' },
    { name: 'b', type: 'conv', channels: 5, kernel: [1, 7], padding: [0, 3], input: 'pool' },
    { name: 'b-bn', type: 'batchnorm', epsilon: 1e-2 },
    { name: 'b-relu', type: 'relu' },
    { name: 'c', type: 'conv', channels: 7, kernel: [7, 1], padding: [3, 0], bias: true },
    { name: 'mean', type: 'avgpool', kernel: 3, stride: 1, padding: 1, input: 'pool' },
    { name: 'm', type: 'conv', channels: 4, kernel: 1 },
    { name: 'p', type: 'conv', channels: 4, kernel: 1, input: 'pool' },
    { name: 'q', type: 'conv', channels: 4, kernel: 1, bias: true, input: 'pool' },
    { name: 'q-relu', type: 'relu' },
    // Its gradient is another's too.
    { name: 'pair', type: 'concat', inputs: ['p', 'q-relu'] },
    { name: 'pair-sum', type: 'add', inputs: ['pair', 'pool'] },
    { name: 'inner', type: 'concat', inputs: ['b-relu', 'c'] },
    { name: 'outer', type: 'concat', inputs: ['a-relu', 'inner', 'm', 'a-relu'] },
    { name: 'kept', type: 'conv', channels: 28, kernel: 1, input: 'pool' },
    { name: 'sum', type: 'add', inputs: ['outer', 'kept'] },
    { name: 'd', type: 'conv', channels: 9, kernel: 3, padding: 1, input: 'outer' },
    { name: 'd-bn', type: 'batchnorm', epsilon: 1e-2 },
    { name: 'd-relu', type: 'relu' },
    { name: 'side', type: 'concat', inputs: ['d-relu', 'sum', 'b-relu', 'outer', 'pair-sum'] },
    { name: 'side-drop', type: 'dropout', probability: 0.3 },
    { name: 'down', type: 'avgpool', kernel: [3, 2], stride: 2, padding: 1 },
    { name: 'wide', type: 'conv', channels: 11, kernel: 3, bias: true },
    { name: 'wide-relu', type: 'relu' },
    { name: 'flat', type: 'flatten' },
    { name: 'means', type: 'globalpool', input: 'down' },
    { name: 'vectors', type: 'concat', inputs: ['flat', 'means', 'flat'] },
    { name: 'vectors-drop', type: 'dropout', probability: 0.5 },
    { name: 'fc', type: 'linear', units: 20 },
    { name: 'fc-relu', type: 'relu' },
    { name: 'second', type: 'conv', channels: 5, kernel: 1, input: 'sum' },
    { name: 'second-bn', type: 'batchnorm', epsilon: 1e-2 },
    { name: 'second-mean', type: 'globalpool' },
    { name: 'second-head', type: 'linear', units: 10 },
    { name: 'head', type: 'linear', units: 10, input: 'fc-relu' },
  ],
  auxiliary: [{ layer: 'second-head', weight: 0.4 }],
};
/** Dropout and concatenated vectors, and no image but the flattened ones. */
export const dropping: Network = {
  name: 'dropping',
  input: [1, 28, 28],
  classes: 10,
  layers: [
    { name: 'pixels', type: 'flatten' },
    { name: 'pixels-drop', type: 'dropout', probability: 0.2 },
    { name: 'fc1', type: 'linear', units: 33 },
    { name: 'fc1-relu', type: 'relu' },
    { name: 'fc2', type: 'linear', units: 21, input: 'pixels' },
    { name: 'both', type: 'concat', inputs: ['fc1-relu', 'fc2', 'pixels'] },
    { name: 'both-drop', type: 'dropout', probability: 0.5 },
    { name: 'head', type: 'linear', units: 10 },
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
