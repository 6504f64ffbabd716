/** The report: its numbers are the run's, it stands alone, and nothing that a run says gets into it unescaped. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { ConnectivityResult, Result, RunSummary, StabilityResult } from '../lib/experiment/Result.js';
import { runExperiment } from '../lib/experiment/run.js';
import { summarise } from '../lib/experiment/summary.js';
import { loadRecipe } from '../lib/recipe/load.js';
import { type ReportExtras, reportExtras } from '../lib/report/extras.js';
import { curves } from '../lib/report/matching.js';
import { renderReport } from '../lib/report/report.js';
import { curveVerdicts, findings, rangesOf } from '../lib/report/verdicts.js';
import { executable } from './helpers/runs.js';
import { tinyRecipe } from './helpers/tiny.js';
import { all, parseXml, type XmlElement } from './helpers/xml.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-report-'));
after(() => rmSync(folder, { recursive: true }));

interface Size {
  rewinds?: number[];
  levels?: number;
  replicates?: number;
}

/** Accuracies that fall with the level, random ones faster; no two alike. */
function made({ rewinds = [0, 500], levels = 8, replicates = 3 }: Size = {}): RunSummary {
  const results: Result[] = [];
  for (const rewind of rewinds)
    for (let replicate = 0; replicate < replicates; replicate++)
      for (let level = 0; level <= levels; level++)
        for (const branch of level === 0 ? (['imp'] as const) : (['imp', 'random', 'reinit'] as const)) {
          const slope = { imp: rewind > 0 ? 0.0001 : 0.003, random: 0.012, reinit: 0.006 }[branch];
          const testAccuracy = 0.91 - slope * level + 0.0011 * replicate + 0.00001 * level * replicate;
          results.push({
            branch,
            replicate,
            rewind,
            method: 'iterative',
            level,
            noise: 1,
            densityPrunable: 0.8 ** level,
            densityOverall: 0.8 ** level * 0.99 + 0.01,
            testAccuracy,
            validationAccuracy: testAccuracy,
            testLoss: 0.3,
            validationLoss: 0.3,
            earlyStop: 20_000 - 100 * level + 10 * replicate,
            earlyStopTestAccuracy: testAccuracy,
            updates: 30_000 - rewind,
            diverged: false,
            replacedPictures: null,
            seconds: 1,
          });
        }
  const none = { running: 0, waiting: 0, failed: 0, impossible: 0, damaged: 0 };
  return {
    run: 'runs/made',
    recipe: 'made',
    complete: true,
    units: { total: results.length, done: results.length, ...none },
    problems: [],
    replacedPictures: [],
    fingerprints: ['LibTorch 2.13.0 cpu avx512 kernels=1'],
    paper: null,
    results,
    stability: [],
    connectivity: [],
  };
}

function analysed(): Pick<RunSummary, 'stability' | 'connectivity'> {
  const place = { method: 'iterative', level: 8, densityPrunable: 0.168 } as const;
  const stability: StabilityResult[] = [];
  const connectivity: ConnectivityResult[] = [];
  for (const rewind of [0, 500])
    for (const [i, replicate] of [0, 1, 2].entries()) {
      for (const branch of ['imp', 'random'] as const)
        for (const kind of ['order', 'pruning'] as const)
          stability.push({
            ...place,
            kind,
            branch,
            replicate,
            rewind,
            noises: [1, 2],
            testAccuracies: [0.9, 0.9],
            scope: 'masked',
            distance: (branch === 'imp' ? 10 : 30) + i - rewind / 100,
            angle: 60 + i,
            layers: [],
          });
      const test = rewind === 0 ? 0.3 : 0.01;
      connectivity.push({
        ...place,
        branch: 'imp',
        replicate,
        rewind,
        noises: [1, 2],
        statistics: 'interpolated',
        alphas: [0, 0.5, 1],
        testError: [0.09, 0.09 + test, 0.09],
        trainError: [0.01, 0.01 + test, 0.01],
        trainExamples: 100,
        barrier: { test, train: test },
      });
    }
  return { stability, connectivity };
}

