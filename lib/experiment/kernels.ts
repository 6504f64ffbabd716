import type { KernelChoice } from '../native/AddonTypes.js';
import { Masks } from '../session/Masks.js';
import { firstPrunings } from './overlap.js';
import { survey } from './survey.js';
import { Workplace } from './Workplace.js';

/** How the products of each layer are made with the masks of a level; level 0 is the dense network. */
export interface LevelKernels {
  level: number;
  densityPrunable: number;
  layers: KernelChoice[];
}

/**
 * The choice of products here and now, with this machine's kernels, the run's table and recipe, for the masks of IMP that are there
 * so far, of the first rewind point and replicate. Nothing is written.
 * @throws LthError "io" where there is no run or no data set, "corrupt-file", "no-cuda".
 */
export async function kernelsOf(run: string): Promise<LevelKernels[]> {
  const found = await survey(run);
  const tuning = await found.folder.tuning();
  const place = await Workplace.open(found.recipe);
  place.tuning = tuning;
  try {
    const session = await place.openSession(0, 1);
    const choices = (level: number, masks: Masks | null): LevelKernels => ({
      level,
      densityPrunable: masks?.density.prunable ?? 1,
      layers: session.kernels(),
    });
    try {
      const levels = [choices(0, null)];
      for (const [unit, training] of firstPrunings(found)) {
        const masks = await Masks.read(place.network, await found.folder.file(unit.id, 'masks.safetensors'));
        try {
          await session.setMasks(masks);
          levels.push(choices(training.level, masks));
        } finally {
          masks.dispose();
        }
      }
      return levels;
    } finally {
      session.dispose();
    }
  } finally {
    place.dispose();
  }
}
