import type { Bool, Vector } from 'apache-arrow';
import type { MasksHandle, OverlapResult } from '../native/AddonTypes.js';
import { checkInteger, checkNumber, checkOneOf, wrongValue } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { boolVector, pinned } from './arrow.js';
import type { CompiledNetwork } from './CompiledNetwork.js';
import { checkResource, Resource } from './Resource.js';
import { Snapshot } from './Snapshot.js';

export interface MaskView {
  shape: number[];
  /** Weights of the tensor, and how many of them remain. */
  size: number;
  remaining: number;
  /** One bit a weight, least significant first; the very memory the kernels read. */
  vector: Vector<Bool>;
}

export interface PruneOptions {
  /** Fraction of the remaining weights to remove, in (0, 1). Default 0.2. */
  fraction?: number;
  /** How often the count floor(fraction * remaining) is taken before choosing: n is one-shot to level n. Default 1. */
  levels?: number;
  /** One pool over all prunable tensors, or each for itself. Default "global". */
  pooling?: 'global' | 'layerwise';
  /** layerwise: other fractions by parameter name, e.g. { 'fc3.weight': 0.1 }. */
  rates?: Record<string, number>;
  /** The largest |w| go instead (the ablation "invert"). Default false. */
  highest?: boolean;
}

/** What two masks share, of one tensor or of all prunable ones. */
export interface OverlapCounts {
  /** Weights, and how many of them each mask keeps. */
  size: number;
  a: number;
  b: number;
  intersection: number;
  union: number;
  /** intersection / union; null where both are empty. */
  jaccard: number | null;
  /** Of random masks that keep as many of each tensor: expected intersection, and the Jaccard index at it. */
  chanceIntersection: number;
  chance: number | null;
}

export interface MaskOverlap extends OverlapCounts {
  layers: (OverlapCounts & { name: string })[];
}

function overlapOf({ size, a, b, intersection, union, chance }: OverlapResult): OverlapCounts {
  const ratio = (of: number, all: number) => (all === 0 ? null : of / all);
  return {
    size,
    a,
    b,
    intersection,
    union,
    jaccard: ratio(intersection, union),
    chanceIntersection: chance,
    chance: ratio(chance, a + b - chance),
  };
}

/** Which prunable weights remain: m of the subnetwork (W, m) (paper section 2). Immutable. */
export class Masks extends Resource<MasksHandle> {
  private views: Map<string, MaskView> | undefined;

  private constructor(
    handle: MasksHandle,
    readonly network: CompiledNetwork,
  ) {
    super(handle);
  }

  /** All weights remain. */
  static ones(network: CompiledNetwork): Masks {
    return new Masks(loadAddon().masksOnes(network.handle), network);
  }

  /** @throws LthError "io", "corrupt-file", "wrong-shape". */
  static async read(network: CompiledNetwork, path: string): Promise<Masks> {
    return new Masks(await loadAddon().masksRead(network.handle, path), network);
  }

  /** From packed bits (least significant first) for every prunable parameter by name. */
  static fromBits(network: CompiledNetwork, bits: Record<string, Uint8Array>): Masks {
    return new Masks(loadAddon().masksFromBits(network.handle, bits), network);
  }

  /**
   * Of the nested masks of levels 1, 2, ... of one IMP: a byte per prunable weight, tensor after tensor, the level at
   * which it was pruned; 0 where the last masks keep it.
   * @throws LthError "invalid-argument" where they are not nested, none, or more than 255.
   */
  static levels(masks: Masks[]): Promise<Uint8Array> {
    return loadAddon().masksLevels(masks.map((one) => checkResource(one, Masks, 'masks').handle));
  }

  /**
   * The masks of a level out of what `levels` gives; 0: all ones.
   * @throws LthError "wrong-shape" where there are not as many bytes as the network has prunable weights.
   */
  static async atLevel(network: CompiledNetwork, levels: Uint8Array, level: number): Promise<Masks> {
    checkInteger(level, 'level', 0, 255);
    return new Masks(await loadAddon().masksAtLevel(network.handle, levels, level), network);
  }

