import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { executable } from './runs.js';
import './builtinTuning.js';

/** How a command ended, with all processes that it started. */
export interface End {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** Processes that lived on for 10 seconds after the first one had ended. They were killed then. */
  left: number;
  out: string;
  err: string;
}

/** Process groups of living commands: all that is ever sent a signal. */
const groups = new Set<number>();

/** Fields of /proc/PID/stat from the state on; null where the process has ended. */
function stat(pid: string): string[] | null {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
  } catch {
    return null;
  }
}

/** Processes of a group that live; zombies do not. */
function members(group: number): number[] {
  const living = (pid: string) => {
    const [state, , itsGroup] = stat(pid) ?? [];
    return itsGroup === String(group) && state !== 'Z';
  };
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && living(name))
    .map(Number);
}

/**
 * Sends a signal to the living processes of a command.
 * @param choose those that get it; default: all.
 * @returns whether any was there.
 */
export function send(
  group: number,
  signal: NodeJS.Signals,
  choose = (living: number[]): number[] => living,
): boolean {
  let sent = false;
  for (const pid of groups.has(group) ? choose(members(group)) : []) {
    try {
      process.kill(pid, signal);
      sent = true;
    } catch (error) {
      // It has ended since.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }
  return sent;
}

/** Starts `lth-train` in a process group of its own. After `patience` ms it counts as hanging and is killed. */
export function start(
  args: string[],
  env: Record<string, string>,
  patience: number,
): { child: ChildProcess; group: number; ended: Promise<End> } {
  const child = spawn(process.execPath, [executable, ...args], {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  const group = child.pid as number;
  groups.add(group);
  const output = { out: '', err: '' };
  child.stdout.on('data', (text) => {
    output.out += text;
  });
  child.stderr.on('data', (text) => {
    output.err += text;
  });
  const closed = once(child, 'close');
  const late = setTimeout(() => {
    output.err += `\nkilled after ${patience} ms, because it hung`;
    send(group, 'SIGKILL');
  }, patience);
  const ended = once(child, 'exit').then(async ([code, signal]) => {
    clearTimeout(late);
    // What the first process started has to end without it, and soon.
    for (let waited = 0; members(group).length > 0 && waited < 10_000; waited += 20) await sleep(20);
    const left = members(group).length;
    send(group, 'SIGKILL');
    groups.delete(group);
    await closed;
    return { code, signal, left, ...output } as End;
  });
  return { child, group, ended };
}

export function killAll(): void {
  for (const group of groups) send(group, 'SIGKILL');
}

/** Has a process a listener for SIGTERM? Until then it ends as any program does. */
export function listensToTerm(pid: number): boolean {
  try {
    const mask = /^SigCgt:\s*(\w+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '0';
    return (BigInt(`0x${mask}`) & (1n << 14n)) !== 0n;
  } catch {
    return false;
  }
}
