/** The other side of the benchmarks: PyTorch in a process of its own. And pictures for both. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Dataset, type Network } from '../lib/index.js';
import { LthError } from '../lib/native/errors.js';
import { packageRoot } from '../lib/package.js';

/** A script of bench/reference that answers each line of JSON with one. */
export class PythonScript<First> {
  private constructor(
    private readonly child: ChildProcessWithoutNullStreams,
    private readonly lines: AsyncIterator<string>,
    private readonly name: string,
    private readonly end: () => void,
    /** What it said of itself. */
    readonly first: First,
  ) {}

  /** @param options the script's first line. @throws LthError "io" where it ends instead of answering. */
  static async start<First>(python: string, name: string, options: object): Promise<PythonScript<First>> {
    const script = join(packageRoot, 'bench', 'reference', name);
    const child = spawn(python, [script, JSON.stringify(options)]);
    // A signal may end this process while the script is in the middle of a measurement of minutes.
    const end = () => child.kill();
    process.on('exit', end);
    child.on('close', () => process.off('exit', end));
    child.on('error', () => {}); // then it ends without a line
    child.stdin.on('error', () => {});
    child.stderr.pipe(process.stderr);
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    return new PythonScript(child, lines, name, end, await answer<First>(lines, name));
  }

  ask<Answer>(request: object): Promise<Answer> {
    this.child.stdin.write(`${JSON.stringify(request)}\n`);
    return answer<Answer>(this.lines, this.name);
  }

  stop(): void {
    this.child.stdin.end();
    this.end();
  }
}

async function answer<Answer>(lines: AsyncIterator<string>, name: string): Promise<Answer> {
  const line = await lines.next();
  if (line.done) throw new LthError('io', `bench/reference/${name} ended without an answer; see above`);
  return JSON.parse(line.value) as Answer;
}

export interface ReferenceOptions {
  network: string;
  /** Of an example: channels, height, width. */
  shape: readonly number[];
  classes: number;
  threads: number;
  batch: number;
  optimiser: string;
  /** Default: all that the network has on the device. */
  variants: string[];
  device: string;
}

/** PyTorch's training steps, asked for so many at a time. */
export class Reference {
  private constructor(
    private readonly script: PythonScript<{ variants: string[]; torch: string }>,
    /** Those that run here. */
    public variants: string[],
  ) {}

  static async start(python: string, options: ReferenceOptions): Promise<Reference> {
    const script = await PythonScript.start<{ variants: string[]; torch: string }>(
      python,
      'step.py',
      options,
    );
    return new Reference(script, script.first.variants);
  }

  get torch(): string {
    return this.script.first.torch;
  }

  /**
   * Milliseconds a step, mean of `steps`.
   * @param masked multiply masks into the weights after each step, as who trains a pruned network must.
   */
  async measure(variant: string, steps: number, masked: boolean): Promise<number> {
    const { ms } = await this.script.ask<{ ms: number[] }>({ variant, steps, masked });
    return ms.reduce((a, b) => a + b, 0) / ms.length;
  }

  /** Variants that take more than 1.5 times as long as the best one need not be asked again. @returns those. */
  async drop(steps: number): Promise<string[]> {
    const times = new Map<string, number>();
    for (const variant of this.variants) times.set(variant, await this.measure(variant, steps, false));
    const best = Math.min(...times.values());
    const slow = this.variants.filter((variant) => (times.get(variant) as number) > 1.5 * best);
    this.variants = this.variants.filter((variant) => !slow.includes(variant));
    return slow;
  }

  stop(): void {
    this.script.stop();
  }
}

/**
 * Pictures of noise: a step's time does not depend on what they show. As many as CIFAR-10 has, of large ones as many as have
 * the same bytes.
 */
export function noise(network: Network): Promise<Dataset> {
  const { input: shape, classes } = network;
  const size = shape.reduce((product, extent) => product * extent, 1);
  const count = Math.min(50_000, Math.floor((50_000 * 3072) / size));
  const labels = Int32Array.from({ length: count }, (_, n) => n % classes);
  return Dataset.fromBytes(randomFillSync(new Uint8Array(count * size)), labels, { shape, classes });
}
