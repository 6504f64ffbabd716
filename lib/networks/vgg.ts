import type { Layer, Network } from './Network.js';

/** Channels of the 3x3 convolutions, group by group (Simonyan & Zisserman 2015, table 1). */
const groups: Record<number, number[][]> = {
  11: [[64], [128], [256, 256], [512, 512], [512, 512]],
  13: [
    [64, 64],
    [128, 128],
    [256, 256],
    [512, 512],
    [512, 512],
  ],
  16: [
    [64, 64],
    [128, 128],
    [256, 256, 256],
    [512, 512, 512],
    [512, 512, 512],
  ],
  19: [
    [64, 64],
    [128, 128],
    [256, 256, 256, 256],
    [512, 512, 512, 512],
    [512, 512, 512, 512],
  ],
};

/**
 * VGG with batch norm for 32x32 images as the paper has it (LTH appendix I.2): max pooling after the first four
 * groups, average pooling after the last, and one fully connected layer, which is not pruned. vgg(19) has 20,018,880
 * prunable weights. Convolutions have no bias, which batch norm would cancel. Names as torchvision's vgg19_bn,
 * with `classifier` for its three layers.
 * @param width factor of the channels, for smaller and wider ones.
 */
export function vgg(depth: number, { width = 1, classes = 10 } = {}): Network {
  const layers: Layer[] = [];
  const add = (layer: (name: string) => Layer) => layers.push(layer(`features.${layers.length}`));
  (groups[depth] ?? []).forEach((group, g) => {
    for (const channels of group) {
      const out = Math.max(1, Math.round(channels * width));
      add((name) => ({ name, type: 'conv', channels: out, kernel: 3, padding: 1 }));
      add((name) => ({ name, type: 'batchnorm' }));
      add((name) => ({ name, type: 'relu' }));
    }
    if (g < 4) add((name) => ({ name, type: 'maxpool', kernel: 2 }));
  });
  layers.push({ name: 'avgpool', type: 'globalpool' });
  layers.push({ name: 'classifier', type: 'linear', units: classes, prunable: false });
  return {
    name: `vgg-${depth}${width === 1 ? '' : `-w${width}`}`,
    input: [3, 32, 32],
    classes,
    initialisation: 'glorot-normal',
    layers,
  };
}
