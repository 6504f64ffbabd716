import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import type { ImpOptions } from '../../../bench/imp.js';
import type { KernelOptions } from '../../../bench/kernels.js';
import type { LoaderOptions } from '../../../bench/loader.js';
import type { SpeedPlot } from '../../../bench/plot.js';
import type { StepOptions } from '../../../bench/step.js';
import type { TrainingOptions } from '../../../bench/training.js';
import { writeOutput } from '../../files.js';
import type { Precision } from '../../native/AddonTypes.js';
import { LthError } from '../../native/errors.js';
import { densities } from '../densities.js';
import { choice, choices, integer, list, repeated } from '../options.js';
import { statusLine } from '../statusLine.js';

interface Output {
  json?: boolean;
  plot?: string;
}

/** Prints a result and draws it; what the benchmark is stays its own business, which is loaded when it is asked for. */
async function finish<Result>(
  options: Output,
  result: Result,
  render: (result: Result) => string,
  plot: (result: Result, command: string) => SpeedPlot,
): Promise<void> {
  if (options.plot !== undefined) {
    const { renderPlot } = await import('../../../bench/plot.js');
    // Where the picture goes is nobody's business who looks at it.
    const words = process.argv
      .slice(2)
      .join(' ')
      .replace(/ --plot[= ]\S+/, '');
    const command = `lth-train ${words}`;
    await writeOutput(options.plot, Buffer.from(renderPlot(plot(result, command))));
    process.stderr.write(`${options.plot}: speed over density\n`);
  }
  process.stdout.write(`${options.json ? JSON.stringify(result) : render(result)}\n`);
}

const onProgress = (text: string) => statusLine(process.stderr).line(text);

const takesOutput = (command: Command) =>
  command
    .option('--json', 'as one JSON object')
    .option('--plot <file>', 'an SVG picture of the speed over the density, with the break-even marked');

const takesDensities = (usual: string) =>
  new Option('--densities <list>', 'weights that remain, in percent')
    .argParser(densities)
    .default(densities(usual), usual);

const precision = choice<Precision>('fp32', 'bf16');

interface TrainingFlags extends Output, Omit<TrainingOptions, 'variants' | 'signal' | 'onProgress'> {
  variants?: string[];
}

const takesTraining = (command: Command, network: string) =>
  takesOutput(
    command
      .option('--network <name>', 'network of the catalogue', network)
      .option('--precision <name>', 'fp32 or bf16 (default: bf16 with convolutions)', precision)
      .option(
        '--threads <n>',
        "threads of both sides, on this machine's cores",
        integer(1, availableParallelism()),
        availableParallelism(),
      )
      .option(
        '--batch <n>',
        'examples an update (default: 128 with convolutions, else 60)',
        integer(1, 1 << 16),
      )
      .option('--optimiser <name>', 'sgd or adam (default: sgd with convolutions)', choice('sgd', 'adam'))
      .option(
        '--rounds <n>',
        'of both sides in turn (default: 5, or 9 without convolutions)',
        integer(1, 10_000),
      )
      .option(
        '--steps <n>',
        'updates of a round (default: 3, or 300 without convolutions)',
        integer(1, 1_000_000),
      )
      .option(
        '--variants <list>',
        "of PyTorch's step (default: those that are not far behind the best)",
        list,
      )
      .option('--device <device>', 'cpu, cuda or cuda:N', 'cpu')
      .option('--device-mode <mode>', 'on CUDA: deterministic or fast', 'deterministic')
      .option('--no-reference', 'leave PyTorch out'),
  );

function trainingOptions(flags: TrainingFlags): TrainingOptions {
  const { precision: exact, batch, optimiser, rounds, steps } = flags;
  return {
    network: flags.network,
    threads: flags.threads,
    variants: flags.variants ?? [],
    device: flags.device,
    ...(flags.deviceMode === undefined ? {} : { deviceMode: flags.deviceMode }),
    reference: flags.reference,
    onProgress,
    ...(exact === undefined ? {} : { precision: exact }),
    ...(batch === undefined ? {} : { batch }),
    ...(optimiser === undefined ? {} : { optimiser }),
    ...(rounds === undefined ? {} : { rounds }),
    ...(steps === undefined ? {} : { steps }),
  };
}

