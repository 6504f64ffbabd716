/** The benchmark commands: they measure what they say, check what they time, and can be stopped. No test asserts a time. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { breakEven, describeBreakEven } from '../bench/breakEven.js';
import type { ImpResult } from '../bench/imp.js';
import { benchKernels, type KernelOptions, type KernelsResult } from '../bench/kernels.js';
import { layersOf, parseLayer } from '../bench/layers.js';
import { renderPlot } from '../bench/plot.js';
import type { StepResult } from '../bench/step.js';
import { loadAddon } from '../lib/native/load.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Masks } from '../lib/session/Masks.js';
import { CommandLine } from './helpers/commandLine.js';
import { withoutPython } from './helpers/python.js';
import { all, parseXml } from './helpers/xml.js';

const folder = mkdtempSync(join(tmpdir(), 'lth-bench-test-'));
const cli = new CommandLine({});
after(() => {
  cli.end();
  rmSync(folder, { recursive: true });
});

const quick: KernelOptions = {
  network: 'lenet-300-100',
  layers: ['5x3x3x3@6x7'],
  densities: [0.5, 0.1],
  masks: 'uniform',
  precision: 'fp32',
  threads: 2,
  batch: 20,
  rounds: 1,
  sample: 1e-5,
  device: 'cpu',
  reference: false,
};

/** Multiply-adds x 2 of the weights that the mask keeps, one by one. */
function operationsOf(spec: string, batch: number, keeps: (i: number) => boolean): number {
  const { shape, input, output, stride, padding } = parseLayer(spec);
  const [k, c, r, s] = shape as [number, number, number, number];
  let count = 0;
  for (let i = 0; i < k * c * r * s; i++) {
    if (!keeps(i)) continue;
    const [tapY, tapX] = [Math.floor((i % (r * s)) / s), i % s];
    for (let y = 0; y < (output[1] as number); y++)
      for (let x = 0; x < (output[2] as number); x++) {
        const [row, column] = [y * stride[0] - padding[0] + tapY, x * stride[1] - padding[1] + tapX];
        if (row >= 0 && column >= 0 && row < (input[1] as number) && column < (input[2] as number)) count++;
      }
  }
  return 2 * batch * count;
}

test('bench kernels --json: finite numbers of every product, of the operations that the layer has', async () => {
  const specs = ['5x3x3x3@6x7', '4x6x5x5@9x9/2+2', '8x4x1x1@5x5/2'];
  for (const precision of ['fp32', 'bf16']) {
    const args = [
      '--densities',
      '60,20',
      '--batch',
      '20',
      '--rounds',
      '2',
      '--sample',
      '1',
      '--precision',
      precision,
    ];
    const { code, out, err } = await cli.run(
      'bench',
      'kernels',
      ...specs.flatMap((one) => ['--layer', one]),
      ...args,
      '--no-reference',
      '--json',
    );
    assert.equal(code, 0, err);
    const result = JSON.parse(out) as KernelsResult;
    assert.equal(result.torch, null);
    assert.ok(result.limits && result.limits.fp32 > 0 && result.limits.bandwidth > 0);
    assert.deepEqual(
      result.layers.map(({ layer }) => layer),
      specs,
    );
    for (const { layer, rows } of result.layers) {
      assert.equal(rows.length, 2);
      for (const row of rows) {
        assert.equal(
          row.denseOperations,
          operationsOf(layer, 20, () => true),
          layer,
        );
        assert.equal(row.remaining, Math.round(row.asked * row.weights));
        assert.ok(row.sparseOperations > 0 && row.sparseOperations < row.denseOperations);
        assert.deepEqual(
          row.products.map(({ pass }) => pass),
          ['forward', 'inputGradient', 'weightGradient'],
        );
        for (const { dense, sparse, ratio, difference, torchDense } of row.products) {
          assert.ok(ratio && ratio.n === 2 && ratio.median > 0);
          for (const side of [dense, sparse]) {
            assert.ok(side && side.ms.n === 2);
            for (const value of [side.ms.median, side.gflops, side.ofPeak, side.ofBandwidth])
              assert.ok(value !== null && Number.isFinite(value) && value > 0);
          }
          assert.ok(difference !== null && difference <= (precision === 'bf16' ? 1e-2 : 1e-4));
          assert.equal(torchDense, null);
        }
      }
    }
  }
});

