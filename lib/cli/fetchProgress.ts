import type { FetchEvent } from '../data/fetch.js';

const PLAIN_INTERVAL_MS = 15_000;
const words = { fetched: 'fetched', copied: 'copied', there: 'already there' };

const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** Tells people on stderr what a fetch does: one line a file, and on a terminal a bar below them. */
export function fetchPrinter(stream: NodeJS.WriteStream): (event: FetchEvent) => void {
  const live = stream.isTTY === true;
  let lastPlain = performance.now();
  const line = (text: string) => stream.write(live ? `\r\x1b[K${text}\n` : `${text}\n`);
  return (event) => {
    switch (event.type) {
      case 'waiting':
        line(`another process fetches into ${event.folder}: waiting for it`);
        break;
      case 'bytes': {
        const { name, done, size } = event;
        const text = `${name}  ${mebibytes(done)}${size === null ? '' : ` of ${mebibytes(size)}`}`;
        if (live) {
          const filled = size ? Math.round((done / size) * 24) : 0;
          stream.write(`\r\x1b[K[${'#'.repeat(filled)}${'.'.repeat(24 - filled)}] ${text}`);
        } else if (performance.now() - lastPlain > PLAIN_INTERVAL_MS) {
          lastPlain = performance.now();
          line(text);
        }
        break;
      }
      case 'trouble':
        line(event.text);
        break;
      case 'file': {
        const { name, bytes, state } = event.file;
        line(`${name}: ${words[state]}, ${bytes} bytes`);
        break;
      }
    }
  };
}
