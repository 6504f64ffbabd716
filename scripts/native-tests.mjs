// Builds and runs native/test: the native rooms that are standard C++ alone, with neither Node nor LibTorch.
//   node scripts/native-tests.mjs [--sanitize=address,undefined | --sanitize=thread] [name of a test ...]
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { launcher, root, runs, sanitizer } from './testing.mjs';

const { values, positionals } = parseArgs({
  options: { sanitize: { type: 'string', default: '' } },
  allowPositionals: true,
});
const sanitize = sanitizer(values.sanitize);
if (sanitize === undefined) {
  console.error(`native tests: --sanitize is address,undefined or thread, not ${values.sanitize}`);
  process.exit(2);
}

function run(command, args, options = {}) {
  const result = spawnSync(command, args, {
    stdio: ['ignore', 'inherit', 'inherit'],
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    ...options,
  });
  if (result.error) console.error(`native tests: ${command} does not run: ${result.error.message}`);
  if (result.status === 0) return;
  // What was kept back because it is of interest only now.
  if (result.stdout) process.stderr.write(result.stdout);
  process.exit(result.status || 1);
}

const build = join(root, 'build', sanitize ? `native-test-${sanitize}` : 'native-test');
const cached = runs('ccache', '--version') ? ['-DCMAKE_CXX_COMPILER_LAUNCHER=ccache'] : [];
const generator = runs('ninja', '--version') ? ['-G', 'Ninja'] : [];
run(
  'cmake',
  ['-S', join(root, 'native', 'test'), '-B', build, `-DLTH_SANITIZE=${sanitize}`, ...generator, ...cached],
  {
    stdio: ['ignore', 'pipe', 'inherit'],
  },
);
run('cmake', ['--build', build, '--parallel', String(availableParallelism())], {
  stdio: ['ignore', 'pipe', 'inherit'],
});
const which = positionals.length > 0 ? ['-R', positionals.join('|')] : [];
const ctest = ['ctest', '--output-on-failure', '--parallel', String(availableParallelism()), ...which];
const [command, ...args] = [...launcher(sanitize), ...ctest];
console.log(`native tests${sanitize ? ` (${values.sanitize} sanitizer)` : ''}`);
run(command, args, { cwd: build });
