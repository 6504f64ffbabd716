import { existsSync } from 'node:fs';
import { readdir, rm, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join, resolve, sep } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ioError, makeFolder, sealOf, writeRecord } from '../files.js';
import type { LockHandle, NativePackedShard, PicturesHandle, ShardPacker } from '../native/AddonTypes.js';
import { checkInteger, LthError } from '../native/errors.js';
import { loadAddon } from '../native/load.js';
import { listClassFolders, listFlatFolder, type PictureList } from './pictureFolder.js';
import { digestOf, isShardFolder, MANIFEST, type Manifest, readManifest, type Shard } from './shards.js';

export type PackEvent =
  /** Another process packs into the folder. */
  | { type: 'waiting'; folder: string }
  /** A part begins, or goes on after so many pictures. */
  | { type: 'part'; folder: string; pictures: number; done: number }
  | { type: 'progress'; done: number; pictures: number; perSecond: number }
  | { type: 'shard'; path: string; pictures: number; bytes: number }
  /** Could not be decoded; its row keeps the file's bytes, or is empty where the file is too large for readers. */
  | { type: 'broken'; path: string; why: string; kept: boolean };

export interface PackOptions {
  /** Pixels that the shorter side of a picture has at most. Default: files are kept as they are. */
  shortSide?: number;
  /** Of the JPEGs that are written. Default: 90. */
  quality?: number;
  /** Bytes of the pictures in a shard, at most. Default: 256 MiB. */
  shardSize?: number;
  /** Of a `val` that lies flat. */
  groundTruth?: string;
  /** Never changes a byte. Default: as many as the machine has. */
  threads?: number;
  onEvent?: (event: PackEvent) => void;
  signal?: AbortSignal;
}

export interface PackedPart {
  part: 'train' | 'val' | null;
  folder: string;
  pictures: number;
  shards: number;
  bytes: number;
  broken: number;
  digest: string;
  /** "there": all of it was packed already. */
  state: 'packed' | 'there';
}

/** What `data pack --json` prints. */
export interface Packed {
  folder: string;
  parts: PackedPart[];
}

/** What a pack that was killed may have left. */
const isTemporary = (name: string) => /^(shard-\d+\.arrow|shards\.json)\.\d+\.\d+\.tmp$/.test(name);

const LOCK_POLL_MS = 200;
const PROGRESS_MS = 250;

/** All parts of a folder: `train` and, where it is there, `val`; or the folder itself. */
async function partsOf(folder: string, groundTruth: string | undefined) {
  if (isShardFolder(folder) || isShardFolder(join(folder, 'train')))
    throw new LthError('invalid-argument', `${folder}: holds shards, which are packed already`);
  if (!existsSync(join(folder, 'train'))) {
    if (groundTruth !== undefined)
      throw new LthError('invalid-argument', `${folder}: a ground truth is for a folder of train/ and val/`);
    return [{ part: null, list: await listClassFolders(folder) }];
  }
  const train = await listClassFolders(join(folder, 'train'));
  const val = join(folder, 'val');
  if (!existsSync(val)) {
    if (groundTruth !== undefined) throw new LthError('io', `${val}: there is no such folder`);
    return [{ part: 'train' as const, list: train }];
  }
  const list =
    groundTruth === undefined
      ? await listClassFolders(val, train.classes)
      : await listFlatFolder(val, groundTruth, train.classes);
  return [
    { part: 'train' as const, list: train },
    { part: 'val' as const, list },
  ];
}

/** The first value in which two packs differ, in words; null where they are one. */
function difference(there: Manifest, wanted: Manifest): string | null {
  const words = {
    shortSide: '--short-side',
    quality: '--quality',
    encoder: 'encoder',
    shardSize: '--shard-size',
  } as const;
  for (const name of Object.keys(words) as (keyof typeof words)[]) {
    const [is, was] = [wanted.settings[name], there.settings[name]];
    if (is !== was) return `${words[name]} ${was ?? 'none'}, not ${is ?? 'none'}`;
  }
  if (there.part !== wanted.part) return `part ${there.part ?? 'none'}, not ${wanted.part ?? 'none'}`;
  return there.source === wanted.source ? null : 'other pictures or classes';
}

async function lockOf(
  folder: string,
  tell: (event: PackEvent) => void,
  signal?: AbortSignal,
): Promise<LockHandle> {
  for (let asked = 0; ; asked++) {
    const lock = loadAddon().lockTry(join(folder, '.lock'));
    if (lock) return lock;
    if (asked === 0) tell({ type: 'waiting', folder });
    await sleep(LOCK_POLL_MS, undefined, signal ? { signal } : {});
  }
}

