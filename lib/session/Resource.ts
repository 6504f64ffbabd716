import type { AnyHandle } from '../native/AddonTypes.js';
import { wrongValue } from '../native/errors.js';
import { loadAddon } from '../native/load.js';

// Node 20 knows Symbol.dispose from 20.5.1 on; `using` of older transpilers wants it to exist.
(Symbol as { dispose?: symbol }).dispose ??= Symbol('Symbol.dispose');

/** A missing `await` or a plain object must not pass for a resource. */
export function checkResource<R>(value: unknown, kind: { name: string; prototype: R }, name: string): R {
  if (value instanceof (kind as unknown as new () => R)) return value;
  throw wrongValue(`a ${kind.name}`, name, value);
}

/** Owns one native handle. */
export abstract class Resource<H extends AnyHandle> {
  /** For this package's own use. */
  readonly handle: H;

  protected constructor(handle: H) {
    this.handle = handle;
  }

  /** Frees native memory now; views that are still held keep theirs. Idempotent. Later use is LthError "disposed". */
  dispose(): void {
    loadAddon().dispose(this.handle);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
