/** What the catalogue's networks make of a batch, beside plain torch.nn modules that load our snapshots by name. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { networkByName } from '../../lib/networks/catalogue.js';
import type { Network } from '../../lib/networks/Network.js';
import { CompiledNetwork } from '../../lib/session/CompiledNetwork.js';
import { Dataset } from '../../lib/session/Dataset.js';
import { type OpenOptions, Session } from '../../lib/session/Session.js';
import type { Snapshot } from '../../lib/session/Snapshot.js';
import { ask } from './python.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-torch-'));
after(() => rmSync(folder, { recursive: true }));

/** Pictures with structure at several scales, that differ from one another; the numbers are the same every time. */
function drawn(count: number, channels: number, size: number): Buffer {
  const bytes = Buffer.alloc(count * channels * size * size);
  for (let i = 0; i < bytes.length; i++) {
    const [x, y] = [i % size, Math.floor(i / size) % size];
    const plane = Math.floor(i / (size * size));
    const [c, n] = [plane % channels, Math.floor(plane / channels)];
    const wave = Math.sin((x * (n + 1)) / 7 + c) * Math.cos((y * (c + 2)) / (3 + n));
    bytes[i] = Math.round(127.5 + 90 * wave + 30 * Math.sin(i * 12.9898));
  }
  return bytes;
}

/** A data set of as many of the pictures as there are labels, of ten classes. */
export function dataset(images: Buffer, labels: number[], shape = [3, 32, 32]): Promise<Dataset> {
  const size = shape.reduce((product, extent) => product * extent, labels.length);
  return Dataset.fromBytes(images.subarray(0, size), Int32Array.from(labels), { shape, classes: 10 });
}

export interface Pictures {
  count: number;
  shape: [channels: number, height: number, width: number];
  images: Buffer;
  labels: number[];
  train: Dataset;
  /** Where the bytes are for Python. */
  file: string;
}

export async function pictures(count: number, channels = 3, size = 32): Promise<Pictures> {
  const images = drawn(count, channels, size);
  const labels = Array.from({ length: count }, (_, i) => (i * 7 + 3) % 10);
  const file = join(folder, `pictures-${count}-${channels}-${size}`);
  writeFileSync(file, images);
  const shape: Pictures['shape'] = [channels, size, size];
  return { count, shape, images, labels, train: await dataset(images, labels, shape), file };
}

interface Answer {
  names: string[];
  loss: number;
  correct: number;
  gradients: Record<string, number>;
  statistics: Record<string, number>;
  probabilities: number[][];
  alone: number[][];
}

export const open = (
  { train, count }: Pictures,
  options: Partial<OpenOptions> & Pick<OpenOptions, 'network'>,
) =>
  Session.open({
    ...{ train, batch: count, seed: 3, threads: 2 },
    optimiser: { type: 'sgd', learningRate: 0.02, momentum: 0.9 },
    ...options,
  });

export const close = (a: number, b: number, limit: number, what: string) =>
  assert.ok(Math.abs(a - b) <= limit * Math.max(1, Math.abs(b)), `${what}: ${a} and ${b}`);

export type Executor = 'direct' | 'autograd';
type Precision = 'fp32' | 'fp64';

export interface Asked {
  /** Of the catalogue, or what to call the description. */
  name: string;
  description?: Network;
  pictures: Pictures;
  /** The module, and what it is made with. */
  reference: Record<string, unknown>;
  executor: Executor;
  dtype: Precision;
  replicate?: number;
  /** Pictures that are batches of their own, too. */
  alone?: number[];
}

/** What a network's executors make of one batch, in files, and what PyTorch is asked for. */
async function requestOf({ name, description, executor, dtype, replicate = 0, ...asked }: Asked) {
  const { file, labels, train, shape } = asked.pictures;
  const network = CompiledNetwork.compile(description ?? networkByName(name));
  const session = await open(asked.pictures, { network, executor, precision: dtype, replicate });
  // Off the initialisation, where running statistics, scales and shifts are those of nobody.
  await session.trainToEnd({ until: 1, evaluate: [] });
  const what = `${name}, ${executor}, ${dtype}, replicate ${replicate}`;
  const write = async (snapshot: Snapshot, part: string) => {
    const path = join(folder, `${what} ${part}.safetensors`);
    await snapshot.write(path, {}, { optimiser: false });
    return path;
  };
  const state = await session.snapshot();
  const weights = await write(state, 'weights');
  const { loss, correct, gradients } = await session.gradients(1);
  const evaluation = await session.evaluate('train');
  const rows = [...session.batchIndices(1)];
  await session.trainToEnd({ until: 2, evaluate: [] });
  const request = {
    network: asked.reference,
    ...{ dtype, weights, pictures: file, shape, labels },
    gradients: await write(gradients, 'gradients'),
    after: await write(await session.snapshot(), 'after'),
    ...{ mean: train.info.mean, std: train.info.std, train: rows },
    ...{ evaluate: labels.map((_, i) => i), alone: asked.alone ?? [] },
  };
  session.dispose();
  const parameters = [...gradients.tensors()].filter(([, { role }]) => role === 'parameter');
  const names = parameters.map(([one]) => one);
  return { what, network, executor, dtype, labels, state, request, loss, correct, names, evaluation };
}

const limits = { fp64: 1e-9, fp32: 1e-5 };

/**
 * Loss, gradients of every parameter, running statistics after an update, and the loss in eval mode. Gradients in single
 * precision are left to the caller: a sum that is zero but for rounding may open a ReLU here and close it there.
 */
export async function compare(asked: Asked[]) {
  const ours = [];
  for (const one of asked) ours.push(await requestOf(one));
  const answers = ask<Answer[]>(
    'torch_networks.py',
    ours.map(({ request }) => request),
  );
  return ours.map((mine, i) => {
    const theirs = answers[i] as Answer;
    const { what, dtype, labels, loss, correct, evaluation, names } = mine;
    const limit = limits[dtype];
    assert.deepEqual([...theirs.names].sort(), [...names].sort(), what);
    close(loss, theirs.loss, limit, `${what}, loss`);
    assert.equal(correct, theirs.correct, what);
    assert.equal(Object.keys(theirs.gradients).length, names.length);
    for (const part of dtype === 'fp64' ? (['gradients', 'statistics'] as const) : (['statistics'] as const))
      for (const [one, distance] of Object.entries(theirs[part]))
        assert.ok(distance <= limit, `${what}, ${part} of ${one}: ${distance}`);
    const losses = theirs.probabilities.map((p, n) => -(p[labels[n] as number] as number));
    const mean = losses.reduce((a, b) => a + b, 0) / labels.length;
    close(evaluation.loss, mean, limit, `${what}, loss in eval mode`);
    return { ...mine, theirs, limit };
  });
}