/** The page as XML: it is written so that it is both. */
const pageOf = (text: string) => parseXml(text.replace('<!DOCTYPE html>\n', '').trim());
const byId = (page: XmlElement, id: string) => {
  const found = all(page, 'figure').find((one) => one.attributes.id === id);
  assert.ok(found, `no figure ${id}`);
  return found;
};
const cells = (element: XmlElement) =>
  all(element, 'tr').map((row) => row.children.map((cell) => cell.text.trim()));
const percent = (value: number) => (value * 100).toFixed(2);

test("the numbers below each chart are the run's", () => {
  const summary = made();
  const page = pageOf(renderReport([summary]));
  for (const curve of curves(summary.results)) {
    const rows = cells(byId(page, `run0-k${curve.rewind}-iterative-accuracy`)).slice(1);
    assert.equal(rows.length, 9);
    for (const [i, row] of curve.rows.entries()) {
      const shown = rows[i] as string[];
      assert.deepEqual(shown.slice(0, 2), [String(row.level), percent(row.densityPrunable)]);
      for (const [b, branch] of curve.branches.entries()) {
        const s = row.accuracy[branch];
        const words = s ? `${percent(s.mean)} [${percent(s.min)}-${percent(s.max)}]` : '-';
        assert.equal(shown[3 + b], words);
      }
    }
    const stops = cells(byId(page, `run0-k${curve.rewind}-iterative-stop`)).slice(1);
    assert.equal(stops[3]?.[2], '19710 [19700-19720]');
  }
});

/** Numbers of a path's corners. */
const corners = (d = '') =>
  d
    .replace(/^M|Z$/g, '')
    .split('L')
    .map((pair) => pair.split(' ').map(Number) as [number, number]);

test('weights remaining fall to the right on a logarithmic axis: levels of equal factor stand equally far apart', () => {
  const figure = byId(pageOf(renderReport([made()])), 'run0-k0-iterative-accuracy');
  const imp = all(figure, 'path', 'line').find(
    (one) => one.attributes.class?.includes('c0') && corners(one.attributes.d).length === 9,
  );
  const xs = corners(imp?.attributes.d).map(([x]) => x);
  const steps = xs.slice(1).map((x, i) => x - (xs[i] as number));
  assert.equal(steps.length, 8);
  for (const step of steps) assert.ok(Math.abs(step - (544 - 64) / 8) < 0.02, `${step}`);
  const ticks = all(figure, 'g', 'x-ticks').flatMap((g) => all(g, 'text'));
  const at = Object.fromEntries(ticks.map((t) => [t.text, Number(t.attributes.x)]));
  const expected = 64 + (480 * Math.log(1 / 0.2)) / Math.log(1 / 0.8 ** 8);
  assert.ok(Math.abs((at['20'] ?? 0) - expected) < 0.02);
  assert.equal(at['100'], 64);
});

test('bands reach from the smallest to the largest, and the mean lines are inside', () => {
  const figure = byId(pageOf(renderReport([made()])), 'run0-k0-iterative-accuracy');
  const chart = all(figure, 'svg', 'chart')[0] as XmlElement;
  let compared = 0;
  for (const c of ['c0', 'c1', 'c2']) {
    const of = (what: string) =>
      all(chart, 'path', what).find((one) => one.attributes.class?.split(' ').includes(c));
    const line = corners(of('line')?.attributes.d);
    const band = corners(of('band')?.attributes.d);
    assert.equal(band.length, 2 * line.length);
    for (const [i, [x, y]] of line.entries()) {
      const [above, below] = [band[i], band[band.length - 1 - i]] as [[number, number], [number, number]];
      assert.deepEqual([above[0], below[0]], [x, x]);
      assert.ok(above[1] < y && y < below[1]);
      compared++;
    }
  }
  assert.equal(compared, 9 + 8 + 8);
});

test("the dense accuracy and the paper's own curve are drawn", () => {
  const figures = [0, 1, 2, 9].map((level) => ({
    branch: 'imp' as const,
    level,
    densityPrunable: 0.8 ** level,
    accuracy: 0.9 - 0.01 * level,
  }));
  const page = pageOf(renderReport([{ ...made(), paper: { source: 'A <paper> & more', figures } }]));
  const figure = byId(page, 'run0-k0-iterative-accuracy');
  assert.equal(all(all(figure, 'svg', 'chart')[0] as XmlElement, 'path', 'rule').length, 1);
  assert.equal(all(all(figure, 'svg', 'chart')[0] as XmlElement, 'path', 'hollow').length, 4);
  assert.match(all(figure, 'ul', 'legend')[0]?.text ?? '', /dense, 91\.11 %/);
  assert.match(all(figure, 'ul', 'legend')[0]?.text ?? '', /imp, paper/);
  assert.deepEqual(
    cells(figure).map((row) => row[6]),
    ['imp, paper', '90.00', '89.00', '88.00', ...Array(6).fill('-'), '81.00'],
  );
  assert.deepEqual(cells(figure).at(-1), ['9', '13.42', '-', '-', '-', '-', '81.00', 'paper only']);
});

