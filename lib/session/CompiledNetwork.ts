import type { NetworkHandle, NetworkSummary } from '../native/AddonTypes.js';
import { loadAddon } from '../native/load.js';
import { networkByName } from '../networks/catalogue.js';
import type { Network } from '../networks/Network.js';
import { resolveNetwork } from '../networks/validate.js';
import { Resource } from './Resource.js';

/** A network description compiled to a parameter layout and a plan of operations. Immutable. */
export class CompiledNetwork extends Resource<NetworkHandle> {
  readonly summary: NetworkSummary;

  private constructor(handle: NetworkHandle) {
    super(handle);
    this.summary = loadAddon().networkSummary(handle);
  }

  /**
   * @param network a catalogue name ("lenet-300-100") or a description of one's own.
   * @throws LthError "invalid-argument" for a malformed description, "wrong-shape" where its layers do not fit.
   */
  static compile(network: string | Network): CompiledNetwork {
    const description = typeof network === 'string' ? networkByName(network) : network;
    return new CompiledNetwork(loadAddon().networkCompile(resolveNetwork(description)));
  }
}
