const PLAIN_INTERVAL_MS = 15_000;
const WIDTH = 24;

/**
 * What a long work tells people: lines for what has happened, and how far it is: a bar below them on a terminal, now and
 * then a plain line elsewhere.
 */
export function statusLine(stream: NodeJS.WriteStream) {
  const live = stream.isTTY === true;
  let lastPlain = performance.now();
  const line = (text: string) => stream.write(live ? `\r\x1b[K${text}\n` : `${text}\n`);
  /** @param fraction in [0, 1]. */
  const status = (fraction: number, text: string) => {
    if (live) {
      const filled = Math.round(fraction * WIDTH);
      stream.write(`\r\x1b[K[${'#'.repeat(filled)}${'.'.repeat(WIDTH - filled)}] ${text}`);
    } else if (performance.now() - lastPlain > PLAIN_INTERVAL_MS) {
      lastPlain = performance.now();
      line(text);
    }
  };
  return { line, status };
}