interface KernelFlags extends Output {
  network: string;
  layer?: string[];
  densities: number[];
  masks: 'uniform' | 'imp';
  maskFile?: string;
  precision?: Precision;
  threads: number;
  batch?: number;
  rounds: number;
  sample: number;
  device: string;
  reference: boolean;
}

function kernelsCommand(): Command {
  return takesOutput(
    new Command('kernels')
      .description(
        "each layer's three products, dense and sparse, beside PyTorch's and what the machine can do",
      )
      .option('--network <name>', 'network whose layers are measured', 'resnet-20')
      .option(
        '--layer <shape>',
        'instead: KxCxRxS@HxW[/stride][+padding] of a convolution, KxC of a linear layer (repeatable)',
        repeated,
      )
      .addOption(takesDensities('50,20,10,5,2,1'))
      .option('--masks <kind>', 'uniform, or imp: of a real IMP', choice('uniform', 'imp'), 'uniform')
      .option('--mask-file <file>', 'masks of IMP (default: those that come with the package)')
      .option('--precision <name>', 'fp32 or bf16 (default: bf16 of convolutions)', precision)
      .option(
        '--threads <n>',
        "threads, on this machine's cores",
        integer(1, availableParallelism()),
        availableParallelism(),
      )
      .option('--batch <n>', 'examples (default: 128, or 60 of linear layers)', integer(1, 1 << 16))
      .option('--rounds <n>', 'samples of each side, in turn', integer(1, 10_000), 7)
      .option('--sample <ms>', 'milliseconds that a sample lasts at least', integer(1, 60_000), 10)
      .option('--device <device>', 'cpu; on cuda both sides are those of PyTorch', 'cpu')
      .option('--no-reference', 'leave PyTorch out'),
  ).action(async (flags: KernelFlags) => {
    const { benchKernels } = await import('../../../bench/kernels.js');
    const { plotKernels, renderKernelBench } = await import('../../../bench/kernelTables.js');
    const layers = flags.layer ?? [];
    const { isLinear } = await import('../../../bench/layers.js');
    const linear = isLinear(flags.network, layers);
    const options: KernelOptions = {
      network: flags.network,
      layers,
      densities: flags.densities,
      masks: flags.masks,
      precision: flags.precision ?? (linear ? 'fp32' : 'bf16'),
      threads: flags.threads,
      batch: flags.batch ?? (linear ? 60 : 128),
      rounds: flags.rounds,
      sample: flags.sample / 1e3,
      device: flags.device,
      reference: flags.reference,
      onProgress,
      ...(flags.maskFile === undefined ? {} : { maskFile: flags.maskFile }),
    };
    await finish(flags, await benchKernels(options), renderKernelBench, plotKernels);
  });
}

interface StepFlags extends TrainingFlags {
  densities: number[];
  masks?: ('uniform' | 'magnitude' | 'imp')[];
  maskFile?: string;
}

function stepCommand(): Command {
  return takesTraining(
    new Command('step')
      .description("an update over densities, beside PyTorch's best")
      .addOption(takesDensities('100,50,20,10,5,2,1'))
      .option(
        '--masks <list>',
        'uniform: as much of each layer; magnitude: in one pool, at initialisation; imp: of a real IMP (default: uniform, and imp where there are some)',
        choices('uniform', 'magnitude', 'imp'),
      )
      .option('--mask-file <file>', 'masks of IMP (default: those that come with the package)'),
    'resnet-20',
  ).action(async (flags: StepFlags) => {
    const { benchStep, plotStep, renderStepBench } = await import('../../../bench/step.js');
    const options: StepOptions = {
      ...trainingOptions(flags),
      densities: flags.densities,
      ...(flags.masks === undefined ? {} : { masks: flags.masks }),
      ...(flags.maskFile === undefined ? {} : { maskFile: flags.maskFile }),
    };
    await finish(flags, await benchStep(options), renderStepBench, plotStep);
  });
}