test('operations of a sparse product are those of the weights that are left, tap by tap', async () => {
  const network = CompiledNetwork.compile({
    name: 'one',
    input: [3, 6, 7],
    classes: 5,
    layers: [
      { name: 'layer', type: 'conv', channels: 5, kernel: 3, padding: 1 },
      { name: 'pool', type: 'globalpool' },
    ],
  });
  const size = 5 * 3 * 9;
  const bytes = new Uint8Array(Math.ceil(size / 8));
  const keeps = (i: number) => i % 4 === 1;
  for (let i = 0; i < size; i++) if (keeps(i)) bytes[i >> 3] = (bytes[i >> 3] as number) | (1 << (i & 7));
  const masks = Masks.fromBits(network, { 'layer.weight': bytes });
  const options = { batch: 20, bf16: false, threads: 1, rounds: 1, sample: 0 };
  const times = await loadAddon().benchLayer(network.handle, masks.handle, options).end;
  assert.equal(times?.sparseOperations, operationsOf('5x3x3x3@6x7', 20, keeps));
  // It reads the examples.
  assert.equal(times?.inputGradient, null);
  const other = CompiledNetwork.compile('lenet-20-12');
  await assert.rejects(loadAddon().benchLayer(network.handle, Masks.ones(other).handle, options).end, {
    code: 'wrong-shape',
  });
  assert.throws(
    () => loadAddon().benchLayer(network.handle, masks.handle, { ...options, sample: Number.NaN }),
    { code: 'invalid-argument', message: /sample/ },
  );
  const two = CompiledNetwork.compile('lenet-5');
  await assert.rejects(loadAddon().benchLayer(two.handle, Masks.ones(two).handle, options).end, {
    code: 'invalid-argument',
    message: /more layers with weights/,
  });
});

test('linear layers are measured too, by name and of a network, with masks of a real IMP', async () => {
  const named = await benchKernels({ ...quick, layers: ['30x50'] });
  assert.equal(named.layers[0]?.rows[0]?.denseOperations, 2 * 20 * 30 * 50);
  const imp = await benchKernels({ ...quick, layers: [], masks: 'imp', batch: 60 });
  assert.deepEqual(
    imp.layers.map(({ layer }) => layer),
    ['fc1', 'fc2', 'fc3'],
  );
  const [fc1, fc2] = imp.layers;
  // Nothing wants the gradient of the examples.
  assert.deepEqual(
    fc1?.rows[0]?.products.map(({ pass }) => pass),
    ['forward', 'weightGradient'],
  );
  assert.equal(fc2?.rows[0]?.products.length, 3);
  assert.ok(Math.abs((fc1?.rows[1]?.density ?? 0) - 0.108) < 0.01);
  await assert.rejects(benchKernels({ ...quick, layers: ['30x50'], precision: 'bf16' }), {
    code: 'invalid-argument',
  });
});

test('a measurement stops where its signal says so, before and while it runs', async () => {
  await assert.rejects(benchKernels({ ...quick, signal: AbortSignal.abort(new Error('no')) }), /no/);
  const stop = new AbortController();
  const endless = benchKernels({ ...quick, rounds: 1e9, signal: stop.signal });
  setTimeout(() => stop.abort(new Error('enough')), 300);
  await assert.rejects(endless, /enough/);
});

test('a process that ends in the middle of a measurement ends as it was told to', () => {
  const addon = new URL('../lib/native/load.js', import.meta.url).href;
  const code = `const { loadAddon } = await import(process.argv[1]);
    loadAddon().benchLimits(2).end.then(() => process.exit(1));
    setTimeout(() => process.exit(7), 50);`;
  for (let i = 0; i < 5; i++) {
    const child = spawnSync(process.execPath, ['--input-type=module', '-e', code, addon], {
      encoding: 'utf8',
    });
    assert.equal(child.status, 7, child.stderr);
  }
});

