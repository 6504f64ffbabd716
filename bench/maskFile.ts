/**
 * The masks of all levels of one IMP in one small file: a line of JSON that ends in a seal of itself, then, packed by brotli,
 * a byte per prunable weight: the level at which it was pruned (Masks.levels). IMP's masks are nested, so that says all of
 * them; where 20 % go at each level a weight costs some 3.6 bits.
 */
import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib';
import { z } from 'zod';
import { firstPrunings } from '../lib/experiment/overlap.js';
import { survey } from '../lib/experiment/survey.js';
import { fromFileSystem, sealOfValue } from '../lib/files.js';
import { checkInteger, LthError } from '../lib/native/errors.js';
import { loadAddon } from '../lib/native/load.js';
import { packageRoot } from '../lib/package.js';
import { firstIssue } from '../lib/recipe/issues.js';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Masks } from '../lib/session/Masks.js';

/** More than a file of 100 million weights has. */
const LARGEST_FILE = 64 * 2 ** 20;
const LARGEST_HEADER = 2 ** 20;
const LARGEST_BODY = 2 ** 28;
const SUFFIX = '.masks';
const folder = join(packageRoot, 'bench', 'masks');

const count = z.int().min(0);
const headerSchema = z.strictObject({
  format: z.literal(1),
  network: z.string().max(200),
  levels: z.int().min(1).max(255),
  /** Prunable weights that remain at levels 0, 1, ... */
  remaining: z.array(count).min(2).max(256),
  tensors: z
    .array(z.strictObject({ name: z.string().max(200), shape: z.array(z.int().min(1)).min(1).max(4) }))
    .max(100_000),
  made: z.strictObject({
    command: z.string().max(10_000),
    recipe: z.string().max(1000),
    steps: z.string().max(100),
    seed: count,
    rewind: count,
    replicate: count,
    method: z.enum(['iterative', 'oneshot']),
  }),
  body: z.strictObject({ bytes: count.max(LARGEST_FILE), sha256: z.string().regex(/^[0-9a-f]{64}$/) }),
});

export type MaskHeader = z.infer<typeof headerSchema>;

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const weightsOf = (header: MaskHeader) =>
  header.tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);

function readWhole(path: string, damaged: (why: string) => LthError): Buffer {
  try {
    const { size } = statSync(path);
    if (size > LARGEST_FILE) throw damaged(`has ${size} bytes, more than a file of masks may have`);
    return readFileSync(path);
  } catch (error) {
    throw fromFileSystem(error) ?? error;
  }
}

export class MaskFile {
  private constructor(
    /** Where it was read. */
    readonly path: string,
    readonly header: MaskHeader,
    private readonly levels: Uint8Array,
  ) {}

  /** Networks whose masks come with the package. */
  static async shipped(): Promise<string[]> {
    const names = await readdir(folder);
    return names.filter((name) => name.endsWith(SUFFIX)).map((name) => name.slice(0, -SUFFIX.length));
  }

  /**
   * Of a path, or those of a network that come with the package.
   * @throws LthError "invalid-argument" where none do, "io", "corrupt-file".
   */
  static async open(network: string, path: string | undefined): Promise<MaskFile> {
    if (path !== undefined) return MaskFile.read(path);
    const shipped = await MaskFile.shipped();
    if (!shipped.includes(network))
      throw new LthError(
        'invalid-argument',
        `No masks of ${network} come with the package (of ${shipped.join(', ')} they do): pack those of a run with \`lth-train bench masks\`, and name the file with --mask-file`,
      );
    return MaskFile.read(join(folder, `${network}${SUFFIX}`));
  }

  /** @throws LthError "io", "corrupt-file". */
  static read(path: string): MaskFile {
    const damaged = (why: string, cause?: unknown) =>
      new LthError('corrupt-file', `${path}: ${why}`, { cause });
    const bytes = readWhole(path, damaged);
    const end = bytes.subarray(0, LARGEST_HEADER).indexOf('\n');
    if (end < 0) throw damaged('is no file of masks: it has no line of JSON at its beginning');
    let sealed: unknown;
    try {
      sealed = JSON.parse(bytes.subarray(0, end).toString('utf8'));
    } catch (cause) {
      throw damaged('is no file of masks: its first line is no JSON', cause);
    }
    if (typeof sealed !== 'object' || sealed === null || Array.isArray(sealed))
      throw damaged('is no file of masks: its first line is no JSON object');
    const { seal, ...value } = sealed as Record<string, unknown>;
    if (seal !== sealOfValue(value)) throw damaged('the seal of its first line is not that of what it says');
    const parsed = headerSchema.safeParse(value);
    if (!parsed.success) throw damaged(firstIssue(parsed.error, value), parsed.error);
    const header = parsed.data;
    const weights = weightsOf(header);
    if (header.remaining.length !== header.levels + 1 || header.remaining[0] !== weights)
      throw damaged(`its counts are not those of ${header.levels} levels of ${weights} weights`);
    if (weights > LARGEST_BODY) throw damaged(`says that it holds ${weights} weights, more than it may`);
    const body = bytes.subarray(end + 1);
    if (body.length !== header.body.bytes)
      throw damaged(`has ${body.length} bytes of levels, ${header.body.bytes} were written`);
    if (sha256(body) !== header.body.sha256) throw damaged('its levels are not those that were written');
    let levels: Buffer;
    try {
      levels = brotliDecompressSync(body, { maxOutputLength: Math.max(1, weights) });
    } catch (cause) {
      throw damaged(`its levels cannot be unpacked: ${(cause as Error).message}`, cause);
    }
    if (levels.length !== weights)
      throw damaged(`holds the levels of ${levels.length} weights, not of ${weights}`);
    return new MaskFile(path, header, levels);
  }

