/** Data sets are brought whole or not at all, from servers that break, lie or are hostile, all of them on loopback. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { type FetchEvent, type FetchOptions, fetchDataset } from '../lib/data/fetch.js';
import { largestPacking } from '../lib/data/place.js';
import type { Source } from '../lib/data/sources.js';
import { LthError } from '../lib/native/errors.js';
import {
  type Answer,
  cutAfter,
  honest,
  type Mirror,
  mirror,
  stallAfter,
  status,
  whole,
} from './helpers/mirror.js';

const root = mkdtempSync(join(tmpdir(), 'lth-data-'));
const mirrors: Mirror[] = [];
after(async () => {
  rmSync(root, { recursive: true });
  await Promise.all(mirrors.map((one) => one.close()));
});

/** An IDX file of noise, so that its gzip is about as long. */
function idx(count: number): Buffer {
  const head = Buffer.from([0, 0, 8, 1, 0, 0, 0, 0]);
  head.writeUInt32BE(count, 4);
  return Buffer.concat([head, randomBytes(count)]);
}

const plain = { images: idx(200_000), labels: idx(100) };
const images = gzipSync(plain.images);
const labels = gzipSync(plain.labels);
const onServer = { 'images.gz': images, 'labels.gz': labels };
const sum = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
const fileOf = (name: string, bytes: Buffer) => ({ name, bytes: bytes.length, sha256: sum(bytes) });
const wanted = [fileOf('images', plain.images), fileOf('labels', plain.labels)];

async function serve(...answers: Answer[]): Promise<Mirror> {
  const one = await mirror(onServer, ...answers);
  mirrors.push(one);
  return one;
}

let folders = 0;
function newFolder(): string {
  const path = join(root, String(folders++));
  mkdirSync(path);
  return path;
}

/** Fetches "images" alone. */
async function fetchImages(folder: string, servers: Mirror[], options: FetchOptions = {}) {
  const source: Source = { name: 'tiny', mirrors: servers.map((one) => one.url), files: wanted.slice(0, 1) };
  const events: FetchEvent[] = [];
  const fetched = await fetchDataset(source, {
    folder,
    stallMs: 5000,
    backoffMs: 1,
    onEvent: (event) => events.push(event),
    ...options,
  });
  return { ...fetched, events };
}

const partOf = (folder: string) => join(folder, 'images.gz.part');

/** The file is there under its name, and nothing is left beside it. */
function assertWhole(folder: string): void {
  assert.deepEqual(readFileSync(join(folder, 'images.gz')), images);
  assert.deepEqual(readdirSync(folder).sort(), ['.lock', 'images.gz']);
}

async function refused(promise: Promise<unknown>, code: string, ...says: (string | RegExp)[]): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.ok(error instanceof LthError, `an LthError, not ${error}`);
    assert.equal(error.code, code, error.message);
    for (const what of says) {
      if (typeof what === 'string') assert.ok(error.message.includes(what), `${what} in ${error.message}`);
      else assert.match(error.message, what);
    }
    return true;
  });
}

test('files are fetched from the first mirror, and what is there and right is not fetched again', async () => {
  const folder = join(newFolder(), 'made', 'on the way');
  const server = await serve(honest);
  const source = { name: 'tiny', mirrors: [server.url], files: wanted };
  const first = await fetchDataset(source, { folder });
  assert.deepEqual(first, {
    set: 'tiny',
    folder,
    files: [
      { name: 'images.gz', bytes: images.length, state: 'fetched' },
      { name: 'labels.gz', bytes: labels.length, state: 'fetched' },
    ],
  });
  const again = await fetchDataset(source, { folder });
  assert.deepEqual(
    again.files.map((file) => file.state),
    ['there', 'there'],
  );
  assert.equal(server.asked.length, 2);
});

test('a connection that breaks is gone on with, behind the bytes that came', async () => {
  const folder = newFolder();
  const server = await serve(cutAfter(80_000, partOf(folder)), honest);
  await fetchImages(folder, [server]);
  assertWhole(folder);
  assert.equal(server.asked.length, 2);
  assert.equal(server.asked[1]?.range, 'bytes=80000-');
});

