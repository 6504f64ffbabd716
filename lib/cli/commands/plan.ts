import { availableParallelism } from 'node:os';
import { Command } from 'commander';
import { diskBytes, unitBytes } from '../../experiment/disk.js';
import { estimateSeconds } from '../../experiment/estimate.js';
import { type MemoryNeed, memoryNeed } from '../../experiment/memory.js';
import { checkNewRun, openPlan } from '../../experiment/openPlan.js';
import { finishedUnits } from '../../experiment/run.js';
import { sideBySide } from '../../experiment/sideBySide.js';
import { parseRecipe } from '../../recipe/schema.js';
import { RunFolder } from '../../store/RunFolder.js';
import { type RecipeOptions, recipeOf, takesRecipe } from '../recipeOptions.js';
import { duration, size, speed, table } from '../words.js';

interface Options extends RecipeOptions {
  timing: boolean;
  json?: boolean;
}

function memoryLines(
  need: MemoryNeed & { measured: number | null },
  device: string,
  measured: number,
): string[] {
  const where = device === 'cpu' ? '' : ` of ${device}`;
  const process = need.processes === 1 ? '' : ` in each of ${need.processes} processes`;
  const trainings = need.trainings === 1 ? 'a training' : `up to ${need.trainings} trainings, each`;
  const data = need.data > 0 ? `, and ${size(need.data)} of data` : '';
  const computed =
    `memory${where}${process}: ${size(need.bytes)}, of ${trainings} ${size(need.training)} of weights, gradients, ` +
    `optimiser state and averages${data}; what layers make of a batch comes on top`;
  if (need.measured === null) return [computed];
  return [
    computed,
    `all in all ${size(need.measured)} as measured just now in one process with ${measured === 1 ? 'one training' : `${measured} trainings`}`,
  ];
}

export function planCommand(): Command {
  return takesRecipe(
    new Command('plan').description(
      'what a run would do: its units, updates, disk, memory and time; writes nothing',
    ),
  )
    .option('--no-timing', 'without the short measurement behind the estimated time')
    .option('--json', 'as one JSON object')
    .action(async (name: string, options: Options) => {
      const { recipe: asked, out } = recipeOf(name, options);
      const recipe = parseRecipe(asked, 'recipe');
      const { workplace, plan } = await openPlan(recipe);
      try {
        if (!RunFolder.is(out)) checkNewRun(recipe, workplace);
        const finished = RunFolder.is(out) ? await finishedUnits(RunFolder.open(out), plan, null) : new Map();
        const threads = options.threads ?? availableParallelism();
        const keep = options.keep ?? 'all';
        const { counts } = workplace.network.summary;
        const jobs = options.jobs ?? 1;
        const inEach = sideBySide(recipe, { jobs, threads }, options.sideBySide ?? null);
        const trainings = Math.min(plan.units.filter((unit) => unit.updates > 0).length, jobs * inEach);
        const disk = diskBytes(plan, recipe, counts, { keep, trainings });
        const left = plan.units.filter((unit) => !finished.has(unit.id));
        const updates = (units: typeof left) => units.reduce((sum, unit) => sum + unit.updates, 0);
        const time = options.timing
          ? await estimateSeconds(workplace, plan, { jobs, threads, trainings }, (id) => finished.has(id))
          : null;
        // The measurement has all trainings in this process: of several it says nothing.
        const known = time && jobs === 1 && recipe.device === 'cpu';
        const measured = known ? process.resourceUsage().maxRSS * 1024 : null;
        const memory = { ...(await memoryNeed(workplace, plan, { jobs, sideBySide: inEach })), measured };
        const units = plan.units.map((unit) => ({
          id: unit.id,
          label: unit.label,
          updates: unit.updates,
          bytes: unitBytes(unit, plan, recipe, counts, keep),
          done: finished.has(unit.id),
        }));
        if (options.json) {
          const { updatesPerEpoch, total, rewind } = plan.steps;
          const steps = { updatesPerEpoch, total, rewind };
          const whole = { recipe: recipe.name, run: out, steps, ...disk, memory, threads, time, units };
          process.stdout.write(`${JSON.stringify(whole)}\n`);
          return;
        }
        const rows = units.map((one) => [one.updates, size(one.bytes), one.done ? 'done' : '', one.label]);
        const lines = [
          table([['updates', 'disk', '', 'unit'], ...rows]),
          '',
          `${recipe.name}: ${plan.units.length} units, ${updates(plan.units)} updates of which ${updates(left)} are left; ${plan.steps.updatesPerEpoch} updates are an epoch`,
          `disk in ${out}: about ${size(disk.bytes)} when done, at most ${size(disk.peakBytes)} on the way (--keep ${keep})`,
        ];
        lines.push(...memoryLines(memory, recipe.device, trainings));
        if (time)
          lines.push(
            `time: about ${duration(time.seconds)} with ${threads} threads, ${speed(time.updatesPerSecond)} as measured just now`,
          );
        process.stdout.write(`${lines.join('\n')}\n`);
      } finally {
        workplace.dispose();
      }
    });
}
