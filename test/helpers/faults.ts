import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../lib/package.js';

/** Calls that change something on disk, in the order of faults.c. `sync` is of files and of folders. */
export const callKinds = ['create', 'mkdir', 'write', 'sync', 'close', 'rename', 'unlink'] as const;
export type CallKind = (typeof callKinds)[number] | 'read';
const order: readonly CallKind[] = [...callKinds, 'read'];

const actions = { 'kill before': 1, 'kill after': 2, 'kill in the middle': 3, 'short write': 4 };
export type Action = keyof typeof actions | 'ENOSPC' | 'EIO' | 'EROFS' | 'EDQUOT';

export interface Call {
  kind: CallKind;
  path: string;
  /** The fault hit this one. */
  hit: boolean;
  /** Not under way when the process ended. */
  returned: boolean;
}

const compiler = process.env.CC ?? 'cc';

/** For a test's `skip`: why faults cannot be made here, or false. */
export const withoutFaults: string | false =
  process.platform !== 'linux'
    ? 'LD_PRELOAD is for Linux'
    : spawnSync(compiler, ['--version']).status === 0
      ? false
      : `no C compiler (${compiler})`;

/** Faults on order (test/faults/faults.c) for processes that are started with `env`, below one folder. */
export class Faults {
  private readonly state = mkdtempSync(join(realpathSync(tmpdir()), 'lth-faults-'));
  private readonly library = join(this.state, 'faults.so');
  readonly env: Record<string, string>;

  /** @param under an existing folder; what happens elsewhere is not seen. */
  constructor(under: string) {
    const source = join(packageRoot, 'test', 'faults', 'faults.c');
    const { status, stderr } = spawnSync(
      compiler,
      ['-shared', '-fPIC', '-O2', '-Wall', '-o', this.library, source],
      { encoding: 'utf8' },
    );
    if (status !== 0) throw new Error(`${source}: ${stderr}`);
    this.env = {
      // After what is preloaded already: the runtime of a sanitizer has to come first.
      LD_PRELOAD: [process.env.LD_PRELOAD, this.library].filter(Boolean).join(' '),
      LTH_FAULTS_UNDER: realpathSync(under),
      LTH_FAULTS_STATE: this.state,
      UV_USE_IO_URING: '0',
    };
    this.order();
  }

  /**
   * What is to happen from now on, also to processes that live already; counting and the log begin anew.
   * @param fault from the `at`-th call (from 1) of these kinds on, for `times` calls.
   */
  order(fault?: { at: number; action: Action; kinds?: readonly CallKind[]; times?: number }): void {
    const control = Buffer.alloc(40);
    if (fault) {
      const { at, action, kinds = callKinds, times = 1 } = fault;
      control.writeBigUInt64LE(BigInt(at), 16);
      control.writeBigUInt64LE(BigInt(times), 24);
      control.writeUInt32LE(
        kinds.reduce((bits, kind) => bits | (1 << order.indexOf(kind)), 0),
        32,
      );
      const kill = actions[action as keyof typeof actions];
      control.writeInt32LE(kill ?? -constants.errno[action as keyof typeof constants.errno], 36);
    }
    writeFileSync(join(this.state, 'calls'), '');
    // In place, because living processes have mapped it.
    const path = join(this.state, 'control');
    writeFileSync(path, control, { flag: existsSync(path) ? 'r+' : 'w' });
  }

  /** What happened since the last order. */
  calls(): Call[] {
    const calls = new Map<string, Call>();
    for (const line of readFileSync(join(this.state, 'calls'), 'utf8').split('\n')) {
      const [what, serial, _pid, kind, ...path] = line.split(' ');
      if (!what || !serial) continue;
      const call = calls.get(serial);
      if (what === 'E' && call) call.returned = true;
      else
        calls.set(serial, {
          kind: kind as CallKind,
          path: path.join(' '),
          hit: what === 'F',
          returned: false,
        });
    }
    return [...calls.values()];
  }

  dispose(): void {
    rmSync(this.state, { recursive: true });
  }
}
