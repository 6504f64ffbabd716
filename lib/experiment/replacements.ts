import type { Session } from '../session/Session.js';
import type { ReplacedPicture } from '../store/records.js';
import type { Result } from './Result.js';

const splits: ReplacedPicture['split'][] = ['train', 'validation', 'test'];
const keyOf = ({ split, name }: ReplacedPicture) => `${split} ${name}`;

/** Each once, in order of split and name. */
export function distinctPictures(pictures: ReplacedPicture[]): ReplacedPicture[] {
  const found = new Map(pictures.map((one) => [keyOf(one), one]));
  return [...found.values()].sort(
    (a, b) => splits.indexOf(a.split) - splits.indexOf(b.split) || (a.name < b.name ? -1 : 1),
  );
}

/** How many different ones these lists have together; null where one of them is not known. */
export function countReplaced(...lists: (ReplacedPicture[] | undefined)[]): Result['replacedPictures'] {
  if (lists.includes(undefined)) return null;
  const pictures = distinctPictures(lists.flatMap((list) => list ?? []));
  const training = pictures.filter(({ split }) => split === 'train').length;
  return { training, evaluation: pictures.length - training };
}

/**
 * The pictures of one unit that could not be read and that others stood in for. Those of batches that the network saw
 * alone, not of those that were read ahead: which ones they are is a function of steps and files.
 */
export class Replacements {
  private readonly found: ReplacedPicture[];

  /** @param before those of the unit before this session; undefined where they are not known, or none are read. */
  constructor(
    private readonly session: Session,
    private readonly before: ReplacedPicture[] | undefined,
    private readonly onNotice: (message: string) => void,
  ) {
    this.found = [...(before ?? [])];
  }

  /** Tells of those that the session met since the last call. */
  collect(): void {
    for (const { split, name, path, by, why } of this.session.replacedPictures()) {
      this.onNotice(`a picture cannot be read, and ${by} stands in its place: ${why || path}`);
      this.found.push({ split, name });
    }
  }

  /** All of the unit up to where the session is, which does not work meanwhile; undefined as `before`. */
  pictures(): ReplacedPicture[] | undefined {
    this.collect();
    return this.before && distinctPictures(this.found);
  }
}
