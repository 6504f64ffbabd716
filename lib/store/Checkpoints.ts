import { existsSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { damage, readRecord, sealOf, writeRecord } from '../files.js';
import { LthError } from '../native/errors.js';
import type { CompiledNetwork } from '../session/CompiledNetwork.js';
import { Snapshot } from '../session/Snapshot.js';
import { readInterval, writeInterval } from './metrics.js';
import {
  type CheckpointRecord,
  checkpointRecord,
  FORMAT,
  parseRecord,
  type ReplacedPicture,
} from './records.js';
import { appendRows, noRows, type Rows } from './rows.js';

/** The unit whose checkpoints these are, and under what they are made. */
export interface CheckpointOwner {
  id: string;
  key: string;
  /** Step at which the unit's training begins. */
  start: number;
  fingerprint: string;
  /** Go on from a checkpoint of another fingerprint, whose bits differ. */
  allowDifferentBits: boolean;
}

/** How many are kept: should the newest be damaged, the one before it is taken. */
const KEPT = 2;

const recordName = /^checkpoint-(\d+)\.json$/;
const anyName = /^(checkpoint|interval)-\d+\.(json|safetensors|arrow)$/;

/**
 * The checkpoints of one unit's training, in its folder: `checkpoint-STEP.safetensors` (weights, optimiser, step),
 * `interval-STEP.arrow` (metrics since the checkpoint before) and, written last, `checkpoint-STEP.json` with their
 * checksums. To be used with the unit's lock held.
 */
export class Checkpoints {
  /** The newest; null before the first. */
  private last: CheckpointRecord | null = null;

  constructor(
    readonly folder: string,
    private readonly owner: CheckpointOwner,
    /** Told of each checkpoint that is passed over, and why. */
    private readonly onPassedOver: (what: string) => void = () => {},
  ) {}

  /** Steps of the checkpoints in a unit's folder, newest first. */
  static async steps(folder: string): Promise<number[]> {
    if (!existsSync(folder)) return [];
    const names = (await readdir(folder)).map((name) => recordName.exec(name)?.[1]);
    return names
      .filter((step) => step !== undefined)
      .map(Number)
      .sort((a, b) => b - a);
  }

  /** Under which fingerprints the training was made so far. */
  get fingerprints(): string[] {
    const before = this.last?.fingerprints ?? [];
    return before.at(-1) === this.owner.fingerprint ? before : [...before, this.owner.fingerprint];
  }

  /** Seconds that the training took up to the newest checkpoint. */
  get seconds(): number {
    return this.last?.seconds ?? 0;
  }

  /** Up to the newest checkpoint; undefined where that does not say. */
  get replacedPictures(): ReplacedPicture[] | undefined {
    return this.last?.replacedPictures;
  }

  get step(): number | null {
    return this.last?.step ?? null;
  }

  /**
   * The newest checkpoint that is whole, or null. What lies past it is removed: it will be made again, bit for bit.
   * @throws LthError "different-bits" where it was made under another fingerprint.
   */
  async newest(network: CompiledNetwork): Promise<Snapshot | null> {
    let found: Snapshot | null = null;
    for (const step of await Checkpoints.steps(this.folder)) {
      try {
        const record = await this.read(step);
        found = await Snapshot.read(network, join(this.folder, record.snapshot.name));
        if (found.step !== step) {
          found.dispose();
          found = null;
          throw new LthError('corrupt-file', `${record.snapshot.name} is of step ${step}?`);
        }
        this.last = record;
        break;
      } catch (error) {
        if (!(error instanceof LthError) || (error.code !== 'corrupt-file' && error.code !== 'wrong-shape'))
          throw error;
        this.onPassedOver(error.message);
      }
    }
    await this.drop();
    return found;
  }

  /** @throws LthError "corrupt-file" for a checkpoint that is not what was written, "different-bits". */
  private async read(step: number): Promise<CheckpointRecord> {
    const { id, key, start, fingerprint, allowDifferentBits } = this.owner;
    const record = await readCheckpoint(this.folder, step);
    const path = join(this.folder, `checkpoint-${step}.json`);
    if (record.id !== id || record.key !== key)
      throw new LthError('corrupt-file', `${path}: belongs to another unit, ${record.id}`);
    // Its metrics would be those of more steps than this unit has now.
    if (record.start !== start)
      throw new LthError(
        'corrupt-file',
        `${path}: began at step ${record.start}, the unit now begins at ${start}`,
      );
    const other = record.fingerprints.find((one) => one !== fingerprint);
    if (other && !allowDifferentBits) {
      throw new LthError(
        'different-bits',
        `${path} was made under "${other}", and this is "${fingerprint}": going on would give other bits. ` +
          'Go on where it was made, or allow it with --allow-different-bits.',
      );
    }
    return record;
  }

  /** What the metrics were up to the newest checkpoint. */
  async rows(): Promise<Rows> {
    const rows = noRows();
    for (const { name } of this.last?.intervals ?? [])
      appendRows(rows, await readInterval(join(this.folder, name)));
    return rows;
  }

  /**
   * Adds a checkpoint. It counts from the moment its record is there; only then the one before the last is removed.
   * @param rows made since the newest checkpoint.
   * @param replacedPictures since the training's start; undefined where they are not known, or none are read.
   */
  async save(
    snapshot: Snapshot,
    rows: Rows,
    seconds: number,
    replacedPictures?: ReplacedPicture[],
  ): Promise<void> {
    const { step } = snapshot;
    if (step === this.last?.step) return; // nothing has happened since
    const { id, key, start } = this.owner;
    const names = { snapshot: `checkpoint-${step}.safetensors`, interval: `interval-${step}.arrow` };
    await snapshot.write(join(this.folder, names.snapshot), { unit: id });
    await writeInterval(join(this.folder, names.interval), rows);
    const sealed = async (name: string) => ({ name, ...(await sealOf(join(this.folder, name))) });
    const record: CheckpointRecord = {
      format: FORMAT,
      id,
      key,
      fingerprints: this.fingerprints,
      start,
      step,
      seconds,
      replacedPictures,
      snapshot: await sealed(names.snapshot),
      intervals: [...(this.last?.intervals ?? []), await sealed(names.interval)],
    };
    await writeRecord(join(this.folder, `checkpoint-${step}.json`), record);
    this.last = record;
    for (const old of (await Checkpoints.steps(this.folder)).slice(KEPT)) {
      // The record first: without it the rest is nothing.
      await rm(join(this.folder, `checkpoint-${old}.json`), { force: true });
      await rm(join(this.folder, `checkpoint-${old}.safetensors`), { force: true });
    }
  }

  /** Removes what does not belong to the newest checkpoint or the ones before it. */
  private async drop(): Promise<void> {
    const newest = this.last?.step ?? -1;
    const kept = new Set(this.last?.intervals.map(({ name }) => name));
    for (const step of await Checkpoints.steps(this.folder)) {
      if (step > newest) continue;
      kept.add(`checkpoint-${step}.json`).add(`checkpoint-${step}.safetensors`);
    }
    await removeCheckpoints(this.folder, (name) => !kept.has(name));
  }
}

export function isCheckpointFile(name: string): boolean {
  return anyName.test(name);
}

/** Removes a unit's checkpoints, all of them where the unit is finished. With the unit's lock held. */
export async function removeCheckpoints(
  folder: string,
  unwanted: (name: string) => boolean = () => true,
): Promise<void> {
  const names = (await readdir(folder)).filter((name) => isCheckpointFile(name) && unwanted(name));
  // Records first, so that none is ever there without what it names.
  names.sort((a, b) => Number(b.endsWith('.json')) - Number(a.endsWith('.json')));
  for (const name of names) await rm(join(folder, name), { force: true });
}

/** A checkpoint's record, its files compared with it. @throws LthError "corrupt-file". */
export async function readCheckpoint(folder: string, step: number): Promise<CheckpointRecord> {
  const path = join(folder, `checkpoint-${step}.json`);
  const value = await readRecord(path);
  let record: CheckpointRecord;
  try {
    record = parseRecord(checkpointRecord, value);
    if (record.step !== step) throw new Error(`is of step ${record.step}`);
    const named = [record.snapshot.name, ...record.intervals.map(({ name }) => name)];
    const foreign = named.find((name) => !anyName.test(name));
    if (foreign) throw new Error(`names the file ${foreign}`);
  } catch (cause) {
    throw new LthError('corrupt-file', `${path}: ${(cause as Error).message}`, { cause });
  }
  for (const file of [record.snapshot, ...record.intervals]) {
    const wrong = await damage(join(folder, file.name), file);
    if (wrong) throw new LthError('corrupt-file', wrong);
  }
  return record;
}
