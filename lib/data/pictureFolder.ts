import { createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import { LthError } from '../native/errors.js';
import { readRegularFile } from './regularFile.js';

/** Of 50,000 lines as Kaggle's, which also hold boxes. */
const LARGEST_GROUND_TRUTH = 64 * 2 ** 20;

/** Pictures of a folder as the addon takes them: names below `root`, each with a zero byte behind it. */
export interface PictureList {
  root: string;
  names: Buffer;
  labels: Int32Array<ArrayBuffer>;
  /** Names of classes; a label is a place in here. */
  classes: string[];
  /** SHA-256 of names and labels; the files' bytes are not looked at. */
  digest: string;
}

const isPicture = (name: string) => !name.startsWith('.') && /\.(jpe?g|png)$/i.test(name);

async function entriesOf(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).filter((name) => !name.startsWith('.')).sort();
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const words: Record<string, string> = {
      ENOENT: 'there is no such folder',
      ENOTDIR: 'is no folder',
      EACCES: 'no permission to read this folder',
    };
    throw new LthError('io', `${folder}: ${words[code ?? ''] ?? message}`, { cause });
  }
}

/** Folders, also behind links; entries with an extension of a picture are not asked. */
async function foldersAmong(folder: string, entries: string[]): Promise<string[]> {
  const folders: string[] = [];
  for (const name of entries) {
    if (!isPicture(name) && (await stat(join(folder, name)).catch(() => null))?.isDirectory())
      folders.push(name);
  }
  return folders;
}

function listOf(root: string, names: string[], labels: number[], classes: string[]): PictureList {
  const bytes = Buffer.from(names.map((name) => `${name}\0`).join(''));
  const numbers = Int32Array.from(labels);
  const digest = createHash('sha256')
    .update(`${classes.join('\0')}\0\0`)
    .update(bytes)
    .update(numbers)
    .digest('hex');
  return { root, names: bytes, labels: numbers, classes, digest };
}

/**
 * Pictures in class folders, `CLASS/*.JPEG`: classes and, in each, files in the order of their names.
 * @param known classes of the training set, where this is another part: what a label counts in.
 * @throws LthError "io" where a folder cannot be read, has no pictures, or is of no known class.
 */
export async function listClassFolders(folder: string, known?: string[]): Promise<PictureList> {
  const entries = await entriesOf(folder);
  const found = await foldersAmong(folder, entries);
  if (found.length === 0) {
    throw new LthError(
      'io',
      entries.some(isPicture)
        ? `${folder}: holds pictures and no class folders: tell their classes with a ground-truth file, one line NAME CLASS for each ` +
            '(data.groundTruth of a recipe, --ground-truth of `data pack`)'
        : `${folder}: holds no class folders`,
    );
  }
  const classes = known ?? found;
  const places = new Map(classes.map((name, i) => [name, i]));
  const [names, labels]: [string[], number[]] = [[], []];
  for (const name of found) {
    const label = places.get(name);
    if (label === undefined)
      throw new LthError('io', `${join(folder, name)}: the training set has no class ${name}`);
    const pictures = (await entriesOf(join(folder, name))).filter(isPicture);
    if (pictures.length === 0)
      throw new LthError('io', `${join(folder, name)}: this class folder holds no .JPEG, .jpg or .png file`);
    for (const picture of pictures) {
      names.push(`${name}/${picture}`);
      labels.push(label);
    }
  }
  return listOf(folder, names, labels, classes);
}

/** The class of a ground truth's line: a class folder's name, or its place among them, from 0 on. */
function labelOf(word: string, classes: string[], places: Map<string, number>): number | undefined {
  const place = places.get(word);
  if (place !== undefined) return place;
  return /^\d+$/.test(word) && Number(word) < classes.length ? Number(word) : undefined;
}

/**
 * Pictures that lie flat in one folder, in the order of their names, with a ground-truth file: lines `NAME CLASS`, with
 * blanks or commas between, as Caffe's val.txt and Kaggle's LOC_val_solution.csv; the name's extension may be missing.
 * @throws LthError "io", "corrupt-file" naming the line, or the picture that has none.
 */
export async function listFlatFolder(
  folder: string,
  groundTruth: string,
  classes: string[],
): Promise<PictureList> {
  const entries = await entriesOf(folder);
  const pictures = entries.filter(isPicture);
  if (pictures.length === 0) {
    const folders = (await foldersAmong(folder, entries)).length > 0;
    throw new LthError(
      'io',
      folders
        ? `${folder}: holds class folders, which tell the classes: a ground-truth file is for pictures that lie flat`
        : `${folder}: holds no .JPEG, .jpg or .png file`,
    );
  }
  const places = new Map(classes.map((name, i) => [name, i]));
  const truth = new Map<string, number>();
  const lines = (await readRegularFile(groundTruth, LARGEST_GROUND_TRUTH)).toString('utf8').split(/\r?\n/);
  for (const [i, line] of lines.entries()) {
    const [name, word] = line.trim().split(/[\s,]+/);
    if (!name || name === 'ImageId') continue;
    if (word === undefined) {
      throw new LthError(
        'corrupt-file',
        `${groundTruth}: line ${i + 1} is "${line.slice(0, 60)}", expected NAME CLASS` +
          (/^\d+$/.test(name) ? " (the numbers of ImageNet's devkit follow an order of its own)" : ''),
      );
    }
    const label = labelOf(word, classes, places);
    if (label === undefined)
      throw new LthError(
        'corrupt-file',
        `${groundTruth}: line ${i + 1}: the training set has no class ${word}`,
      );
    const picture = basename(name, extname(name));
    if ((truth.get(picture) ?? label) !== label)
      throw new LthError(
        'corrupt-file',
        `${groundTruth}: line ${i + 1}: ${name} is of class ${word} here, of another one in a line above`,
      );
    truth.set(picture, label);
  }
  const labels = pictures.map((picture) => {
    const label = truth.get(basename(picture, extname(picture)));
    if (label === undefined) throw new LthError('corrupt-file', `${groundTruth}: has no line for ${picture}`);
    return label;
  });
  return listOf(folder, pictures, labels, classes);
}
