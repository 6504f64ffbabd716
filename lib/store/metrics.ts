import { readFile } from 'node:fs/promises';
import { Table, tableFromIPC, tableToIPC } from 'apache-arrow';
import { LthError } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { metricsBatch, metricsSchema } from '../session/arrow.js';
import { noRows, type Rows, rowColumns } from './rows.js';

/** One row of a training's metrics, as `metrics.arrow` holds it. */
export interface MetricRow {
  step: number;
  split: 'train' | 'validation' | 'test';
  loss: number;
  accuracy: number;
  learningRate: number;
  examples: number;
}

const compared = ['step', 'split', 'loss', 'accuracy', 'learningRate', 'examples'] as const;
const times = ['step', 'split', 'seconds'] as const;

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
  await addon.fileWrite(`${folder}/times.arrow`, tableToIPC(table.select([...times]), 'file'));
  await addon.fileWrite(`${folder}/metrics.arrow`, tableToIPC(table.select([...compared]), 'file'));
}

/** Writes what was recorded between two checkpoints, all columns in one Arrow IPC file. */
export async function writeInterval(path: string, rows: Rows): Promise<void> {
  await loadAddon().fileWrite(path, tableToIPC(tableOf(rows), 'file'));
}

/** The columns of an Arrow IPC file of ours. @throws LthError "corrupt-file" naming the file. */
async function readTable(path: string, columns: readonly string[]): Promise<Table> {
  try {
    const table = tableFromIPC(await readFile(path));
    for (const name of columns) {
      if (!table.getChild(name)) throw new Error(`has no column ${name}`);
    }
    return table;
  } catch (cause) {
    throw new LthError('corrupt-file', `${path}: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
    });
  }
}

/** @throws LthError "corrupt-file" naming the file. */
export async function readMetrics(path: string): Promise<MetricRow[]> {
  const table = await readTable(path, compared);
  return table.toArray().map((row) => row.toJSON() as MetricRow);
}

/** @throws LthError "corrupt-file" naming the file. */
export async function readInterval(path: string): Promise<Rows> {
  const table = await readTable(path, rowColumns);
  const rows = noRows();
  for (const name of rowColumns) {
    for (const data of table.getChild(name)?.data ?? []) {
      // The dictionary's indices are the values of "split"; behind the last value there may be padding.
      const values = data.values as ArrayLike<number>;
      for (let i = 0; i < data.length; i++) rows[name].push(values[data.offset + i] as number);
    }
  }
  return rows;
}
