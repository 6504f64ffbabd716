/** What went wrong, for programs. */
export type ErrorCode =
  /** A command line that cannot be understood. Exit code 2. */
  | 'usage'
  /** A recipe or network description that is not valid. Exit code 2. */
  | 'recipe'
  /** An argument outside its type or range. */
  | 'invalid-argument'
  /** Shapes that do not fit each other. */
  | 'wrong-shape'
  /** A file that is truncated, damaged, or not what its name says. */
  | 'corrupt-file'
  /** The operating system refused: missing file, no permission, disk full. */
  | 'io'
  /** Possible in principle, not in this version or build. */
  | 'unsupported'
  /** `device: cuda` on a build or machine without CUDA. */
  | 'no-cuda'
  /** A session, snapshot, ... was used after `dispose()`. */
  | 'disposed'
  /** A handle of one kind was passed where another is wanted. */
  | 'wrong-handle'
  /** The session is training or evaluating. */
  | 'busy'
  /** The loss or a weight is not finite. */
  | 'diverged'
  /** Stopped by an AbortSignal. */
  | 'aborted'
  /** The native addon cannot be loaded. */
  | 'addon'
  /** Another process works on it. */
  | 'locked';

/** Every error that lth-train throws on purpose; `message` is for people, `code` for programs. */
export class LthError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'LthError';
    this.code = code;
  }
}