test('what an earlier call has brought is kept for the next one, which asks for the rest only', async () => {
  const folder = newFolder();
  await refused(
    fetchImages(folder, [await serve(cutAfter(80_000, partOf(folder)), status(404))]),
    'io',
    'HTTP 404',
  );
  assert.deepEqual(readFileSync(partOf(folder)), images.subarray(0, 80_000));
  const server = await serve(honest);
  await fetchImages(folder, [server]);
  assertWhole(folder);
  assert.deepEqual(
    server.asked.map((one) => one.range),
    ['bytes=80000-'],
  );
});

test('a part file that is whole is not fetched again', async () => {
  const folder = newFolder();
  writeFileSync(partOf(folder), images);
  const server = await serve(honest);
  await fetchImages(folder, [server]);
  assertWhole(folder);
  assert.equal(server.asked.length, 1);
});

test('a server that knows no ranges starts over', async () => {
  const folder = newFolder();
  writeFileSync(partOf(folder), images.subarray(0, 1000));
  await fetchImages(folder, [await serve(whole)]);
  assertWhole(folder);
});

test('a part file longer than the file, or than any file could be, starts over', async () => {
  for (const length of [images.length + 1, 2 * images.length]) {
    const folder = newFolder();
    writeFileSync(partOf(folder), Buffer.concat([images, Buffer.alloc(length - images.length)]));
    await fetchImages(folder, [await serve(honest)]);
    assertWhole(folder);
  }
});

test('a part file of other bytes starts over, once', async () => {
  const folder = newFolder();
  writeFileSync(partOf(folder), randomBytes(1000));
  const server = await serve(honest);
  await fetchImages(folder, [server]);
  assertWhole(folder);
  assert.deepEqual(
    server.asked.map((one) => one.range),
    ['bytes=1000-', undefined],
  );
});

test('a file that changed between two attempts starts over: by If-Range, by its ETag, by its size', async () => {
  const rest =
    (size: number, etag: string): Answer =>
    (response, file, request) => {
      const from = Number(/\d+/.exec(request.headers.range ?? '')?.[0]);
      response.writeHead(206, { 'content-range': `bytes ${from}-${size - 1}/${size}`, etag });
      response.end(file.subarray(from));
    };
  for (const second of [whole, rest(images.length, '"new"'), rest(images.length + 7, '"old"')]) {
    const folder = newFolder();
    const old = cutAfter(1000, partOf(folder), { etag: '"old"' });
    const server = await serve(old, second, honest);
    await fetchImages(folder, [server]);
    assertWhole(folder);
    assert.equal(server.asked[1]?.ifRange, '"old"');
  }
});

test('a server that stalls is left after a while, with or without bytes', async () => {
  const folder = newFolder();
  const silent: Answer = () => {};
  const server = await serve(silent, stallAfter(1000), honest);
  await fetchImages(folder, [server], { stallMs: 500 });
  assertWhole(folder);
  assert.deepEqual(
    server.asked.map((one) => one.range),
    [undefined, undefined, 'bytes=1000-'],
  );
});

test('500 is tried again, 404 is not, and then the next mirror has its turn', async () => {
  const folder = newFolder();
  const absent = await serve(status(404));
  const server = await serve(status(500), status(503), honest);
  const { events } = await fetchImages(folder, [absent, server]);
  assertWhole(folder);
  assert.deepEqual([absent.asked.length, server.asked.length], [1, 3]);
  assert.ok(events.some((event) => event.type === 'trouble' && /HTTP 404/.test(event.text)));
});

test('where no mirror gives the file, the error lists each and why', async () => {
  const folder = newFolder();
  const gone = await mirror({}, whole);
  await gone.close();
  const [absent, broken] = [await serve(status(404)), await serve(status(500))];
  await refused(
    fetchImages(folder, [absent, broken, gone]),
    'io',
    `${absent.url}images.gz: HTTP 404`,
    `${broken.url}images.gz: HTTP 500`,
    `${gone.url}images.gz: connect ECONNREFUSED`,
    '--from DIR',
  );
  assert.equal(broken.asked.length, 4);
  assert.ok(!existsSync(join(folder, 'images.gz')));
});

