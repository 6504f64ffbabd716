// What the scripts that run tests share.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** AddressSanitizer always brings the checks of undefined behaviour along. */
const sanitizers = { '': '', address: 'address', 'address,undefined': 'address', thread: 'thread' };

/** What --sanitize asks for, as LTH_SANITIZE of CMake has it; undefined where it is neither. */
export function sanitizer(option) {
  return sanitizers[option];
}

export function runs(command, ...args) {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}

/** The command under which programs of that sanitizer are to run, before their own. */
export function launcher(sanitize) {
  // GCC 12's ThreadSanitizer knows no address space as scattered as that of newer kernels.
  return sanitize === 'thread' && runs('setarch', '-R', 'true') ? ['setarch', '-R'] : [];
}

/** Compiled files of test/ with one of these parts in their names, all where there are none; none is an error. */
export function testFiles(wanted, script) {
  const folder = join(root, 'dist', 'test');
  const files = readdirSync(folder)
    .filter((name) => name.endsWith('.test.js'))
    .filter((name) => wanted.length === 0 || wanted.some((part) => name.includes(part)))
    .sort()
    .map((name) => join(folder, name));
  if (files.length === 0) {
    console.error(`${script}: no file of test/ has ${wanted.join(' or ')} in its name`);
    process.exit(2);
  }
  return files;
}
