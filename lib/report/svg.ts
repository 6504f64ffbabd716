import { type Markup, markup } from './markup.js';
import {
  fallingLogScale,
  type LabelRoom,
  linearScale,
  niceDomain,
  risingLogScale,
  type Scale,
  updatesScale,
} from './scales.js';

export interface Point {
  x: number;
  /** null: nothing is known here, and the line is broken. */
  y: number | null;
  /** The band's ends. */
  low?: number;
  high?: number;
  /** Shown where the pointer rests. */
  words: string;
}

export interface Series {
  label: string;
  /** Which colour, marker and dash; see `looks`. */
  look: number;
  /** "paper": dotted with hollow markers; "curve": a line without markers. */
  kind: 'measured' | 'paper' | 'curve';
  points: Point[];
}

/** A horizontal line over the whole width: the dense accuracy, a threshold. */
export interface Rule {
  label: string;
  y: number;
}

/** A place on the axis across that has a name of its own: a line from top to bottom. */
export interface Mark {
  label: string;
  x: number;
  /** Of the series that it is about. */
  look: number;
}

export interface Axis {
  label: string;
  scale: 'linear' | 'falling-log' | 'rising-log' | 'updates';
  format: (value: number) => string;
  /** The axis is not widened beyond. */
  limits?: { low?: number; high?: number };
  /** Values that the axis reaches in any case. */
  include?: number[];
}

export interface Chart {
  /** Unique in the page. */
  id: string;
  title: string;
  /** What is drawn, in a sentence or two, for those who do not see it. */
  description: string;
  x: Axis;
  y: Axis;
  series: Series[];
  rules: Rule[];
  marks?: Mark[];
}

/** In units of the drawing, which are CSS pixels on a wide screen. */
const WIDTH = 560;
const HEIGHT = 344;
const plot = { left: 64, right: 544, top: 34, bottom: 284 };
/** A character of a tick label on a small screen, where style.ts makes letters larger against the drawing. */
const CHARACTER = 11;

const dashes = ['', '8 4', '3 3', '10 3 3 3', '6 2', '2 5', '12 4', '8 3 2 3 2 3'];
/** Eight colours of style.ts (Okabe and Ito's, told apart by colour-blind people), each with a marker and a dash. */
const COLOURS = 8;
const markers = 'osd^vx+*';

/** Two digits behind the point, without zeros: the same bytes for the same numbers. */
const round = (value: number) => String(Number(value.toFixed(2)) + 0);

const colour = (look: number) => `c${look % COLOURS}`;
/** After eight looks, dashes move on against colours, so that no two of the first 64 are alike. */
const dashOf = (look: number) => dashes[(look + Math.floor(look / COLOURS)) % dashes.length] as string;
const markerOf = (look: number) => markers[(look + Math.floor(look / COLOURS)) % markers.length] as string;

/** A marker's outline around (x, y). */
function shape(marker: string, x: number, y: number): string {
  const at = (dx: number, dy: number) => `${round(x + dx)} ${round(y + dy)}`;
  const closed = (...corners: [number, number][]) => `M${corners.map(([a, b]) => at(a, b)).join('L')}Z`;
  switch (marker) {
    case 'o':
      return `M${at(-4, 0)}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z`;
    case 's':
      return closed([-3.5, -3.5], [3.5, -3.5], [3.5, 3.5], [-3.5, 3.5]);
    case 'd':
      return closed([0, -5], [5, 0], [0, 5], [-5, 0]);
    case '^':
      return closed([0, -5], [4.6, 3.5], [-4.6, 3.5]);
    case 'v':
      return closed([0, 5], [4.6, -3.5], [-4.6, -3.5]);
    case 'x':
      return `M${at(-4, -4)}L${at(4, 4)}M${at(-4, 4)}L${at(4, -4)}`;
    case '+':
      return `M${at(-5, 0)}L${at(5, 0)}M${at(0, -5)}L${at(0, 5)}`;
    default:
      return `M${at(-5, 0)}L${at(5, 0)}M${at(-2.5, -4.3)}L${at(2.5, 4.3)}M${at(-2.5, 4.3)}L${at(2.5, -4.3)}`;
  }
}

