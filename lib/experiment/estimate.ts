import type { Plan, Unit } from './plan.js';
import type { Workplace } from './Workplace.js';

/** What trainings cost here and now. */
export interface Speed {
  /** Seconds of one update, and of one evaluation of validation and test set. */
  update: number;
  evaluation: number;
}

const MEASURE_SECONDS = 0.7;

/** Measures trainings that go on side by side, each with its share of the threads. */
async function measure(
  workplace: Workplace,
  plan: Plan,
  sideBySide: number,
  threads: number,
): Promise<Speed> {
  const all = await Promise.all(
    Array.from({ length: sideBySide }, async (_, replicate): Promise<Speed> => {
      const session = await workplace.openSession(replicate, threads, plan.steps);
      try {
        await session.trainToEnd({ until: 5, evaluate: [] });
        const pause = new AbortController();
        const timer = setTimeout(() => pause.abort(), MEASURE_SECONDS * 1000);
        const start = session.step;
        const { end } = await session.trainToEnd({ until: 2 ** 31 - 1, evaluate: [], pause: pause.signal });
        clearTimeout(timer);
        const before = performance.now();
        if (session.info.examples.validation > 0) await session.evaluate('validation');
        await session.evaluate('test');
        return {
          update: end.seconds / Math.max(1, end.step - start),
          evaluation: (performance.now() - before) / 1000,
        };
      } finally {
        session.dispose();
      }
    }),
  );
  const mean = (what: keyof Speed) => all.reduce((sum, one) => sum + one[what], 0) / all.length;
  return { update: mean('update'), evaluation: mean('evaluation') };
}

function secondsOf(unit: Unit, { update, evaluation }: Speed, evaluateEvery: number): number {
  const evaluations = evaluateEvery > 0 ? unit.updates / evaluateEvery : unit.updates > 0 ? 1 : 0;
  return unit.updates * update + evaluations * evaluation + 0.05;
}

/**
 * Seconds that the rest of a plan will take on this machine: a short measurement, and the plan played through as the
 * scheduler does it, as many units side by side as there are threads.
 * @param isDone units that need no more work.
 */
export async function estimateSeconds(
  workplace: Workplace,
  plan: Plan,
  threads: number,
  isDone: (id: string) => boolean,
): Promise<{ seconds: number; updatesPerSecond: number }> {
  const alone = await measure(workplace, plan, 1, threads);
  const shared = threads > 1 ? await measure(workplace, plan, threads, 1) : alone;
  const { evaluateEvery } = plan.steps;
  const done = new Set(plan.units.filter((unit) => isDone(unit.id)).map((unit) => unit.id));
  const waiting = plan.units.filter((unit) => !done.has(unit.id));
  /** How much of each unit in work is left, from 1 to 0. */
  const working = new Map<Unit, number>();
  let seconds = 0;
  let updates = 0;
  while (waiting.length > 0 || working.size > 0) {
    for (const unit of [...waiting]) {
      if (working.size >= threads) break;
      if (!unit.needs.every((id) => done.has(id))) continue;
      waiting.splice(waiting.indexOf(unit), 1);
      working.set(unit, 1);
    }
    const speed = working.size === 1 ? alone : shared;
    const left = [...working].map(([unit, share]) => share * secondsOf(unit, speed, evaluateEvery));
    const step = Math.min(...left);
    seconds += step;
    for (const [unit, share] of working) {
      const rest = share - step / secondsOf(unit, speed, evaluateEvery);
      if (rest > 1e-9) {
        working.set(unit, rest);
        continue;
      }
      working.delete(unit);
      done.add(unit.id);
      updates += unit.updates;
    }
  }
  return { seconds, updatesPerSecond: seconds > 0 ? updates / seconds : 0 };
}
