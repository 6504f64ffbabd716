import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { MessageChannel } from 'node:worker_threads';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Masks } from '../lib/session/Masks.js';
import type { Session } from '../lib/session/Session.js';
import { bytesOf, network, openSession } from './helpers/digits.js';

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc') as () => void;

async function collect(): Promise<void> {
  for (let i = 0; i < 5; i++) {
    gc();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

const large = () =>
  CompiledNetwork.compile({
    name: 'large',
    input: [1, 28, 28],
    classes: 10,
    layers: [
      { name: 'flatten', type: 'flatten' },
      { name: 'wide', type: 'linear', units: 32_000 },
      { name: 'relu', type: 'relu' },
      { name: 'out', type: 'linear', units: 10 },
    ],
  });

test('a tensor of 25 million weights becomes an Arrow vector without growth of memory', async () => {
  const session = await openSession({ network: large(), optimiser: { type: 'sgd', learningRate: 0.1 } });
  const snapshot = await session.snapshot();
  await collect();
  const before = process.memoryUsage.rss();
  const view = snapshot.tensors().get('wide.weight');
  assert.equal(view?.vector.length, 32_000 * 784);
  assert.equal(
    view?.vector.toArray().buffer,
    view?.values.buffer,
    'vector and values look at the same memory',
  );
  assert.ok(process.memoryUsage.rss() - before < 4 * 2 ** 20);
  session.dispose();
});

test('views of snapshots, masks and metrics survive dispose and garbage collection', async () => {
  let session: Session | undefined = await openSession();
  const { batches } = await session.trainToEnd({ until: 10, metricsEvery: 1 });
  const losses = batches.map((batch) => batch.getChild('loss'));
  const copies = losses.map((loss) => loss?.toJSON());
  const snapshot = await session.snapshot();
  const view = snapshot.tensors().get('fc1.weight');
  assert.ok(view);
  const values = view.values;
  const copy = Buffer.from(bytesOf(values));
  const masks = await Masks.ones(network).prune(snapshot, { fraction: 0.5 });
  const bits = masks.tensors().get('fc1.weight')?.vector;
  const bitsCopy = [...(bits?.data[0]?.values ?? [])];
  session.dispose();
  snapshot.dispose();
  masks.dispose();
  session = undefined;
  for (let i = 0; i < 20; i++) {
    const other = await openSession({ seed: i });
    (await other.snapshot()).tensors();
    other.dispose();
    await collect();
  }
  assert.equal(Buffer.compare(copy, bytesOf(values)), 0);
  assert.deepEqual([...(bits?.data[0]?.values ?? [])], bitsCopy);
  assert.deepEqual(
    losses.map((loss) => loss?.toJSON()),
    copies,
  );
});

test('native memory is freed when its views are collected', async () => {
  const session = await openSession({ network: large(), optimiser: { type: 'sgd', learningRate: 0.1 } });
  const use = async () => {
    const snapshot = await session.snapshot(); // 100 MB
    assert.ok(snapshot.tensors().size > 0);
    snapshot.dispose();
  };
  for (let i = 0; i < 3; i++) await use();
  await collect();
  const before = process.memoryUsage.rss();
  for (let i = 0; i < 20; i++) {
    await use();
    await collect();
  }
  assert.ok(process.memoryUsage.rss() - before < 200 * 2 ** 20);
  session.dispose();
});

test('views cannot be transferred to another thread', async () => {
  const session = await openSession();
  const { batches } = await session.trainToEnd({ until: 5, metricsEvery: 1 });
  const snapshot = await session.snapshot();
  const masks = Masks.ones(network);
  const buffers = [
    snapshot.tensors().get('fc1.weight')?.values.buffer,
    masks.tensors().get('fc1.weight')?.vector.data[0]?.values.buffer,
    batches[0]?.getChild('loss')?.data[0]?.values.buffer,
  ] as ArrayBuffer[];
  for (const buffer of buffers) {
    const bytes = Buffer.from(buffer.slice(0));
    const { port1, port2 } = new MessageChannel();
    // Node 20 sends a copy instead, later versions throw: either way the memory stays here.
    try {
      port1.postMessage(buffer, [buffer]);
      const [received] = await once(port2, 'message');
      assert.notEqual(received, buffer);
    } catch (error) {
      assert.equal((error as Error).name, 'DataCloneError');
    }
    port1.close();
    assert.equal(buffer.byteLength, bytes.length, 'not detached');
    assert.equal(Buffer.compare(bytes, Buffer.from(buffer)), 0);
  }
  session.dispose();
});

test('a snapshot does not change when its session trains on', async () => {
  const session = await openSession();
  await session.trainToEnd({ until: 5 });
  const snapshot = await session.snapshot();
  const values = snapshot.tensors().get('fc2.weight')?.values as Float32Array;
  const copy = Buffer.from(bytesOf(values));
  await session.trainToEnd({ until: 20 });
  assert.equal(Buffer.compare(copy, bytesOf(values)), 0);
  session.dispose();
});
