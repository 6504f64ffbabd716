/**
 * A reader of the Arrow files that this program writes: one schema, at most one batch, no nulls, no compression.
 * apache-arrow believes every count that stands in a file, and some bytes make it ask for memory without end; here
 * counts are compared with what must be there, and DataView refuses to look outside the file with a RangeError.
 */

/** `texts`: a dictionary of texts, and for each row the number of one. */
export type ColumnType = 'int32' | 'float64' | 'texts';
interface Columns {
  int32: Int32Array;
  float64: Float64Array;
  texts: string[];
}

// Numbers of the format: https://github.com/apache/arrow/tree/main/format (File.fbs, Message.fbs, Schema.fbs).
const MAGIC = 'ARROW1';
const INT = 2;
const FLOAT = 3;
const UTF8 = 5;
const DICTIONARY_BATCH = 2;
const RECORD_BATCH = 3;
const DOUBLE = 2;

/** A flatbuffer's table: fields are found by their place in the schema, those left out are null. */
class FlatTable {
  constructor(
    readonly view: DataView,
    readonly at: number,
  ) {}
  /** The table that the offset at `at` leads to. */
  static behind(view: DataView, at: number): FlatTable {
    return new FlatTable(view, at + view.getUint32(at, true));
  }
  private place(field: number): number | null {
    const table = this.at - this.view.getInt32(this.at, true);
    const entry = 4 + 2 * field;
    if (entry >= this.view.getUint16(table, true)) return null;
    const offset = this.view.getUint16(table + entry, true);
    return offset === 0 ? null : this.at + offset;
  }
  byte(field: number): number {
    const at = this.place(field);
    return at === null ? 0 : this.view.getUint8(at);
  }
  short(field: number): number {
    const at = this.place(field);
    return at === null ? 0 : this.view.getInt16(at, true);
  }
  int(field: number): number {
    const at = this.place(field);
    return at === null ? 0 : this.view.getInt32(at, true);
  }
  long(field: number): number {
    const at = this.place(field);
    return at === null ? 0 : long(this.view, at);
  }
  table(field: number): FlatTable | null {
    const at = this.place(field);
    return at === null ? null : FlatTable.behind(this.view, at);
  }
  /** Where a vector's elements begin, and how many there are: no more than `most`. */
  vector(field: number, most: number): { first: number; count: number } {
    const at = this.place(field);
    if (at === null) return { first: 0, count: 0 };
    const first = at + this.view.getUint32(at, true) + 4;
    const count = this.view.getUint32(first - 4, true);
    if (count > most) throw new Error(`a list of ${count} things, expected at most ${most}`);
    return { first, count };
  }
  text(field: number): string {
    const { first, count } = this.vector(field, 100);
    return text(this.view, first, count);
  }
}

/** A length or place: what is negative or no safe number can be neither. */
function long(view: DataView, at: number): number {
  const value = Number(view.getBigInt64(at, true));
  if (!(value >= 0 && value <= Number.MAX_SAFE_INTEGER)) throw new Error(`a length of ${value}`);
  return value;
}

function slice(view: DataView, first: number, length: number): Uint8Array {
  if (first + length > view.byteLength)
    throw new Error(`truncated: bytes ${first} to ${first + length} of ${view.byteLength} are wanted`);
  return new Uint8Array(view.buffer, view.byteOffset + first, length);
}

function text(view: DataView, first: number, length: number): string {
  return Buffer.from(slice(view, first, length)).toString();
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