test('layers of networks: convolutions of one shape once, or each; names of shapes as they are written', () => {
  const resnet = CompiledNetwork.compile('resnet-20');
  const forms = layersOf(resnet, false);
  const each = layersOf(resnet, true);
  // Those of shortcuts are not pruned.
  assert.equal(each.length, 19);
  assert.equal(
    forms.reduce((sum, { same }) => sum + same.length, 0),
    19,
  );
  assert.deepEqual(forms.find(({ layer }) => layer === 'layer1.0.conv1')?.same.length, 6);
  assert.equal(forms[0]?.inputGradient, false);
  const conv = parseLayer('64x32x3x3@16x16/2');
  assert.deepEqual(
    [conv.shape, conv.output, conv.padding],
    [
      [64, 32, 3, 3],
      [64, 8, 8],
      [1, 1],
    ],
  );
});

test('break-even: between two densities on a line of logarithms, conservative where it crosses more than once', () => {
  const at = (...pairs: [number, number][]) =>
    breakEven(pairs.map(([density, speedUp]) => ({ density, speedUp })));
  const even = at([0.4, 0.5], [0.1, 2]);
  assert.equal(even.faster, 'below');
  assert.ok(Math.abs((even.density as number) - 0.2) < 1e-12);
  assert.equal(describeBreakEven(even), 'below 20.0 %');
  // Faster at 80 %, slower at 40 %: what counts is that it is faster from here on.
  assert.ok(((at([0.8, 1.1], [0.4, 0.9], [0.1, 2]).density as number) ?? 1) < 0.4);
  assert.deepEqual(at([0.5, 1.5], [0.1, 3]), { density: null, faster: 'always' });
  assert.deepEqual(at([0.5, 0.5], [0.1, 0.9]), { density: null, faster: 'never' });
  assert.deepEqual(at(), { density: null, faster: 'never' });
  assert.equal(at([0.5, 1], [0.2, 3]).faster, 'always');
});

