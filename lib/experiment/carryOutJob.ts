import { LthError } from '../native/errors.js';
import { RunFolder } from '../store/RunFolder.js';
import { planAnalysis } from './analyses.js';
import type { UnitEvent } from './Event.js';
import type { JobOrder } from './jobs.js';
import { openPlan } from './openPlan.js';
import { planRequests } from './plan.js';
import { finishedUnits } from './run.js';
import { runPlan } from './scheduler.js';

/** One job's share of a plan: whatever nobody else works on. */
export async function carryOutJob(
  order: JobOrder,
  signal: AbortSignal,
  onEvent: (event: UnitEvent) => void,
): Promise<void> {
  const { workplace, plan: asked, experiment } = await openPlan(order.recipe, order.tuning);
  try {
    if (experiment.fingerprint !== order.how.fingerprint)
      throw new LthError(
        'different-bits',
        `a job has "${experiment.fingerprint}", not "${order.how.fingerprint}"`,
      );
    const folder = RunFolder.open(order.out);
    workplace.folder = folder;
    const plan = order.analysis
      ? planAnalysis(
          planRequests(order.recipe, await folder.requests(), experiment),
          order.recipe,
          order.analysis,
        )
      : asked;
    const { allowDifferentBits, fingerprint } = order.how;
    const finished = await finishedUnits(
      folder,
      plan,
      allowDifferentBits ? null : fingerprint,
      order.analysis !== null,
    );
    await runPlan(plan, workplace, { ...order.how, finished, signal, onEvent });
  } finally {
    workplace.dispose();
  }
}
