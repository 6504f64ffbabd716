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

/** Whole numbers between commas; may stand several times. */
export function integers(
  low: number,
  high: number,
): (text: string, before: number[] | undefined) => number[] {
  const one = integer(low, high);
  return (text, before) => [...(before ?? []), ...text.split(',').map((part) => one(part.trim()))];
}

/** One of some words. */
export function choice<T extends string>(...words: T[]): (text: string) => T {
  return (text) => {
    const found = words.find((word) => word === text);
    if (found === undefined) throw new InvalidArgumentError(`Expected ${words.join(' or ')}.`);
    return found;
  };
}

/** Some of some words, between commas; may stand several times. */
export function choices<T extends string>(...words: T[]): (text: string, before: T[] | undefined) => T[] {
  const one = choice(...words);
  return (text, before) => [...(before ?? []), ...text.split(',').map((part) => one(part.trim()))];
}

/** Bytes: a whole number, of `KiB`, `MiB` or `GiB` where one of these is behind it. */
export function byteSize(text: string): number {
  const [, digits, unit] = /^(\d+)\s*(KiB|MiB|GiB)?$/.exec(text) ?? [];
  const value =
    Number(digits) * { '': 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 }[(unit ?? '') as '' | 'KiB'];
  if (!digits || !(value >= 1 && value <= 2 ** 40))
    throw new InvalidArgumentError('Expected a size such as 256MiB, of 1 byte to 1024GiB.');
  return value;
}
