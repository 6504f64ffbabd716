/** Text that is HTML and XML already. Only `markup` makes it, so that no string gets into a page unescaped. */
export class Markup {
  constructor(readonly text: string) {}
}

export type Piece = Markup | string | number | null | Piece[];

const named: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/** Characters that XML has no place for, halves of pairs among them; U+FFFD stands for each. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
const impossible = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Surrogate}/gu;
/** Marks that turn the direction of what follows: a name must not rewrite the words beside it. */
const turning = /[\u202a-\u202e\u2066-\u2069]/g;

export function escapeText(text: string): string {
  return text
    .replace(impossible, '\ufffd')
    .replace(turning, '\ufffd')
    .replace(/[&<>"']/g, (c) => named[c] as string);
}

function textOf(piece: Piece): string {
  if (piece === null) return '';
  if (Array.isArray(piece)) return piece.map(textOf).join('');
  return piece instanceof Markup ? piece.text : escapeText(String(piece));
}

/** HTML or SVG: what stands in `${}` is escaped, unless it is markup itself; null is nothing, arrays are joined. */
export function markup(strings: TemplateStringsArray, ...pieces: Piece[]): Markup {
  return new Markup(strings.reduce((text, string, i) => text + textOf(pieces[i - 1] ?? null) + string));
}
