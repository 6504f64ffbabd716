// Finds LibTorch, or fetches it once into a cache outside node_modules. The order: LIBTORCH, Torch_DIR, the torch of
// the active Python, a copy fetched before, pip.
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

export const WANTED = '2.13.0';
export const OLDEST = [2, 11];
const CPU_INDEX = 'https://download.pytorch.org/whl/cpu';
const DAY = 24 * 3600e3;

/** What to type where LibTorch is wanted and nothing can be fetched. */
const BY_HAND = `Set LIBTORCH to a folder that holds LibTorch ${OLDEST.join('.')} or newer (lib/ and include/), for example
    export LIBTORCH=$(python3 -c "import torch, os; print(os.path.dirname(torch.__file__))")
and run npm ci again. README, "Clusters without network", has more.`;

/** Words for a person: set-up stops, and no stack is shown. */
export class SetupError extends Error {}

export function cacheFolder() {
  return process.env.LTH_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'lth-train');
}

/** The Python that the user's shell would start. */
export function python() {
  return process.env.LTH_BUILD_PYTHON || 'python3';
}

function versionOf(folder) {
  // The second is where LibTorch before 2.10 says it: too old, but to be named.
  for (const header of [
    'include/torch/headeronly/version.h',
    'include/torch/csrc/api/include/torch/version.h',
  ]) {
    if (!existsSync(join(folder, header))) continue;
    const text = readFileSync(join(folder, header), 'utf8');
    const part = (name) => new RegExp(`define TORCH_VERSION_${name} (\\d+)`).exec(text)?.[1];
    if (part('MAJOR')) return `${part('MAJOR')}.${part('MINOR')}.${part('PATCH')}`;
  }
  return '';
}

/** Facts of the LibTorch in `folder` (holding lib/ and include/), or null where there is none. */
export function inspect(folder) {
  const lib = join(folder, 'lib');
  if (!existsSync(join(folder, 'include/ATen/core/Tensor.h'))) return null;
  if (!['libtorch_cpu.so', 'libtorch_cpu.dylib'].some((name) => existsSync(join(lib, name)))) return null;
  return {
    path: resolve(folder),
    version: versionOf(folder),
    cuda: existsSync(join(lib, 'libtorch_cuda.so')),
  };
}

function isNewEnough(version) {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1]);
}

function run(command, args) {
  return execFileSync(command, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    maxBuffer: 1 << 26,
  });
}

/** Its folder, without importing it: that takes seconds. */
function torchOfPython() {
  const code = [
    'import importlib.util',
    "spec = importlib.util.find_spec('torch')",
    "print((spec and spec.submodule_search_locations or [''])[0])",
  ];
  try {
    return run(python(), ['-c', code.join('\n')]).trim();
  } catch {
    return '';
  }
}

function fetchedFolder() {
  return join(cacheFolder(), `torch-${WANTED}`, 'torch');
}

/** Torch_DIR is CMake's: FOLDER/share/cmake/Torch. */
function fromTorchDir(value) {
  return value.replace(/\/share\/cmake\/Torch\/?$/, '');
}

/**
 * Looks where a LibTorch may be, without fetching.
 * @returns {{ found: object | null, looked: string[] }} what was found, and a line for each place looked at before.
 */
export function find() {
  const looked = [];
  const named = [
    ['LIBTORCH', process.env.LIBTORCH],
    ['Torch_DIR', process.env.Torch_DIR && fromTorchDir(process.env.Torch_DIR)],
  ];
  for (const [source, folder] of named) {
    if (!folder) {
      looked.push(`${source}: not set`);
      continue;
    }
    // What the user names is used or refused, never passed over.
    const facts = inspect(folder);
    const otherwise = `Correct it, or \`unset ${source}\` to let the install step look elsewhere.`;
    if (!facts) {
      throw new SetupError(
        `${source} is ${folder}, but there is no LibTorch (lib/libtorch_cpu.so, include/ATen) in it.\n${otherwise}`,
      );
    }
    if (!isNewEnough(facts.version)) {
      throw new SetupError(
        `${source} is ${folder}, which is LibTorch ${facts.version || 'of unknown version'}; ` +
          `${OLDEST.join('.')} or newer is wanted.\n${otherwise}`,
      );
    }
    return { found: { ...facts, source }, looked };
  }
  const others = [
    [`torch of ${python()}`, torchOfPython()],
    ['fetched copy', fetchedFolder()],
  ];
  for (const [source, folder] of others) {
    const facts = folder ? inspect(folder) : null;
    if (facts && isNewEnough(facts.version)) return { found: { ...facts, source }, looked };
    looked.push(
      facts
        ? `${source}: ${facts.version || 'unknown version'} in ${folder}, too old (${OLDEST.join('.')} or newer is wanted)`
        : `${source}: none${source === 'fetched copy' ? ` in ${dirname(folder)}` : ''}`,
    );
  }
  return { found: null, looked };
}

