import { InvalidArgumentError } from 'commander';

/** A whole number of the command line. */
export function integer(low: number, high = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < low || value > high) {
      throw new InvalidArgumentError(
        `Expected a whole number ${high === Number.MAX_SAFE_INTEGER ? `of at least ${low}` : `between ${low} and ${high}`}.`,
      );
    }
    return value;
  };
}

/** An option that may stand several times, or hold several values between commas. */
export function list(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), ...text.split(',').map((part) => part.trim())];
}

/** An option that may stand several times. */
export function repeated(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), text];
}
