// Runs test/ over an addon that is built with sanitizers: what executors, sessions and the binding do beside LibTorch and
// Node, which native/test cannot see.
//   node scripts/addon-tests.mjs --sanitize=address,undefined | --sanitize=thread [part of a test file's name ...]
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { launcher, root, sanitizer, testFiles } from './testing.mjs';

const { values, positionals } = parseArgs({
  options: { sanitize: { type: 'string', default: '' } },
  allowPositionals: true,
});
const sanitize = sanitizer(values.sanitize);
if (!sanitize) {
  console.error(`addon tests: --sanitize is address,undefined or thread, not "${values.sanitize}"`);
  process.exit(2);
}
const files = testFiles(positionals, 'addon tests');

const build = join(root, 'build', `addon-${sanitize}`);
const install = [join(root, 'scripts', 'install.mjs'), '--native', `--sanitize=${sanitize}`];
const built = spawnSync(process.execPath, install, { stdio: ['ignore', 'inherit', 'inherit'] });
if (built.status !== 0) process.exit(built.status || 1);

/** Node is built without sanitizers: their runtime has to be there before it. */
function runtime() {
  const name = `lib${sanitize === 'address' ? 'a' : 't'}san.so`;
  const { stdout } = spawnSync(process.env.CXX || 'c++', [`-print-file-name=${name}`], { encoding: 'utf8' });
  const path = stdout?.trim() ?? '';
  // The compiler gives the bare name back where it has no such file.
  if (path.includes('/')) return path;
  console.error(`addon tests: ${process.env.CXX || 'c++'} has no ${name} (they need GCC's)`);
  return process.exit(1);
}

// One file for each process that something was found in: children end in silence, and some are meant to fail.
mkdirSync(build, { recursive: true });
const reports = mkdtempSync(join(build, 'reports-'));
const report = `log_path=${join(reports, sanitize)}`;
const options = {
  address: {
    // No leaks: what JavaScript holds it holds from V8's heap, where LeakSanitizer does not look, and nobody frees it when
    // the process ends. `npm run soak` looks for growth.
    // No memory is an answer that the addon has to live with, as with the usual malloc.
    // Tests bound memory: less of what was freed is held back than by default (256 MB).
    // abort: std::terminate and the assertions of the C++ library are found in children as well.
    ASAN_OPTIONS: `detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=64:handle_abort=1:detect_stack_use_after_return=1:${report}`,
    // The runtime of undefined behaviour writes its one line to stderr, wherever log_path points, and takes that path away
    // from AddressSanitizer unless it is given the same. Where it aborts, AddressSanitizer writes the report.
    UBSAN_OPTIONS: `abort_on_error=1:${report}`,
  },
  thread: {
    // LibTorch, OpenMP and Node are not instrumented: what they do to memory is not looked at.
    TSAN_OPTIONS: `ignore_noninstrumented_modules=1:${report}`,
  },
};
const [command, ...args] = [
  ...launcher(sanitize),
  process.execPath,
  '--test',
  '--test-reporter=spec',
  ...files,
];
const tests = spawnSync(command, args, {
  stdio: ['ignore', 'inherit', 'inherit'],
  cwd: root,
  env: {
    ...process.env,
    ...options[sanitize],
    LD_PRELOAD: [runtime(), process.env.LD_PRELOAD].filter(Boolean).join(' '),
    LTH_ADDON: join(build, 'lth_train.node'),
  },
});

const found = readdirSync(reports);
for (const name of found) console.error(`\n${readFileSync(join(reports, name), 'utf8')}`);
if (found.length === 0) rmSync(reports, { recursive: true });
console.error(
  found.length === 0
    ? `addon tests (${values.sanitize} sanitizer): nothing found`
    : `addon tests (${values.sanitize} sanitizer): FOUND something in ${found.length} processes, see above or ${reports}`,
);
process.exit(found.length > 0 ? 1 : (tests.status ?? 1));
