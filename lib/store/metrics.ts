import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { Table, tableToIPC } from 'apache-arrow';
import { LthError } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { metricsBatch, metricsSchema } from '../session/arrow.js';
import { type ColumnType, readArrowFile } from './arrowFile.js';
import type { Rows } from './rows.js';

/** One row of a training's metrics, as `metrics.arrow` holds it. */
export interface MetricRow {
  step: number;
  split: 'train' | 'validation' | 'test';
  loss: number;
  accuracy: number;
  learningRate: number;
  examples: number;
}

const types = {
  step: 'int32',
  split: 'texts',
  loss: 'float64',
  accuracy: 'float64',
  learningRate: 'float64',
  examples: 'float64',
} satisfies Record<keyof MetricRow, ColumnType>;
const intervalTypes = { ...types, seconds: 'float64' } as const;
const times = ['step', 'split', 'seconds'];
/** Seven million rows. */
const LARGEST_METRICS = 2 ** 28;
const splits: readonly string[] = ['train', 'validation', 'test'];

/** One batch, because where batches end is a matter of time and would show in the file. */
function tableOf(rows: Rows): Table {
  if (rows.step.length === 0) return new Table(metricsSchema, []);
  const batch = metricsBatch({
    rows: rows.step.length,
    step: Int32Array.from(rows.step),
    split: Int8Array.from(rows.split),
    loss: Float64Array.from(rows.loss),
    accuracy: Float64Array.from(rows.accuracy),
    learningRate: Float64Array.from(rows.learningRate),
    examples: Float64Array.from(rows.examples),
    seconds: Float64Array.from(rows.seconds),
  });
  return new Table(metricsSchema, [batch]);
}

/** Writes `metrics.arrow` and, in a file of its own because no two runs agree in it, `times.arrow` (Arrow IPC files). */
export async function writeMetrics(folder: string, rows: Rows): Promise<void> {
  const addon = loadAddon();
  const table = tableOf(rows);
  await addon.fileWrite(`${folder}/times.arrow`, tableToIPC(table.select(times), 'file'));
  await addon.fileWrite(`${folder}/metrics.arrow`, tableToIPC(table.select(Object.keys(types)), 'file'));
}

/** Writes what was recorded between two checkpoints, all columns in one Arrow IPC file. */
export async function writeInterval(path: string, rows: Rows): Promise<void> {
  await loadAddon().fileWrite(path, tableToIPC(tableOf(rows), 'file'));
}

async function readBounded(path: string): Promise<Uint8Array> {
  // Opening a pipe would wait for its writer.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const info = await file.stat();
    if (!info.isFile()) throw new Error('is not a file');
    if (info.size > LARGEST_METRICS)
      throw new Error(`has ${info.size} bytes, expected at most ${LARGEST_METRICS}`);
    return await file.readFile();
  } finally {
    await file.close();
  }
}

/** What is in an Arrow file of ours. @throws LthError "corrupt-file" naming the file. */
async function read<T extends Record<string, ColumnType>>(path: string, columns: T) {
  try {
    return readArrowFile(await readBounded(path), columns);
  } catch (cause) {
    const why =
      cause instanceof RangeError
        ? 'a place in it leads outside'
        : cause instanceof Error
          ? cause.message
          : cause;
    throw new LthError('corrupt-file', `${path}: ${why}`, { cause });
  }
}

function checkRow(path: string, i: number, step: number, split: string, accuracy: number): void {
  if (step >= 0 && splits.includes(split) && !(accuracy < 0 || accuracy > 1)) return;
  throw new LthError(
    'corrupt-file',
    `${path}: row ${i} cannot be: step ${step}, split ${split}, accuracy ${accuracy}`,
  );
}

/** @throws LthError "corrupt-file" naming the file. */
export async function readMetrics(path: string): Promise<MetricRow[]> {
  const columns = await read(path, types);
  return Array.from(columns.step, (step, i): MetricRow => {
    const split = columns.split[i] as MetricRow['split'];
    const accuracy = columns.accuracy[i] as number;
    checkRow(path, i, step, split, accuracy);
    return {
      step,
      split,
      loss: columns.loss[i] as number,
      accuracy,
      learningRate: columns.learningRate[i] as number,
      examples: columns.examples[i] as number,
    };
  });
}

/** @throws LthError "corrupt-file" naming the file. */
export async function readInterval(path: string): Promise<Rows> {
  const { split, accuracy, ...columns } = await read(path, intervalTypes);
  split.forEach((name, i) => {
    checkRow(path, i, columns.step[i] as number, name, accuracy[i] as number);
  });
  return {
    step: Array.from(columns.step),
    split: split.map((name) => splits.indexOf(name)),
    loss: Array.from(columns.loss),
    accuracy: Array.from(accuracy),
    learningRate: Array.from(columns.learningRate),
    examples: Array.from(columns.examples),
    seconds: Array.from(columns.seconds),
  };
}