/** Packs one part; call with its folder's lock held. */
class Pack {
  private readonly tell: (event: PackEvent) => void;
  private readonly began = performance.now();
  /** Pictures that were packed by this process. */
  private made = 0;
  /** From the first shard on that is to be made. */
  private packer: ShardPacker | undefined;

  constructor(
    private readonly folder: string,
    private readonly list: PictureList,
    private readonly manifest: Manifest,
    private readonly options: PackOptions,
  ) {
    this.tell = options.onEvent ?? (() => {});
  }

  /** @returns pictures that were packed now. */
  async run(handle: PicturesHandle): Promise<number> {
    try {
      await this.makeShards(handle);
      return this.made;
    } finally {
      if (this.packer) {
        const { run, end } = this.packer;
        loadAddon().runAbort(run);
        await end;
        loadAddon().dispose(run);
      }
    }
  }

  private async makeShards(handle: PicturesHandle): Promise<void> {
    const { manifest } = this;
    const { pictures } = manifest;
    let done = 0;
    for (const shard of manifest.shards) done += (await this.isThere(shard)) ? shard.pictures : 0;
    this.tell({ type: 'part', folder: this.folder, pictures, done });
    for (let [i, from] = [0, 0]; from < pictures; i++) {
      const known = manifest.shards[i];
      const shard = known && (await this.isThere(known)) ? known : await this.make(handle, i, from, done);
      if (shard !== known) {
        // Of a shard that was lost: what comes behind it counts on its bytes.
        if (known && known.sha256 !== shard.sha256)
          throw new LthError(
            'corrupt-file',
            `${join(this.folder, shard.file)}: the pictures of this shard have changed since it was packed: pack into another folder`,
          );
        manifest.shards[i] = shard;
        done += shard.pictures;
        manifest.complete = manifest.shards.reduce((sum, one) => sum + one.pictures, 0) === pictures;
        await writeRecord(join(this.folder, MANIFEST), manifest);
      }
      from += shard.pictures;
    }
  }

  /** By its size: `data verify` reads all of it. */
  private async isThere({ file, bytes }: Shard): Promise<boolean> {
    return (await stat(join(this.folder, file)).catch(() => null))?.size === bytes;
  }

  private async make(handle: PicturesHandle, i: number, from: number, before: number): Promise<Shard> {
    const { settings, part, classes, source, pictures } = this.manifest;
    const { signal, threads = availableParallelism() } = this.options;
    const file = `shard-${String(i).padStart(5, '0')}.arrow`;
    const path = join(this.folder, file);
    const addon = loadAddon();
    this.packer ??= addon.shardPacker(handle, {
      shortSide: settings.shortSide ?? 0,
      quality: settings.quality ?? 100,
      threads,
    });
    const { run, end, done } = this.packer.pack({
      ...{ path, from },
      bytes: settings.shardSize,
      metadata: {
        format: this.manifest.format,
        version: String(this.manifest.version),
        part: part ?? '',
        classes: JSON.stringify(classes),
        shortSide: String(settings.shortSide ?? ''),
        quality: String(settings.quality ?? ''),
        encoder: settings.encoder ?? '',
        digest: source,
        from: String(from),
      },
    });
    const progress = setInterval(() => {
      const now = done();
      const perSecond = (this.made + now) / ((performance.now() - this.began) / 1e3);
      this.tell({ type: 'progress', done: before + now, pictures, perSecond });
    }, PROGRESS_MS);
    const abort = () => addon.runAbort(run);
    signal?.addEventListener('abort', abort);
    if (signal?.aborted) abort();
    try {
      const packed = await end;
      signal?.throwIfAborted();
      if (packed === null) throw new LthError('disposed', 'The packing was stopped');
      this.made += packed.pictures;
      const broken = packed.broken.map((one) => this.broken(one));
      const { sha256, bytes } = await sealOf(path);
      this.tell({ type: 'shard', path, pictures: packed.pictures, bytes });
      return { file, from, pictures: packed.pictures, bytes, sha256, warnings: packed.warnings, broken };
    } finally {
      clearInterval(progress);
      signal?.removeEventListener('abort', abort);
      addon.dispose(run);
    }
  }

  private broken({ row, why, kept }: NativePackedShard['broken'][number]): { name: string; why: string } {
    const { names, root } = this.list;
    let at = 0;
    for (let i = 0; i < row; i++) at = names.indexOf(0, at) + 1;
    const name = names.toString('utf8', at, names.indexOf(0, at));
    this.tell({ type: 'broken', path: join(root, name), why, kept });
    // The same wherever the folder is.
    return { name, why: why.replaceAll(`${root}/`, '') };
  }
}