test('a server that begins anew each time is left, however much it sends', async () => {
  const folder = newFolder();
  const big = idx(3 << 20);
  const server = await mirror({ 'big.gz': big }, cutAfter(2 << 20, join(folder, 'big.gz.part')));
  mirrors.push(server);
  const source = { name: 'tiny', mirrors: [server.url], files: [fileOf('big', big)] };
  await refused(fetchDataset(source, { folder, backoffMs: 1 }), 'io', `${server.url}big.gz`);
  assert.equal(server.asked.length, 5, 'the first came far, four no further');
});

test('garbage, other bytes of the right form and headers that promise more get no name; both sums are said', async () => {
  const other = idx(200_000);
  const bomb = Buffer.from(other);
  bomb.writeUInt32BE(1 << 30, 4);
  for (const [bytes, ...says] of [
    [Buffer.from('<html>log in first</html>'), 'wrong magic'],
    [gzipSync(other), `is ${sum(other)}, expected ${sum(plain.images)}`],
    [gzipSync(bomb), 'its header says 1073741824 bytes'],
    [images.subarray(0, 1000), 'broken gzip'],
  ] as [Buffer, ...string[]][]) {
    const folder = newFolder();
    const server = await serve((response) => response.writeHead(200).end(bytes));
    await refused(fetchImages(folder, [server]), 'io', ...says);
    assert.deepEqual(readdirSync(folder), ['.lock']);
    assert.equal(server.asked.length, 1, 'it would send the same again');
  }
});

test('a mirror with wrong bytes does not spoil what the next one sends', async () => {
  const folder = newFolder();
  const wrong = gzipSync(idx(200_000));
  const servers = [
    await serve((response) => response.writeHead(200).end(wrong)),
    await serve(cutAfter(1000, partOf(folder)), honest),
  ];
  await fetchImages(folder, servers);
  assertWhole(folder);
});

test('a server that goes on with other bytes each time is left', async () => {
  const folder = newFolder();
  writeFileSync(partOf(folder), images.subarray(0, 1000));
  const server = await serve((response, file, request) => {
    const from = Number(/\d+/.exec(request.headers.range ?? '')?.[0] ?? 0);
    if (from === 0) return cutAfter(1000, partOf(folder))(response, file, request);
    const size = file.length;
    response.writeHead(206, { 'content-range': `bytes ${from}-${size - 1}/${size}` });
    response.end(randomBytes(size - from));
  });
  await refused(fetchImages(folder, [server]), 'io', 'what it sent is not the file');
});

test('never more bytes are written than the file can have, whatever is said or sent', async () => {
  const bound = largestPacking(plain.images.length);
  const endless: Answer = (response) => {
    response.writeHead(200);
    const more = (): void => {
      if (response.destroyed) return;
      response.write(randomBytes(1 << 16), more);
    };
    more();
  };
  const boastful: Answer = (response) => {
    response.writeHead(200, { 'content-length': 2 ** 40 });
    response.write(randomBytes(1 << 16));
  };
  for (const [answer, says] of [
    [endless, `more than the ${bound} bytes expected`],
    [boastful, `it has ${2 ** 40} bytes there`],
  ] as [Answer, string][]) {
    const folder = newFolder();
    await refused(fetchImages(folder, [await serve(answer)]), 'io', says);
    assert.ok(!existsSync(partOf(folder)) || statSync(partOf(folder)).size <= bound);
  }
});

test('a server that unpacks on the way gives a plain file, under its plain name', async () => {
  const folder = newFolder();
  const server = await serve((response, file) =>
    response.writeHead(200, { 'content-encoding': 'gzip', 'content-length': file.length }).end(file),
  );
  const { files } = await fetchImages(folder, [server]);
  assert.deepEqual(files, [{ name: 'images', bytes: plain.images.length, state: 'fetched' }]);
  assert.deepEqual(readFileSync(join(folder, 'images')), plain.images);
});

