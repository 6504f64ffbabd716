// The install step of npm: LibTorch, the addon, the small data set and, in a clone, the TypeScript.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fetch, find, SetupError } from './libtorch.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const log = (line) => console.error(`lth-train: ${line}`);

function has(command, args = ['--version']) {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}

function checkTools() {
  const missing = [];
  if (!has('cmake')) missing.push('CMake 3.18 or newer (Debian: apt install cmake)');
  const compiler = process.env.CXX ?? 'c++';
  if (!has(compiler)) missing.push(`a C++20 compiler: ${compiler} does not run (Debian: apt install g++, or set CXX)`);
  if (!has('make') && !has('ninja')) missing.push('make or ninja (Debian: apt install make)');
  if (missing.length > 0) throw new SetupError(`Building the addon wants:\n  ${missing.join('\n  ')}`);
}

function libtorch() {
  const { found, looked } = find();
  if (found) return found;
  for (const line of looked) log(`looked for LibTorch: ${line}`);
  return fetch(log);
}

/** A build folder configured for another LibTorch or moved from elsewhere cannot be continued. */
function dropStaleBuild(build, torch) {
  const cache = join(build, 'CMakeCache.txt');
  if (!existsSync(cache)) return;
  const text = readFileSync(cache, 'utf8');
  if (!text.includes(`LIBTORCH_DIR:UNINITIALIZED=${torch.path}\n`) || !text.includes(`CMAKE_HOME_DIRECTORY:INTERNAL=${root}\n`)) {
    rmSync(build, { recursive: true, force: true });
  }
}

function buildAddon(torch) {
  const build = join(root, 'build');
  dropStaleBuild(build, torch);
  mkdirSync(build, { recursive: true });
  const defines = {
    CMAKE_BUILD_TYPE: 'Release',
    LIBTORCH_DIR: torch.path,
    // Headers come from packages: no download, no Node source tree.
    CMAKE_JS_INC: require('node-api-headers').include_dir,
    NODE_ADDON_API_DIR: require('node-addon-api').include_dir,
    ...(has('ccache') ? { CMAKE_CXX_COMPILER_LAUNCHER: 'ccache' } : {}),
  };
  const cmakeJs = join(dirname(require.resolve('cmake-js/package.json')), 'bin', 'cmake-js');
  const args = [cmakeJs, 'build', '--directory', root, '--out', build, '--parallel', String(Math.max(1, cpus().length)), '--log-level', 'warn', ...Object.entries(defines).map(([key, value]) => `--CD${key}=${value}`)];
  const result = spawnSync(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8', maxBuffer: 1 << 28 });
  if (result.status !== 0) {
    process.stderr.write(`${result.stdout}\n${result.stderr}\n`);
    throw new SetupError(`The addon did not build against LibTorch ${torch.version} in ${torch.path} (${torch.source}).\nThe compiler's words are above; a C++20 compiler (GCC 11, Clang 14 or newer) is wanted.`);
  }
  writeFileSync(join(build, 'libtorch.json'), `${JSON.stringify(torch, null, 2)}\n`);
}

function step(script) {
  execFileSync(process.execPath, [join(root, 'scripts', script)], { stdio: ['ignore', 'inherit', 'inherit'] });
}

try {
  const nativeOnly = process.argv.includes('--native');
  checkTools();
  const torch = libtorch();
  log(`LibTorch ${torch.version}${torch.cuda ? ' with CUDA' : ''} (${torch.source}): ${torch.path}`);
  log('building the addon');
  buildAddon(torch);
  if (!nativeOnly) {
    // A published package brings these two with it.
    if (!existsSync(join(root, 'data', 'mnist-10k', 'train-images-idx3-ubyte.gz'))) step('make-mnist-10k.mjs');
    if (existsSync(join(root, 'lib', 'index.ts'))) step('build-typescript.mjs');
  }
  log('ready: `npx lth-train run quickstart`, `npx lth-train doctor`');
} catch (error) {
  console.error(`\nlth-train: set-up failed.\n${error instanceof SetupError ? error.message : error.stack}\n`);
  process.exit(1);
}