test('what is found is said in sentences: matching levels, tickets, the k where rewinding starts to match', () => {
  const summary = { ...made(), ...analysed() };
  const words = [...findings(summary), ...curves(summary.results).flatMap(curveVerdicts)];
  const said = (pattern: RegExp) =>
    assert.ok(
      words.some((one) => pattern.test(one)),
      `${pattern}`,
    );
  said(/^k = 500, iterative: IMP matches the dense network at levels 1-8 of 8, down to 16\.78 %/);
  said(/^k = 0, iterative: no winning ticket\.$/);
  said(/^Rewinding starts to match at k = 500 at level 8 \(16\.78 %/);
  said(/level 8: imp is 9\.52 points above random on the mean, more than the widest spread/);
  said(/^Stability to data order, level 8: .* of IMP's: 2\.8 at k = 0, 4\.3 at k = 500\.$/);
  said(/connectivity of imp, level 8: stable .* at k = 500\.$/);
  assert.equal(rangesOf([1, 2, 3, 5, 7, 8]), '1-3, 5, 7-8');
  // Without a validation set there is no early stopping, which winning tickets are judged by.
  const unheld = summary.results.map((one) => ({ ...one, earlyStop: null, earlyStopTestAccuracy: null }));
  assert.match(curves(unheld).flatMap(curveVerdicts).join('\n'), /k = 0, iterative: whether .* is not known/);
  assert.ok(!renderReport([{ ...summary, results: unheld }]).includes('Early-stopping iteration'));
});

test('stability and connectivity are drawn over k, errors over alpha, with their numbers', () => {
  const page = pageOf(renderReport([{ ...made(), ...analysed() }]));
  const distance = cells(byId(page, 'run0-distance-iterative-l8-masked'));
  assert.deepEqual(distance[1]?.slice(0, 2), ['0', '11.0 [10.0-12.0]']);
  assert.deepEqual(distance[2]?.slice(0, 2), ['500', '6.00 [5.00-7.00]']);
  const barrier = cells(byId(page, 'run0-barrier-iterative-l8-a3-t100-interpolated'));
  assert.deepEqual(
    barrier.slice(1).map((row) => [row[0], row[1], row.at(-1)]),
    [
      ['0', '30.00 [30.00-30.00]', ''],
      ['500', '1.00 [1.00-1.00]', 'imp'],
    ],
  );
  const line = cells(byId(page, 'run0-line-k0-iterative-l8-a3-t100-interpolated'));
  assert.deepEqual(line[2]?.slice(0, 2), ['0.500', '39.00 [39.00-39.00]']);
});

const hostile = `"><script>alert('1')</script>&amp;]]>\u0000\u202e<img src=x onerror=y>`;

test('whatever a run says is escaped', () => {
  const summary = made();
  const extras: ReportExtras = {
    recipe: hostile,
    commands: [hostile],
    unfinished: [{ label: hostile, state: 'waiting', updates: 1, of: 2 }],
    layers: [
      {
        method: 'iterative',
        rewind: 0,
        replicate: 0,
        tensors: [{ name: hostile, size: 10 }],
        levels: [{ level: 1, remaining: [8] }],
      },
    ],
    overlap: [],
    masksProblem: hostile,
  };
  const text = renderReport(
    [
      {
        ...summary,
        run: hostile,
        recipe: hostile,
        complete: false,
        units: { ...summary.units, failed: 1 },
        problems: [{ id: hostile, label: hostile, state: 'failed', message: hostile }],
        fingerprints: [hostile],
        paper: { source: hostile, figures: [{ branch: 'imp', level: 1, accuracy: 0.9 }] },
      },
    ],
    [extras],
  );
  const page = pageOf(text);
  assert.equal(all(page, 'script').length + all(page, 'img').length, 0);
  for (const part of ['<script', '<img', '\u0000', '\u202e']) assert.ok(!text.includes(part), part);
  assert.ok(all(page, 'h1')[0]?.text.includes("<script>alert('1')</script>&amp;]]>"));
  assert.ok(all(page, 'th').some((one) => one.text.includes('<img src=x onerror=y>')));
});

test('a page stands alone: nothing is fetched, nothing is run, every chart has words', () => {
  const text = renderReport([{ ...made(), ...analysed() }, made({ rewinds: [0] })]);
  const page = pageOf(text);
  assert.doesNotMatch(
    text.replaceAll('xmlns="http://www.w3.org/2000/svg"', ''),
    /https?:|url\(|@import|\ssrc=|<link/,
  );
  assert.equal(all(page, 'script').length, 0);
  const charts = all(page, 'svg', 'chart');
  assert.ok(charts.length >= 12);
  const ids = new Set<string>();
  for (const chart of charts) {
    const [title, desc] = chart.children;
    assert.deepEqual([chart.attributes.role, title?.name, desc?.name], ['img', 'title', 'desc']);
    assert.equal(chart.attributes['aria-labelledby'], `${title?.attributes.id} ${desc?.attributes.id}`);
    assert.ok(title?.text && desc?.text);
    ids.add(title?.attributes.id ?? '');
    for (const path of all(chart, 'path'))
      assert.doesNotMatch(path.attributes.d ?? '', /NaN|Infinity|undefined/);
  }
  assert.equal(ids.size, charts.length);
});

test('the same summary gives the same bytes', () => {
  const one = { ...made(), ...analysed() };
  assert.equal(renderReport([one]), renderReport([structuredClone(one)]));
});

test('several runs are on one page, with IMP of all of them in one chart', () => {
  const page = pageOf(renderReport([made(), { ...made({ rewinds: [0] }), recipe: 'other' }]));
  assert.deepEqual(
    all(page, 'section').map((one) => one.attributes.id),
    ['run0', 'run1'],
  );
  assert.deepEqual(cells(byId(page, 'runs'))[0], [
    'level',
    '1: made, k = 0',
    '1: made, k = 500',
    '2: other, k = 0',
  ]);
});

test('runs that are not complete or diverged are told of, and what is missing breaks the line', () => {
  const summary = made({ rewinds: [0] });
  for (const one of summary.results) {
    if (one.branch !== 'imp' || one.level !== 4) continue;
    Object.assign(one, { testAccuracy: null, validationAccuracy: null, earlyStop: null, diverged: true });
  }
  const units = { ...summary.units, total: summary.units.total + 5, waiting: 3, failed: 1, running: 1 };
  const problems = [
    { id: 'u', label: 'replicate 0, level 9', state: 'failed' as const, message: 'no space' },
  ];
  const page = pageOf(renderReport([{ ...summary, complete: false, units, problems }]));
  const warning = all(page, 'div', 'warning')[0]?.text ?? '';
  assert.match(warning, /^Not complete: 75 of 80 units are done, 1 running, 3 waiting, 1 failed/);
  assert.match(warning, /failed: replicate 0, level 9: no space/);
  assert.match(page.text, /3 trainings of imp diverged at level 4 \(replicates 0-2\)/);
  const chart = all(byId(page, 'run0-k0-iterative-accuracy'), 'svg', 'chart')[0] as XmlElement;
  const lines = all(chart, 'path', 'line').filter((one) => one.attributes.class?.includes('c0'));
  assert.deepEqual(
    lines.map((one) => corners(one.attributes.d).length),
    [4, 4],
  );
  const nothing = { ...summary, results: [], complete: false };
  assert.match(pageOf(renderReport([nothing])).text, /No training has finished yet/);
});

test('a run of thousands of results is a page below 4 MB with every row in it', () => {
  const summary = made({ rewinds: Array.from({ length: 12 }, (_, i) => i * 300), levels: 20, replicates: 5 });
  assert.equal(summary.results.length, 12 * 5 * 61);
  const text = renderReport([summary]);
  assert.ok(text.length < 4e6, `${text.length}`);
  const page = pageOf(text);
  for (const rewind of [0, 3300])
    assert.equal(cells(byId(page, `run0-k${rewind}-iterative-accuracy`)).length, 22);
});

test('lth-train report writes the page of a real run: layers, overlap, recipe, commands', async () => {
  const recipe = { ...tinyRecipe({ replicates: 2 }), name: 'quickstart' };
  const out = join(folder, 'run');
  await runExperiment(recipe, { out, threads: 2 });
  const file = join(folder, 'page.html');
  const done = spawnSync(process.execPath, [executable, 'report', out, '--out', file], { encoding: 'utf8' });
  assert.equal(done.status, 0, done.stderr);
  const text = readFileSync(file, 'utf8');
  const summary = await summarise(out);
  assert.equal(text, renderReport([summary], [await reportExtras(out)]));
  const printed = spawnSync(process.execPath, [executable, 'report', out, '--out', '-'], {
    encoding: 'utf8',
  });
  assert.equal(printed.stdout, text);
  // Where a link leads, and into what is no file: neither is replaced.
  const [link, pipe] = [join(folder, 'link.html'), join(folder, 'pipe')];
  rmSync(file);
  writeFileSync(file, 'older');
  symlinkSync(file, link);
  assert.equal(spawnSync(process.execPath, [executable, 'report', out, '--out', link]).status, 0);
  assert.ok(lstatSync(link).isSymbolicLink());
  assert.equal(readFileSync(file, 'utf8'), text);
  const script2 = 'mkfifo "$0" && { cat "$0" & "$1" "$2" report "$3" --out "$0"; wait; }';
  const piped = spawnSync('sh', ['-c', script2, pipe, process.execPath, executable, out], {
    encoding: 'utf8',
  });
  assert.equal(piped.stdout, text, piped.stderr);
  assert.ok(lstatSync(pipe).isFIFO());

  const page = pageOf(text);
  const layers = all(page, 'table').find((one) => one.text.startsWith('Weights remaining of each tensor'));
  assert.ok(layers);
  // 784 x 20 halved twice; the output layer loses a quarter.
  assert.deepEqual(cells(layers).slice(0, 3), [
    ['level', 'fc1.weight (15680)', 'fc2.weight (240)', 'fc3.weight (120)'],
    ['1', '50.00', '50.00', '75.00'],
    ['2', '25.00', '25.00', '56.67'],
  ]);
  assert.ok(all(page, 'div', 'heat').length >= 2);

  // The command makes the same recipe.
  const [command] = (await reportExtras(out)).commands;
  const script = `printf '%s\\n' ${command}`;
  const words = spawnSync('sh', ['-c', script], { encoding: 'utf8' }).stdout.trim().split('\n');
  assert.deepEqual(words.slice(0, 3), ['lth-train', 'run', 'quickstart']);
  assert.deepEqual(words.slice(words.indexOf('--tuning')), ['--tuning', 'builtin', '--out', 'again']);
  const set = words.filter((_, i) => words[i - 1] === '--set');
  assert.deepEqual(loadRecipe('quickstart', { set }), recipe);
  assert.ok(text.includes('fc3.weight: 0.25'));
});

test('damaged masks are told of, and the rest of the page is there', async () => {
  const out = join(folder, 'damaged');
  await runExperiment(tinyRecipe({ rewind: ['0it'], controls: [] }), { out, threads: 2 });
  const whole = await reportExtras(out);
  assert.equal(whole.masksProblem, null);
  const id = readdirSync(join(out, 'units')).find((one) => one.includes('l01-prune'));
  truncateSync(join(out, 'units', id ?? '', 'masks.safetensors'), 100);
  const extras = await reportExtras(out);
  assert.match(extras.masksProblem ?? '', /masks\.safetensors: has 100 bytes/);
  assert.deepEqual(extras.layers, []);
  const page = pageOf(renderReport([await summarise(out)], [extras]));
  assert.match(page.text, /because masks cannot be read: .*masks\.safetensors/);
  assert.equal(cells(byId(page, 'run0-k0-iterative-accuracy')).length, 4);
  assert.deepEqual((await reportExtras(out, { masks: false })).masksProblem, null);
});

test('a folder that is no run is an error, and no page is written', () => {
  const { status, stderr } = spawnSync(process.execPath, [executable, 'report', folder, '--out', '-'], {
    encoding: 'utf8',
  });
  assert.equal(status, 1);
  assert.match(stderr, /is no run/);
});
