/** What the benchmarks of steps and of whole IMPs share: a session in training beside PyTorch's. */

import { tuningForMachine } from '../lib/experiment/tuning.js';
import type { DeviceMode, Precision } from '../lib/native/AddonTypes.js';
import { LthError } from '../lib/native/errors.js';
import { networkByName } from '../lib/networks/catalogue.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Dataset } from '../lib/session/Dataset.js';
import { Session } from '../lib/session/Session.js';
import { pythonWithTorch, type Summary, summary, threeDigits } from './helpers.js';
import { noise, Reference } from './pytorch.js';

export interface TrainingOptions {
  network: string;
  precision?: Precision;
  threads: number;
  batch?: number;
  optimiser?: 'sgd' | 'adam';
  rounds?: number;
  /** Updates of a round. */
  steps?: number;
  /** Of PyTorch's step; default: all, of which those far behind are left out after a first round. */
  variants: string[];
  device: string;
  deviceMode?: DeviceMode;
  reference: boolean;
  signal?: AbortSignal;
  onProgress?: (text: string) => void;
}

/** One state of the masks, both sides. */
export interface StepRow {
  /** Fraction of the prunable weights, and of the level where the masks are IMP's. */
  density: number;
  level: number | null;
  /** Milliseconds an update. */
  ms: Summary;
  pytorch: Record<string, Summary>;
  /** PyTorch's best variant, and how many times as fast as it we are: the median of the rounds' ratios. Null without PyTorch. */
  best: string | null;
  ratio: Summary | null;
}

export interface TrainingSettings {
  network: string;
  precision: Precision;
  threads: number;
  batch: number;
  optimiser: 'sgd' | 'adam';
  device: string;
  deviceMode: DeviceMode;
  rounds: number;
  steps: number;
  torch: string | null;
}

/** Both sides, ready to go. */
export class Trainings {
  private constructor(
    readonly settings: TrainingSettings,
    readonly network: CompiledNetwork,
    readonly session: Session,
    readonly reference: Reference | null,
    private readonly signal: AbortSignal | undefined,
  ) {}

  static async open(o: TrainingOptions): Promise<Trainings> {
    const description = networkByName(o.network);
    const network = CompiledNetwork.compile(description);
    const pictures = network.summary.products.some(({ type }) => type === 'conv');
    const optimiser = o.optimiser ?? (pictures ? 'sgd' : 'adam');
    const batch = o.batch ?? (pictures ? 128 : 60);
    const precision = o.precision ?? (pictures ? 'bf16' : 'fp32');
    const { threads, device, deviceMode = 'deterministic', variants, signal } = o;
    // As a run has it.
    const tuning =
      device === 'cpu' ? { tuning: await tuningForMachine(signal, (text) => o.onProgress?.(text)) } : {};
    const session = await Session.open({
      ...tuning,
      network,
      train: pictures ? await noise(description) : (await Dataset.open('mnist-10k')).train,
      batch,
      threads,
      precision,
      device,
      deviceMode,
      augment: pictures ? { crop: 4, flip: true } : null,
      optimiser:
        optimiser === 'adam'
          ? { type: 'adam', learningRate: 1.2e-3 }
          : { type: 'sgd', learningRate: 0.01, momentum: 0.9, weightDecay: pictures ? 1e-4 : 0 },
    });
    const { python, why } = o.reference ? pythonWithTorch() : { python: null, why: 'it was not asked for' };
    if (!python) o.onProgress?.(`PyTorch is left out: ${why}`);
    // Rounds long enough that what the other side left behind in caches and cores is no part of them.
    const steps = o.steps ?? (pictures ? 3 : 300);
    let reference: Reference | null = null;
    try {
      if (python)
        reference = await Reference.start(python, {
          network: o.network,
          shape: description.input,
          classes: description.classes,
          threads,
          batch,
          optimiser,
          variants,
          device,
        });
      if (reference && reference.variants.length === 0)
        throw new LthError('unsupported', 'None of the variants of PyTorch runs here; see above');
      if (reference && variants.length === 0) {
        const dropped = await reference.drop(steps);
        if (dropped.length > 0)
          o.onProgress?.(`far behind the best of PyTorch and not measured any more: ${dropped.join(', ')}`);
      }
    } catch (error) {
      // Its process would keep this one alive.
      reference?.stop();
      session.dispose();
      throw error;
    }
    const rounds = o.rounds ?? (pictures ? 5 : 9);
    const torch = reference?.torch ?? null;
    const settings = {
      network: o.network,
      precision,
      threads,
      batch,
      optimiser,
      device,
      deviceMode,
      rounds,
      steps,
      torch,
    };
    return new Trainings(settings, network, session, reference, signal);
  }

  /** Milliseconds an update. */
  async ours(updates: number): Promise<number> {
    const { end } = await this.session.trainToEnd({
      until: this.session.step + updates,
      metricsEvery: 0,
      evaluate: [],
      ends: false,
      ...(this.signal ? { signal: this.signal } : {}),
    });
    return (end.seconds * 1e3) / updates;
  }

  /** Both sides in turn, with the masks at hand. PyTorch multiplies masks of its own where some weights are pruned. */
  async measure(density: number, level: number | null): Promise<StepRow> {
    const { rounds, steps } = this.settings;
    const mine: number[] = [];
    const theirs = new Map<string, number[]>();
    await this.ours(Math.max(1, Math.ceil(steps / 3)));
    for (let round = 0; round < rounds; round++) {
      this.signal?.throwIfAborted();
      mine.push(await this.ours(steps));
      for (const variant of this.reference?.variants ?? []) {
        const time = await (this.reference as Reference).measure(variant, steps, density < 1);
        theirs.set(variant, [...(theirs.get(variant) ?? []), time]);
      }
    }
    const pytorch = Object.fromEntries([...theirs].map(([variant, times]) => [variant, summary(times)]));
    const [best = null] = [...theirs.keys()].sort(
      (a, b) => (pytorch[a] as Summary).median - (pytorch[b] as Summary).median,
    );
    const ratio =
      best === null
        ? null
        : summary((theirs.get(best) as number[]).map((time, round) => time / (mine[round] as number)));
    return { density, level, ms: summary(mine), pytorch, best, ratio };
  }

  close(): void {
    this.reference?.stop();
    this.session.dispose();
    this.network.dispose();
  }
}

export const percent = (value: number, digits = 3) => String(Number((value * 100).toPrecision(digits)));

export function describeTraining(s: TrainingSettings): string {
  const where = s.device === 'cpu' ? `${s.threads} threads` : `${s.device}, ${s.deviceMode}`;
  return `${s.network}, batch ${s.batch}, ${s.optimiser}, ${s.precision}, ${where}`;
}

export const describeDevice = ({ device }: TrainingSettings): string[] =>
  device === 'cpu' ? [] : ['on CUDA training is masked-dense: pruned weights save no time'];

/** `0.36 [0.35-0.37]` */
export const spread = ({ median, low, high }: Summary) =>
  `${threeDigits(median)} [${threeDigits(low)}-${threeDigits(high)}]`;