function lineClass({ kind, look }: Series): string {
  return `${colour(look)} line${kind === 'paper' ? ' paper' : ''}`;
}

const dashAttribute = (series: Series): Markup | null =>
  series.kind === 'paper' || dashOf(series.look) === ''
    ? null
    : markup` stroke-dasharray="${dashOf(series.look)}"`;

function markerPath(series: Series, x: number, y: number, words: string | null): Markup | null {
  if (series.kind === 'curve') return null;
  const hollow = series.kind === 'paper' ? ' hollow' : '';
  return markup`<path class="${colour(series.look)} marker${hollow}" d="${shape(markerOf(series.look), x, y)}">${
    words === null ? null : markup`<title>${words}</title>`
  }</path>`;
}

/** Lines, then their labels: below each other, so that none is on top of another, on the side that has more room. */
function marksOf(marks: Mark[], place: Place): Markup[] {
  const lines = marks.map(
    ({ x, look }) =>
      markup`<path class="${colour(look)} mark" d="M${round(place(x))} ${plot.top}V${plot.bottom}"/>`,
  );
  const labels = marks.map(({ label, x }, row) => {
    const at = place(x);
    const right = at < (plot.left + plot.right) / 2;
    return markup`<text class="mark-label" x="${round(at + (right ? 5 : -5))}" y="${plot.top + 12 + 15 * row}" text-anchor="${right ? 'start' : 'end'}">${label}</text>`;
  });
  return [...lines, ...labels];
}

/** The sample of a series that a legend shows. */
export function swatch(series: Series): Markup {
  return markup`<svg class="swatch" viewBox="0 0 36 14" width="36" height="14" aria-hidden="true"><path class="${lineClass(series)}" d="M1 7H35"${dashAttribute(series)}/>${markerPath(series, 18, 7, null)}</svg>`;
}

/** Outside of the drawing, so that it wraps on small screens. */
export function legend(chart: Chart): Markup {
  return markup`<ul class="legend">${chart.series.map((series) => markup`<li>${swatch(series)} ${series.label}</li>`)}${chart.rules.map(
    (rule, i) =>
      markup`<li><svg class="swatch" viewBox="0 0 36 14" width="36" height="14" aria-hidden="true"><path class="rule rule${i % 2}" d="M1 7H35"/></svg> ${rule.label}</li>`,
  )}</ul>`;
}

type Place = (value: number) => number;

/** Parts of a series without a gap. */
function stretches(series: Series): (Point & { y: number })[][] {
  const parts: (Point & { y: number })[][] = [[]];
  for (const point of series.points) {
    const { y } = point;
    if (y === null) parts.push([]);
    else parts.at(-1)?.push({ ...point, y });
  }
  return parts.filter((part) => part.length > 0);
}

function band(series: Series, x: Place, y: Place): (Markup | null)[] {
  return stretches(series).map((part) => {
    const ends = part.flatMap((p) =>
      p.low === undefined || p.high === undefined ? [] : [{ x: p.x, low: p.low, high: p.high }],
    );
    if (ends.length === 0) return null;
    const corner = (at: number, value: number) => `${round(x(at))} ${round(y(value))}`;
    const [first] = ends as [(typeof ends)[0]];
    if (ends.length === 1)
      return markup`<path class="${colour(series.look)} whisker" d="M${corner(first.x, first.low)}L${corner(first.x, first.high)}"/>`;
    const above = ends.map((e) => corner(e.x, e.high));
    const below = ends.map((e) => corner(e.x, e.low)).reverse();
    return markup`<path class="${colour(series.look)} band" d="M${[...above, ...below].join('L')}Z"/>`;
  });
}

function line(series: Series, x: Place, y: Place): Markup[] {
  return stretches(series).map((part) => {
    const path = part.map((p) => `${round(x(p.x))} ${round(y(p.y))}`).join('L');
    return markup`<path class="${lineClass(series)}" d="M${path}"${dashAttribute(series)}/>`;
  });
}

