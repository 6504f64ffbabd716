import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Ended } from './driver.js';
import './builtinTuning.js';

/** Runs command lines, one at a time, in a process of their own that lives on from one to the next. */
export class CommandLine {
  private readonly child: ChildProcess;
  private waiting: { resolve: (ended: Ended) => void; reject: (error: Error) => void } | undefined;

  constructor(env: Record<string, string>) {
    const driver = fileURLToPath(new URL('./driver.js', import.meta.url));
    this.child = fork(driver, { env: { ...process.env, ...env } });
    this.child.on('message', (ended: Ended) => this.waiting?.resolve(ended));
    this.child.on('exit', (code, signal) =>
      this.waiting?.reject(new Error(`lth-train: its process ended, ${signal ?? code}`)),
    );
  }

  run(...argv: string[]): Promise<Ended> {
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
      this.child.send(argv);
    });
  }

  end(): void {
    // Nothing of it is wanted any more: its channel would keep this process alive for as long as it takes to end.
    this.child.disconnect();
    this.child.unref();
    this.child.kill('SIGKILL');
  }
}