test('a plot is one well-formed SVG that needs nothing else, with every point and the break-even marked', () => {
  const lines = ['<first>', 'second'].map((label, i) => ({
    label,
    points: [1, 0.5, 0.1, 0.01].map((density) => ({
      density,
      speedUp: (0.1 * (i + 1)) / density,
      words: `${label} & ${density}`,
    })),
  }));
  const svg = renderPlot({ title: 'a "title"', unit: 'dense', lines, notes: ['note'] });
  const root = parseXml(svg.trim());
  assert.equal(root.name, 'svg');
  const inside = (ofClass: string) => all(root, 'path', ofClass);
  assert.equal(inside('marker').length, 8 + 2); // with the legend's
  assert.equal(inside('mark').length, 2);
  const labels = all(root, 'text', 'mark-label').map(({ text }) => text);
  assert.deepEqual(labels, ['<first>: even at 10 %', 'second: even at 20 %']);
  assert.ok(all(root, 'text').some(({ text }) => text === 'note'));
  // Nothing that only some programs know, or that is somewhere else.
  assert.doesNotMatch(svg.replace('xmlns="http://www.w3.org/2000/svg"', ''), /var\(|url\(|href/);
});

test('bench step and bench imp: a row for every density or level, a picture, and what all of it costs', async () => {
  const picture = join(folder, 'step.svg');
  const small = [
    '--network',
    'lenet-300-100',
    '--rounds',
    '1',
    '--steps',
    '2',
    '--threads',
    '1',
    '--no-reference',
    '--json',
  ];
  const step = await cli.run('bench', 'step', ...small, '--densities', '100,10,1', '--plot', picture);
  assert.equal(step.code, 0, step.err);
  const { series, torch } = JSON.parse(step.out) as StepResult;
  assert.equal(torch, null);
  assert.match(step.err, /PyTorch is left out/);
  assert.deepEqual(
    series.map(({ masks }) => masks),
    ['uniform', 'imp'],
  );
  for (const { masks, rows } of series) {
    assert.equal(rows.length, 3);
    assert.equal(rows[0]?.density, 1);
    assert.ok(Math.abs((rows[1]?.density ?? 0) - 0.1) < (masks === 'imp' ? 0.01 : 1e-4));
    for (const row of rows) assert.ok(row.ms.median > 0 && row.ratio === null);
  }
  assert.equal(series[1]?.rows[1]?.level, 10);
  parseXml(readFileSync(picture, 'utf8').trim());

  const imp = await cli.run('bench', 'imp', ...small, '--levels', '3');
  assert.equal(imp.code, 0, imp.err);
  const whole = JSON.parse(imp.out) as ImpResult;
  assert.deepEqual(
    whole.rows.map(({ level }) => level),
    [0, 1, 2, 3],
  );
  assert.equal(whole.cost, null);
  assert.ok(whole.costOfOurs > 0);
  const here = await cli.run('bench', 'imp', ...small, '--levels', '2', '--train', '1');
  assert.equal((JSON.parse(here.out) as ImpResult).rows.length, 3, here.err);
});

test("with PyTorch its columns are there: dense, torch.sparse's, and of steps", {
  skip: withoutPython,
}, async () => {
  const result = await benchKernels({ ...quick, layers: ['5x3x3x3@6x7', '30x50'], reference: true });
  assert.match(result.torch ?? '', /^\d/);
  for (const { rows } of result.layers)
    for (const { products } of rows)
      for (const { torchDense, torchSparse, pass } of products) {
        assert.ok(torchDense && torchDense.ms.median > 0);
        assert.ok(torchSparse ? torchSparse.ms.median > 0 : result.problems[pass]);
      }
  const args = ['--network', 'lenet-20-12', '--rounds', '1', '--steps', '1', '--variants', 'eager', '--json'];
  const step = await cli.run('bench', 'step', ...args, '--densities', '100,10');
  assert.equal(step.code, 0, step.err);
  const { series } = JSON.parse(step.out) as StepResult;
  for (const row of series[0]?.rows ?? []) {
    assert.equal(row.best, 'eager');
    assert.ok((row.ratio?.median ?? 0) > 0);
  }
});

test('what cannot be measured is a usage error that says why', async () => {
  const cases: [args: string[], message: RegExp][] = [
    [['kernels', '--layer', '64x64x3@8x8'], /KxCxRxS@HxW/],
    [['kernels', '--layer', '4x4x9x9@2x2+0'], /larger than/],
    [['kernels', '--densities', '0,50'], /percents/],
    [['kernels', '--densities', '101'], /percents/],
    [['kernels', '--device', 'gpu'], /cpu, cuda or cuda:N/],
    [['kernels', '--masks', 'some'], /uniform or imp/],
    [['kernels', '--network', 'lenet-300-100', '--precision', 'bf16'], /fp32/],
    [['kernels', '--layer', '4x4', '--masks', 'imp'], /--network/],
    [['kernels', '--network', 'vgg-11', '--masks', 'imp'], /vgg-11/],
    [['step', '--network', 'resnet-21'], /no network/],
    [['step', '--rounds', '0'], /whole number/],
    [['imp', '--network', 'vgg-11', '--no-reference'], /vgg-11/],
    [['imp', '--run', 'a', '--train', '3'], /one source/],
    [['masks', '--run', 'a'], /--out/],
    [['speed'], /unknown command|too many/i],
  ];
  for (const [args, message] of cases) {
    const { code, err } = await cli.run('bench', ...args);
    assert.equal(code, 2, `${args.join(' ')}: ${err}`);
    assert.match(err, message, args.join(' '));
  }
  const { cuda } = loadAddon().info();
  if (cuda.available) return;
  const { code, err } = await cli.run('bench', 'kernels', '--device', 'cuda');
  assert.equal(code, 1);
  assert.ok(err.includes(cuda.reason), err);
});
