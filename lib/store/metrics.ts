import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { type RecordBatch, Table, tableToIPC, type Vector } from 'apache-arrow';
import { LthError } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { metricsBatch, metricsSchema } from '../session/arrow.js';
import { type ColumnType, readArrowFile } from './arrowFile.js';

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
const compared = Object.keys(types);
/** Seven million rows. */
const LARGEST_METRICS = 2 ** 28;
const splits: readonly string[] = ['train', 'validation', 'test'];
const times = ['step', 'split', 'seconds'];

/** Writes `metrics.arrow` and, in a file of its own because no two runs agree in it, `times.arrow` (Arrow IPC files). */
export async function writeMetrics(folder: string, batches: RecordBatch[]): Promise<void> {
  const addon = loadAddon();
  const table = new Table(metricsSchema, batches.length > 0 ? [merged(new Table(batches))] : []);
  await addon.fileWrite(`${folder}/times.arrow`, tableToIPC(table.select(times), 'file'));
  await addon.fileWrite(`${folder}/metrics.arrow`, tableToIPC(table.select(compared), 'file'));
}

/** One batch, because where batches end is a matter of time and would show in the file. */
function merged(table: Table): RecordBatch {
  const column = (name: string) =>
    (table.getChild(name) as Vector).data.flatMap((data) => Array.from(data.values as ArrayLike<number>));
  return metricsBatch({
    rows: table.numRows,
    step: Int32Array.from(column('step')),
    split: Int8Array.from(column('split')),
    loss: Float64Array.from(column('loss')),
    accuracy: Float64Array.from(column('accuracy')),
    learningRate: Float64Array.from(column('learningRate')),
    examples: Float64Array.from(column('examples')),
    seconds: Float64Array.from(column('seconds')),
  });
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

/** @throws LthError "corrupt-file" naming the file. */
export async function readMetrics(path: string): Promise<MetricRow[]> {
  try {
    const columns = readArrowFile(await readBounded(path), types);
    return Array.from(columns.step, (step, i): MetricRow => {
      const split = columns.split[i] as MetricRow['split'];
      const accuracy = columns.accuracy[i] as number;
      if (step < 0 || !splits.includes(split) || accuracy < 0 || accuracy > 1)
        throw new Error(`row ${i} cannot be: step ${step}, split ${split}, accuracy ${accuracy}`);
      return {
        step,
        split,
        loss: columns.loss[i] as number,
        accuracy,
        learningRate: columns.learningRate[i] as number,
        examples: columns.examples[i] as number,
      };
    });
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
