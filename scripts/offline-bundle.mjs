// Packs everything but LibTorch, CMake and the compiler into one archive, for machines without network:
//   node scripts/offline-bundle.mjs [FOLDER]        -> FOLDER/lth-train-VERSION-PLATFORM-ARCH.tar.gz
// There: unpack, `./install.sh`, `./lth-train run quickstart`.
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const target = resolve(process.argv[2] ?? root);
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const name = `lth-train-${version}-${process.platform}-${process.arch}`;

/** Starts with the Node of the bundle; PATH, because cmake-js and CMake call \`node\` too. */
const installScript = `#!/bin/sh
# Builds lth-train here, without network, against the LibTorch of this machine: LIBTORCH, Torch_DIR or the torch of
# the active Python. Wants CMake 3.18 and a C++20 compiler.
set -e
here=$(cd "$(dirname "$0")" && pwd)
PATH="$here/node/bin:$PATH" exec "$here/node/bin/node" "$here/scripts/install.mjs"
`;
/** exec, so that the signals of a batch system reach the program itself. */
const startScript = `#!/bin/sh
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
exec "$here/node/bin/node" "$here/bin/lth-train.js" "$@"
`;

function script(path, text) {
  writeFileSync(path, text);
  chmodSync(path, 0o755);
}

mkdirSync(target, { recursive: true });
const temporary = mkdtempSync(join(target, 'offline-bundle-'));
try {
  const stage = join(temporary, name);
  mkdirSync(join(stage, 'node', 'bin'), { recursive: true });

  // What npm would publish: sources of the addon, compiled TypeScript, mnist-10k.
  const pack = ['pack', '--silent', '--pack-destination', temporary];
  execFileSync('npm', pack, { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] });
  const packed = join(temporary, `lth-train-${version}.tgz`);
  execFileSync('tar', ['-xzf', packed, '--strip-components=1', '-C', stage]);

  // What it needs at run time and to build; packages only for development stay here.
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  for (const [folder, { dev, optional }] of Object.entries(packages)) {
    if (folder === '' || dev || (optional && !existsSync(join(root, folder)))) continue;
    // Packages below it have lines of their own.
    const own = (path) => !path.slice(join(root, folder).length).includes('node_modules');
    cpSync(join(root, folder), join(stage, folder), { recursive: true, filter: own });
  }
  copyFileSync(process.execPath, join(stage, 'node', 'bin', 'node'));
  script(join(stage, 'install.sh'), installScript);
  script(join(stage, 'lth-train'), startScript);

  const archive = join(target, `${name}.tar.gz`);
  execFileSync('tar', ['-czf', archive, '-C', temporary, name]);
  console.log(archive);
} finally {
  rmSync(temporary, { recursive: true, force: true });
}
