// Compiles the TypeScript of a clone into dist/. The old output goes first, so that a deleted source leaves no test.
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
let typescript;
try {
  typescript = dirname(require.resolve('typescript/package.json'));
} catch {
  console.error(
    'lth-train: TypeScript is not installed; in a clone, install with the development dependencies: npm ci',
  );
  process.exit(1);
}
const tsc = join(typescript, require('typescript/package.json').bin.tsc);
rmSync(join(root, 'dist'), { recursive: true, force: true });
process.exit(
  spawnSync(process.execPath, [tsc, '-p', join(root, 'tsconfig.json')], { stdio: 'inherit' }).status ?? 1,
);
