import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

function findRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error('lth-train: its package.json is missing');
    folder = parent;
  }
  return folder;
}

/** The folder of this package: holds build/, data/ and lib/recipe/recipes. */
export const packageRoot = findRoot();
