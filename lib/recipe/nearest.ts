/** Edits (insert, delete, replace, swap of neighbours) between two words. */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min((last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (last[j - 1] ?? 0) + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        best = Math.min(best, (before[j - 2] ?? 0) + 1);
      row.push(best);
    }
    before = last;
    last = row;
  }
  return last[b.length] ?? 0;
}

/** ` Did you mean "levels"?` where one of `known` is near to `word` or begins with it, else an empty text. */
export function didYouMean(word: string, known: readonly string[]): string {
  if (word.length > 100) return ''; // nobody misspelt that
  const lower = word.toLowerCase();
  const best = known
    .filter((name) => name !== word)
    .map((name) => ({ name, edits: distance(lower, name.toLowerCase()) }))
    .sort((a, b) => a.edits - b.edits)[0];
  const near = best && best.edits <= Math.max(2, Math.floor(word.length / 3)) ? best.name : undefined;
  const found =
    near ?? (lower.length > 2 ? known.find((name) => name.toLowerCase().startsWith(lower)) : undefined);
  return found === undefined ? '' : ` Did you mean "${found}"?`;
}
