import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RunSummary } from '../experiment/Result.js';
import { packageRoot } from '../package.js';
import { connectivityFigures, overlapTables, stabilityFigures } from './analysisFigures.js';
import type { LayerDensities, ReportExtras } from './extras.js';
import { impFigure, trainingFigures } from './figures.js';
import { items, percent, table } from './html.js';
import { Markup, markup } from './markup.js';
import { curves, matchingRule } from './matching.js';
import { replacedLines } from './replaced.js';
import { style } from './style.js';
import { findings } from './verdicts.js';

const version = () =>
  (JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }).version;

/** What is not there, in words. */
function gaps({ units, problems, complete }: RunSummary, extras: ReportExtras | undefined): Markup | null {
  const counts = (['running', 'waiting', 'failed', 'impossible', 'damaged'] as const)
    .filter((state) => units[state] > 0)
    .map(
      (state) =>
        `${units[state]} ${state === 'impossible' ? 'impossible, because a training that they need diverged' : state}`,
    );
  if (complete && counts.length === 0) return null;
  const unfinished = extras?.unfinished ?? [];
  return markup`<div class="warning"><p>${complete ? 'All is done that can be done' : 'Not complete'}: ${units.done} of ${units.total} units are done, ${counts.join(', ')}. Means and bands are over what is there.</p>${items(
    problems.map(({ label, state, message }) => `${state}: ${label}: ${message}`),
  )}${
    unfinished.length === 0
      ? null
      : markup`<details><summary>Units that are not done: ${unfinished.length}</summary>${items(
          unfinished.map(
            ({ label, state, updates, of }) =>
              `${label}: ${state}${updates > 0 ? `, ${updates} of ${of} updates` : ''}`,
          ),
        )}</details>`
  }</div>\n`;
}

function layerTable({ method, rewind, replicate, tensors, levels }: LayerDensities): Markup {
  return table({
    caption: `Weights remaining of each tensor in %, k = ${rewind}, ${method}, masks of replicate ${replicate}`,
    head: ['level', ...tensors.map(({ name, size }) => `${name} (${size})`)],
    rows: levels.map(({ level, remaining }) => [
      level,
      ...remaining.map((count, i) => percent(count / (tensors[i]?.size ?? 1))),
    ]),
  });
}

/** Pictures that could not be read. */
function replaced(summary: RunSummary): Markup | null {
  const [words, ...splits] = replacedLines(summary);
  return words === undefined ? null : markup`<div class="warning"><p>${words}.</p>${items(splits)}</div>\n`;
}

const section = (title: string, parts: (Markup | null)[]) =>
  parts.some((part) => part !== null) ? markup`<h3>${title}</h3>${parts}` : null;

function howMade(summary: RunSummary, extras: ReportExtras | undefined): Markup {
  return markup`<h3>How it was made</h3><dl><dt>run folder</dt><dd>${summary.run}</dd><dt>lth-train</dt><dd>${version()}</dd>${
    summary.fingerprints.length === 0
      ? null
      : markup`<dt>fingerprint</dt><dd>${summary.fingerprints.map((one) => markup`<div>${one}</div>`)}</dd>`
  }${summary.paper ? markup`<dt>paper</dt><dd>${summary.paper.source}</dd>` : null}</dl>${
    summary.fingerprints.length > 1
      ? markup`<p>Bits of ${summary.fingerprints.length} kinds are mixed here: differences between them are not the experiment's alone.</p>`
      : null
  }${
    extras
      ? markup`<p>To make it again, in a folder <code>again</code>; threads and jobs change no bit:</p><pre>${extras.commands.join('\n')}</pre><details><summary>The recipe as it was run</summary><pre>${extras.recipe}</pre></details>`
      : null
  }`;
}

function run(summary: RunSummary, extras: ReportExtras | undefined, index: number): Markup {
  const id = `run${index}`;
  const found = findings(summary);
  return markup`<section id="${id}"><h2>${summary.recipe}</h2>
<p class="soft">${summary.run}</p>
${gaps(summary, extras)}${replaced(summary)}${items(found)}${
  summary.results.length === 0
    ? markup`<p>No training has finished yet.</p>`
    : markup`<p class="soft">${matchingRule[0]?.toUpperCase() ?? ''}${matchingRule.slice(1)}.</p>`
}
${trainingFigures(summary, id)}${stabilityFigures(summary, id)}${connectivityFigures(summary, id)}${section(
  'Weights remaining by layer',
  (extras?.layers ?? []).map(layerTable),
)}${
  extras?.masksProblem
    ? markup`<div class="warning"><p>Nothing is told of layers and overlap, because masks cannot be read: ${extras.masksProblem}</p></div>`
    : null
}${section('Overlap of masks', overlapTables(extras?.overlap ?? []))}${howMade(summary, extras)}
</section>\n`;
}

/** IMP of all runs in one picture. */
function together(summaries: RunSummary[]): Markup | null {
  const parts = summaries.flatMap((summary, i) =>
    curves(summary.results)
      .filter((curve) => curve.rows.some((row) => row.accuracy.imp))
      .map((curve) => ({ label: `${i + 1}: ${summary.recipe}, k = ${curve.rewind}`, curve })),
  );
  return summaries.length < 2 || parts.length === 0 ? null : impFigure('IMP of all runs', parts, 'runs');
}

/**
 * One HTML page about one or several runs, that stands alone: no script, no network, no font of its own. The same
 * summaries give the same bytes.
 * @param extras of each summary, by place; what is not there is not told.
 */
export function renderReport(summaries: RunSummary[], extras: ReportExtras[] = []): string {
  const title = [...new Set(summaries.map(({ recipe }) => recipe))].join(', ');
  const contents =
    summaries.length < 2
      ? null
      : markup`<nav aria-label="Runs"><ol>${summaries.map(
          ({ recipe, run }, i) =>
            markup`<li><a href="#run${i}">${recipe}</a> <span class="soft">${run}</span></li>`,
        )}</ol></nav>`;
  return markup`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/><meta name="generator" content="lth-train"/><meta name="viewport" content="width=device-width, initial-scale=1"/><meta http-equiv="Content-Security-Policy" content="default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;"/><title>${title}: lottery tickets</title><style>${new Markup(style)}</style></head><body>
<header><h1>${title}</h1><p class="soft">Iterative magnitude pruning with rewinding: report of ${summaries.length === 1 ? 'one run' : `${summaries.length} runs`}.</p></header>
<main>${contents}${together(summaries)}${summaries.map((summary, i) => run(summary, extras[i], i))}</main>
</body></html>
`.text;
}
