import type { Layer, Network } from './Network.js';

/**
 * The ResNets of He et al. 2016 (section 4.2) for 32x32 images: depth 6n + 2, three groups of n blocks of two 3x3
 * convolutions with 16, 32 and 64 channels, 1x1 projections where the width changes, global average pooling and one
 * fully connected layer. The paper's "ResNet-18" on CIFAR-10 is resnet(20): 270,896 weights, of which the 267,696 of
 * the 3x3 convolutions are pruned and those of projections and fc are not (LTH appendix I).
 * @param width factor of the channels, for smaller and wider ones.
 */
export function resnet(depth: number, { width = 1, classes = 10 } = {}): Network {
  const blocks = (depth - 2) / 6;
  const layers: Layer[] = [];
  let last = 'input';
  let channels = 0;
  const add = (layer: Layer) => {
    layers.push(layer);
    last = layer.name;
  };
  const conv3x3 = (name: string, out: number, stride: number) =>
    add({ name, type: 'conv', channels: out, kernel: 3, stride, padding: 1 });
  const group = (g: number) => Math.max(1, Math.round(16 * 2 ** g * width));

  channels = group(0);
  conv3x3('conv1', channels, 1);
  add({ name: 'bn1', type: 'batchnorm' });
  add({ name: 'relu1', type: 'relu' });
  for (let g = 0; g < 3; g++) {
    for (let b = 0; b < blocks; b++) {
      const name = `layer${g + 1}.${b}`;
      const out = group(g);
      const stride = g > 0 && b === 0 ? 2 : 1;
      let shortcut = last;
      conv3x3(`${name}.conv1`, out, stride);
      add({ name: `${name}.bn1`, type: 'batchnorm' });
      add({ name: `${name}.relu1`, type: 'relu' });
      conv3x3(`${name}.conv2`, out, 1);
      const main = `${name}.bn2`;
      if (stride !== 1 || out !== channels) {
        const projection = { channels: out, kernel: 1, stride, prunable: false };
        layers.push(
          { name: `${name}.downsample.0`, type: 'conv', input: shortcut, ...projection },
          { name: `${name}.downsample.1`, type: 'batchnorm' },
        );
        shortcut = `${name}.downsample.1`;
      }
      add({ name: main, type: 'batchnorm', input: `${name}.conv2` });
      add({ name: `${name}.add`, type: 'add', inputs: [main, shortcut] });
      add({ name: `${name}.relu2`, type: 'relu' });
      channels = out;
    }
  }
  add({ name: 'pool', type: 'globalpool' });
  add({ name: 'fc', type: 'linear', units: classes, prunable: false });
  return {
    name: `resnet-${depth}${width === 1 ? '' : `-w${width}`}`,
    input: [3, 32, 32],
    classes,
    initialisation: 'glorot-normal',
    layers,
  };
}
