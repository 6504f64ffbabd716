import type { Plan, ResolvedSteps } from './plan.js';
import type { Workplace } from './Workplace.js';

/** Bytes that a plan's processes hold beside what layers make of a batch, Node and LibTorch. */
export interface MemoryNeed {
  /** Of a training: weights, gradients, optimiser state and averages, before anything is pruned. */
  training: number;
  /** Of the examples, which a process's trainings share; 0 of pictures in files. */
  data: number;
  processes: number;
  /** Side by side in each process, at most. */
  trainings: number;
  /** Of each process, at least while so many trainings go on. */
  bytes: number;
}

function dataBytes({ examples }: Workplace): number {
  return examples.reduce((sum, { pictures, info: { count, shape } }) => {
    const each = shape.reduce((product, extent) => product * extent, 1);
    return sum + (pictures ? 0 : count * each);
  }, 0);
}

async function trainingBytes(workplace: Workplace, steps: ResolvedSteps): Promise<number> {
  const session = await workplace.openSession(0, 1, steps);
  const { weights, gradients, optimiser, average } = session.memory();
  session.dispose();
  return weights + gradients + optimiser + average;
}

/** What a run of `jobs` processes holds, with so many units of the plan side by side in each. */
export async function memoryNeed(
  workplace: Workplace,
  plan: Plan,
  { jobs, sideBySide }: { jobs: number; sideBySide: number },
): Promise<MemoryNeed> {
  const all = plan.units.filter(({ updates }) => updates > 0).length;
  const trainings = Math.min(all, sideBySide);
  const [training, data] = [await trainingBytes(workplace, plan.steps), dataBytes(workplace)];
  return { training, data, processes: jobs, trainings, bytes: trainings * training + data };
}
