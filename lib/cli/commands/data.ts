import { Command, Option } from 'commander';
import { type DatasetPlace, datasetPlaces, datasetSource } from '../../data/catalogue.js';
import { fetchDataset } from '../../data/fetch.js';
import { wrongValue } from '../../native/errors.js';
import { fetchPrinter } from '../fetchProgress.js';
import { repeated } from '../options.js';

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
      }).finally(() => {
        // What comes next must not stand behind the bar.
        if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
      });
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

export function dataCommand(): Command {
  const data = new Command('data').description('fetch and list data sets');
  // Each throws its usage errors to main, as the commands above them do.
  for (const command of [fetchCommand(), listCommand()]) data.addCommand(command.exitOverride());
  return data;
}
