/** A picture of a benchmark that stands alone: speed over density, with the break-even marked. */
import { type Markup, markup } from '../lib/report/markup.js';
import { lightColours as c } from '../lib/report/style.js';
import { type Chart, draw, type Series, swatch } from '../lib/report/svg.js';
import { breakEven, describeBreakEven } from './breakEven.js';

export interface SpeedLine {
  label: string;
  points: { density: number; speedUp: number; words: string }[];
}

export interface SpeedPlot {
  title: string;
  /** What a speed-up of 1 is as fast as. */
  unit: string;
  lines: SpeedLine[];
  /** Below the picture: machine, versions, command. */
  notes: string[];
}

const percent = (density: number) => String(Number((density * 100).toPrecision(3)));
const WIDTH = 640;
const LINE = 18;
/** Size of `draw`'s picture, and where it begins. */
const chart = { x: 40, y: 30, width: 560, height: 344 };
/** Letters in a line of notes. */
const COLUMNS = 96;

/** Words in lines of at most so many letters. */
function wrapped(text: string): string[] {
  const lines = [''];
  for (const word of text.split(' ')) {
    const last = lines.at(-1) as string;
    if (last !== '' && last.length + word.length >= COLUMNS) lines.push(word);
    else lines[lines.length - 1] = last === '' ? word : `${last} ${word}`;
  }
  return lines;
}

export function chartOf({ title, unit, lines }: SpeedPlot): Chart {
  const marks = lines.flatMap((one, look) => {
    const { density } = breakEven(one.points);
    return density === null
      ? []
      : [{ label: `${one.label}: even at ${percent(density)} %`, x: density, look }];
  });
  return {
    id: 'speed',
    title,
    description: lines
      .map((one) => `${one.label}: faster ${describeBreakEven(breakEven(one.points))}`)
      .join('; '),
    x: { label: 'weights remaining (%)', scale: 'falling-log', format: percent },
    y: {
      label: `times as fast as ${unit}`,
      scale: 'rising-log',
      format: (v) => String(Number(v.toPrecision(3))),
      include: [1],
    },
    series: lines.map(
      (one, look): Series => ({
        label: one.label,
        look,
        kind: 'measured',
        points: [...one.points]
          .sort((a, b) => b.density - a.density)
          .map(({ density, speedUp, words }) => ({ x: density, y: speedUp, words })),
      }),
    ),
    rules: [{ label: `as fast as ${unit}`, y: 1 }],
    marks,
  };
}

/** Colours as they are: not every program that shows pictures knows CSS variables, as the report's style sheet has them. */
const style = `text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;fill:${c.ink}}
.title{font-size:16px;font-weight:600}.note{font-size:11px;fill:${c.soft}}.mark-label{font-size:12px;paint-order:stroke;stroke:${c.paper};stroke-width:4px}
.y-ticks text{text-anchor:end;fill:${c.soft}}.x-ticks text{text-anchor:middle;fill:${c.soft}}.x-label{text-anchor:middle}
.grid path{stroke:${c.hair};stroke-width:1}.axis path{fill:none;stroke:${c.soft};stroke-width:1}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.marker{stroke-width:1.5;stroke-linejoin:round}
.mark{fill:none;stroke-width:1;stroke-dasharray:2 3}.rule{fill:none;stroke:${c.ink};stroke-width:1.5;stroke-dasharray:9 5}
.background{fill:${c.paper}}
${Array.from({ length: 8 }, (_, i) => `.c${i}{stroke:${c[`c${i}`]}}.c${i}.marker{fill:${c[`c${i}`]}}`).join('\n')}
`;

/** The picture as an SVG file. */
export function renderPlot(plot: SpeedPlot): string {
  const picture = chartOf(plot);
  const legend = plot.lines.map((one, i) => ({
    label: one.label,
    swatch: swatch(picture.series[i] as Series),
  }));
  const top = chart.y + chart.height + 14;
  const notes = plot.notes.flatMap(wrapped);
  const height = top + LINE * (legend.length + notes.length) + 20;
  const rows: Markup[] = [
    ...legend.map(
      ({ label, swatch: sample }, i) =>
        markup`<g transform="translate(${chart.x + 64} ${top + LINE * i})">${sample}<text class="words" x="46" y="11">${label}</text></g>`,
    ),
    ...notes.map(
      (text, i) =>
        markup`<text class="note" x="${chart.x}" y="${top + LINE * (legend.length + i) + 16}">${text}</text>`,
    ),
  ];
  return `${
    markup`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}">
<style>${style}</style>
<rect class="background" width="${WIDTH}" height="${height}"/>
<text class="title" x="${chart.x}" y="22">${plot.title}</text>
<svg x="${chart.x}" y="${chart.y}" width="${chart.width}" height="${chart.height}">${draw(picture)}</svg>
${rows}
</svg>`.text
  }\n`;
}
