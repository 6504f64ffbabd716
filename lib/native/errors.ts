/** What went wrong, for programs. Messages are for people. */
export type ErrorCode =
  | 'recipe'
  | 'invalid-argument'
  | 'wrong-shape'
  | 'corrupt-file'
  | 'io'
  | 'unsupported'
  | 'no-cuda'
  | 'disposed'
  | 'wrong-handle'
  | 'busy'
  | 'diverged'
  | 'other-experiment'
  | 'different-bits'
  | 'addon'
  | 'native';

export class LthError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'LthError';
    this.code = code;
  }
}

/** `Expected integer between 1 and 1024 for threads but received 9.5 of type number`. */
export function wrongValue(expected: string, name: string, received: unknown): LthError {
  const shown = typeof received === 'string' ? `"${received}"` : String(received);
  return new LthError(
    'invalid-argument',
    `Expected ${expected} for ${name} but received ${shown} of type ${typeof received}`,
  );
}

export function checkInteger(value: unknown, name: string, low: number, high: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < low || value > high) {
    throw wrongValue(`integer between ${low} and ${high}`, name, value);
  }
  return value;
}

/** `low` and `high` are allowed. */
export function checkNumber(value: unknown, name: string, low: number, high: number): number {
  if (typeof value !== 'number' || !(value >= low && value <= high)) {
    throw wrongValue(`number between ${low} and ${high}`, name, value);
  }
  return value;
}

export function checkOneOf<T extends string>(value: unknown, name: string, allowed: readonly T[]): T {
  if (!allowed.includes(value as T)) throw wrongValue(`one of ${allowed.join(', ')}`, name, value);
  return value as T;
}
