// npm test: the native tests, then those of test/, compiled in dist/. Node's runner has the last word.
//   npm test -- 25-bitwise 26-experiment      only these files of test/
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { root, testFiles } from './testing.mjs';

const wanted = process.argv.slice(2);
const files = testFiles(wanted, 'npm test');

function run(args) {
  return (
    spawnSync(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit'], cwd: root }).status ?? 1
  );
}

// A failure there does not hide what the other tests say.
const native = wanted.length === 0 ? run([join(root, 'scripts', 'native-tests.mjs')]) : 0;
const tests = run(['--test', '--test-reporter=spec', ...files]);
if (native !== 0) console.error('npm test: the native tests FAILED, see above');
process.exit(native || tests);
