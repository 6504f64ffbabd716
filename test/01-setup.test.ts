import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import type { Diagnosis } from '../lib/cli/commands/doctor.js';
import { loadAddon } from '../lib/native/load.js';
import { packageRoot } from '../lib/package.js';
import './helpers/builtinTuning.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-setup-'));
after(() => rmSync(folder, { recursive: true }));

const executable = join(packageRoot, 'bin', 'lth-train.js');

/** Without what the machine of the test may say about LibTorch. */
function environment(changes: Record<string, string>): NodeJS.ProcessEnv {
  const { LIBTORCH, Torch_DIR, LTH_ALLOW_CUDA_WHEEL, ...rest } = process.env;
  return { ...rest, LTH_CACHE: join(folder, 'no-cache'), LTH_BUILD_PYTHON: 'no-such-python', ...changes };
}

function doctor(root: string, ...args: string[]) {
  return spawnSync(process.execPath, [join(root, 'bin', 'lth-train.js'), 'doctor', ...args], {
    encoding: 'utf8',
    // A copy has its own addon or none.
    env: root === packageRoot ? process.env : { ...process.env, LTH_ADDON: '' },
  });
}

// --------------------------------------------------------------------------------------------- doctor

test('doctor says what is there, for people and as one JSON object, and exits 0', () => {
  const json = doctor(packageRoot, '--json');
  assert.equal(json.status, 0, json.stdout + json.stderr);
  assert.equal(json.stdout.trim().split('\n').length, 1);
  const diagnosis = JSON.parse(json.stdout) as Diagnosis;
  assert.equal(diagnosis.ok, true);
  assert.equal(diagnosis.node, process.version);
  assert.deepEqual(diagnosis.addon, loadAddon().info());
  assert.ok(diagnosis.addon?.cuda.available || diagnosis.addon?.cuda.reason);
  const people = doctor(packageRoot);
  assert.equal(people.status, 0);
  for (const fact of [diagnosis.lthTrain, diagnosis.addon?.libtorch, diagnosis.addon?.libtorchPath]) {
    assert.ok(people.stdout.includes(String(fact)), `${fact} in\n${people.stdout}`);
  }
});

test('doctor explains an addon that is not there or broken, and exits 1', () => {
  const copy = join(folder, 'copy');
  for (const part of ['bin', 'dist/lib', 'scripts', 'package.json']) {
    cpSync(join(packageRoot, part), join(copy, part), { recursive: true });
  }
  symlinkSync(join(packageRoot, 'node_modules'), join(copy, 'node_modules'));
  const missing = doctor(copy);
  assert.equal(missing.status, 1);
  assert.match(missing.stdout, /not built: run `npm ci`/);
  assert.match(missing.stdout, /mnist-10k\s+missing/);

  mkdirSync(join(copy, 'build'));
  writeFileSync(join(copy, 'build', 'lth_train.node'), 'no library');
  const libtorch = { path: join(folder, 'gone'), version: '2.13.0', source: 'LIBTORCH', cuda: false };
  writeFileSync(join(copy, 'build', 'libtorch.json'), JSON.stringify(libtorch));
  const broken = doctor(copy, '--json');
  assert.equal(broken.status, 1);
  const diagnosis = JSON.parse(broken.stdout) as Diagnosis;
  assert.equal(diagnosis.ok, false);
  assert.equal(diagnosis.addon, null);
  assert.match(diagnosis.problem ?? '', /gone/);
});

// ------------------------------------------------------------------------------------ finding LibTorch

/** A folder that looks like a LibTorch of this version. */
function fakeLibTorch(name: string, version: [number, number]): string {
  const root = join(folder, name);
  mkdirSync(join(root, 'lib'), { recursive: true });
  mkdirSync(join(root, 'include/ATen/core'), { recursive: true });
  mkdirSync(join(root, 'include/torch/headeronly'), { recursive: true });
  writeFileSync(join(root, 'lib/libtorch_cpu.so'), '');
  writeFileSync(join(root, 'include/ATen/core/Tensor.h'), '');
  const [major, minor] = version;
  writeFileSync(
    join(root, 'include/torch/headeronly/version.h'),
    `#define TORCH_VERSION_MAJOR ${major}\n#define TORCH_VERSION_MINOR ${minor}\n#define TORCH_VERSION_PATCH 0\n`,
  );
  return root;
}

/** A program that takes the place of python3. */
function fakePython(name: string, body: string): string {
  const path = join(folder, name);
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
  return path;
}

