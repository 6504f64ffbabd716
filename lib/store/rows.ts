import type { RecordBatch } from 'apache-arrow';

/** Metrics of a training in plain columns, on their way to a file. */
export interface Rows {
  step: number[];
  /** 0 train, 1 validation, 2 test. */
  split: number[];
  loss: number[];
  accuracy: number[];
  learningRate: number[];
  examples: number[];
  /** Since the training's start, over all its pieces. */
  seconds: number[];
}

export const rowColumns = [
  'step',
  'split',
  'loss',
  'accuracy',
  'learningRate',
  'examples',
  'seconds',
] as const;

export function noRows(): Rows {
  return { step: [], split: [], loss: [], accuracy: [], learningRate: [], examples: [], seconds: [] };
}

/** Appends what `from` holds. */
export function appendRows(to: Rows, from: Rows): void {
  for (const name of rowColumns) for (const value of from[name]) to[name].push(value);
}

/** Appends a batch of a session whose clock began `seconds` after the training's start. */
export function appendBatch(to: Rows, batch: RecordBatch, seconds: number): void {
  for (const name of rowColumns) {
    const values = batch.getChild(name)?.data[0]?.values as ArrayLike<number>;
    for (let i = 0; i < batch.numRows; i++)
      to[name].push(Number(values[i]) + (name === 'seconds' ? seconds : 0));
  }
}
