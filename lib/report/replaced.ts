import type { RunSummary } from '../experiment/Result.js';

/** Names of a split that are told; the rest is in `show --json`. */
const SHOWN = 10;

/** `2`, or `1 to 3`. */
function range(counts: number[]): string {
  const [low, high] = [Math.min(...counts), Math.max(...counts)];
  return low === high ? `${low}` : `${low} to ${high}`;
}

/**
 * Which pictures could not be read, so that others of their batches stood in for them: a sentence, and a line for each split.
 * Nothing where all could.
 */
export function replacedLines({ replacedPictures, results }: RunSummary): string[] {
  if (replacedPictures.length === 0) return [];
  const met = results.flatMap(({ replacedPictures: counts }) =>
    counts ? [counts.training + counts.evaluation] : [],
  );
  const many = replacedPictures.length === 1 ? '1 picture' : `${replacedPictures.length} pictures`;
  const each = met.length > 0 ? `, ${range(met)} in each training` : '';
  const splits = (['train', 'validation', 'test'] as const).flatMap((split) => {
    const names = replacedPictures.filter((one) => one.split === split).map(({ name }) => name);
    if (names.length === 0) return [];
    const more = names.length > SHOWN ? ` and ${names.length - SHOWN} more` : '';
    return [`${split}: ${names.slice(0, SHOWN).join(', ')}${more}`];
  });
  return [`${many} could not be read, and others of their batches stood in for them${each}`, ...splits];
}