/** What a function of scripts/libtorch.mjs gives or throws under these variables. */
function libtorch(call: 'find()' | 'fetch(console.error)', variables: Record<string, string>): string {
  const code = `
    import(process.argv[1]).then(async ({ find, fetch, SetupError }) => {
      try {
        console.log(JSON.stringify(${call}));
      } catch (error) {
        console.log(error instanceof SetupError ? error.message : error.stack);
      }
    });`;
  const script = join(packageRoot, 'scripts', 'libtorch.mjs');
  const child = spawnSync(process.execPath, ['-e', code, script], {
    encoding: 'utf8',
    env: environment(variables),
  });
  return child.stdout;
}

test('LibTorch is looked for in LIBTORCH, Torch_DIR, the active Python and the cache, in this order', () => {
  const a = fakeLibTorch('a', [2, 13]);
  const b = fakeLibTorch('b', [2, 12]);
  const c = fakeLibTorch('c', [2, 11]);
  const d = fakeLibTorch('cache/torch-2.13.0/torch', [2, 13]);
  const places = {
    LIBTORCH: a,
    Torch_DIR: join(b, 'share/cmake/Torch'),
    LTH_BUILD_PYTHON: fakePython('python-c', `echo ${c}`),
    LTH_CACHE: join(folder, 'cache'),
  };
  const found = (variables: Record<string, string>) => JSON.parse(libtorch('find()', variables)).found.path;
  assert.equal(found(places), a);
  const { LIBTORCH, ...withoutA } = places;
  assert.equal(found(withoutA), b);
  const { Torch_DIR, ...withoutB } = withoutA;
  assert.equal(found(withoutB), c);
  assert.equal(found({ LTH_CACHE: places.LTH_CACHE }), d);
});

test('what the user names is refused where it does not fit; a torch too old of Python is passed over', () => {
  const old = fakeLibTorch('old', [2, 10]);
  assert.match(
    libtorch('find()', { LIBTORCH: old }),
    /is LibTorch 2\.10\.0; 2\.11 or newer is wanted\.\n.*unset/,
  );
  assert.match(libtorch('find()', { LIBTORCH: folder }), /there is no LibTorch/);
  assert.match(libtorch('find()', { Torch_DIR: folder }), /Torch_DIR .* there is no LibTorch/);
  const { found, looked } = JSON.parse(
    libtorch('find()', { LTH_BUILD_PYTHON: fakePython('python-old', `echo ${old}`) }),
  );
  assert.equal(found, null);
  assert.equal(looked.length, 4);
  assert.match(looked[2], /2\.10\.0 in .*, too old \(2\.11 or newer is wanted\)/);
});

// ----------------------------------------------------------------------------------- fetching LibTorch

/** pip as far as the install step knows it: `index` and `plain` are what its two installs do, in folder $to. */
function fakePip(name: string, index: string, plain: string, report: object): string {
  const answer = join(folder, `${name}.json`);
  writeFileSync(answer, JSON.stringify({ install: [report] }));
  return fakePython(
    name,
    `case "$*" in
      *--version) exit 0;;
      *--dry-run*) cat ${answer}; exit 0;;
    esac
    echo "$*" >> ${join(folder, `${name}.log`)}
    while [ "$1" != --target ]; do shift; done
    to=$2
    case "$*" in *--index-url*) ${index};; *) ${plain};; esac`,
  );
}

const give = () => `mkdir -p $to; cp -r ${fakeLibTorch('wheel', [2, 13])} $to/torch`;
const refuse = 'echo "ERROR: no network" >&2; exit 1';
const cpuWheel = {
  metadata: { version: '2.13.0+cpu' },
  download_info: { url: 'https://host/torch+cpu.whl' },
};
const cudaWheel = {
  metadata: {
    version: '2.13.0',
    requires_dist: ['nvidia-cudnn-cu13==9; platform_system == "Linux"', 'filelock'],
  },
  download_info: { url: 'https://host/torch.whl' },
};

