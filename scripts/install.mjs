// The install step of npm: LibTorch, the addon, the small data set and, in a clone, the TypeScript.
//   node scripts/install.mjs [--native] [--sanitize=address | --sanitize=thread]
// --native: the addon alone; --sanitize: into a folder of its own, for scripts/addon-tests.mjs.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { fetch, find, SetupError } from './libtorch.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const log = (line) => console.error(`lth-train: ${line}`);
/** A file that includes LibTorch takes about this much memory to compile. */
const COMPILE_MEMORY = 2 * 2 ** 30;

function runs(command) {
  return spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;
}

function checkTools() {
  const missing = [];
  if (!runs('cmake')) missing.push('CMake 3.18 or newer        (Debian: apt install cmake)');
  if (!runs('make') && !runs('ninja')) missing.push('make or ninja              (Debian: apt install make)');
  if (process.env.CXX) {
    if (!runs(process.env.CXX))
      missing.push(`a C++20 compiler: CXX is ${process.env.CXX}, which does not run`);
  } else if (!['c++', 'g++', 'clang++'].some(runs)) {
    missing.push('a C++20 compiler           (Debian: apt install g++; or set CXX)');
  }
  if (missing.length === 0) return;
  throw new SetupError(
    `To build the addon these are wanted and not found:\n  ${missing.join('\n  ')}\nThen run npm ci again.`,
  );
}

function libtorch() {
  const { found, looked } = find();
  if (found) {
    // A torch that was passed over deserves a word; what is merely absent does not.
    for (const line of looked.filter((one) => one.includes('too old'))) log(`passed over ${line}`);
    return found;
  }
  for (const line of looked) log(`looked for LibTorch: ${line}`);
  return fetch(log);
}

/** A build folder configured for another LibTorch, or moved here from elsewhere, cannot be continued. */
function dropStaleBuild(build, torch) {
  const cache = join(build, 'CMakeCache.txt');
  if (!existsSync(cache)) return;
  const text = readFileSync(cache, 'utf8');
  const fits = [`LIBTORCH_DIR:UNINITIALIZED=${torch.path}\n`, `CMAKE_HOME_DIRECTORY:INTERNAL=${root}\n`];
  if (!fits.every((line) => text.includes(line))) rmSync(build, { recursive: true, force: true });
}

function buildAddon(torch, sanitize) {
  const build = sanitize ? join(root, 'build', `addon-${sanitize}`) : join(root, 'build');
  dropStaleBuild(build, torch);
  mkdirSync(build, { recursive: true });
  const defines = {
    CMAKE_BUILD_TYPE: 'Release',
    LIBTORCH_DIR: torch.path,
    ...(sanitize ? { LTH_SANITIZE: sanitize } : {}),
    // Headers come from packages: no download, no Node source tree.
    CMAKE_JS_INC: require('node-api-headers').include_dir,
    NODE_ADDON_API_DIR: require('node-addon-api').include_dir,
    ...(runs('ccache') ? { CMAKE_CXX_COMPILER_LAUNCHER: 'ccache' } : {}),
  };
  const parallel = Math.max(1, Math.min(availableParallelism(), Math.floor(totalmem() / COMPILE_MEMORY)));
  const cmakeJs = join(dirname(require.resolve('cmake-js/package.json')), 'bin', 'cmake-js');
  const places = ['--directory', root, '--out', build];
  const settings = Object.entries(defines).map(([key, value]) => `--CD${key}=${value}`);
  const result = spawnSync(
    process.execPath,
    [cmakeJs, 'build', ...places, '--parallel', String(parallel), '--log-level', 'warn', ...settings],
    { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8', maxBuffer: 1 << 28 },
  );
  if (result.status !== 0) {
    process.stderr.write(`${result.stdout}\n${result.stderr}\n`);
    throw new SetupError(
      `The addon did not build against LibTorch ${torch.version} in ${torch.path} (${torch.source}).\n` +
        'The words of CMake and the compiler are above. Wanted: CMake 3.18, a C++20 compiler (GCC 11, Clang 14) or ' +
        'newer;\nCXX chooses another compiler, LIBTORCH another LibTorch.',
    );
  }
  writeFileSync(join(build, 'libtorch.json'), `${JSON.stringify(torch, null, 2)}\n`);
}

function step(script) {
  const result = spawnSync(process.execPath, [join(root, 'scripts', script)], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (result.status !== 0) throw new SetupError(`scripts/${script} failed; its words are above.`);
}

try {
  const { values } = parseArgs({
    options: { native: { type: 'boolean', default: false }, sanitize: { type: 'string', default: '' } },
  });
  const nativeOnly = values.native;
  checkTools();
  const torch = libtorch();
  log(`LibTorch ${torch.version}${torch.cuda ? ' with CUDA' : ''} (${torch.source}): ${torch.path}`);
  log('building the addon');
  buildAddon(torch, values.sanitize);
  // A published package brings these two with it.
  if (!nativeOnly && !existsSync(join(root, 'data', 'mnist-10k'))) step('make-mnist-10k.mjs');
  if (!nativeOnly && existsSync(join(root, 'lib', 'index.ts'))) step('build-typescript.mjs');
  log('ready: `npx lth-train run quickstart`, `npx lth-train doctor`');
} catch (error) {
  const words = error instanceof SetupError ? error.message : error.stack;
  console.error(`\nlth-train: set-up failed.\n${words}\n`);
  process.exit(1);
}
