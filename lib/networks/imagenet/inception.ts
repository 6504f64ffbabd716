import type { Extent, Initialisation, Layer, Network } from '../Network.js';

/** A unit of a chain: its kernel keeps the size, but for a stride. */
type Step = [channels: number, kernel: [number, number], stride?: 2];

const one: [number, number] = [1, 1];
const three: [number, number] = [3, 3];
const five: [number, number] = [5, 5];
const along: [number, number] = [1, 7];
const down: [number, number] = [7, 1];

interface More {
  /** Default: the layer before. */
  input?: string;
  stride?: number;
  padding?: Extent;
  initialisation?: Initialisation;
}

/**
 * Inception-v3 (Szegedy et al. 2016) with torchvision's names: 27,161,264 parameters with the auxiliary head, whose loss has
 * the weight 0.4. Begins, drops and normalises as the paper's code does (paper 2.2; TF-slim): truncated Gaussians of variance
 * 2 / fan in, dropout 0.2, batch norm with epsilon 1e-3 and running statistics that move by 0.004.
 * @param size height and width of the pictures; the auxiliary head wants 299, the rest at least 75.
 */
export function inceptionV3({
  classes = 1000,
  size = 299,
  dropout = 0.2,
  momentum = 0.004,
  auxiliary = true,
} = {}): Network {
  const layers: Layer[] = [];
  const add = (layer: Layer): string => {
    layers.push(layer);
    return layer.name;
  };
  /** Convolution, batch norm, ReLU; the name of the last. */
  const unit = (name: string, channels: number, kernel: Extent, more: More = {}): string => {
    add({ name: `${name}.conv`, type: 'conv', channels, kernel, ...more });
    add({ name: `${name}.bn`, type: 'batchnorm', epsilon: 1e-3, momentum });
    return add({ name: `${name}.relu`, type: 'relu' });
  };
  const concat = (name: string, inputs: string[]) => add({ name, type: 'concat', inputs });
  const maxpool = (name: string, input: string) =>
    add({ name, type: 'maxpool', kernel: 3, stride: 2, input });
  /** Units `${name}_1`, `${name}_2`, ... */
  const chain = (name: string, input: string, ...steps: Step[]) => {
    let last = input;
    steps.forEach(([channels, kernel, stride], i) => {
      const [height, width] = kernel;
      const window: More = stride ? { stride } : { padding: [(height - 1) / 2, (width - 1) / 2] };
      last = unit(`${name}_${i + 1}`, channels, kernel, { input: last, ...window });
    });
    return last;
  };
  /** The mean of the neighbourhood, in so many channels. */
  const pooled = (name: string, input: string, channels: number) => {
    add({ name: `${name}.avgpool`, type: 'avgpool', kernel: 3, stride: 1, padding: 1, input });
    return unit(`${name}.branch_pool`, channels, 1);
  };

  unit('Conv2d_1a_3x3', 32, 3, { stride: 2 });
  unit('Conv2d_2a_3x3', 32, 3);
  maxpool('maxpool1', unit('Conv2d_2b_3x3', 64, 3, { padding: 1 }));
  unit('Conv2d_3b_1x1', 80, 1);
  let last = maxpool('maxpool2', unit('Conv2d_4a_3x3', 192, 3));

  const groups: [letter: string, poolChannels: number][] = [
    ['b', 32],
    ['c', 64],
    ['d', 64],
  ];
  for (const [letter, channels] of groups) {
    const name = `Mixed_5${letter}`;
    last = concat(name, [
      unit(`${name}.branch1x1`, 64, 1, { input: last }),
      chain(`${name}.branch5x5`, last, [48, one], [64, five]),
      chain(`${name}.branch3x3dbl`, last, [64, one], [96, three], [96, three]),
      pooled(name, last, channels),
    ]);
  }
  last = concat('Mixed_6a', [
    unit('Mixed_6a.branch3x3', 384, 3, { input: last, stride: 2 }),
    chain('Mixed_6a.branch3x3dbl', last, [64, one], [96, three], [96, three, 2]),
    maxpool('Mixed_6a.maxpool', last),
  ]);
  const widths: [letter: string, channels: number][] = [
    ['b', 128],
    ['c', 160],
    ['d', 160],
    ['e', 192],
  ];
  for (const [letter, width] of widths) {
    const name = `Mixed_6${letter}`;
    last = concat(name, [
      unit(`${name}.branch1x1`, 192, 1, { input: last }),
      chain(`${name}.branch7x7`, last, [width, one], [width, along], [192, down]),
      chain(`${name}.branch7x7dbl`, last, ...[one, down, along, down].map((k): Step => [width, k]), [
        192,
        along,
      ]),
      pooled(name, last, 192),
    ]);
  }
  if (auxiliary) {
    add({ name: 'AuxLogits.avgpool', type: 'avgpool', kernel: 5, stride: 3, input: last });
    unit('AuxLogits.conv0', 128, 1);
    unit('AuxLogits.conv1', 768, 5, { initialisation: { truncatedNormal: 0.01 } });
    add({ name: 'AuxLogits.pool', type: 'globalpool' });
    add({ name: 'AuxLogits.fc', type: 'linear', units: classes, initialisation: { truncatedNormal: 0.001 } });
  }
  last = concat('Mixed_7a', [
    chain('Mixed_7a.branch3x3', last, [192, one], [320, three, 2]),
    chain('Mixed_7a.branch7x7x3', last, [192, one], [192, along], [192, down], [192, three, 2]),
    maxpool('Mixed_7a.maxpool', last),
  ]);
  /** Side by side, both ways along the axes. */
  const both = (name: string, step: string, input: string) =>
    concat(`${name}_${step}`, [
      unit(`${name}_${step}a`, 384, [1, 3], { input, padding: [0, 1] }),
      unit(`${name}_${step}b`, 384, [3, 1], { input, padding: [1, 0] }),
    ]);
  for (const letter of ['b', 'c']) {
    const name = `Mixed_7${letter}`;
    last = concat(name, [
      unit(`${name}.branch1x1`, 320, 1, { input: last }),
      both(`${name}.branch3x3`, '2', unit(`${name}.branch3x3_1`, 384, 1, { input: last })),
      both(`${name}.branch3x3dbl`, '3', chain(`${name}.branch3x3dbl`, last, [448, one], [384, three])),
      pooled(name, last, 192),
    ]);
  }
  add({ name: 'avgpool', type: 'globalpool' });
  add({ name: 'dropout', type: 'dropout', probability: dropout });
  add({ name: 'fc', type: 'linear', units: classes });
  return {
    name: 'inception_v3',
    input: [3, size, size],
    classes,
    initialisation: { varianceScaling: 2 },
    layers,
    ...(auxiliary ? { auxiliary: [{ layer: 'AuxLogits.fc', weight: 0.4 }] } : {}),
  };
}