test("LibTorch is fetched once, from PyTorch's CPU index first, then from pip's default index", () => {
  const LTH_CACHE = join(folder, 'fetched');
  const first = JSON.parse(
    libtorch('fetch(console.error)', {
      LTH_CACHE,
      LTH_BUILD_PYTHON: fakePip('pip-a', give(), refuse, cpuWheel),
    }),
  );
  assert.equal(first.source, "fetched from PyTorch's CPU index");
  assert.equal(first.path, join(LTH_CACHE, 'torch-2.13.0', 'torch'));
  assert.equal(JSON.parse(libtorch('find()', { LTH_CACHE })).found.source, 'fetched copy');
  assert.deepEqual(readdirSync(LTH_CACHE), ['torch-2.13.0']);

  const second = libtorch('fetch(console.error)', {
    LTH_CACHE: join(folder, 'fetched-b'),
    LTH_BUILD_PYTHON: fakePip('pip-b', refuse, give(), cpuWheel),
  });
  assert.equal(JSON.parse(second).source, "fetched from pip's default index");
  assert.match(readFileSync(join(folder, 'pip-b.log'), 'utf8').split('\n')[1] ?? '', /--no-deps/);
});

test('the CUDA build is not taken unless asked for, and then with its libraries', {
  skip: process.platform !== 'linux',
}, () => {
  const variables = {
    LTH_CACHE: join(folder, 'cuda'),
    LTH_BUILD_PYTHON: fakePip('pip-cuda', refuse, give(), cudaWheel),
  };
  assert.match(
    libtorch('fetch(console.error)', variables),
    /CUDA build.*\n.*torch\.whl\nType LTH_ALLOW_CUDA_WHEEL=1/,
  );
  assert.deepEqual(readdirSync(variables.LTH_CACHE), []);
  const log = join(folder, 'pip-cuda.log');
  rmSync(log);
  const allowed = libtorch('fetch(console.error)', { ...variables, LTH_ALLOW_CUDA_WHEEL: '1' });
  assert.equal(JSON.parse(allowed).source, "fetched from pip's default index");
  assert.doesNotMatch(readFileSync(log, 'utf8').trim().split('\n')[1] ?? '', /--no-deps/);
});

test('a fetch that cannot be says what was tried and what to type, and leaves nothing', () => {
  const LTH_CACHE = join(folder, 'nothing');
  const offline = libtorch('fetch(console.error)', {
    LTH_CACHE,
    LTH_BUILD_PYTHON: fakePip('pip-offline', `mkdir -p $to/torch; ${refuse}`, refuse, cpuWheel),
  });
  assert.match(offline, /CPU index: ERROR: no network\n.*default index: ERROR: no network\nSet LIBTORCH/);
  assert.deepEqual(readdirSync(LTH_CACHE), []);
  assert.match(
    libtorch('fetch(console.error)', {}),
    /pip of no-such-python.*does not run\.\nInstall Python 3 with pip/,
  );
});

test('copies that killed installs left half are never used, a damaged copy is replaced, old ones are swept', () => {
  const LTH_CACHE = join(folder, 'halves');
  mkdirSync(join(LTH_CACHE, 'torch-2.13.0', 'torch', 'lib'), { recursive: true });
  const old = join(LTH_CACHE, 'fetching-old');
  const young = join(LTH_CACHE, 'fetching-young');
  for (const half of [old, young]) mkdirSync(half);
  utimesSync(old, 1, 1);
  assert.equal(JSON.parse(libtorch('find()', { LTH_CACHE })).found, null);
  libtorch('fetch(console.error)', {
    LTH_CACHE,
    LTH_BUILD_PYTHON: fakePip('pip-c', give(), refuse, cpuWheel),
  });
  assert.notEqual(JSON.parse(libtorch('find()', { LTH_CACHE })).found, null);
  // The young one may be an install that is going on beside this one.
  assert.deepEqual(readdirSync(LTH_CACHE).sort(), ['fetching-young', 'torch-2.13.0']);
});

// --------------------------------------------------------------------------------------------- the rest

const hasDigits = (() => {
  try {
    createRequire(import.meta.url).resolve('mnist/package.json');
    return true;
  } catch {
    return false;
  }
})();

test('mnist-10k is made the same, byte for byte, with every fifth digit of a class in its test set', {
  skip: !hasDigits,
}, () => {
  const made = join(folder, 'mnist-10k');
  const script = join(packageRoot, 'scripts', 'make-mnist-10k.mjs');
  const child = spawnSync(process.execPath, [script, made], { encoding: 'utf8' });
  assert.equal(child.status, 0, child.stderr);
  const files = readdirSync(made);
  assert.equal(files.length, 4);
  const labels: Record<string, number[]> = {};
  for (const file of files) {
    const bytes = readFileSync(join(made, file));
    assert.deepEqual(bytes, readFileSync(join(packageRoot, 'data', 'mnist-10k', file)), file);
    if (!file.includes('labels')) continue;
    const counts = new Array<number>(10).fill(0);
    for (const label of gunzipSync(bytes).subarray(8)) counts[label] = (counts[label] ?? 0) + 1;
    labels[file.startsWith('train') ? 'train' : 'test'] = counts;
  }
  for (let digit = 0; digit < 10; digit++) {
    const [train = 0, held = 0] = [labels.train?.[digit], labels.test?.[digit]];
    assert.equal(held, Math.floor((train + held) / 5), `digit ${digit}`);
  }
});

