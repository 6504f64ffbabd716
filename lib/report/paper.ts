import type { PaperFigure, PaperFigures } from '../recipe/Recipe.js';
import type { Curve, LevelRow } from './matching.js';

/** As papers print them: 98.0, and a second digit only where there is one. */
const percent = (value: number) => (value * 100).toFixed(2).replace(/0$/, '');

function figure({ branch, accuracy, spread }: PaperFigure, row: LevelRow): string {
  const here = row.accuracy[branch];
  const paper = `${percent(accuracy)}${spread === undefined ? '' : ` +- ${percent(spread)}`}`;
  return `${branch} ${paper} (here ${here ? (here.mean * 100).toFixed(2) : '-'})`;
}

function level(row: LevelRow, figures: PaperFigure[]): string {
  const density = figures.find((one) => one.densityPrunable !== undefined)?.densityPrunable;
  const remaining =
    density === undefined
      ? ''
      : `, ${percent(density)} % remaining (here ${(row.densityPrunable * 100).toFixed(2)} %)`;
  return `  level ${row.level}${remaining}: ${figures.map((one) => figure(one, row)).join(', ')}`;
}

/** The paper's figures that belong to the curve's rewind point. */
export function paperFiguresOf(paper: PaperFigures | null, curve: Curve): PaperFigure[] {
  return (paper?.figures ?? []).filter(
    ({ rewind }) => rewind === undefined || Number.parseInt(rewind, 10) === curve.rewind,
  );
}

/** The paper's test accuracies beside the measured means: a line for each level of the curve that it has figures of. */
export function paperLines(paper: PaperFigures | null, curve: Curve): string[] {
  const ofRewind = paperFiguresOf(paper, curve);
  const lines = curve.rows.flatMap((row) => {
    const figures = ofRewind.filter((one) => one.level === row.level);
    return figures.length > 0 ? [level(row, figures)] : [];
  });
  return lines.length > 0 ? [`paper (${paper?.source}), test accuracy %:`, ...lines] : [];
}
