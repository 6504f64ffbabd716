import { InvalidArgumentError } from 'commander';

/** Percents between commas, e.g. `50,20,10`, as fractions in (0, 1], falling, each once. */
export function densities(text: string): number[] {
  const all = text.split(',').map((part) => {
    const percent = Number(part);
    if (!/^\s*\d+(\.\d+)?\s*$/.test(part) || !(percent > 0 && percent <= 100))
      throw new InvalidArgumentError('Expected percents above 0 and at most 100 between commas.');
    return percent / 100;
  });
  return [...new Set(all)].sort((a, b) => b - a);
}
