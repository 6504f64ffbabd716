import assert from 'node:assert/strict';
import { CompiledNetwork } from '../../lib/session/CompiledNetwork.js';
import { Dataset } from '../../lib/session/Dataset.js';
import { type OpenOptions, Session } from '../../lib/session/Session.js';
import type { Snapshot } from '../../lib/session/Snapshot.js';

/** A network whose tests run in milliseconds: 784-20-12-10. */
export const network = CompiledNetwork.compile('lenet-20-12');
export const { train, test } = await Dataset.open('mnist-10k');

export function openSession(options: Partial<OpenOptions> = {}): Promise<Session> {
  return Session.open({
    network,
    train,
    test,
    validation: 504,
    seed: 7,
    batch: 60,
    optimiser: { type: 'adam', learningRate: 1.2e-3 },
    threads: 1,
    ...options,
  });
}

/** Names of tensors whose bytes differ between two snapshots. */
export function differences(a: Snapshot, b: Snapshot): string[] {
  const other = b.tensors();
  const names = new Set([...a.tensors().keys(), ...other.keys()]);
  return [...names].filter((name) => {
    const x = a.tensors().get(name)?.values;
    const y = other.get(name)?.values;
    return !x || !y || Buffer.compare(bytesOf(x), bytesOf(y)) !== 0;
  });
}

export function bytesOf(values: ArrayBufferView): Buffer {
  return Buffer.from(values.buffer, values.byteOffset, values.byteLength);
}

/** || a - b || / || b || over all parameters. */
export function relativeDistance(a: Snapshot, b: Snapshot): number {
  let [difference, size] = [0, 0];
  for (const [name, { values }] of b.tensors()) {
    const other = a.tensors().get(name)?.values;
    assert.ok(other, name);
    for (let i = 0; i < values.length; i++) {
      difference += ((other[i] as number) - (values[i] as number)) ** 2;
      size += (values[i] as number) ** 2;
    }
  }
  return Math.sqrt(difference / size);
}
