// npm run fuzz -- [TARGET [COUNT [FIRST]]]     e.g. recipe 1 4711 repeats input 4711
// npm run fuzz -- --keep TARGET COUNT          adds to the corpus what reaches something new
import { fuzz, keepNew } from './fuzz.js';
import { targets } from './targets.js';

const [name, ...numbers] = process.argv.slice(2);
if (name === '--keep') {
  await keepNew(numbers[0] ?? '', Number(numbers[1] ?? 20_000));
} else {
  for (const target of name ? [name] : Object.keys(targets)) {
    const began = performance.now();
    const { inputs, accepted, outcomes, peak } = await fuzz(
      target,
      Number(numbers[0] ?? 20_000),
      Number(numbers[1] ?? 0),
    );
    if (process.env.LTH_FUZZ_OUTCOMES)
      for (const [outcome, n] of [...outcomes].sort()) console.log(String(n).padStart(9), outcome);
    const seconds = ((performance.now() - began) / 1000).toFixed(0);
    console.log(
      `${target}: ${inputs} inputs, ${outcomes.size} outcomes, ${accepted} accepted, ${seconds} s, peak ${peak} MiB`,
    );
  }
}
