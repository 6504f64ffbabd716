// The Python whose PyTorch the parity tests and benchmarks compare with.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder } from './libtorch.mjs';

/**
 * LTH_PYTHON, the one that .ci/run makes, or the active one: the first whose PyTorch is of this version.
 * @returns {{ python: string | null, looked: string[] }} and why the others are not.
 */
export function findPython(torch) {
  const looked = [];
  const made = join(cacheFolder(), 'reference-python', 'bin', 'python');
  for (const python of [process.env.LTH_PYTHON, existsSync(made) ? made : '', 'python3']) {
    if (!python) continue;
    const code = 'import torch, numpy; print(torch.__version__)';
    const { stdout, status } = spawnSync(python, ['-c', code], { encoding: 'utf8' });
    const version = status === 0 ? stdout.trim() : '';
    if (version.split('+')[0] === torch) return { python, looked };
    looked.push(`${python} has ${version ? `PyTorch ${version}` : 'no PyTorch with NumPy'}`);
  }
  return { python: null, looked: [`no Python with PyTorch ${torch}`, ...looked] };
}
