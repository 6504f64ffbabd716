import { Command, Option } from 'commander';
import { type DatasetPlace, datasetPlaces, datasetSource } from '../../data/catalogue.js';
import { fetchDataset } from '../../data/fetch.js';
import { type PackedPart, packPictures } from '../../data/pack.js';
import { verifyShards } from '../../data/verifyShards.js';
import { wrongValue } from '../../native/errors.js';
import { STOPPED } from '../exitCodes.js';
import { fetchPrinter } from '../fetchProgress.js';
import { byteSize, integer, repeated } from '../options.js';
import { packPrinter } from '../packProgress.js';
import { abortOnSignal, unlessStopped } from '../signals.js';
import { statusLine } from '../statusLine.js';
import { size } from '../words.js';

/** What comes next must not stand behind the bar. */
function endBar(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
}

interface FetchFlags {
  to?: string;
  from?: string;
  mirror?: string[];
  json?: boolean;
}

function fetchCommand(): Command {
  return new Command('fetch')
    .description('bring the files of a data set, checked; prints their folder')
    .argument('<set>', 'mnist, fashion-mnist, cifar-10 or cifar-100')
    .option('--to <folder>', 'where they go (default: LTH_DATA/SET, else the cache)')
    .option('--from <folder>', 'copy them from this folder instead of fetching')
    .addOption(
      new Option(
        '--mirror <url>',
        'a server of yours with the packed files, instead of the official ones (repeatable)',
      )
        .argParser(repeated)
        .conflicts('from'),
    )
    .option('--json', 'the folder and its files as one JSON object on stdout')
    .action(async (set: string, flags: FetchFlags) => {
      for (const name of ['to', 'from'] as const)
        if (flags[name] === '') throw wrongValue('a folder', `--${name}`, '');
      const fetched = await fetchDataset(datasetSource(set), {
        ...(flags.to === undefined ? {} : { folder: flags.to }),
        ...(flags.from === undefined ? {} : { from: flags.from }),
        ...(flags.mirror === undefined ? {} : { mirrors: flags.mirror }),
        onEvent: fetchPrinter(process.stderr),
      }).finally(endBar);
      process.stdout.write(`${flags.json ? JSON.stringify(fetched) : fetched.folder}\n`);
    });
}

function describe({ set, description, folder, get }: DatasetPlace): string {
  const how = get
    ? `run \`${get}\``
    : 'had from image-net.org by its own terms; tell where it is with --set data.folder=DIR';
  return `${set}: ${description}\n  ${folder ?? `not here: ${how}`}\n`;
}

function listCommand(): Command {
  return new Command('list')
    .description('the data sets, and where their files are or how to get them')
    .option('--json', 'as one JSON array')
    .action((flags: { json?: boolean }) => {
      const places = datasetPlaces();
      process.stdout.write(flags.json ? `${JSON.stringify(places)}\n` : places.map(describe).join(''));
    });
}

interface PackFlags {
  out: string;
  shortSide?: number;
  shardSize: number;
  quality: number;
  groundTruth?: string;
  threads?: number;
  json?: boolean;
}

function describePacked({ folder, pictures, shards, bytes, broken, digest, state }: PackedPart): string {
  const lost = broken > 0 ? `, ${broken} of them broken` : '';
  const there = state === 'there' ? ', there already' : '';
  return `${folder}: ${pictures} pictures${lost} in ${shards} shards, ${size(bytes)}${there}; digest ${digest}\n`;
}

function packCommand(exit: (code: number) => void): Command {
  return new Command('pack')
    .description(
      'make shards of a folder of pictures, which read faster: Arrow files; the same command goes on after a stop',
    )
    .argument('<folder>', 'train/CLASS/*.JPEG and val/, or class folders alone')
    .requiredOption('--out <folder>', 'where the shards go, as train/ and val/ where there are both')
    .option(
      '--short-side <n>',
      'pixels: pictures with a longer shorter side are made smaller, all become JPEGs (default: files as they are)',
      integer(1, 65_500),
    )
    .addOption(
      new Option('--shard-size <size>', 'of the pictures in a shard at most')
        .argParser(byteSize)
        .default(256 * 2 ** 20, '256MiB'),
    )
    .option('--quality <n>', 'of the JPEGs that are made', integer(1, 100), 90)
    .option('--ground-truth <file>', 'of a val/ that lies flat: lines NAME CLASS')
    .option('--threads <n>', 'never changes a byte (default: as many as there are)', integer(1, 1024))
    .option('--json', 'what was packed as one JSON object on stdout')
    .action(async (folder: string, { json, out, ...flags }: PackFlags) => {
      if (out === '') throw wrongValue('a folder', '--out', '');
      const signal = abortOnSignal((which) =>
        process.stderr.write(`\n${which}: stopping; whole shards stay, and the same command goes on\n`),
      );
      const work = packPictures(folder, out, { ...flags, signal, onEvent: packPrinter(process.stderr) });
      const packed = await unlessStopped(signal, work.finally(endBar));
      if (!packed) return exit(STOPPED);
      process.stdout.write(json ? `${JSON.stringify(packed)}\n` : packed.parts.map(describePacked).join(''));
    });
}

function verifyCommand(exit: (code: number) => void): Command {
  return new Command('verify')
    .description('check every byte of packed shards: 0 where all is right, else 1')
    .argument('<folder>', 'what `data pack` made')
    .option('--json', 'as one JSON object')
    .action(async (folder: string, flags: { json?: boolean }) => {
      const { status } = statusLine(process.stderr);
      const found = await verifyShards(folder, {
        onEvent: ({ path, fraction }) =>
          status(fraction, `${(fraction * 100).toFixed(0).padStart(3)}%  ${path}`),
      }).finally(endBar);
      if (flags.json) {
        process.stdout.write(`${JSON.stringify(found)}\n`);
      } else {
        for (const problem of found.problems) process.stdout.write(`${problem}\n`);
        const sum = (of: (part: (typeof found.parts)[number]) => number) =>
          found.parts.reduce((total, part) => total + of(part), 0);
        const broken = sum((part) => part.broken);
        process.stdout.write(
          `${sum((part) => part.shards)} shards, ${sum((part) => part.pictures)} pictures` +
            `${broken > 0 ? `, ${broken} of which were broken when they were packed` : ''}: ` +
            `${found.problems.length === 0 ? 'all is right' : `${found.problems.length} problems; the same \`data pack\` makes shards again that are removed`}\n`,
        );
      }
      exit(found.problems.length === 0 ? 0 : 1);
    });
}

export function dataCommand(exit: (code: number) => void): Command {
  const data = new Command('data').description('fetch, list and pack data sets');
  // Each throws its usage errors to main, as the commands above them do.
  for (const command of [fetchCommand(), listCommand(), packCommand(exit), verifyCommand(exit)])
    data.addCommand(command.exitOverride());
  return data;
}