test('a file that is there and wrong is kept aside, and the right one fetched', async () => {
  const folder = newFolder();
  const mine = gzipSync(idx(5));
  writeFileSync(join(folder, 'images.gz'), mine);
  const { events, files } = await fetchImages(folder, [await serve(honest)]);
  assert.equal(files[0]?.state, 'fetched');
  assert.deepEqual(readFileSync(join(folder, 'images.gz.bad')), mine);
  assert.ok(events.some((event) => event.type === 'trouble' && event.text.includes('kept as')));
});

test('two fetches into one folder: the second says that it waits, and then finds the files', async () => {
  const folder = newFolder();
  let release = () => {};
  const waiting = new Promise<void>((resolve) => {
    release = resolve;
  });
  const server = await serve(async (response, file, request) => {
    await waiting;
    honest(response, file, request);
  });
  const all = [0, 1].map(() =>
    fetchImages(folder, [server], {
      onEvent: (event) => {
        if (event.type === 'waiting') release();
      },
    }),
  );
  const states = (await Promise.all(all)).map(({ files }) => files[0]?.state);
  assert.deepEqual(states.sort(), ['fetched', 'there']);
  assert.equal(server.asked.length, 1);
  assertWhole(folder);
});

test('from a folder files are copied, plain, packed or with a dot, and never a wrong one', async () => {
  for (const [name, bytes] of [
    ['images.gz', images],
    ['images', plain.images],
  ] as const) {
    const [from, folder] = [newFolder(), newFolder()];
    writeFileSync(join(from, name), bytes);
    const { files } = await fetchImages(folder, [], { from });
    assert.deepEqual(files, [{ name, bytes: bytes.length, state: 'copied' }]);
    assert.deepEqual(readdirSync(folder).sort(), ['.lock', name]);
    assert.deepEqual(readFileSync(join(folder, name)), bytes);
  }
  const [from, folder] = [newFolder(), newFolder()];
  const dotted = { name: 'tiny', mirrors: [], files: [fileOf('labels-idx1-ubyte', plain.labels)] };
  writeFileSync(join(from, 'labels.idx1-ubyte'), plain.labels);
  assert.equal((await fetchDataset(dotted, { folder, from })).files[0]?.name, 'labels-idx1-ubyte');
  await refused(fetchImages(folder, [], { from }), 'io', from, 'images.gz');
  const other = idx(200_000);
  writeFileSync(join(from, 'images'), other);
  await refused(
    fetchImages(folder, [], { from }),
    'corrupt-file',
    join(from, 'images'),
    sum(other),
    sum(plain.images),
  );
  assert.deepEqual(readdirSync(folder).sort(), ['.lock', 'labels-idx1-ubyte']);
});

test('a folder that cannot be written and a full disk are named', async () => {
  const server = await serve(honest);
  const file = join(newFolder(), 'a file');
  writeFileSync(file, '');
  await refused(fetchImages(join(file, 'in'), [server]), 'io', file);
  await refused(fetchImages('/proc/lth-train', [server]), 'io', '/proc/lth-train');
  if (!existsSync('/dev/full')) return;
  const folder = newFolder();
  symlinkSync('/dev/full', partOf(folder));
  await refused(fetchImages(folder, [server]), 'io', partOf(folder), 'no space');
  symlinkSync('/dev/full', join(folder, 'images.tmp'));
  const from = newFolder();
  writeFileSync(join(from, 'images'), gunzipSync(images));
  await refused(fetchImages(folder, [], { from }), 'io', join(folder, 'images.tmp'), 'no space');
});

test('a mirror that is no web address is refused before anything is asked', async () => {
  for (const url of ['ftp://example.org/', 'mnist', '/usr/share'])
    await refused(fetchImages(newFolder(), [], { mirrors: [url] }), 'invalid-argument', url, /http\(s\)/);
});
