/** `40 s`, `12 min`, `3.5 h`, `2.1 days`. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '?';
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 2 * 86_400 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86_400).toFixed(1)} days`;
}

/** `17 updates/s`, `0.35 updates/s`. */
export function speed(updatesPerSecond: number): string {
  const digits = updatesPerSecond < 9.95 ? updatesPerSecond.toPrecision(2) : updatesPerSecond.toFixed(0);
  return `${digits} updates/s`;
}

/** `12 KiB`, `3.4 MiB`, `1.2 GiB`. */
export function size(bytes: number): string {
  if (bytes < 2 ** 20) return `${Math.ceil(bytes / 2 ** 10)} KiB`;
  if (bytes < 2 ** 30) return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}

/** Rows with columns as wide as their widest cell, numbers to the right; the last column as it is. */
export function table(rows: (string | number)[][]): string {
  const cells = rows.map((row) => row.map(String));
  const widths = cells[0]?.map((_, c) => Math.max(...cells.map((row) => (row[c] ?? '').length))) ?? [];
  const isNumber = (c: number) => rows.slice(1).every((row) => typeof row[c] === 'number');
  return cells
    .map((row) =>
      row
        .map((cell, c) =>
          c === row.length - 1
            ? cell
            : isNumber(c)
              ? cell.padStart(widths[c] ?? 0)
              : cell.padEnd(widths[c] ?? 0),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
