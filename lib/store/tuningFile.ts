import { readRecord, sealedBytes, writeOutput } from '../files.js';
import type { Tuning } from '../native/AddonTypes.js';
import { LthError } from '../native/errors.js';
import { parseRecord, TUNING_FORMAT, type TuningRecord, tuningRecord } from './records.js';

/**
 * A table of costs that this program wrote.
 * @param cure what helps where it is none.
 * @throws LthError "io", "corrupt-file".
 */
export async function readTuning(path: string, cure = ''): Promise<TuningRecord> {
  try {
    return parseRecord(tuningRecord, await readRecord(path));
  } catch (cause) {
    if (cause instanceof LthError && cause.code === 'io') throw cause;
    const { message } = cause as Error;
    const words = cause instanceof LthError ? message : `${path}: is no table of costs: ${message}`;
    throw new LthError('corrupt-file', `${words}${cure && `. ${cure}`}`, { cause });
  }
}

export async function writeTuning(
  path: string,
  tuning: Tuning,
  machine: TuningRecord['machine'],
): Promise<void> {
  await writeOutput(
    path,
    sealedBytes({ format: TUNING_FORMAT, kind: 'tuning', machine, tuning } satisfies TuningRecord),
  );
}
