import type { Layer, Network } from '../Network.js';

/**
 * The first convolution, and what follows it: modules by their squeezed channels, of which they make eight times as many
 * (Iandola et al. 2016, table 1, and their SqueezeNet 1.1).
 */
const versions = {
  '1_0': { channels: 96, kernel: 7, parts: ['pool', 16, 16, 32, 'pool', 32, 48, 48, 64, 'pool', 64] },
  '1_1': { channels: 64, kernel: 3, parts: ['pool', 16, 16, 'pool', 32, 32, 'pool', 48, 48, 64, 64] },
};

/**
 * SqueezeNet with torchvision's names: squeezenet('1_0') has 1,248,424 parameters. Begins as the paper's code does (paper
 * 2.2): uniform Glorot and biases of 0; there is a ReLU behind every convolution, the last one too.
 * @param size height and width of the pictures.
 */
export function squeezenet(
  version: '1_0' | '1_1',
  { classes = 1000, size = 224, dropout = 0.5 } = {},
): Network {
  const { channels: first, kernel: firstKernel, parts } = versions[version];
  const layers: Layer[] = [];
  const conv = (
    name: string,
    channels: number,
    kernel: number,
    more: { input?: string; stride?: number } = {},
  ) => {
    const padding = kernel === 3 && more.stride === undefined ? 1 : 0;
    layers.push({ name, type: 'conv', channels, kernel, padding, bias: true, ...more });
  };
  const relu = (name: string) => layers.push({ name, type: 'relu' });

  conv('features.0', first, firstKernel, { stride: 2 });
  relu('features.1');
  parts.forEach((part, i) => {
    const name = `features.${i + 2}`;
    if (typeof part === 'string') {
      layers.push({ name, type: 'maxpool', kernel: 3, stride: 2, ceil: true });
      return;
    }
    const squeezed = `${name}.squeeze_activation`;
    conv(`${name}.squeeze`, part, 1);
    relu(squeezed);
    for (const kernel of [1, 3]) {
      const expand = `${name}.expand${kernel}x${kernel}`;
      conv(expand, 4 * part, kernel, { input: squeezed });
      relu(`${expand}_activation`);
    }
    const expanded = [1, 3].map((kernel) => `${name}.expand${kernel}x${kernel}_activation`);
    layers.push({ name, type: 'concat', inputs: expanded });
  });
  layers.push({ name: 'classifier.0', type: 'dropout', probability: dropout });
  conv('classifier.1', classes, 1);
  relu('classifier.2');
  layers.push({ name: 'classifier.3', type: 'globalpool' });
  const input = [3, size, size];
  return { name: `squeezenet${version}`, input, classes, initialisation: 'glorot-uniform', layers };
}
