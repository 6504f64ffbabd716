/**
 * One dense training step of LeNet-300-100 against PyTorch's best ways to make it (eager with the fused optimiser,
 * torch.compile), interleaved in one run: median of the rounds' ratios. Both sides gather a batch out of resident
 * bytes, normalise it, go forward and backward, update, and look at the loss.
 *
 *   npm run bench:step -- [--threads 2] [--batch 60] [--optimiser adam|sgd] [--rounds 25] [--steps 200] [--json]
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { parseArgs } from 'node:util';
import { CompiledNetwork, Dataset, Session } from '../lib/index.js';
import { packageRoot } from '../lib/package.js';
import { describe, pythonWithTorch, type Summary, setting, show, summary } from './helpers.js';

const { values } = parseArgs({
  options: {
    threads: { type: 'string', default: '2' },
    batch: { type: 'string', default: '60' },
    optimiser: { type: 'string', default: 'adam' },
    rounds: { type: 'string', default: '25' },
    steps: { type: 'string', default: '200' },
    json: { type: 'boolean', default: false },
  },
});
const [threads, batch, rounds, steps] = [values.threads, values.batch, values.rounds, values.steps].map(
  Number,
) as [number, number, number, number];
const adam = values.optimiser === 'adam';

/** PyTorch in a process of its own, asked for so many steps at a time. */
class Reference {
  private constructor(
    private readonly child: ChildProcessWithoutNullStreams,
    private readonly lines: AsyncIterator<string>,
    readonly variants: string[],
    readonly torch: string,
  ) {}

  static async start(): Promise<Reference> {
    const script = join(packageRoot, 'bench', 'reference', 'step.py');
    const child = spawn(pythonWithTorch(), [script, String(threads), String(batch), values.optimiser]);
    child.stderr.pipe(process.stderr);
    const reader: Interface = createInterface({ input: child.stdout });
    const lines = reader[Symbol.asyncIterator]();
    const first = await lines.next();
    if (first.done) throw new Error('PyTorch did not start, see above');
    const { variants, torch } = JSON.parse(first.value) as { variants: string[]; torch: string };
    return new Reference(child, lines, variants, torch);
  }

  /** Milliseconds a step, mean of `steps`. */
  async measure(variant: string): Promise<number> {
    this.child.stdin.write(`${JSON.stringify({ variant, steps })}\n`);
    const { ms } = JSON.parse((await this.lines.next()).value) as { ms: number[] };
    return ms.reduce((a, b) => a + b, 0) / ms.length;
  }

  stop(): void {
    this.child.stdin.end();
  }
}

const network = CompiledNetwork.compile('lenet-300-100');
const { train } = await Dataset.open('mnist-10k');
const session = await Session.open({
  network,
  train,
  batch,
  threads,
  optimiser: adam
    ? { type: 'adam', learningRate: 1.2e-3 }
    : { type: 'sgd', learningRate: 0.01, momentum: 0.9 },
});

async function ours(): Promise<number> {
  const { end } = await session.trainToEnd({
    until: session.step + steps,
    metricsEvery: 0,
    evaluate: [],
    ends: false,
  });
  return (end.seconds * 1e3) / steps;
}

const reference = await Reference.start();
const times: Record<string, number[]> = { 'lth-train': [] };
for (const variant of reference.variants) times[variant] = [];
await ours();
for (let round = 0; round < rounds; round++) {
  times['lth-train']?.push(await ours());
  for (const variant of reference.variants) times[variant]?.push(await reference.measure(variant));
}
reference.stop();

const mine = times['lth-train'] as number[];
const ms: Record<string, Summary> = {};
const ratio: Record<string, Summary> = {};
for (const [name, all] of Object.entries(times)) {
  ms[name] = summary(all);
  if (name !== 'lth-train') ratio[name] = summary(all.map((time, round) => time / (mine[round] as number)));
}
const least = Math.min(...Object.values(ratio).map((r) => r.median));
const result = {
  setting: setting(),
  torch: reference.torch,
  threads,
  batch,
  optimiser: values.optimiser,
  steps,
  ms,
  ratio,
  least,
};
if (values.json) {
  console.log(JSON.stringify(result));
} else {
  console.log(`LeNet-300-100, batch ${batch}, ${values.optimiser}, ${threads} threads: dense training step`);
  console.log(
    `${describe(result.setting)}, PyTorch ${reference.torch}; median [quartiles] of ${rounds} rounds`,
  );
  for (const [name, s] of Object.entries(ms)) {
    const faster = ratio[name] ? `   lth-train is ${show(ratio[name], 2)} times as fast` : '';
    console.log(`  ${name.padEnd(10)} ${show(s)} ms${faster}`);
  }
}
session.dispose();