interface ImpFlags extends TrainingFlags {
  run?: string;
  maskFile?: string;
  train?: number;
  levels?: number;
}

function impCommand(): Command {
  return takesTraining(
    new Command('imp')
      .description(
        'an update with the masks of every level of an IMP: what the whole costs in dense trainings of PyTorch',
      )
      .option(
        '--run <run>',
        "a run's masks, of its first rewind point and replicate (default: the package's)",
      )
      .option('--mask-file <file>', 'masks that `bench masks` wrote')
      .option('--train <n>', 'make masks here, after so many updates a level', integer(1, 1_000_000))
      .option('--levels <n>', 'so many levels alone', integer(1, 255)),
    'resnet-20',
  ).action(async (flags: ImpFlags) => {
    const { benchImp, plotImp, renderImpBench } = await import('../../../bench/imp.js');
    const sources = [flags.run, flags.maskFile, flags.train].filter((one) => one !== undefined);
    if (sources.length > 1)
      throw new LthError('invalid-argument', 'Masks have one source: --run, --mask-file or --train');
    const options: ImpOptions = {
      ...trainingOptions(flags),
      ...(flags.run === undefined ? {} : { run: flags.run }),
      ...(flags.maskFile === undefined ? {} : { maskFile: flags.maskFile }),
      ...(flags.train === undefined ? {} : { train: flags.train }),
      ...(flags.levels === undefined ? {} : { levels: flags.levels }),
    };
    await finish(flags, await benchImp(options), renderImpBench, plotImp);
  });
}

function masksCommand(): Command {
  return new Command('masks')
    .description("a run's masks, of all levels of its first IMP, in one small file")
    .requiredOption('--run <run>', 'run folder')
    .requiredOption('--out <file>', 'where they are written')
    .requiredOption('--command <text>', 'how the run was made, for whoever reads the file')
    .action(async (flags: { run: string; out: string; command: string }) => {
      const { packMasks } = await import('../../../bench/maskFile.js');
      const { header } = await packMasks(flags.run, resolve(flags.out), flags.command);
      process.stderr.write(
        `${flags.out}: ${header.levels} levels of ${header.network}, ${header.body.bytes} bytes\n`,
      );
    });
}

interface LoaderFlags extends Omit<LoaderOptions, 'folder' | 'signal' | 'onProgress'> {
  json?: boolean;
}

function loaderCommand(): Command {
  return new Command('loader')
    .description(
      "pictures a second from JPEG files or shards to batches, beside libjpeg-turbo alone and PyTorch's DataLoader",
    )
    .argument('<folder>', 'class folders of pictures or shards, or what holds them as train/')
    .option('--against <folder>', 'the originals of these shards: what PyTorch reads, and lth-train too')
    .option(
      '--workers <n>',
      'threads of ours, processes of the other side',
      integer(1, 1024),
      availableParallelism(),
    )
    .option('--batch <n>', 'pictures', integer(1, 1 << 16), 64)
    .option('--size <n>', 'side of what comes out', integer(1, 4096), 224)
    .option('--rounds <n>', 'of all sides in turn', integer(1, 10_000), 7)
    .option('--passes <n>', 'over all pictures, in a round', integer(1, 10_000), 2)
    .option('--json', 'as one JSON object')
    .option('--no-reference', 'leave PyTorch out')
    .action(async (folder: string, { json, ...flags }: LoaderFlags) => {
      const { benchLoader, renderLoaderBench } = await import('../../../bench/loader.js');
      const result = await benchLoader({
        ...flags,
        folder: resolve(folder),
        ...(flags.against === undefined ? {} : { against: resolve(flags.against) }),
        onProgress,
      });
      process.stdout.write(`${json ? JSON.stringify(result) : renderLoaderBench(result)}\n`);
    });
}

export function benchCommand(): Command {
  const command = new Command('bench').description(
    'measure: products of layers, updates, whole IMPs, reading pictures',
  );
  for (const one of [kernelsCommand(), stepCommand(), impCommand(), loaderCommand(), masksCommand()])
    command.addCommand(one.exitOverride());
  return command;
}
