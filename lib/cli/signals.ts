interface Signals {
  received: string[];
  listener: ((signal: string) => void) | null;
}

/** What bin/lth-train.js installed before all imports; absent where the CLI is called from other code. */
function installed(): Signals | undefined {
  return (globalThis as { [key: symbol]: Signals | undefined })[Symbol.for('lth-train.signals')];
}

/** A signal for AbortController users: aborted by the first SIGINT, SIGTERM or SIGUSR1, also one that came before. */
export function abortOnSignal(onFirst: (name: string) => void): AbortSignal {
  const controller = new AbortController();
  const stop = (name: string) => {
    onFirst(name);
    controller.abort();
  };
  const signals = installed();
  if (signals) {
    signals.listener = stop;
    if (signals.received[0]) stop(signals.received[0]);
  }
  return controller.signal;
}

/** What comes of a command's work; null where the signal came before there was a run to save. */
export async function unlessStopped<T>(signal: AbortSignal, work: Promise<T>): Promise<T | null> {
  try {
    return await work;
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error;
    return null;
  }
}

/** For commands that have nothing to save: the first signal ends them, as it would without us. */
export function exitOnSignal(): void {
  const signals = installed();
  if (!signals) return;
  signals.listener = (name) => process.exit(name === 'SIGINT' ? 130 : 143);
  if (signals.received[0]) signals.listener(signals.received[0]);
}
