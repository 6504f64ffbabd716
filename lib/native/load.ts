import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { packageRoot } from '../package.js';
import type { Addon } from './AddonTypes.js';
import { type ErrorCode, LthError } from './errors.js';

// LTH_ADDON is for tests: an addon that was built for sanitizers.
const binary = process.env.LTH_ADDON || join(packageRoot, 'build', 'lth_train.node');

let loaded: Addon | undefined;

/**
 * The native addon, loaded once per environment.
 * @throws LthError "addon" where it cannot be loaded, with what to do about it.
 */
export function loadAddon(): Addon {
  if (!loaded) {
    const addon = allTyped(load());
    // Before C++ destroys what training threads may be using; atexit handlers come too late for some of it.
    process.on('exit', () => addon.stopRuns());
    loaded = addon;
  }
  return loaded;
}

/** What the install step chose: shown by `doctor`. Null where the addon was never built. */
export function builtAgainst(): { path: string; version: string; source: string; cuda: boolean } | null {
  const file = join(dirname(binary), 'libtorch.json');
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : null;
}

function load(): Addon {
  try {
    return createRequire(import.meta.url)(binary) as Addon;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const solutions: string[] = [];
    const torch = builtAgainst();
    if (!existsSync(binary))
      solutions.push(
        `The addon is not built: run \`npm ci\` (or \`npm rebuild lth-train\`) in ${packageRoot}.`,
      );
    if (torch && !existsSync(torch.path)) {
      solutions.push(
        `The LibTorch it was built against is gone (${torch.path}): run \`npm rebuild lth-train\`.`,
      );
    }
    if (/GLIBC|GLIBCXX|ELF|architecture/i.test(reason)) {
      solutions.push(
        'It was built on another kind of machine: build it on this one with `npm rebuild lth-train`.',
      );
    }
    if (solutions.length === 0)
      solutions.push('Build it again with `npm rebuild lth-train`; its output says what is missing.');
    throw new LthError(
      'addon',
      `The native addon could not be loaded: ${reason}\n  ${solutions.join('\n  ')}`,
      { cause },
    );
  }
}

function typed(error: unknown, caller: { stack?: string }): unknown {
  if (
    !(error instanceof Error) ||
    error instanceof LthError ||
    typeof (error as { code?: unknown }).code !== 'string'
  ) {
    return error;
  }
  const result = new LthError((error as unknown as { code: ErrorCode }).code, error.message);
  // The stack of whoever called, not of this file.
  if (caller.stack) result.stack = `${result.name}: ${result.message}${caller.stack.replace(/^[^\n]*/, '')}`;
  return result;
}

type Native = (...args: unknown[]) => unknown;

/** Native errors become LthError with the caller's stack; promises of file operations too, and what a thread is asked through. */
function withTypedErrors(native: Native): Native {
  const call: Native = (...args) => {
    const caller: { stack?: string } = {};
    try {
      const result = native(...args);
      const settled = (promise: Promise<unknown>) =>
        promise.catch((error) => {
          throw typed(error, caller);
        });
      if (result instanceof Promise) {
        Error.captureStackTrace(caller, call);
        return settled(result);
      }
      // What a thread ends with: { run, end }, and functions beside them.
      const started = result as { run: unknown; end?: unknown } | null | undefined;
      if (typeof started === 'object' && started?.end instanceof Promise) {
        Error.captureStackTrace(caller, call);
        return { ...allTyped(started), end: settled(started.end) };
      }
      return result;
    } catch (error) {
      Error.captureStackTrace(caller, call);
      throw typed(error, caller);
    }
  };
  return call;
}

function allTyped<T extends object>(of: T): T {
  const values = Object.entries(of).map(([name, value]) => [
    name,
    typeof value === 'function' ? withTypedErrors(value as Native) : value,
  ]);
  return Object.fromEntries(values) as T;
}
