import type { FetchEvent } from '../data/fetch.js';
import { statusLine } from './statusLine.js';

const words = { fetched: 'fetched', copied: 'copied', there: 'already there' };

const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** Tells people on stderr what a fetch does: one line a file, and on a terminal a bar below them. */
export function fetchPrinter(stream: NodeJS.WriteStream): (event: FetchEvent) => void {
  const { line, status } = statusLine(stream);
  return (event) => {
    switch (event.type) {
      case 'waiting':
        line(`another process fetches into ${event.folder}: waiting for it`);
        break;
      case 'bytes': {
        const { name, done, size } = event;
        const text = `${name}  ${mebibytes(done)}${size === null ? '' : ` of ${mebibytes(size)}`}`;
        status(size ? done / size : 0, text);
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
