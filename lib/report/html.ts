import { type Markup, markup, type Piece } from './markup.js';
import type { Spread } from './matching.js';
import { type Chart, draw, legend } from './svg.js';

export const percent = (value: number, digits = 2) => (value * 100).toFixed(digits);
/** Without zeros behind the point, for axes. */
export const shortPercent = (value: number) => String(Number((value * 100).toPrecision(6)));

/** `96.93` and under it `96.79-97.14` over replicates. */
export function spreadCell(s: Spread | null | undefined, show: (value: number) => string): Piece {
  if (!s) return '-';
  return s.n > 1
    ? markup`${show(s.mean)} <span class="range">[${show(s.min)}-${show(s.max)}]</span>`
    : show(s.mean);
}

/** A list of sentences, or nothing. */
export const items = (texts: string[]) =>
  texts.length === 0
    ? null
    : markup`<ul class="verdicts">${texts.map((text) => markup`<li>${text}</li>`)}</ul>\n`;

export interface Table {
  caption: string;
  head: string[];
  /** The first cell is the row's heading. */
  rows: Piece[][];
  /** Columns of words, which stand to the left. */
  words?: number[];
}

/** Wider than a small screen it scrolls by itself, by keys too. */
export function table({ caption, head, rows, words = [] }: Table): Markup {
  const kind = (c: number) => (words.includes(c) ? markup` class="words"` : null);
  return markup`<div class="scroll" tabindex="0" role="region" aria-label="${caption}"><table><caption>${caption}</caption><thead><tr>${head.map(
    (cell, c) => markup`<th scope="col"${kind(c)}>${cell}</th>`,
  )}</tr></thead><tbody>${rows.map(
    (row) =>
      markup`<tr>${row.map((cell, c) =>
        c === 0 ? markup`<th scope="row"${kind(c)}>${cell}</th>` : markup`<td${kind(c)}>${cell}</td>`,
      )}</tr>\n`,
  )}</tbody></table></div>`;
}

/** Tables of more series stand below their chart, also where there is room beside it. */
const WIDE = 4;

/** A chart, its legend and the table of its numbers. */
export function figure(chart: Chart, numbers: Table): Markup {
  return markup`<figure id="${chart.id}"><figcaption><h3>${chart.title}</h3></figcaption><div class="beside${chart.series.length > WIDE ? ' below' : ''}"><div>${draw(chart)}${legend(chart)}</div>${table(numbers)}</div></figure>\n`;
}
