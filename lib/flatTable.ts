/**
 * What readers of Arrow files share: tables of flatbuffers, whose every number is looked at before it is used. DataView refuses
 * to look outside the bytes with a RangeError.
 */

// Numbers of the format: https://github.com/apache/arrow/tree/main/format (File.fbs, Message.fbs, Schema.fbs).
export const MAGIC = 'ARROW1';
export const INT = 2;
export const FLOAT = 3;
export const BINARY = 4;
export const UTF8 = 5;
export const DICTIONARY_BATCH = 2;
export const RECORD_BATCH = 3;
export const DOUBLE = 2;

/** A flatbuffer's table: fields are found by their place in the schema, those left out are null. */
export class FlatTable {
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
export function long(view: DataView, at: number): number {
  const value = Number(view.getBigInt64(at, true));
  if (!(value >= 0 && value <= Number.MAX_SAFE_INTEGER)) throw new Error(`a length of ${value}`);
  return value;
}

export function slice(view: DataView, first: number, length: number): Uint8Array {
  if (first + length > view.byteLength)
    throw new Error(`truncated: bytes ${first} to ${first + length} of ${view.byteLength} are wanted`);
  return new Uint8Array(view.buffer, view.byteOffset + first, length);
}

export function text(view: DataView, first: number, length: number): string {
  return Buffer.from(slice(view, first, length)).toString();
}