test('the published package holds what an install needs, and nothing else', () => {
  const args = ['pack', '--dry-run', '--json', '--ignore-scripts'];
  const child = spawnSync('npm', args, { cwd: packageRoot, encoding: 'utf8' });
  assert.equal(child.status, 0, child.stderr);
  const packed = (JSON.parse(child.stdout)[0].files as { path: string }[]).map((file) => file.path);
  const wanted = [
    'bin/lth-train.js',
    'dist/lib/index.js',
    'dist/lib/index.d.ts',
    'dist/bench/kernels.js',
    'bench/reference/step.py',
    'bench/reference/kernels.py',
    'bench/masks/lenet-300-100.masks',
    'bench/masks/resnet-20.masks',
    'lib/recipe/recipes/quickstart.yaml',
    'native/addon/addon.cc',
    'native/data/idx.cc',
    'cmake/LibTorch.cmake',
    'CMakeLists.txt',
    'scripts/install.mjs',
    'examples/lottery.mjs',
    'scripts/libtorch.mjs',
    'data/mnist-10k/train-images-idx3-ubyte.gz',
    'LICENSE',
    'README.md',
    'CHANGELOG.md',
    'docs/gpu-status.md',
    'docs/benchmarks.md',
  ];
  for (const path of wanted) assert.ok(packed.includes(path), path);
  const kept =
    /^(bin|docs|examples|dist\/lib|dist\/bench|bench\/reference|bench\/masks|lib\/recipe\/recipes|native|cmake|scripts|data\/mnist-10k)\/|^[A-Za-z.]+$/;
  assert.deepEqual(
    packed.filter((path) => !kept.test(path) || path.startsWith('native/test')),
    [],
  );
  // What measures the package for its own developers alone.
  assert.deepEqual(
    packed.filter((path) => /^dist\/bench\/(boundary|checkpoint|soak)\b/.test(path)),
    [],
  );
});

test('package-lock.json names no host', () => {
  assert.doesNotMatch(readFileSync(join(packageRoot, 'package-lock.json'), 'utf8'), /"resolved"/);
});

/** Starts a quickstart that is stopped by `signals`, the first once it has begun; its exit code and stderr. */
async function interrupted(
  name: string,
  signals: NodeJS.Signals[],
): Promise<{ code: number | null; stderr: string }> {
  const out = join(folder, name);
  const child = spawn(process.execPath, [executable, 'run', 'quickstart', '--out', out], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    if (stderr === '') for (const signal of signals) child.kill(signal);
    stderr += text;
  });
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { code, stderr };
}

test('SIGUSR1, SIGTERM and SIGINT save and stop with exit code 75; the inspector stays closed', async () => {
  for (const signal of ['SIGUSR1', 'SIGTERM', 'SIGINT'] as const) {
    const { code, stderr } = await interrupted(signal, [signal]);
    assert.equal(code, 75, stderr);
    assert.doesNotMatch(stderr, /Debugger listening/);
    assert.ok(existsSync(join(folder, signal, 'recipe.yaml')));
  }
});

test('a second signal stops at once, with 130 or 143', async () => {
  const { code, stderr } = await interrupted('twice', ['SIGTERM', 'SIGINT']);
  // Which of two pending signals the kernel delivers first is its own affair.
  assert.ok(code === 130 || code === 143, `${code}: ${stderr}`);
});

test('a signal that comes before anything is loaded stops the run as well', async () => {
  const child = spawn(process.execPath, [executable, 'run', 'quickstart', '--out', join(folder, 'early')], {
    stdio: 'ignore',
    env: { ...process.env, NODE_OPTIONS: `--import=${earlySignal()}` },
  });
  assert.equal(await new Promise((resolve) => child.on('close', resolve)), 75);
});

/** A module that sends SIGTERM as soon as a listener for it is there. */
function earlySignal(): string {
  const path = join(folder, 'early-signal.mjs');
  writeFileSync(
    path,
    "process.on('newListener', (name) => { if (name === 'SIGUSR1') process.kill(process.pid, 'SIGTERM'); });",
  );
  return path;
}
