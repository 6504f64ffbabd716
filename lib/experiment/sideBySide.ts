import type { Recipe } from '../recipe/Recipe.js';

export interface Processes {
  jobs: number;
  /** Of all jobs together. */
  threads: number;
}

/** Threads of each process. */
export const threadsEach = ({ jobs, threads }: Processes) => Math.max(1, Math.floor(threads / jobs));

/**
 * Units that a process has in work at a time, each with a share of its threads. Trainings that read pictures from files are
 * large: several would not fit a device, and one makes good use of all threads.
 * @param asked null: as many as threads, but one of pictures in files.
 */
export function sideBySide({ data }: Recipe, processes: Processes, asked: number | null): number {
  const most = threadsEach(processes);
  return Math.min(most, asked ?? (data.crop ? 1 : most));
}
