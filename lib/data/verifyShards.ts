import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { damage } from '../files.js';
import { LthError } from '../native/errors.js';
import {
  digestOf,
  isShardFolder,
  MANIFEST,
  type Manifest,
  readManifest,
  readShard,
  type Shard,
} from './shards.js';

export interface VerifiedPart {
  folder: string;
  shards: number;
  pictures: number;
  /** Pictures that could not be decoded when they were packed. */
  broken: number;
  /** Null where the list of shards cannot be read. */
  digest: string | null;
}

/** What `data verify --json` prints. */
export interface VerifiedShards {
  parts: VerifiedPart[];
  /** One line for each file that is not right. */
  problems: string[];
}

export interface VerifyEvent {
  /** Is looked at now. */
  path: string;
  /** Of all bytes: those looked at before. */
  fraction: number;
}

async function hasLostManifest(folder: string): Promise<boolean> {
  if (isShardFolder(folder) || !existsSync(folder)) return false;
  return (await readdir(folder)).some((name) => /^shard-\d+\.arrow$/.test(name));
}

/**
 * Reads all of a folder that `data pack` made: the lists' seals, size and SHA-256 of each shard, its footer, its counts.
 * @throws LthError "io" where there are no shards.
 */
export async function verifyShards(
  folder: string,
  options: { onEvent?: (event: VerifyEvent) => void } = {},
): Promise<VerifiedShards> {
  const folders = [folder, join(folder, 'train'), join(folder, 'val')].filter(isShardFolder);
  if (folders.length === 0)
    throw new LthError(
      'io',
      existsSync(folder)
        ? `${folder}: holds no ${MANIFEST}, nor do train/ and val/ in it: \`lth-train data pack\` makes shards`
        : `${folder}: there is no such folder`,
    );
  const problems: string[] = [];
  for (const one of [join(folder, 'train'), join(folder, 'val')])
    if (await hasLostManifest(one))
      problems.push(
        `${one}: holds shards and no ${MANIFEST}, which tells of them: remove them, and \`lth-train data pack\` makes them again`,
      );
  const problem = (error: unknown) => {
    if (!(error instanceof LthError)) throw error;
    problems.push(error.message);
    return null;
  };
  const manifests: { folder: string; manifest: Manifest | null }[] = [];
  for (const one of folders)
    manifests.push({ folder: one, manifest: await readManifest(one).catch(problem) });
  const bytes = (shards: Shard[]) => shards.reduce((sum, shard) => sum + shard.bytes, 0);
  const total = bytes(manifests.flatMap(({ manifest }) => manifest?.shards ?? []));
  let done = 0;
  const parts: VerifiedPart[] = [];
  for (const { folder: place, manifest } of manifests) {
    const shards = manifest?.shards ?? [];
    parts.push({
      folder: place,
      shards: shards.length,
      pictures: shards.reduce((sum, { pictures }) => sum + pictures, 0),
      broken: shards.reduce((sum, { broken }) => sum + broken.length, 0),
      digest: manifest && digestOf(manifest),
    });
    if (manifest && !manifest.complete)
      problems.push(`${join(place, MANIFEST)}: is not packed to its end: the same \`data pack\` goes on`);
    for (const shard of shards) {
      const path = join(place, shard.file);
      options.onEvent?.({ path, fraction: done / total });
      done += shard.bytes;
      const damaged = await damage(path, shard).catch((error) => problem(error) ?? '');
      if (damaged) problems.push(damaged);
      if (damaged !== null || !manifest) continue;
      // The bytes are those that were packed: what remains is whether the list counts them right.
      const layout = await readShard(path, manifest.classes.length).catch(problem);
      if (layout && layout.rows !== shard.pictures)
        problems.push(`${path}: holds ${layout.rows} pictures, ${MANIFEST} says ${shard.pictures}`);
    }
  }
  const classes = new Set(
    manifests.flatMap(({ manifest }) => (manifest ? [JSON.stringify(manifest.classes)] : [])),
  );
  if (classes.size > 1) problems.push(`${folder}: its parts have other classes than one another`);
  return { parts, problems };
}
