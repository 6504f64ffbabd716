#!/usr/bin/env node
// Signal listeners first, before anything else is imported: a signal during start-up must save and stop too, and an
// unhandled SIGUSR1 would open Node's inspector. The command that runs takes over through `listener`.
const signals = { received: [], listener: null };
globalThis[Symbol.for('lth-train.signals')] = signals;
const SECOND = { SIGINT: 130, SIGTERM: 143, SIGUSR1: 143 };
for (const name of Object.keys(SECOND)) {
  process.on(name, () => {
    signals.received.push(name);
    if (signals.received.length > 1) process.exit(SECOND[name]);
    signals.listener?.(name);
  });
}

const { main } = await import('../dist/lib/cli/main.js').catch((error) => {
  if (error.code !== 'ERR_MODULE_NOT_FOUND' || !String(error.message).includes('dist')) throw error;
  console.error('lth-train: its TypeScript is not built; run `npm ci` in its folder.');
  process.exit(1);
});
process.exitCode = await main(process.argv.slice(2));