  /**
   * Magnitude pruning: of the weights that remain, the floor(fraction * remaining) smallest |w| go; ties by position.
   * @param weights of the trained subnetwork, W_T.
   * @throws LthError "diverged" where a remaining weight is not finite.
   */
  async prune(weights: Snapshot, options: PruneOptions = {}): Promise<Masks> {
    const { fraction = 0.2, levels = 1, pooling = 'global', rates = {}, highest = false } = options;
    for (const [name, rate] of [['fraction', fraction], ...Object.entries(rates)] as [string, number][]) {
      if (!(checkNumber(rate, name, 0, 1) > 0 && rate < 1))
        throw wrongValue('number between 0 and 1, both excluded,', name, rate);
    }
    checkResource(weights, Snapshot, 'weights');
    checkInteger(levels, 'levels', 1, 100_000);
    checkOneOf(pooling, 'pooling', ['global', 'layerwise']);
    return new Masks(
      await loadAddon().masksPrune(this.handle, weights.handle, {
        fraction,
        levels,
        pooling,
        rates,
        highest,
      }),
      this.network,
    );
  }

  /**
   * Pruning by scores (paper 4.2): of the weights that remain, those with the lowest scores go, or with `highest` the
   * highest, all tensors in one pool, until `remaining` are left; ties by position.
   * @param scores of Session.scores or Masks.randomScores.
   * @throws LthError "diverged" where a score is not finite, "wrong-shape" for what holds no scores.
   */
  async pruneByScores(scores: Snapshot, options: { remaining: number; highest?: boolean }): Promise<Masks> {
    checkResource(scores, Snapshot, 'scores');
    const remaining = checkInteger(options.remaining, 'remaining', 0, Number.MAX_SAFE_INTEGER);
    return new Masks(
      await loadAddon().masksPruneByScores(this.handle, scores.handle, remaining, options.highest ?? false),
      this.network,
    );
  }

  /** Scores of pruning at random over all layers: U(0,1) for each prunable weight. */
  static async randomScores(network: CompiledNetwork, seed: number, replicate: number): Promise<Snapshot> {
    checkInteger(seed, 'seed', 0, Number.MAX_SAFE_INTEGER);
    checkInteger(replicate, 'replicate', 0, 2 ** 32 - 1);
    return new Snapshot(await loadAddon().masksRandomScores(network.handle, seed, replicate));
  }

  /** The control "random": as many weights per tensor at random places, nested from level to level. */
  async random(seed: number, replicate: number): Promise<Masks> {
    checkInteger(seed, 'seed', 0, Number.MAX_SAFE_INTEGER);
    checkInteger(replicate, 'replicate', 0, 2 ** 32 - 1);
    return new Masks(await loadAddon().masksRandom(this.handle, seed, replicate), this.network);
  }

  /** Views by parameter name, over native memory; not transferable. */
  tensors(): ReadonlyMap<string, MaskView> {
    this.views ??= new Map(
      loadAddon()
        .masksTensors(this.handle)
        .map(({ name, shape, size, remaining, bits }) => [
          name,
          { shape, size, remaining, vector: boolVector(pinned(bits), size) },
        ]),
    );
    return this.views;
  }

  /** Fractions of the weights that remain: of the prunable ones, and of all weights (biases not counted). */
  get density(): { prunable: number; overall: number } {
    const { prunable, weights } = this.network.summary.counts;
    let remaining = 0;
    for (const tensor of this.tensors().values()) remaining += tensor.remaining;
    return {
      prunable: prunable === 0 ? 1 : remaining / prunable,
      overall: (weights - prunable + remaining) / weights,
    };
  }

  /** Is every weight of these masks also in `outer`? */
  nestedIn(outer: Masks): boolean {
    return loadAddon().masksNested(this.handle, checkResource(outer, Masks, 'outer').handle);
  }

  /** What these masks and others share, and what random ones would: of all prunable weights together, and by tensor. */
  overlap(other: Masks): MaskOverlap {
    const { layers, ...total } = loadAddon().masksOverlap(
      this.handle,
      checkResource(other, Masks, 'other').handle,
    );
    return { ...overlapOf(total), layers: layers.map((one) => ({ name: one.name, ...overlapOf(one) })) };
  }

  /** Entries of pruned places in a snapshot, weights and optimiser state, that are not exactly +0: there are none. */
  violations(snapshot: Snapshot): Promise<number> {
    return loadAddon().masksViolations(this.handle, checkResource(snapshot, Snapshot, 'snapshot').handle);
  }

  /** Writes a safetensors file of BOOL tensors: whole, synced, or not at all. */
  write(path: string, metadata: Record<string, string> = {}): Promise<void> {
    return loadAddon().masksWrite(this.handle, path, metadata);
  }

  /** Views that are held elsewhere keep the memory; what is kept here does not. */
  override dispose(): void {
    this.views = undefined;
    super.dispose();
  }
}
