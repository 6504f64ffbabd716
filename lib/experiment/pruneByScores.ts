import { loadAddon } from '../native/load.js';
import type { Recipe } from '../recipe/Recipe.js';
import type { CompiledNetwork } from '../session/CompiledNetwork.js';
import { Masks } from '../session/Masks.js';
import type { Session } from '../session/Session.js';
import type { PruneUnit } from './plan.js';

/** Paper 4.2: SynFlow prunes in so many steps, with densities that fall exponentially. */
export const SYNFLOW_STEPS = 100;

/** How many prunable weights IMP's rule leaves after so many levels: floor(fraction * remaining) go at each. */
export function remainingAfter(
  network: CompiledNetwork,
  { fraction, pooling, rates }: Pick<Recipe['pruning'], 'fraction' | 'pooling' | 'rates'>,
  levels: number,
): number {
  const left = (remaining: number, rate: number) => {
    for (let level = 0; level < levels; level++) remaining -= loadAddon().prunedCount(rate, remaining);
    return remaining;
  };
  const { counts, parameters } = network.summary;
  if (pooling === 'global') return left(counts.prunable, fraction);
  return parameters
    .filter(({ prunable }) => prunable)
    .reduce((sum, { name, size }) => sum + left(size, rates[name] ?? fraction), 0);
}

/** Densities in [remaining / all, 1), falling by one factor; the last is exactly what is wanted. */
export function synflowSchedule(all: number, remaining: number): number[] {
  return Array.from({ length: SYNFLOW_STEPS }, (_, i) =>
    i === SYNFLOW_STEPS - 1
      ? remaining
      : Math.max(remaining, Math.round(all * (remaining / all) ** ((i + 1) / SYNFLOW_STEPS))),
  );
}

/**
 * Masks by scores of the weights that the session holds (paper 4.2), one pool over all layers. The lowest go, of GraSP
 * the highest; inverted the other way round. SynFlow scores what is left after each of its steps; the session then has
 * masks of its own.
 */
export async function pruneByScores(
  session: Session,
  network: CompiledNetwork,
  how: { by: Exclude<PruneUnit['by'], 'weights'>; inverted: boolean; remaining: number },
  random: { seed: number; replicate: number },
  signal?: AbortSignal,
): Promise<Masks> {
  const { by, remaining } = how;
  const highest = (by === 'grasp') !== how.inverted;
  let masks = Masks.ones(network);
  const all = network.summary.counts.prunable;
  for (const next of by === 'synflow' ? synflowSchedule(all, remaining) : [remaining]) {
    signal?.throwIfAborted();
    const scores =
      by === 'random-global'
        ? await Masks.randomScores(network, random.seed, random.replicate)
        : await session.scores(by, signal ? { signal } : {});
    const after = await masks.pruneByScores(scores, { remaining: next, highest });
    for (const resource of [scores, masks]) resource.dispose();
    masks = after;
    if (by === 'synflow') await session.setMasks(masks);
  }
  return masks;
}
