import { Command } from 'commander';
import { repairRun } from '../../experiment/repair.js';
import { verifyRun } from '../../experiment/verify.js';
import { awaitRun } from '../awaitRun.js';

const words = {
  ...{ unit: '', checkpoint: 'checkpoint, will be passed over: ', table: '' },
  unread: 'could not be read: ',
};

export function verifyCommand(exit: (code: number) => void): Command {
  return new Command('verify')
    .description(
      'check every checksum and mask of a run, and its table of costs: 0 where all is right, else 1',
    )
    .argument('<run>', 'run folder')
    .option('--repair', 'move damaged units to RUN/damaged, and say what makes them again')
    .option('--json', 'as one JSON object')
    .action(async (run: string, options: { repair?: boolean; json?: boolean }) => {
      await awaitRun(run);
      const found = await verifyRun(run);
      const moved = options.repair ? await repairRun(run, found) : [];
      const damaged = found.problems.filter(({ kind }) => kind === 'unit').length;
      if (options.json) {
        process.stdout.write(`${JSON.stringify({ ...found, moved })}\n`);
      } else {
        for (const { id, kind, message } of found.problems)
          process.stdout.write(`${id}: ${words[kind]}${message}\n`);
        for (const path of moved) process.stdout.write(`moved to ${path}\n`);
        const running = found.running > 0 ? `, ${found.running} units in work left out` : '';
        process.stdout.write(
          `${found.units} finished units, ${found.files} files, ${found.checkpoints} checkpoints looked at${running}: ` +
            `${found.problems.length === 0 ? 'all is right' : `${found.problems.length} problems`}\n`,
        );
        const again = `${found.commands.map((one) => `\`${one}\``).join(' and ')}, with the options of before, makes them again`;
        if (damaged > 0)
          process.stdout.write(
            options.repair
              ? `${again}\n`
              : `\`lth-train verify ${run} --repair\` puts damaged units aside; ${again}\n`,
          );
      }
      exit(found.problems.length === 0 ? 0 : 1);
    });
}