/**
 * Packs a folder of pictures into shards, which read faster: Arrow files of columns image, label, name, and a list of them.
 * Pictures keep their order, so that a row is the one of the folder. One that cannot be decoded is told of and listed, and its
 * row keeps the file's bytes (none of a file above 256 MiB, which no reader takes). What is packed already stays, so the
 * same call goes on after whatever stopped it; neither that nor the number of threads changes a byte.
 * @throws LthError "io", "corrupt-file" (of the ground truth, or a list of shards), "unsupported" (no JPEG),
 * "invalid-argument" where the folder holds another pack; the signal's reason.
 */
export async function packPictures(folder: string, out: string, options: PackOptions = {}): Promise<Packed> {
  const { jpeg } = loadAddon().info();
  if (!jpeg.built) throw new LthError('unsupported', jpeg.reason);
  const shortSide =
    options.shortSide === undefined ? null : checkInteger(options.shortSide, 'shortSide', 1, 65_500);
  const quality = checkInteger(options.quality ?? 90, 'quality', 1, 100);
  const settings: Manifest['settings'] = {
    shortSide,
    quality: shortSide === null ? null : quality,
    encoder: shortSide === null ? null : jpeg.encoder,
    shardSize: checkInteger(options.shardSize ?? 256 * 2 ** 20, 'shardSize', 1, 2 ** 40),
  };
  if (options.threads !== undefined) checkInteger(options.threads, 'threads', 1, 1024);
  const [from, to] = [resolve(folder), resolve(out)];
  if (to === from || to.startsWith(from + sep))
    throw new LthError('invalid-argument', `${out}: lies in the folder that is packed`);
  const wanted = await partsOf(from, options.groundTruth);
  // Else it would be two packs in one: readers would not know which is meant.
  const others = wanted[0]?.part === null ? [join(to, 'train'), join(to, 'val')] : [to];
  const other = others.find(isShardFolder);
  if (other) throw new LthError('invalid-argument', `${out}: ${other} holds shards of another pack`);
  const parts: PackedPart[] = [];
  for (const { part, list } of wanted) {
    const target = part === null ? to : join(to, part);
    try {
      await makeFolder(target);
    } catch (cause) {
      throw ioError(target, cause);
    }
    const lock = await lockOf(target, options.onEvent ?? (() => {}), options.signal);
    try {
      parts.push(await packPart(part, list, target, settings, options));
    } finally {
      loadAddon().dispose(lock);
    }
  }
  return { folder: to, parts };
}

async function packPart(
  part: Manifest['part'],
  list: PictureList,
  folder: string,
  settings: Manifest['settings'],
  options: PackOptions,
): Promise<PackedPart> {
  const { root, digest, classes } = list;
  const wanted: Manifest = {
    format: 'lth-train picture shards',
    version: 1,
    ...{ settings, part, classes, source: digest, pictures: list.labels.length, complete: false, shards: [] },
  };
  let manifest = wanted;
  const names = await readdir(folder);
  for (const name of names.filter(isTemporary)) await rm(join(folder, name), { force: true });
  if (isShardFolder(folder)) {
    manifest = await readManifest(folder);
    const other = difference(manifest, wanted);
    if (other) throw new LthError('invalid-argument', `${folder}: holds another pack, of ${other}`);
  } else {
    // It would be one of shards from here on, whatever else there is.
    const other = names.find((name) => !name.startsWith('.') && !isTemporary(name));
    if (other)
      throw new LthError(
        'invalid-argument',
        `${folder}: holds other files, as ${other}: shards want a folder of their own`,
      );
    await writeRecord(join(folder, MANIFEST), wanted);
  }
  const addon = loadAddon();
  const handle = await addon.picturesOpen(list.names, list.labels, { root, classes: classes.length, digest });
  let made = 0;
  try {
    made = await new Pack(folder, list, manifest, options).run(handle);
  } finally {
    addon.dispose(handle);
  }
  return {
    part,
    folder,
    pictures: manifest.pictures,
    shards: manifest.shards.length,
    bytes: manifest.shards.reduce((sum, { bytes }) => sum + bytes, 0),
    broken: manifest.shards.reduce((sum, { broken }) => sum + broken.length, 0),
    digest: digestOf(manifest),
    state: made === 0 ? 'there' : 'packed',
  };
}
