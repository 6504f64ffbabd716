import { readFile } from 'node:fs/promises';
import { type RecordBatch, Table, tableFromIPC, tableToIPC } from 'apache-arrow';
import { LthError } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { metricsSchema } from '../session/arrow.js';

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
  const table = new Table(metricsSchema, batches); // the schema also where there is no row
  await addon.fileWrite(`${folder}/times.arrow`, tableToIPC(table.select(times), 'file'));
  await addon.fileWrite(`${folder}/metrics.arrow`, tableToIPC(table.select(compared), 'file'));
}

/** @throws LthError "corrupt-file" naming the file. */
export async function readMetrics(folder: string): Promise<MetricRow[]> {
  const path = `${folder}/metrics.arrow`;
  try {
    const table = tableFromIPC(await readFile(path));
    for (const name of compared) {
      if (!table.getChild(name)) throw new Error(`has no column ${name}`);
    }
    return table.toArray().map((row) => row.toJSON() as MetricRow);
  } catch (cause) {
    throw new LthError('corrupt-file', `${path}: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
}
