import type { DistanceResult, SnapshotHandle } from '../native/AddonTypes.js';
import { checkNumber, checkOneOf } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { type FloatVector, floatVector, pinned } from './arrow.js';
import type { CompiledNetwork } from './CompiledNetwork.js';
import { Masks } from './Masks.js';
import { checkResource, Resource } from './Resource.js';

/** Between two snapshots, of all tensors that count together and of each. */
export interface SnapshotDistance extends DistanceResult {
  layers: (DistanceResult & { name: string })[];
}

export interface SnapshotView {
  /** "parameter", what the optimiser remembers of it, "buffer": running statistics of batch norm; or the "average" of either. */
  role: 'parameter' | 'optimiser' | 'buffer' | 'average';
  shape: number[];
  /** All elements in row-major order, over native memory. */
  values: Float32Array | Float64Array;
  /** The same memory as an Arrow vector. */
  vector: FloatVector;
}

/**
 * Everything that rewinding restores, at one step (paper 1.3): parameters, their moving averages where the session keeps
 * some, optimiser state, step. Pruning and distances look at the parameters, not at averages. Immutable. Views
 * read native memory without a copy, survive `dispose` and cannot be transferred to another thread.
 */
export class Snapshot extends Resource<SnapshotHandle> {
  /** Updates done when it was taken. */
  readonly step: number;
  private views: Map<string, SnapshotView> | undefined;

  /** For this package's own use: see Session.snapshot and Snapshot.read. */
  constructor(handle: SnapshotHandle) {
    super(handle);
    this.step = loadAddon().snapshotInfo(handle).step;
  }

  /** Bytes of native memory. */
  get bytes(): number {
    return loadAddon().snapshotInfo(this.handle).bytes;
  }

  /** Views by name: "fc1.weight" (K,C), "fc1.bias" (K), and "momentum.fc1.weight" and its kin, "average.fc1.weight". */
  tensors(): ReadonlyMap<string, SnapshotView> {
    this.views ??= new Map(
      loadAddon()
        .snapshotTensors(this.handle)
        .map(({ name, role, shape, dtype, data }) => {
          const buffer = pinned(data);
          const values = dtype === 'fp32' ? new Float32Array(buffer) : new Float64Array(buffer);
          return [name, { role, shape, values, vector: floatVector(buffer, dtype) }];
        }),
    );
    return this.views;
  }

  /**
   * Writes a safetensors file: whole, synced, or not at all.
   * @param options.optimiser leave out what the optimiser remembers where nobody will train on. Default true.
   */
  write(
    path: string,
    metadata: Record<string, string> = {},
    options: { optimiser?: boolean } = {},
  ): Promise<void> {
    return loadAddon().snapshotWrite(this.handle, path, metadata, options.optimiser ?? true);
  }

  /** @throws LthError "io", "corrupt-file", or "wrong-shape" where the file belongs to another network. */
  static async read(network: CompiledNetwork, path: string): Promise<Snapshot> {
    return new Snapshot(await loadAddon().snapshotRead(network.handle, path));
  }

  /**
   * Parameters and running statistics that another program trained: a PyTorch module's state dict as a safetensors file,
   * tensor by tensor by name, in F64, F32, F16 or BF16. `resnet50` and the other networks of ImageNet have torchvision's names.
   * At step 0 and without optimiser state: `session.load(snapshot, { optimiser: 'zero' })`. Names may all begin with "module.";
   * `num_batches_tracked` is left out.
   * @throws LthError "io", "corrupt-file", or "wrong-shape", which names tensors that are missing, of another shape or unknown.
   */
  static async fromStateDict(network: CompiledNetwork, path: string): Promise<Snapshot> {
    return new Snapshot(await loadAddon().snapshotFromStateDict(network.handle, path));
  }

  /**
   * How far two copies are apart (paper section 2 and appendix B): the L2 norm of m*a - m*b, and the angle between m*a
   * and m*b in degrees, null where one of the two is a zero vector. Symmetric in every bit; exactly 0 and 0 between
   * snapshots of the same bits.
   * @param masks m of both; `Masks.ones` for dense networks.
   * @param options.scope "masked": prunable tensors (default); "all": every trainable tensor, masked where prunable.
   * @throws LthError "wrong-shape", or "diverged" where a weight that counts is not finite.
   */
  async distance(
    other: Snapshot,
    masks: Masks,
    options: { scope?: 'masked' | 'all' } = {},
  ): Promise<SnapshotDistance> {
    const scope = checkOneOf(options.scope ?? 'masked', 'scope', ['masked', 'all']);
    checkResource(masks, Masks, 'masks');
    return loadAddon().snapshotDistance(
      this.handle,
      checkResource(other, Snapshot, 'other').handle,
      masks.handle,
      scope,
    );
  }

  /**
   * The point (1 - alpha) * this + alpha * other on the line between two snapshots, over all parameters and running
   * statistics, and between moving averages where both have them, without optimiser state; at alpha 0 and 1 exactly the
   * parameters of the one and the other.
   * @throws LthError "wrong-shape".
   */
  async interpolate(other: Snapshot, alpha: number): Promise<Snapshot> {
    checkNumber(alpha, 'alpha', 0, 1);
    return new Snapshot(
      await loadAddon().snapshotInterpolate(
        this.handle,
        checkResource(other, Snapshot, 'other').handle,
        alpha,
      ),
    );
  }

  /** Views that are held elsewhere keep the memory; what is kept here does not. */
  override dispose(): void {
    this.views = undefined;
    super.dispose();
  }
}
