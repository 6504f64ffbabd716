/**
 * `lth-train bench imp`: what a whole IMP costs beside PyTorch's best dense step: one update with the masks of every level,
 * both sides interleaved, medians of the rounds. PyTorch makes its dense step and multiplies the masks in place.
 */
import { firstPrunings } from '../lib/experiment/overlap.js';
import { survey } from '../lib/experiment/survey.js';
import { LthError } from '../lib/native/errors.js';
import { columns } from '../lib/report/terminal.js';
import { Masks } from '../lib/session/Masks.js';
import type { Snapshot } from '../lib/session/Snapshot.js';
import { describe, type Setting, setting, threeDigits } from './helpers.js';
import { MaskFile } from './maskFile.js';
import type { SpeedPlot } from './plot.js';
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

export interface ImpOptions extends TrainingOptions {
  /** A run whose IMP's masks are taken, those of its first rewind point and replicate; default: the package's. */
  run?: string;
  maskFile?: string;
  /** Masks made here instead, as IMP makes them but after so many updates a level, from the weights at the start again. */
  train?: number;
  /** Default: all of the masks; 15 of those made here. */
  levels?: number;
}

export interface ImpResult extends TrainingSettings {
  setting: Setting;
  masks: string;
  rows: StepRow[];
  /** Dense trainings of PyTorch's best variant that take as long as all of these; null without PyTorch. */
  cost: number | null;
  /** The same of our own dense trainings. */
  costOfOurs: number;
}

interface Source {
  words: string;
  levels: number;
  at(level: number): Promise<Masks>;
}

async function sourceOf(o: ImpOptions, both: Trainings, start: Snapshot): Promise<Source> {
  if (o.train !== undefined) {
    const updates = o.train;
    let masks = Masks.ones(both.network);
    const words = `made here, ${updates} updates a level`;
    return {
      words,
      levels: o.levels ?? 15,
      // Level after level.
      async at() {
        await both.session.load(start);
        await both.session.setMasks(masks);
        await both.ours(updates);
        masks = await masks.prune(await both.session.snapshot(), { fraction: 0.2 });
        return masks;
      },
    };
  }
  if (o.run !== undefined) {
    const found = await survey(o.run);
    const units = firstPrunings(found);
    const { network } = both;
    return {
      words: `of ${o.run}`,
      levels: units.length,
      at: async (level) => {
        const id = units[level - 1]?.[0].id as string;
        return Masks.read(network, await found.folder.file(id, 'masks.safetensors'));
      },
    };
  }
  const file = await MaskFile.open(o.network, o.maskFile);
  return {
    words: file.header.made.command,
    levels: file.header.levels,
    at: (level) => file.at(both.network, level),
  };
}

/** @throws LthError as Session.open and MaskFile.read; the signal's reason. */
export async function benchImp(o: ImpOptions): Promise<ImpResult> {
  const both = await Trainings.open(o);
  try {
    const start = await both.session.snapshot();
    const source = await sourceOf(o, both, start);
    const levels = o.levels ?? source.levels;
    if (levels > source.levels || levels < 1)
      throw new LthError(
        'invalid-argument',
        `There are masks of ${source.levels} levels ${source.words}, and ${levels} are asked for`,
      );
    const rows = [await both.measure(1, 0)];
    for (let level = 1; level <= levels; level++) {
      const masks = await source.at(level);
      await both.session.setMasks(null);
      await both.session.load(start);
      await both.session.setMasks(masks);
      const row = await both.measure(masks.density.prunable, level);
      rows.push(row);
      o.onProgress?.(
        `level ${level}, ${percent(row.density)} %: ${threeDigits(row.ms.median)} ms${row.ratio ? `, ${row.ratio.median.toFixed(2)} times as fast as ${row.best}` : ''}`,
      );
    }
    const dense = (rows[0] as StepRow).ms.median;
    return {
      setting: setting(),
      ...both.settings,
      masks: source.words,
      rows,
      cost: both.reference
        ? rows.reduce((sum, { ratio }) => sum + 1 / (ratio?.median ?? Number.NaN), 0)
        : null,
      costOfOurs: rows.reduce((sum, { ms }) => sum + ms.median / dense, 0),
    };
  } finally {
    both.close();
  }
}

export function renderImpBench(result: ImpResult): string {
  const { rows, torch, cost, costOfOurs } = result;
  const table = columns([
    ['level', 'weights %', 'ms', ...(torch ? ['PyTorch ms', 'times as fast', 'best of PyTorch'] : []), ''],
    ...rows.map(({ level, density, ms, pytorch, best, ratio }) => [
      String(level),
      percent(density),
      spread(ms),
      ...(best && ratio ? [threeDigits(pytorch[best]?.median ?? Number.NaN), spread(ratio), best] : []),
      '',
    ]),
  ]);
  return [
    `${describeTraining(result)}: an update at each level, masks ${result.masks}`,
    `${describe(result.setting)}${torch ? `, PyTorch ${torch}` : ''}; median [quartiles] of ${result.rounds} rounds of ${result.steps} updates`,
    ...describeDevice(result),
    ...table,
    `${rows.length} trainings take as long as ${costOfOurs.toFixed(2)} of our dense ones${cost === null ? '' : ` and as ${cost.toFixed(2)} dense ones of PyTorch's best variant (${rows.length} there)`}`,
  ].join('\n');
}

export function plotImp(result: ImpResult, command: string): SpeedPlot {
  const dense = (result.rows[0] as StepRow).ms.median;
  const points = result.rows.map(({ density, level, ms, ratio }) => {
    const speedUp = ratio?.median ?? dense / ms.median;
    return {
      density,
      speedUp,
      words: `level ${level}, ${percent(density)} %: ${threeDigits(ms.median)} ms, ${speedUp.toFixed(2)} times as fast`,
    };
  });
  return {
    title: `${result.network}: an update at each level of IMP`,
    unit: result.torch ? "PyTorch's best dense step" : 'our dense update',
    lines: [{ label: 'masks of IMP', points }],
    notes: [
      `${describeTraining(result)}, masks ${result.masks}`,
      `${describe(result.setting)}${result.torch ? `, PyTorch ${result.torch}` : ''}`,
      result.cost === null
        ? ''
        : `${result.rows.length} trainings take as long as ${result.cost.toFixed(2)} dense ones of PyTorch's best variant`,
      command,
    ].filter((one) => one !== ''),
  };
}
