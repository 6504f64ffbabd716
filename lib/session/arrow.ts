import { markAsUntransferable } from 'node:worker_threads';
import {
  Bool,
  Dictionary,
  Field,
  FixedSizeBinary,
  Float32,
  Float64,
  Int8,
  Int32,
  makeData,
  makeVector,
  RecordBatch,
  Schema,
  Struct,
  Utf8,
  type Vector,
  vectorFromArray,
} from 'apache-arrow';
import type { MetricColumns } from '../native/AddonTypes.js';

// Everything here is a view over native memory: nothing is copied (design: contract 2).

/** A view moved to another thread would outlive the memory it looks at. */
export function pinned(buffer: ArrayBuffer): ArrayBuffer {
  markAsUntransferable(buffer);
  return buffer;
}

export type FloatVector = Vector<Float32> | Vector<Float64>;

export function floatVector(data: ArrayBuffer, dtype: 'fp32' | 'fp64'): FloatVector {
  return dtype === 'fp32'
    ? makeVector(makeData({ type: new Float32(), data: new Float32Array(data) }))
    : makeVector(makeData({ type: new Float64(), data: new Float64Array(data) }));
}

/** `bits` packed least significant first, as Arrow keeps Bool. */
export function boolVector(bits: ArrayBuffer, length: number): Vector<Bool> {
  return makeVector(makeData({ type: new Bool(), length, data: new Uint8Array(bits) }));
}

const splits = vectorFromArray(['train', 'validation', 'test'], new Utf8());
const splitType = new Dictionary(new Utf8(), new Int8(), 0);

/** Columns of every metrics batch; `seconds` is a time and never compared between runs. */
export const metricsSchema = new Schema([
  new Field('step', new Int32()),
  new Field('split', splitType),
  new Field('loss', new Float64()),
  new Field('accuracy', new Float64()),
  new Field('learningRate', new Float64()),
  new Field('examples', new Float64()),
  new Field('seconds', new Float64()),
]);

export function metricsBatch(columns: MetricColumns): RecordBatch {
  const int32 = (data: Int32Array) => makeData({ type: new Int32(), data });
  const float64 = (data: Float64Array) => makeData({ type: new Float64(), data });
  for (const column of [
    columns.step,
    columns.split,
    columns.loss,
    columns.accuracy,
    columns.learningRate,
    columns.examples,
    columns.seconds,
  ]) {
    pinned(column.buffer as ArrayBuffer);
  }
  const children = [
    int32(columns.step),
    makeData({ type: splitType, data: columns.split, dictionary: splits }),
    float64(columns.loss),
    float64(columns.accuracy),
    float64(columns.learningRate),
    float64(columns.examples),
    float64(columns.seconds),
  ];
  return new RecordBatch(
    metricsSchema,
    makeData({ type: new Struct(metricsSchema.fields), length: columns.rows, nullCount: 0, children }),
  );
}

/** Columns of a batch of pictures over its own memory. */
export function pictureRecords(batch: {
  images: Uint8Array;
  labels: Int32Array;
  rows: Int32Array;
}): RecordBatch {
  const { images, labels, rows } = batch;
  const image = new FixedSizeBinary(images.length / rows.length);
  const schema = new Schema([
    new Field('image', image),
    new Field('label', new Int32()),
    new Field('row', new Int32()),
  ]);
  const children = [
    makeData({ type: image, data: images }),
    makeData({ type: new Int32(), data: labels }),
    makeData({ type: new Int32(), data: rows }),
  ];
  return new RecordBatch(
    schema,
    makeData({ type: new Struct(schema.fields), length: rows.length, nullCount: 0, children }),
  );
}
