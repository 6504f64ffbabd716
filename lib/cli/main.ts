import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, CommanderError } from 'commander';
import { fromFileSystem } from '../files.js';
import { type ErrorCode, LthError } from '../native/errors.js';
import { packageRoot } from '../package.js';
import { benchCommand } from './commands/bench.js';
import { connectivityCommand } from './commands/connectivity.js';
import { dataCommand } from './commands/data.js';
import { doctorCommand } from './commands/doctor.js';
import { listCommand } from './commands/list.js';
import { overlapCommand } from './commands/overlap.js';
import { planCommand } from './commands/plan.js';
import { recipesCommand } from './commands/recipes.js';
import { reportCommand } from './commands/report.js';
import { runCommand } from './commands/run.js';
import { showCommand } from './commands/show.js';
import { stabilityCommand } from './commands/stability.js';
import { tuneCommand } from './commands/tune.js';
import { verifyCommand } from './commands/verify.js';
import { watchCommand } from './commands/watch.js';
import { exitOnSignal } from './signals.js';

const USAGE = 2;
/** Errors of what was asked for, rather than of doing it. */
const usageCodes: ErrorCode[] = ['recipe', 'invalid-argument'];

/** Commands that train. */
const saving = ['run', 'stability', 'connectivity'];

/** Whoever reads our output may leave (`| head`): no reason to fail, and none to end a training of days. */
function outliveReaders(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') return;
      process.stderr.write(`lth-train: output cannot be written: ${error.message}\n`);
      process.exit(1);
    });
  }
}

/** The command line. @returns the exit code: 0 done, 1 failure, 2 usage, 75 saved and stopped. */
export async function main(argv: string[]): Promise<number> {
  outliveReaders();
  // Only what trains has something to save.
  if (!saving.includes(argv[0] ?? '')) exitOnSignal();
  let code = 0;
  const exit = (value: number) => {
    code = value;
  };
  const { version } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as {
    version: string;
  };
  const program = new Command('lth-train')
    .description('Lottery tickets by iterative magnitude pruning with rewinding')
    .version(version)
    .showSuggestionAfterError()
    .exitOverride();
  const commands = [
    runCommand(exit),
    planCommand(),
    showCommand(),
    reportCommand(),
    stabilityCommand(exit),
    connectivityCommand(exit),
    overlapCommand(),
    listCommand(),
    watchCommand(exit),
    verifyCommand(exit),
    recipesCommand(),
    dataCommand(exit),
    tuneCommand(),
    benchCommand(),
    doctorCommand(exit),
  ];
  for (const command of commands) program.addCommand(command.exitOverride());
  try {
    await program.parseAsync(argv, { from: 'user' });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE;
    const known = error instanceof LthError ? error : fromFileSystem(error);
    if (!known) throw error;
    process.stderr.write(`lth-train: ${known.message}\n`);
    return usageCodes.includes(known.code) ? USAGE : 1;
  }
}
