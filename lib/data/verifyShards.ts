import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { damage } from '../files.js';
import { LthError } from '../native/errors.js';
import { digestOf, isShardFolder, MANIFEST, readManifest, readShard } from './shards.js';

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
  /** Of this one and those before it, in all parts. */
  shards: number;
  path: string;
}

async function verifyPart(
  folder: string,
  found: VerifiedShards,
  onEvent: (path: string) => void,
): Promise<string[] | null> {
  const problem = (error: unknown) => {
    if (!(error instanceof LthError)) throw error;
    found.problems.push(error.message);
  };
  const part: VerifiedPart = { folder, shards: 0, pictures: 0, broken: 0, digest: null };
  found.parts.push(part);
  const manifest = await readManifest(folder).catch(problem);
  if (!manifest) return null;
  if (!manifest.complete)
    found.problems.push(
      `${join(folder, MANIFEST)}: is not packed to its end: the same \`data pack\` goes on`,
    );
  part.digest = digestOf(manifest);
  for (const shard of manifest.shards) {
    const path = join(folder, shard.file);
    part.shards += 1;
    part.pictures += shard.pictures;
    part.broken += shard.broken.length;
    onEvent(path);
    const damaged = await damage(path, shard);
    if (damaged) {
      found.problems.push(damaged);
      continue;
    }
    // The bytes are those that were packed: what remains is whether the list counts them right.
    const layout = await readShard(path, manifest.classes.length).catch(problem);
    if (layout && layout.rows !== shard.pictures)
      found.problems.push(`${path}: holds ${layout.rows} pictures, ${MANIFEST} says ${shard.pictures}`);
  }
  return manifest.classes;
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
  const found: VerifiedShards = { parts: [], problems: [] };
  let shards = 0;
  const classes: string[][] = [];
  for (const one of folders) {
    const of = await verifyPart(one, found, (path) => options.onEvent?.({ shards: ++shards, path }));
    if (of) classes.push(of);
  }
  if (new Set(classes.map((names) => JSON.stringify(names))).size > 1)
    found.problems.push(`${folder}: its parts have other classes than one another`);
  return found;
}
