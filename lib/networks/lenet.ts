import type { Layer, Network } from './Network.js';

/**
 * LeNet for MNIST: fully connected layers with ReLU, e.g. lenet([300, 100]) = 784-300-100-10 with 266,200 weights
 * (LeCun et al. 1998; paper Figure 2). Parameters: fc1, fc2, ... in order; the last is the output layer.
 */
export function lenet(hidden: number[]): Network {
  const layers: Layer[] = [{ name: 'flatten', type: 'flatten' }];
  hidden.forEach((units, i) => {
    layers.push({ name: `fc${i + 1}`, type: 'linear', units }, { name: `relu${i + 1}`, type: 'relu' });
  });
  layers.push({ name: `fc${hidden.length + 1}`, type: 'linear', units: 10 });
  return {
    name: `lenet-${hidden.join('-')}`,
    input: [1, 28, 28],
    classes: 10,
    initialisation: 'glorot-normal',
    layers,
  };
}