const dots = (series: Series, x: Place, y: Place) =>
  series.points.map((p) => (p.y === null ? null : markerPath(series, x(p.x), y(p.y), p.words)));

function scaleOf(axis: Axis, values: number[], length: number, letters: 'across' | 'up'): Scale {
  const room: LabelRoom = (value) =>
    letters === 'up' ? 26 / length : (CHARACTER * (axis.format(value).length + 1.5)) / length;
  const all = [...values, ...(axis.include ?? [])];
  if (axis.scale === 'falling-log') return fallingLogScale(all, room);
  if (axis.scale === 'rising-log') return risingLogScale(all, room);
  if (axis.scale === 'updates') return updatesScale(all, room);
  return linearScale(niceDomain(all, axis.limits), room);
}

/** Points that have a place on the chart's axes: a logarithmic one has none for 0. */
function placed(chart: Chart): Series[] {
  return chart.series.map((series) => ({
    ...series,
    points: series.points.filter((p) => chart.x.scale !== 'falling-log' || p.x > 0),
  }));
}

/** The chart as one SVG element; the same bytes for the same chart. */
export function draw(chart: Chart): Markup {
  const series = placed(chart);
  const points = series.flatMap((one) => one.points);
  const heights = points.flatMap(({ y, low, high }) =>
    [y, low, high].filter((value) => value !== null && value !== undefined),
  );
  const across = scaleOf(
    chart.x,
    [...points.map((p) => p.x), ...(chart.marks ?? []).map((one) => one.x)],
    plot.right - plot.left,
    'across',
  );
  const up = scaleOf(
    chart.y,
    [...heights, ...chart.rules.map((rule) => rule.y)],
    plot.bottom - plot.top,
    'up',
  );
  const x: Place = (value) => plot.left + across.at(value) * (plot.right - plot.left);
  const y: Place = (value) => plot.bottom - up.at(value) * (plot.bottom - plot.top);
  // Measured lines are drawn last to first, so that the first, which the chart is about, is on top.
  const backToFront = [...series].reverse();
  return markup`<svg class="chart" role="img" viewBox="0 0 ${WIDTH} ${HEIGHT}" xmlns="http://www.w3.org/2000/svg" aria-labelledby="${chart.id}-title ${chart.id}-desc">
<title id="${chart.id}-title">${chart.title}</title>
<desc id="${chart.id}-desc">${chart.description}</desc>
<g class="grid">${up.ticks.map((tick) => markup`<path d="M${plot.left} ${round(y(tick))}H${plot.right}"/>`)}</g>
<g class="axis"><path d="M${plot.left} ${plot.top}V${plot.bottom}H${plot.right}"/>${across.ticks.map(
    (tick) => markup`<path d="M${round(x(tick))} ${plot.bottom}v5"/>`,
  )}</g>
<g class="y-ticks">${up.ticks.map(
    (tick) =>
      markup`<text x="${plot.left - 8}" y="${round(y(tick))}" dy="0.35em">${chart.y.format(tick)}</text>`,
  )}</g>
<g class="x-ticks">${across.ticks.map(
    (tick) =>
      markup`<text x="${round(x(tick))}" y="${plot.bottom + 9}" dy="0.8em">${chart.x.format(tick)}</text>`,
  )}</g>
<text class="y-label" x="4" y="18">${chart.y.label}</text>
<text class="x-label" x="${(plot.left + plot.right) / 2}" y="${HEIGHT - 12}">${chart.x.label}</text>
${backToFront.map((one) => band(one, x, y))}
${chart.rules.map((rule, i) => markup`<path class="rule rule${i % 2}" d="M${plot.left} ${round(y(rule.y))}H${plot.right}"/>`)}${marksOf(chart.marks ?? [], x)}
${backToFront.map((one) => [line(one, x, y), dots(one, x, y)])}
</svg>`;
}