  /** Writes the masks of levels 1, 2, ..., which must be nested. @throws LthError "invalid-argument", "io". */
  static async write(path: string, masks: Masks[], made: MaskHeader['made']): Promise<MaskFile> {
    const levels = await Masks.levels(masks);
    const first = masks[0] as Masks;
    const { summary } = first.network;
    const tensors = [...first.tensors()].map(([name, { shape }]) => ({ name, shape }));
    const body = brotliCompressSync(levels, {
      params: {
        [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
        [constants.BROTLI_PARAM_LGWIN]: constants.BROTLI_MAX_WINDOW_BITS,
        [constants.BROTLI_PARAM_SIZE_HINT]: levels.length,
      },
    });
    const value: MaskHeader = {
      format: 1,
      network: summary.name,
      levels: masks.length,
      remaining: [summary.counts.prunable, ...masks.map(remainingOf)],
      tensors,
      made,
      body: { bytes: body.length, sha256: sha256(body) },
    };
    const line = `${JSON.stringify({ ...value, seal: sealOfValue(value) })}\n`;
    await loadAddon().fileWrite(path, Buffer.concat([Buffer.from(line), body]));
    return new MaskFile(path, value, levels);
  }

  /** Fraction of the prunable weights that remain at a level. */
  densityAt(level: number): number {
    return (this.header.remaining[level] as number) / (this.header.remaining[0] as number);
  }

  /** The level whose density is the nearest, as a ratio. */
  nearest(density: number): number {
    const apart = (level: number) => Math.abs(Math.log(Math.max(this.densityAt(level), 1e-12) / density));
    let best = 0;
    for (let level = 1; level <= this.header.levels; level++) if (apart(level) < apart(best)) best = level;
    return best;
  }

  /**
   * @param level 0: all ones.
   * @throws LthError "wrong-shape" where the network is another one, "corrupt-file" where the levels are not what the
   *   file's beginning says.
   */
  async at(network: CompiledNetwork, level: number): Promise<Masks> {
    checkInteger(level, 'level', 0, this.header.levels);
    const prunable = network.summary.parameters.filter((one) => one.prunable);
    const form = (tensors: { name: string; shape: number[] }[]) =>
      tensors.map(({ name, shape }) => `${name} (${shape})`).join(' ');
    if (form(prunable) !== form(this.header.tensors))
      throw new LthError(
        'wrong-shape',
        `${this.path}: has masks of ${this.header.network}, whose tensors are not those of ${network.summary.name}`,
      );
    const masks = await Masks.atLevel(network, this.levels, level);
    if (remainingOf(masks) !== this.header.remaining[level])
      throw new LthError(
        'corrupt-file',
        `${this.path}: ${remainingOf(masks)} weights remain at level ${level}, ${this.header.remaining[level]} were written`,
      );
    return masks;
  }
}

function remainingOf(masks: Masks): number {
  let sum = 0;
  for (const { remaining } of masks.tensors().values()) sum += remaining;
  return sum;
}

/**
 * The masks of a run's IMP, its first rewind point, replicate and method, into a file.
 * @param command how the run was made, for whoever wonders.
 * @throws LthError "io" where there is no run or it has no masks yet, "corrupt-file".
 */
export async function packMasks(run: string, out: string, command: string): Promise<MaskFile> {
  const found = await survey(run);
  const all = firstPrunings(found);
  const [first] = all;
  if (!first) throw new LthError('io', `${run} has no masks yet`);
  // Levels count from 1 without a gap: a pruning needs the one before.
  const [, { rewind, replicate, method }] = first;
  const { recipe } = found;
  const network = CompiledNetwork.compile(recipe.network);
  const masks: Masks[] = [];
  try {
    for (const [unit] of all)
      masks.push(await Masks.read(network, await found.folder.file(unit.id, 'masks.safetensors')));
    return await MaskFile.write(out, masks, {
      command,
      recipe: recipe.name,
      steps: recipe.training.steps,
      seed: recipe.seed,
      rewind,
      replicate,
      method,
    });
  } finally {
    for (const one of masks) one.dispose();
    network.dispose();
  }
}
