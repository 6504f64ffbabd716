export const FAILED = 1;
/** Saved and stopped: requeue me. */
export const STOPPED = 75;
