import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { crc32, deflateSync } from 'node:zlib';
import { packageRoot } from '../../lib/package.js';

/** Real pictures, which are not part of this package; for a test's `skip`, why they are not there, or false. */
const data = process.env.LTH_TEST_DATA || join(packageRoot, '..', 'shared', 'data');
export const sample = join(data, 'imagenet-sample');
export const withoutSample: string | false = existsSync(sample)
  ? false
  : `no pictures in ${sample}: LTH_TEST_DATA names the folder that holds imagenet-sample`;

function chunk(name: string, body: Buffer): Buffer {
  const named = Buffer.concat([Buffer.from(name), body]);
  const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(body.length);
  sum.writeUInt32BE(crc32(named));
  return Buffer.concat([length, named, sum]);
}

/** Pixel (y,x) of the picture that `png` packs. */
export const pixel = (seed: number, y: number, x: number): [number, number, number] => [
  (seed * 40 + x) % 256,
  (y * 3) % 256,
  (x + y) % 256,
];

/** An RGB PNG file. */
export function png(height: number, width: number, seed = 0): Buffer {
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 2, 0, 0, 0], 8);
  const rows = Array.from({ length: height }, (_, y) =>
    Buffer.from([0, ...Array.from({ length: width }, (_, x) => pixel(seed, y, x)).flat()]),
  );
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    chunk('IHDR', head),
    chunk('IDAT', deflateSync(Buffer.concat(rows))),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

export function writeFiles(folder: string, files: Record<string, Buffer | string>): void {
  for (const [name, bytes] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), bytes);
  }
}
