// Finds LibTorch, or fetches it once into a cache outside node_modules. The order: LIBTORCH, Torch_DIR, the torch of
// the active Python, a copy fetched before, pip.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

export const WANTED = '2.13.0';
export const OLDEST = [2, 11];
const CPU_INDEX = 'https://download.pytorch.org/whl/cpu';
// The CPU build is about 200 MB; what is larger brings CUDA.
const LARGEST_CPU_WHEEL = 400e6;

export class SetupError extends Error {}

export function cacheFolder() {
  return process.env.LTH_CACHE ?? join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'lth-train');
}

/** The Python that the user's shell would start. */
export function python() {
  return process.env.LTH_BUILD_PYTHON ?? 'python3';
}

/** Facts of the LibTorch in `folder` (holding lib/ and include/), or null where there is none. */
export function inspect(folder) {
  if (!existsSync(join(folder, 'include/ATen/core/Tensor.h'))) return null;
  const lib = join(folder, 'lib');
  if (!['libtorch_cpu.so', 'libtorch_cpu.dylib'].some((name) => existsSync(join(lib, name)))) return null;
  let version = ''; // stays empty for builds older than any we accept
  const header = join(folder, 'include/torch/headeronly/version.h');
  if (existsSync(header)) {
    const text = readFileSync(header, 'utf8');
    const part = (name) => new RegExp(`define TORCH_VERSION_${name} (\\d+)`).exec(text)?.[1];
    version = `${part('MAJOR')}.${part('MINOR')}.${part('PATCH')}`;
  }
  return { path: resolve(folder), version, cuda: existsSync(join(lib, 'libtorch_cuda.so')) };
}

function isNewEnough(version) {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1]);
}

function run(command, args, options = {}) {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], ...options });
}

function torchOfPython() {
  try {
    const out = run(python(), [
      '-c',
      "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s and s.submodule_search_locations else '')",
    ]);
    return out.trim();
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
 * @returns {{ found: object | null, looked: string[] }} what was found, and a line for each place looked at.
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
    const facts = inspect(folder);
    // What the user names is used or refused, never passed over.
    if (!facts) throw new SetupError(`${source} is ${folder}, but there is no LibTorch (include/ATen, lib/libtorch_cpu.so) in it.`);
    if (!isNewEnough(facts.version)) {
      throw new SetupError(`${source} is LibTorch ${facts.version || 'of unknown version'}; ${OLDEST.join('.')} or newer is wanted.`);
    }
    return { found: { ...facts, source }, looked };
  }
  const others = [
    [`torch of ${python()}`, torchOfPython()],
    ['fetched copy', fetchedFolder()],
  ];
  for (const [source, folder] of others) {
    const facts = folder ? inspect(folder) : null;
    if (!facts) {
      looked.push(`${source}: none${folder && source === 'fetched copy' ? ` in ${dirname(folder)}` : ''}`);
    } else if (!isNewEnough(facts.version)) {
      looked.push(`${source}: ${facts.version || 'unknown version'}, too old (${OLDEST.join('.')} or newer is wanted)`);
    } else {
      return { found: { ...facts, source }, looked };
    }
  }
  return { found: null, looked };
}

/** Bytes of the wheel that pip would take from its default index, and whether it asks for CUDA packages. */
function whatPipWouldTake() {
  const report = JSON.parse(
    run(python(), ['-m', 'pip', 'install', '--dry-run', '--ignore-installed', '--no-deps', '--quiet', '--report', '-', '--retries', '1', '--timeout', '15', `torch==${WANTED}`]),
  );
  const item = report.install?.[0];
  const requires = item?.metadata?.requires_dist ?? [];
  return {
    url: item?.download_info?.url ?? '',
    cuda: requires.some((line) => /^nvidia-/.test(line)) && !/%2Bcpu|\+cpu/.test(item?.download_info?.url ?? ''),
  };
}

function pipInstall(target, extra) {
  execFileSync(
    python(),
    ['-m', 'pip', 'install', '--no-deps', '--no-compile', '--disable-pip-version-check', '--target', target, '--retries', '1', '--timeout', '15', ...extra, `torch==${WANTED}`],
    { stdio: ['ignore', 'inherit', 'pipe'], encoding: 'utf8' },
  );
}

/** Fetches LibTorch into the cache. Whole or not at all: a killed fetch leaves nothing that looks like a copy. */
export function fetch(log) {
  try {
    run(python(), ['-m', 'pip', '--version']);
  } catch {
    throw new SetupError(`pip of ${python()} is wanted to fetch LibTorch ${WANTED}, and it does not run.\nInstall Python 3 with pip (Debian: apt install python3-pip), or set LIBTORCH to a LibTorch of your own.`);
  }
  mkdirSync(cacheFolder(), { recursive: true });
  const temporary = mkdtempSync(join(cacheFolder(), 'fetching-'));
  try {
    const errors = [];
    log(`fetching LibTorch ${WANTED} (about 200 MB, once) into ${cacheFolder()}`);
    const ways = [
      ["PyTorch's CPU index", () => pipInstall(temporary, ['--index-url', CPU_INDEX])],
      [
        "pip's default index",
        () => {
          const plan = whatPipWouldTake();
          if (plan.cuda && process.env.LTH_ALLOW_CUDA_WHEEL !== '1') {
            throw new SetupError(`pip would take the CUDA build (several GB with its libraries): ${plan.url}\nSet LTH_ALLOW_CUDA_WHEEL=1 to allow that, or LIBTORCH to a LibTorch of your own.`);
          }
          pipInstall(temporary, []);
        },
      ],
    ];
    for (const [name, way] of ways) {
      try {
        way();
        const facts = inspect(join(temporary, 'torch'));
        if (!facts) throw new Error('the package holds no LibTorch');
        const target = dirname(fetchedFolder());
        try {
          renameSync(temporary, target);
        } catch (error) {
          // Another install was faster: its copy is as good.
          if (!inspect(fetchedFolder())) throw error;
        }
        return { ...inspect(fetchedFolder()), source: `fetched from ${name}` };
      } catch (error) {
        if (error instanceof SetupError) throw error;
        const text = String(error.stderr || error.message).trim();
        errors.push(`${name}: ${text.split('\n').slice(-3).join(' ').slice(0, 400)}`);
      }
    }
    throw new SetupError(`LibTorch ${WANTED} could not be fetched:\n  ${errors.join('\n  ')}`);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}