/**
 * What pip would take from its default index. On Linux that is the CUDA build unless it is marked +cpu or asks for
 * none of NVIDIA's packages (as on ARM).
 */
function whatPipWouldTake() {
  const options = ['--dry-run', '--ignore-installed', '--no-deps', '--quiet', '--report', '-'];
  const patience = ['--retries', '1', '--timeout', '10'];
  const report = JSON.parse(
    run(python(), ['-m', 'pip', 'install', ...options, ...patience, `torch==${WANTED}`]),
  );
  const item = report.install?.[0];
  const build = /\+(.+)/.exec(item?.metadata?.version ?? '')?.[1] ?? '';
  const asksForCuda = (item?.metadata?.requires_dist ?? []).some((line) => /^(nvidia|cuda)-/.test(line));
  return {
    url: item?.download_info?.url ?? 'an unknown place',
    cuda: process.platform === 'linux' && (build ? build !== 'cpu' : asksForCuda),
  };
}

/** Everything pip writes on its way is below `folder`: /tmp of a cluster node may be small. */
function pipInstall(folder, options) {
  const temporary = join(folder, 'tmp');
  mkdirSync(temporary, { recursive: true });
  const fixed = ['--no-compile', '--disable-pip-version-check', '--retries', '1', '--timeout', '10'];
  execFileSync(
    python(),
    ['-m', 'pip', 'install', ...fixed, '--target', join(folder, 'files'), ...options, `torch==${WANTED}`],
    {
      // pip's progress is for people: on stderr, like all of ours.
      stdio: ['ignore', 2, 'pipe'],
      encoding: 'utf8',
      env: { ...process.env, TMPDIR: temporary },
      maxBuffer: 1 << 26,
    },
  );
}

const ways = [
  {
    name: "PyTorch's CPU index",
    take: (folder) => pipInstall(folder, ['--no-deps', '--index-url', CPU_INDEX]),
  },
  {
    name: "pip's default index",
    take: (folder) => {
      const { url, cuda } = whatPipWouldTake();
      if (cuda && process.env.LTH_ALLOW_CUDA_WHEEL !== '1') {
        throw new SetupError(
          `There is no CPU build to be had; pip would take the CUDA build, several GB with its libraries:\n    ${url}\n` +
            `Type LTH_ALLOW_CUDA_WHEEL=1 npm ci to take it. Or:\n${BY_HAND}`,
        );
      }
      // The CUDA build does not load without its libraries.
      pipInstall(folder, cuda ? [] : ['--no-deps']);
    },
  },
];

/** Moves a whole copy to its place. Another install may have been faster: its copy is as good. */
function moveIn(files) {
  const target = dirname(fetchedFolder());
  try {
    renameSync(files, target);
  } catch {
    if (!inspect(fetchedFolder())) {
      rmSync(target, { recursive: true, force: true });
      renameSync(files, target);
    }
  }
  return inspect(fetchedFolder());
}

/** What killed installs left behind. */
function sweep(cache) {
  for (const name of readdirSync(cache).filter((one) => one.startsWith('fetching-'))) {
    const age = Date.now() - (statSync(join(cache, name), { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
    if (age > DAY) rmSync(join(cache, name), { recursive: true, force: true });
  }
}

/** Fetches LibTorch into the cache. Whole or not at all: a killed fetch leaves nothing that looks like a copy. */
export function fetch(log) {
  try {
    run(python(), ['-m', 'pip', '--version']);
  } catch {
    throw new SetupError(
      `No LibTorch was found, and pip of ${python()}, wanted to fetch LibTorch ${WANTED}, does not run.\n` +
        `Install Python 3 with pip (Debian: apt install python3-pip). Or:\n${BY_HAND}`,
    );
  }
  const cache = cacheFolder();
  let folder;
  try {
    mkdirSync(cache, { recursive: true });
    sweep(cache);
    folder = mkdtempSync(join(cache, 'fetching-'));
  } catch (error) {
    throw new SetupError(
      `The cache for LibTorch cannot be written: ${error.message}\nSet LTH_CACHE to a folder that can.`,
    );
  }
  log(`fetching LibTorch ${WANTED} (about 200 MB, once) into ${cache}`);
  const errors = [];
  try {
    for (const { name, take } of ways) {
      try {
        take(folder);
        if (!inspect(join(folder, 'files', 'torch'))) throw new Error('the package holds no LibTorch');
        return { ...moveIn(join(folder, 'files')), source: `fetched from ${name}` };
      } catch (error) {
        if (error instanceof SetupError) throw error;
        const words = String(error.stderr || error.message).trim();
        errors.push(`${name}: ${words.split('\n').slice(-3).join(' ').slice(0, 400)}`);
        rmSync(join(folder, 'files'), { recursive: true, force: true });
      }
    }
    throw new SetupError(`LibTorch ${WANTED} could not be fetched:\n  ${errors.join('\n  ')}\n${BY_HAND}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
