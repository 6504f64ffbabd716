/** The other side of the benchmarks of steps, and pictures for both. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { Dataset } from '../lib/index.js';
import { packageRoot } from '../lib/package.js';
import { pythonWithTorch } from './helpers.js';

export interface ReferenceOptions {
  network: string;
  threads: number;
  batch: number;
  optimiser: string;
  /** Between commas; default: all that the network has. */
  variants?: string;
  device?: string;
}

/** PyTorch in a process of its own, asked for so many steps at a time. */
export class Reference {
  private constructor(
    private readonly child: ChildProcessWithoutNullStreams,
    private readonly lines: AsyncIterator<string>,
    readonly variants: string[],
    readonly torch: string,
  ) {}

  static async start(o: ReferenceOptions): Promise<Reference> {
    const script = join(packageRoot, 'bench', 'reference', 'step.py');
    const child = spawn(pythonWithTorch(), [
      script,
      o.network,
      String(o.threads),
      String(o.batch),
      o.optimiser,
      o.variants ?? '',
      o.device ?? 'cpu',
    ]);
    child.stderr.pipe(process.stderr);
    const reader: Interface = createInterface({ input: child.stdout });
    const lines = reader[Symbol.asyncIterator]();
    const first = await lines.next();
    if (first.done) throw new Error('PyTorch did not start, see above');
    const { variants, torch } = JSON.parse(first.value) as { variants: string[]; torch: string };
    return new Reference(child, lines, variants, torch);
  }

  /** Milliseconds a step, mean of `steps`. */
  async measure(variant: string, steps: number): Promise<number> {
    this.child.stdin.write(`${JSON.stringify({ variant, steps })}\n`);
    const { ms } = JSON.parse((await this.lines.next()).value) as { ms: number[] };
    return ms.reduce((a, b) => a + b, 0) / ms.length;
  }

  stop(): void {
    this.child.stdin.end();
  }
}

/** As many pictures as CIFAR-10 has, of noise: a step's time does not depend on what they show. */
export async function noise(): Promise<Dataset> {
  const folder = mkdtempSync(join(tmpdir(), 'lth-bench-'));
  try {
    for (const name of [1, 2, 3, 4, 5].map((n) => `data_batch_${n}.bin`).concat('test_batch.bin')) {
      const records = randomFillSync(Buffer.alloc(10_000 * 3073));
      for (let n = 0; n < 10_000; n++) records[n * 3073] = n % 10;
      writeFileSync(join(folder, name), records);
    }
    return (await Dataset.open('cifar-10', folder)).train;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
