import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type CifarSet, cifar10, cifar100 } from '../../lib/data/cifar.js';

const few = (set: CifarSet, records: number): CifarSet => ({
  ...set,
  train: set.train.map((batch) => ({ ...batch, records })),
  test: set.test.map((batch) => ({ ...batch, records })),
});

/** The official sets with three pictures a file. */
export const tiny10 = few(cifar10, 3);
export const tiny100 = few(cifar100, 3);

/** A file of a tiny set: labels as they are in its records, and the seed of each picture. */
export interface TinyBatch {
  binary: string;
  python: string;
  labels: number[][];
  pictures: number[];
}

export function tinyBatches(set: CifarSet): TinyBatch[] {
  return [...set.train, ...set.test].map(({ binary, python, records }, file) => {
    const numbers = Array.from({ length: records }, (_, n) => file * records + n);
    return {
      binary,
      python,
      labels: numbers.map((n) => (set.coarse > 0 ? [n % set.coarse, (n * 13) % 100] : [n % set.classes])),
      pictures: numbers,
    };
  });
}

/** Picture `seed` of test/reference/cifar_pickles.py. */
export const picture = (seed: number) => Buffer.from(Array.from({ length: 3072 }, (_, i) => seed + i * 7));

export function binaryOf({ labels, pictures }: TinyBatch): Buffer {
  return Buffer.concat(pictures.flatMap((seed, n) => [Buffer.from(labels[n] as number[]), picture(seed)]));
}

export function writeBinary(folder: string, set: CifarSet): void {
  mkdirSync(folder, { recursive: true });
  for (const batch of tinyBatches(set)) writeFileSync(join(folder, batch.binary), binaryOf(batch));
}

/** A member of a tar as ustar has it. */
export interface TarMember {
  name: string;
  bytes?: Buffer;
  type?: string;
  /** Instead of the number of bytes, as it stands in the header. */
  size?: string;
}

/** A tar with its end, the checksums of its headers right. */
export function tar(members: TarMember[]): Buffer {
  const blocks = members.flatMap(({ name, bytes = Buffer.alloc(0), type = '0', size }) => {
    const head = Buffer.alloc(512);
    head.write(name, 0, 'latin1');
    head.write('0000644\0', 100);
    head.write(size ?? bytes.length.toString(8).padStart(11, '0'), 124);
    head.write('        ', 148);
    head.write(type, 156);
    head.write('ustar\0', 257);
    const sum = head.reduce((total, byte) => total + byte, 0);
    head.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
    return [head, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)];
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}
