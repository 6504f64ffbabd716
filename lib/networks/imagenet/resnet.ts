import type { Layer, Network } from '../Network.js';

/** Blocks of each group, and whether they are bottlenecks (He et al. 2016, table 1). */
const groups: Record<number, { blocks: number[]; bottleneck: boolean }> = {
  18: { blocks: [2, 2, 2, 2], bottleneck: false },
  34: { blocks: [3, 4, 6, 3], bottleneck: false },
  50: { blocks: [3, 4, 6, 3], bottleneck: true },
  101: { blocks: [3, 4, 23, 3], bottleneck: true },
  152: { blocks: [3, 8, 36, 3], bottleneck: true },
};

/**
 * The ResNets of ImageNet (He et al. 2016, section 4.1), with the stride of a bottleneck in its 3x3 convolution (v1.5) and
 * torchvision's names: resnet50 has 25,557,032 parameters. Begins as the paper's code does (paper 2.2): truncated Gaussians
 * of variance 1 / fan in, fc of deviation 0.01, scales of 0 at the end of each block. Everything but biases and batch norm
 * is pruned, as in Renda et al. 2020.
 * @param size height and width of the pictures.
 */
export function imagenetResnet(depth: number, { classes = 1000, size = 224 } = {}): Network {
  const { blocks, bottleneck } = groups[depth] ?? { blocks: [], bottleneck: false };
  const layers: Layer[] = [];
  const conv = (name: string, channels: number, kernel: number, stride = 1) =>
    layers.push({ name, type: 'conv', channels, kernel, stride, padding: (kernel - 1) / 2 });
  const norm = (name: string, zeroScale = false) => layers.push({ name, type: 'batchnorm', zeroScale });
  const relu = (name: string) => layers.push({ name, type: 'relu' });

  conv('conv1', 64, 7, 2);
  norm('bn1');
  relu('relu');
  layers.push({ name: 'maxpool', type: 'maxpool', kernel: 3, stride: 2, padding: 1 });
  let last = 'maxpool';
  let channels = 64;
  blocks.forEach((count, group) => {
    const width = 64 * 2 ** group;
    const out = bottleneck ? 4 * width : width;
    for (let block = 0; block < count; block++) {
      const name = `layer${group + 1}.${block}`;
      const stride = group > 0 && block === 0 ? 2 : 1;
      const kernels = bottleneck ? [1, 3, 1] : [3, 3];
      const strided = bottleneck ? 1 : 0;
      kernels.forEach((kernel, i) => {
        const end = i === kernels.length - 1;
        conv(`${name}.conv${i + 1}`, end ? out : width, kernel, i === strided ? stride : 1);
        norm(`${name}.bn${i + 1}`, end);
        if (!end) relu(`${name}.relu${i + 1}`);
      });
      let shortcut = last;
      if (stride !== 1 || out !== channels) {
        layers.push({
          name: `${name}.downsample.0`,
          type: 'conv',
          input: last,
          channels: out,
          kernel: 1,
          stride,
        });
        shortcut = `${name}.downsample.1`;
        norm(shortcut);
      }
      layers.push({ name: `${name}.add`, type: 'add', inputs: [`${name}.bn${kernels.length}`, shortcut] });
      last = `${name}.relu`;
      relu(last);
      channels = out;
    }
  });
  layers.push({ name: 'avgpool', type: 'globalpool' });
  layers.push({ name: 'fc', type: 'linear', units: classes, initialisation: { normal: 0.01 } });
  const input = [3, size, size];
  return { name: `resnet${depth}`, input, classes, initialisation: 'variance-scaling', layers };
}
