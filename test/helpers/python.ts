import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { loadAddon } from '../../lib/native/load.js';
import { packageRoot } from '../../lib/package.js';

interface PythonScript {
  findPython(torch: string): { python: string | null; looked: string[] };
}
const { findPython } = (await import(join(packageRoot, 'scripts', 'python.mjs'))) as PythonScript;

/** PyTorch of the LibTorch that the addon uses, so that both have the same numerics. */
const { python, looked } = findPython(loadAddon().info().libtorch);

/** For a test's `skip`: why PyTorch cannot be asked, or false. */
export const withoutPython: string | false = python ? false : looked.join('; ');

/** The same for a test that wants other modules too. */
export function without(modules: string): string | false {
  if (!python) return withoutPython;
  const { status } = spawnSync(python, ['-c', `import ${modules}`], { stdio: 'ignore' });
  return status === 0 ? false : `${python} lacks one of ${modules}`;
}

/** Runs a script of test/reference with one JSON request; its answer. */
export function ask<Answer>(script: string, request: unknown): Answer {
  const child = spawnSync(python as string, [join(packageRoot, 'test', 'reference', script)], {
    input: JSON.stringify(request),
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (child.status !== 0) throw new Error(`${script}: ${child.stderr}`);
  return JSON.parse(child.stdout) as Answer;
}
