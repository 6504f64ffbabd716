import { readFile } from 'node:fs/promises';
import { type RecordBatch, Table, tableFromIPC, tableToIPC, type Vector } from 'apache-arrow';
import { LthError } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { metricsBatch, metricsSchema } from '../session/arrow.js';

/** One row of a training's metrics, as `metrics.arrow` holds it. */
export interface MetricRow {
  step: number;
  split: 'train' | 'validation' | 'test';
  loss: number;
  accuracy: number;
  learningRate: number;
  examples: number;
}

const compared = ['step', 'split', 'loss', 'accuracy', 'learningRate', 'examples'];
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

/** @throws LthError "corrupt-file" naming the file. */
export async function readMetrics(path: string): Promise<MetricRow[]> {
  try {
    const table = tableFromIPC(await readFile(path));
    for (const name of compared) {
      if (!table.getChild(name)) throw new Error(`has no column ${name}`);
    }
    return table.toArray().map((row) => row.toJSON() as MetricRow);
  } catch (cause) {
    throw new LthError('corrupt-file', `${path}: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
    });
  }
}
