import { statSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What a mirror answers; `file` is what lies there under the name asked for. */
export type Answer = (response: ServerResponse, file: Buffer, request: IncomingMessage) => void;

export interface Asked {
  path: string;
  range: string | undefined;
  ifRange: string | undefined;
}

export interface Mirror {
  url: string;
  /** All requests so far. */
  asked: Asked[];
  close: () => Promise<void>;
}

/** The whole file, or what follows where the request asks for that. */
export const honest: Answer = (response, file, request) => {
  const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
  if (from >= file.length) {
    response.writeHead(416, { 'content-range': `bytes */${file.length}` }).end();
  } else if (from > 0) {
    const range = `bytes ${from}-${file.length - 1}/${file.length}`;
    response.writeHead(206, { 'content-range': range, 'content-length': file.length - from });
    response.end(file.subarray(from));
  } else {
    whole(response, file, request);
  }
};

/** Knows no ranges. */
export const whole: Answer = (response, file) => {
  response.writeHead(200, { 'content-length': file.length }).end(file);
};

export const status =
  (code: number): Answer =>
  (response) => {
    response.writeHead(code).end('no');
  };

/** Promises the whole file and ends the connection once its first `bytes` are in the file `part`. */
export const cutAfter =
  (bytes: number, part: string, headers: Record<string, string> = {}): Answer =>
  (response, file) => {
    response.writeHead(200, { 'content-length': file.length, ...headers });
    response.write(file.subarray(0, bytes));
    // What is on its way when a connection breaks may be lost.
    const look = setInterval(() => {
      if (!response.destroyed && statSync(part, { throwIfNoEntry: false })?.size !== bytes) return;
      clearInterval(look);
      response.destroy();
    }, 5);
  };

/** Sends the first bytes and then nothing. */
export const stallAfter =
  (bytes: number): Answer =>
  (response, file) => {
    response.writeHead(200, { 'content-length': file.length });
    response.write(file.subarray(0, bytes));
  };

/** A web server on loopback: request after request is answered by `answers`, the last of them again and again. */
export async function mirror(files: Record<string, Buffer>, ...answers: Answer[]): Promise<Mirror> {
  const asked: Asked[] = [];
  const server = createServer((request, response) => {
    const answer = answers[Math.min(asked.length, answers.length - 1)] as Answer;
    const path = (request.url ?? '/').slice(1);
    asked.push({ path, range: request.headers.range, ifRange: request.headers['if-range'] as string });
    const file = files[path];
    if (file) answer(response, file, request);
    else status(404)(response, Buffer.alloc(0), request);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    asked,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
