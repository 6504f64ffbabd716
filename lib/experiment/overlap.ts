import { CompiledNetwork } from '../session/CompiledNetwork.js';
import { Masks } from '../session/Masks.js';
import type { PruneUnit, TrainUnit } from './plan.js';
import type { MaskPlace, OverlapResult } from './Result.js';
import { type Survey, survey } from './survey.js';

interface Place extends MaskPlace {
  method: OverlapResult['method'];
  masks: Masks;
}

/**
 * How much IMP's masks of a run have in common, beside what random masks with as many weights in each tensor would:
 * between replicates and between rewind points at the same level, and between the levels of one replicate (where
 * iterative masks are nested, so that only one-shot ones tell something). Read from the masks that are there so far;
 * nothing is written.
 * @throws LthError "io" where there is no run, "corrupt-file".
 */
export async function maskOverlap(run: string): Promise<OverlapResult[]> {
  const found = await survey(run);
  const network = CompiledNetwork.compile(found.recipe.network);
  const places: Place[] = [];
  try {
    for (const [unit, training] of prunings(found)) {
      const masks = await Masks.read(network, await found.folder.file(unit.id, 'masks.safetensors'));
      const { replicate, rewind, level, method } = training;
      places.push({ replicate, rewind, level, method, masks });
    }
    const results: OverlapResult[] = [];
    places.forEach((a, i) => {
      for (const b of places.slice(i + 1)) {
        const between = differenceOf(a, b);
        if (!between) continue;
        const { method } = a;
        results.push({ between, method, places: [placeOf(a), placeOf(b)], ...a.masks.overlap(b.masks) });
      }
    });
    return results;
  } finally {
    for (const { masks } of places) masks.dispose();
    network.dispose();
  }
}

const placeOf = ({ replicate, rewind, level }: Place): MaskPlace => ({ replicate, rewind, level });

/** What alone differs; null where more than one thing does. */
function differenceOf(a: Place, b: Place): OverlapResult['between'] | null {
  const differing: OverlapResult['between'][] = [];
  if (a.replicate !== b.replicate) differing.push('replicates');
  if (a.rewind !== b.rewind) differing.push('rewind');
  if (a.level !== b.level) differing.push('levels');
  return differing.length === 1 ? (differing[0] ?? null) : null;
}

/** Finished prunings, each with the training that its masks are for, by rewind point, replicate and level. */
function prunings({ units }: Survey): [PruneUnit, TrainUnit][] {
  const done = new Map(
    units.flatMap(({ unit, state }): [string, PruneUnit][] =>
      unit.kind === 'prune' && state === 'done' ? [[unit.id, unit]] : [],
    ),
  );
  return units
    .flatMap(({ unit }): [PruneUnit, TrainUnit][] => {
      const pruned = unit.kind === 'train' && unit.branch === 'imp' ? done.get(unit.masks) : undefined;
      return pruned ? [[pruned, unit as TrainUnit]] : [];
    })
    .sort(([, a], [, b]) => a.rewind - b.rewind || a.replicate - b.replicate || a.level - b.level);
}

/** Of those, the levels of one IMP: the first rewind point, replicate and method. */
export function firstPrunings(found: Survey): [PruneUnit, TrainUnit][] {
  const all = prunings(found);
  const first = all[0]?.[1];
  return all.filter(
    ([, { rewind, replicate, method }]) =>
      rewind === first?.rewind && replicate === first.replicate && method === first.method,
  );
}
