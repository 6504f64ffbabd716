/** A process that runs command lines in itself, one after another: their start-up is paid for once (see CommandLine). */
import { main } from '../../lib/cli/main.js';

export interface Ended {
  code: number;
  out: string;
  err: string;
}

process.on('message', async (argv: string[]) => {
  const ended: Ended = { code: 1, out: '', err: '' };
  const streams = [
    { stream: process.stdout, key: 'out' },
    { stream: process.stderr, key: 'err' },
  ] as const;
  const originals = streams.map(({ stream, key }) => {
    const { write } = stream;
    stream.write = (text: string | Uint8Array) => {
      ended[key] += String(text);
      return true;
    };
    return write;
  });
  try {
    ended.code = await main(argv);
  } catch (error) {
    // What bin/lth-train.js would leave to Node: exit code 1 and a stack.
    ended.err += error instanceof Error ? error.stack : String(error);
  }
  streams.forEach(({ stream }, i) => {
    stream.write = originals[i] as typeof stream.write;
    // `main` adds one each time, as it is meant for once a process.
    stream.removeAllListeners('error');
  });
  process.send?.(ended);
});
