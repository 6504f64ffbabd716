/**
 * `lth-train bench step`: one update over densities, beside PyTorch's best ways to make it, interleaved in one run. Both
 * sides gather a batch out of resident bytes, normalise it, go forward and backward, update with the fused optimiser and
 * look at the loss; lth-train augments pictures too, PyTorch does not. Where weights are pruned PyTorch makes its dense step
 * and multiplies the masks in place, in one call.
 */
import { columns } from '../lib/report/terminal.js';
import { Masks } from '../lib/session/Masks.js';
import { type BreakEven, breakEven, describeBreakEven } from './breakEven.js';
import { describe, type Setting, setting, threeDigits } from './helpers.js';
import { MaskFile } from './maskFile.js';
import type { SpeedLine, SpeedPlot } from './plot.js';
import {
  describeDevice,
  describeTraining,
  percent,
  type StepRow,
  spread,
  type TrainingOptions,
  type TrainingSettings,
  Trainings,
} from './training.js';

/** As much of each layer; by magnitude at initialisation in one pool, which keeps more of some layers; those of a real IMP. */
export const maskKinds = ['uniform', 'magnitude', 'imp'] as const;
export type MaskKind = (typeof maskKinds)[number];

export interface StepOptions extends TrainingOptions {
  /** Fractions of the prunable weights. */
  densities: number[];
  /** Default: uniform, and those of IMP where they come with the package. */
  masks?: MaskKind[];
  maskFile?: string;
}

export interface StepSeries {
  masks: MaskKind;
  /** Where masks of IMP are from. */
  source: string | null;
  rows: StepRow[];
  /** Against PyTorch's best variant, or without PyTorch against our own dense update. */
  breakEven: BreakEven;
}

export interface StepResult extends TrainingSettings {
  setting: Setting;
  series: StepSeries[];
}

/** How many times as fast as the other side, of each row. */
function speedUps(rows: StepRow[]): number[] {
  const dense = rows.find(({ density }) => density === 1)?.ms.median;
  return rows.map(({ ratio, ms }) => ratio?.median ?? (dense === undefined ? Number.NaN : dense / ms.median));
}

function pointsOf(rows: StepRow[]): { density: number; speedUp: number; row: StepRow }[] {
  const all = speedUps(rows);
  return rows
    .map((row, i) => ({ density: row.density, speedUp: all[i] as number, row }))
    .filter(({ speedUp }) => Number.isFinite(speedUp));
}

/** @throws LthError as Session.open and MaskFile.read; the signal's reason. */
export async function benchStep(o: StepOptions): Promise<StepResult> {
  const shipped = (await MaskFile.shipped()).includes(o.network);
  const kinds: MaskKind[] = o.masks ?? (shipped || o.maskFile ? ['uniform', 'imp'] : ['uniform']);
  if (!o.masks && kinds.length === 1)
    o.onProgress?.(`no masks of IMP come with the package for ${o.network}: uniform ones alone`);
  const file = kinds.includes('imp') ? await MaskFile.open(o.network, o.maskFile) : null;
  const both = await Trainings.open(o);
  try {
    const start = await both.session.snapshot();
    const series: StepSeries[] = [];
    // The dense update is the same one for all kinds of masks.
    const dense = o.densities.includes(1) ? [await both.measure(1, 0)] : [];
    for (const kind of kinds) {
      const rows = [...dense];
      for (const asked of o.densities) {
        if (asked === 1) continue;
        await both.session.setMasks(null);
        await both.session.load(start);
        const level = kind === 'imp' ? (file as MaskFile).nearest(asked) : null;
        const masks =
          level === null
            ? await Masks.ones(both.network).prune(start, {
                fraction: 1 - asked,
                pooling: kind === 'uniform' ? 'layerwise' : 'global',
              })
            : await (file as MaskFile).at(both.network, level);
        await both.session.setMasks(masks);
        const row = await both.measure(masks.density.prunable, level);
        masks.dispose();
        rows.push(row);
        o.onProgress?.(
          `${kind}, ${percent(row.density)} %: ${threeDigits(row.ms.median)} ms${row.ratio ? `, ${row.ratio.median.toFixed(2)} times as fast as ${row.best}` : ''}`,
        );
      }
      const source = kind === 'imp' ? (file as MaskFile).header.made.command : null;
      series.push({ masks: kind, source, rows, breakEven: breakEven(pointsOf(rows)) });
    }
    return { setting: setting(), ...both.settings, series };
  } finally {
    both.close();
  }
}

export function renderStepBench(result: StepResult): string {
  const { torch, series } = result;
  const variants = Object.keys(series[0]?.rows[0]?.pytorch ?? {});
  const lines = [
    `${describeTraining(result)}: an update over densities`,
    `${describe(result.setting)}${torch ? `, PyTorch ${torch}` : ''}; median [quartiles] of ${result.rounds} rounds of ${result.steps} updates`,
    ...describeDevice(result),
  ];
  for (const { masks, source, rows, breakEven: even } of series) {
    lines.push('', `masks ${masks}${source ? ` (${source})` : ''}`);
    const head = [
      'weights %',
      'ms',
      ...variants,
      torch ? 'times as fast as the best' : 'times as fast as dense',
      '',
    ];
    const all = speedUps(rows);
    lines.push(
      ...columns([
        head,
        ...rows.map(({ density, ms, pytorch, ratio }, i) => [
          percent(density),
          spread(ms),
          ...variants.map((variant) => threeDigits(pytorch[variant]?.median ?? Number.NaN)),
          ratio ? spread(ratio) : Number.isFinite(all[i]) ? (all[i] as number).toFixed(2) : '-',
          '',
        ]),
      ]),
      all.some(Number.isFinite)
        ? `faster than ${torch ? "PyTorch's best" : 'dense'}: ${describeBreakEven(even)}`
        : 'nothing to compare with: 100 is not among the densities',
    );
  }
  return lines.join('\n');
}

export function plotStep(result: StepResult, command: string): SpeedPlot {
  const lines = result.series.map(
    ({ masks, rows }): SpeedLine => ({
      label: `masks ${masks}`,
      points: pointsOf(rows).map(({ density, speedUp, row }) => ({
        density,
        speedUp,
        words: `${masks}, ${percent(density)} %: ${threeDigits(row.ms.median)} ms, ${speedUp.toFixed(2)} times as fast`,
      })),
    }),
  );
  return {
    title: `${result.network}: an update`,
    unit: result.torch ? "PyTorch's best dense step" : 'our dense update',
    lines,
    notes: [
      describeTraining(result),
      `${describe(result.setting)}${result.torch ? `, PyTorch ${result.torch}` : ''}`,
      command,
    ],
  };
}
