import type { Result } from './Result.js';

/** What a running experiment tells; `fraction` is of all updates of the plan. */
export type ExperimentEvent =
  | { type: 'plan'; units: number; done: number; updates: number; bytes: number }
  | { type: 'unit-start'; id: string; label: string }
  | { type: 'progress'; fraction: number; updatesPerSecond: number; running: string[] }
  | {
      type: 'unit-end';
      id: string;
      label: string;
      results: Result[];
      skipped: boolean;
      diverged: boolean;
      seconds: number;
    };
