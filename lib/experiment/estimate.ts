import type { Session, SplitName } from '../session/Session.js';
import type { Plan, Unit } from './plan.js';
import { type Processes, threadsEach } from './sideBySide.js';
import type { Workplace } from './Workplace.js';

/** What trainings cost here and now. */
export interface Speed {
  /** Seconds of one update, and of one evaluation of validation and test set. */
  update: number;
  evaluation: number;
}

/** Of updates, and of evaluations; or one update, and the fewest examples, where those take longer. */
const MEASURE_SECONDS = 0.7;
const WARM_UP_UPDATES = 5;
const FEWEST_EXAMPLES = 64;

async function secondsOfUpdate(session: Session): Promise<number> {
  let warmUp = 0;
  for (let i = 0; i < WARM_UP_UPDATES && warmUp < MEASURE_SECONDS; i++)
    warmUp += (await session.trainToEnd({ until: session.step + 1, evaluate: [] })).end.seconds;
  const pause = new AbortController();
  const timer = setTimeout(() => pause.abort(), MEASURE_SECONDS * 1000);
  const start = session.step;
  const { end } = await session.trainToEnd({ until: 2 ** 31 - 1, evaluate: [], pause: pause.signal });
  clearTimeout(timer);
  return end.seconds / Math.max(1, end.step - start);
}

async function secondsOfEvaluation(session: Session, split: SplitName): Promise<number> {
  const all = session.info.examples[split];
  if (all === 0) return 0;
  const time = async (examples: number) => {
    const before = performance.now();
    await session.evaluate(split, { examples });
    return (performance.now() - before) / 1000;
  };
  const few = Math.min(all, FEWEST_EXAMPLES);
  const probe = await time(few);
  const many = Math.min(all, Math.floor((few * MEASURE_SECONDS) / probe));
  return many > few ? ((await time(many)) * all) / many : (probe * all) / few;
}

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
        return {
          update: await secondsOfUpdate(session),
          evaluation:
            (await secondsOfEvaluation(session, 'validation')) + (await secondsOfEvaluation(session, 'test')),
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
  const trains = unit.updates > 0;
  // At its end a whole training is evaluated, however far the last evaluation lies behind.
  const atEnd = trains && !(unit.kind === 'dense' && !unit.last) ? 1 : 0;
  const evaluations = evaluateEvery > 0 ? Math.max(atEnd, unit.updates / evaluateEvery) : atEnd;
  return unit.updates * update + evaluations * evaluation + 0.05;
}

/**
 * Seconds that the rest of a plan will take on this machine: a short measurement, and the plan played through as the
 * scheduler does it.
 * @param how.trainings units side by side in all jobs together.
 * @param isDone units that need no more work.
 */
export async function estimateSeconds(
  workplace: Workplace,
  plan: Plan,
  how: Processes & { trainings: number },
  isDone: (id: string) => boolean,
): Promise<{ seconds: number; updatesPerSecond: number }> {
  const { threads, trainings } = how;
  const alone = await measure(workplace, plan, 1, threadsEach(how));
  const each = Math.max(1, Math.floor(threads / trainings));
  const shared = trainings > 1 ? await measure(workplace, plan, trainings, each) : alone;
  const { evaluateEvery } = plan.steps;
  const done = new Set(plan.units.filter((unit) => isDone(unit.id)).map((unit) => unit.id));
  const waiting = plan.units.filter((unit) => !done.has(unit.id));
  /** How much of each unit in work is left, from 1 to 0. */
  const working = new Map<Unit, number>();
  let seconds = 0;
  let updates = 0;
  while (waiting.length > 0 || working.size > 0) {
    for (const unit of [...waiting]) {
      if (working.size >= trainings) break;
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
