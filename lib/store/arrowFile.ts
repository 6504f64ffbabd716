/**
 * A reader of the Arrow files that this program writes: one schema, at most one batch, no nulls, no compression.
 * apache-arrow believes every count that stands in a file, and some bytes make it ask for memory without end; here
 * counts are compared with what must be there, and DataView refuses to look outside the file with a RangeError.
 */

import {
  DICTIONARY_BATCH,
  DOUBLE,
  FLOAT,
  FlatTable,
  INT,
  long,
  MAGIC,
  RECORD_BATCH,
  slice,
  text,
  UTF8,
} from '../flatTable.js';

/** `texts`: a dictionary of texts, and for each row the number of one. */
export type ColumnType = 'int32' | 'float64' | 'texts';
interface Columns {
  int32: Int32Array;
  float64: Float64Array;
  texts: string[];
}

interface Message {
  header: FlatTable;
  /** Batches alone have one. */
  body: DataView;
}

/** The message of the only block in a list of the footer, or null where the list is empty. */
function messageOf(view: DataView, footer: FlatTable, field: number, kind: number): Message | null {
  const { first, count } = footer.vector(field, 1);
  if (count === 0) return null;
  // Block: offset, length of the message (with padding), length of the body.
  const [at, headLength, bodyLength] = [
    long(view, first),
    view.getInt32(first + 8, true),
    long(view, first + 16),
  ];
  const prefix = view.getInt32(at, true) === -1 ? 8 : 4;
  const message = FlatTable.behind(view, at + prefix);
  const header = message.table(2);
  if (message.byte(1) !== kind || !header) throw new Error('a batch is not what the footer says');
  const body = slice(view, at + headLength, bodyLength);
  return { header, body: new DataView(body.buffer, body.byteOffset, body.byteLength) };
}

/** The buffers of a RecordBatch table whose columns are `rows` long and without nulls. */
function buffersOf(batch: FlatTable, body: DataView, columns: number, perColumn: number): Uint8Array[] {
  const rows = batch.long(0);
  if (batch.table(3)) throw new Error('is compressed');
  const nodes = batch.vector(1, columns);
  const buffers = batch.vector(2, columns * perColumn);
  if (nodes.count !== columns || buffers.count !== columns * perColumn)
    throw new Error(`a batch of ${nodes.count} columns, expected ${columns}`);
  for (let i = 0; i < columns; i++) {
    const at = nodes.first + 16 * i;
    if (long(batch.view, at) !== rows) throw new Error(`column ${i} has another length than the batch`);
    if (long(batch.view, at + 8) !== 0) throw new Error(`column ${i} holds nulls`);
  }
  return Array.from({ length: buffers.count }, (_, i) => {
    const at = buffers.first + 16 * i;
    return slice(body, long(batch.view, at), long(batch.view, at + 8));
  });
}

/** Does the field of the schema have the type? */
function isOf(field: FlatTable, type: ColumnType): boolean {
  const details = field.table(3);
  if (!details) return false;
  const dictionary = field.table(4);
  if (type === 'texts') {
    const index = dictionary?.table(1);
    return field.byte(2) === UTF8 && !!index && index.int(0) === 8 && index.byte(1) === 1;
  }
  if (dictionary) return false;
  return type === 'int32'
    ? field.byte(2) === INT && details.int(0) === 32 && details.byte(1) === 1
    : field.byte(2) === FLOAT && details.short(0) === DOUBLE;
}

/** The texts of the dictionary. */
function dictionaryOf(message: Message | null): string[] {
  const batch = message?.header.table(1);
  if (!message || !batch) throw new Error('has no dictionary');
  const rows = batch.long(0);
  if (rows > 100) throw new Error(`a dictionary of ${rows} texts`);
  const buffers = buffersOf(batch, message.body, 1, 3);
  const offsets = numbers(buffers[1] as Uint8Array, rows + 1, Int32Array);
  const bytes = buffers[2] as Uint8Array;
  return Array.from({ length: rows }, (_, i) => {
    const [first, last] = [offsets[i] as number, offsets[i + 1] as number];
    if (first < 0 || last < first || last > bytes.length) throw new Error('a dictionary with wrong offsets');
    return Buffer.from(bytes.subarray(first, last)).toString();
  });
}

/** Copied, because a file owes no alignment to anybody. */
function numbers<T extends Int8Array | Int32Array | Float64Array>(
  bytes: Uint8Array,
  rows: number,
  type: { new (buffer: ArrayBuffer): T; BYTES_PER_ELEMENT: number },
): T {
  const length = rows * type.BYTES_PER_ELEMENT;
  if (bytes.length < length) throw new Error(`${bytes.length} bytes for ${rows} rows`);
  return new type(bytes.slice(0, length).buffer as ArrayBuffer);
}

/**
 * The columns of an Arrow file, in the order of `types`.
 * @throws Error that says what is wrong with the bytes.
 */
export function readArrowFile<T extends Record<string, ColumnType>>(
  bytes: Uint8Array,
  types: T,
): { [name in keyof T]: Columns[T[name]] } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = bytes.length - MAGIC.length;
  if (end < 12 || text(view, 0, 6) !== MAGIC || text(view, end, 6) !== MAGIC)
    throw new Error('is no Arrow file');
  const footer = FlatTable.behind(view, end - 4 - view.getInt32(end - 4, true));
  const names = Object.keys(types);
  const fields = footer.table(1)?.vector(1, names.length);
  if (fields?.count !== names.length)
    throw new Error(`has ${fields?.count ?? 0} columns, expected ${names.length}`);
  names.forEach((name, i) => {
    const field = FlatTable.behind(view, fields.first + 4 * i);
    if (field.text(0) !== name || !isOf(field, types[name] as ColumnType))
      throw new Error(`column ${i} is not ${name} of type ${types[name]}`);
  });
  const batch = messageOf(view, footer, 3, RECORD_BATCH);
  const rows = batch ? batch.header.long(0) : 0;
  const buffers = batch ? buffersOf(batch.header, batch.body, names.length, 2) : [];
  const texts = batch ? dictionaryOf(messageOf(view, footer, 2, DICTIONARY_BATCH)) : [];
  const column = (type: ColumnType, data: Uint8Array = new Uint8Array()): Columns[ColumnType] => {
    if (type === 'int32') return numbers(data, rows, Int32Array);
    if (type === 'float64') return numbers(data, rows, Float64Array);
    return Array.from(numbers(data, rows, Int8Array), (index) => {
      if (index < 0 || index >= texts.length) throw new Error(`a text number ${index} of ${texts.length}`);
      return texts[index] as string;
    });
  };
  // Each column has a buffer of validity, empty without nulls, and one of data.
  return Object.fromEntries(
    names.map((name, i) => [name, column(types[name] as ColumnType, buffers[2 * i + 1])]),
  ) as { [name in keyof T]: Columns[T[name]] };
}
