import { loadAddon } from '../native/load.js';
import { survey } from './survey.js';
import { type Verification, Verifier } from './verify.js';

/**
 * Moves the units with problems to `damaged/`, so that the next run makes them again: each one looked at once more
 * under its lock. With masks that must be made again goes the training whose weights they are made of, where these
 * were removed to save disk.
 * @returns where they are now.
 */
export async function repairRun(path: string, { problems }: Verification): Promise<string[]> {
  const found = await survey(path);
  const verifier = new Verifier(found);
  const moved: string[] = [];
  const putAside = async (id: string, isWrong: () => Promise<boolean>) => {
    const lock = await found.folder.lock(id);
    if (!lock) return false; // somebody works on it
    try {
      if (!(await isWrong())) return false;
      moved.push(await found.folder.putAside(id));
      return true;
    } finally {
      loadAddon().dispose(lock);
    }
  };
  try {
    for (const id of new Set(problems.filter(({ kind }) => kind === 'unit').map((one) => one.id))) {
      const wrong = await putAside(id, async () =>
        (await verifier.inspect(id)).problems.some(({ kind }) => kind === 'unit'),
      );
      const unit = found.plan.units.find((one) => one.id === id);
      // What the unit reads and was removed must be made again, and what that one reads in turn.
      let again = wrong ? unit : undefined;
      while (again?.kind === 'prune' || again?.kind === 'train') {
        const reads = again.kind === 'prune' ? again.weights : again.start;
        const gone = await putAside(reads, async () => {
          const record = await found.folder.record(reads).catch(() => null);
          return record?.files['snapshot.safetensors']?.removed === true;
        });
        again = gone ? found.plan.units.find((one) => one.id === reads) : undefined;
      }
    }
  } finally {
    verifier.dispose();
  }
  return moved;
}
