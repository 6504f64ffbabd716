/** Where sparse begins to be faster, between the densities that were measured. */
export interface BreakEven {
  /** Fraction of the weights; null where no density that was measured is on the other side. */
  density: number | null;
  /** "always" or "never" faster at what was measured; else "below" the density. */
  faster: 'always' | 'never' | 'below';
}

/**
 * From here on to the smallest density that was measured, it is faster throughout; between two densities the logarithms
 * of both are on a line.
 * @param points speed-up (dense time over sparse time) by density, in any order.
 */
export function breakEven(points: { density: number; speedUp: number }[]): BreakEven {
  const rising = [...points].sort((a, b) => a.density - b.density);
  const slower = rising.findIndex(({ speedUp }) => speedUp < 1);
  if (slower < 0) return { density: null, faster: points.length === 0 ? 'never' : 'always' };
  const after = rising[slower] as (typeof rising)[0];
  const before = rising[slower - 1];
  if (!before) return { density: null, faster: 'never' };
  const [fast, slow] = [Math.log(before.speedUp), Math.log(after.speedUp)];
  const share = fast / (fast - slow);
  return {
    density: Math.exp(Math.log(before.density) * (1 - share) + Math.log(after.density) * share),
    faster: 'below',
  };
}

export function describeBreakEven({ density, faster }: BreakEven): string {
  if (faster === 'below' && density !== null) return `below ${(density * 100).toPrecision(3)} %`;
  return faster === 'always' ? 'at every density measured' : 'at none measured';
}
