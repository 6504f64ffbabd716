import type { ConnectivityResult, Result, StabilityResult } from './Result.js';

/** What a running experiment tells; `fraction` is of all updates of the plan. */
export type ExperimentEvent =
  | {
      type: 'plan';
      units: number;
      done: number;
      updates: number;
      /** What the plan's files will take on disk when all is done, and at most on the way there; null where one only watches. */
      bytes: number | null;
      peakBytes: number | null;
    }
  | {
      type: 'unit-start';
      id: string;
      label: string;
      /** Updates that a checkpoint saved. */
      resumed: number;
    }
  | { type: 'progress'; fraction: number; updatesPerSecond: number; running: string[] }
  | {
      type: 'unit-end';
      id: string;
      label: string;
      results: Result[];
      /** Of a comparison of two copies. */
      stability: StabilityResult[];
      connectivity: ConnectivityResult | null;
      /** By another process, since this one began. */
      skipped: boolean;
      diverged: boolean;
      seconds: number;
    }
  | { type: 'unit-failed'; id: string; label: string; code: string; message: string }
  /** Something that people should know and that stops nothing, e.g. a damaged checkpoint that was passed over. */
  | { type: 'notice'; message: string };

/** What one process tells of its units; `Meter` makes ExperimentEvents of it. */
export type UnitEvent =
  | { type: 'unit-start'; id: string; label: string; resumed: number }
  | { type: 'step'; id: string; updates: number }
  | (Extract<ExperimentEvent, { type: 'unit-end' }> & { type: 'unit-end' })
  | (Extract<ExperimentEvent, { type: 'unit-failed' }> & { type: 'unit-failed' })
  | { type: 'notice'; message: string };
