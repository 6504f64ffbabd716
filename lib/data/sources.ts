/** A file of a data set: what it must hold, whatever packed it. */
export interface PlainFile {
  /** Without `.gz`, e.g. "train-images-idx3-ubyte". */
  name: string;
  /** Of the unpacked bytes, as is the sum: gzip headers differ between mirrors and packagers. */
  bytes: number;
  sha256: string;
}

/** A tar.gz that is kept as it is. */
export interface Archive {
  /** As it is on the server and on disk. */
  name: string;
  /** More bytes than this it never has. */
  largest: number;
  /** Published of the archive itself. */
  md5: string;
  /** Files in it whose sums are known: MD5 alone would not stop somebody who wants another file to pass. */
  files: PlainFile[];
}

export type SourceFile = PlainFile | Archive;

export const isArchive = (file: SourceFile): file is Archive => 'md5' in file;

/** What mirrors call a file. */
export const packedName = (file: SourceFile) => (isArchive(file) ? file.name : `${file.name}.gz`);

/** What `data fetch` gets, and from where. */
export interface Source {
  /** Name in the catalogue. */
  name: string;
  /** Folders with the packed files in them, tried in this order. */
  mirrors: string[];
  files: SourceFile[];
}

/** Both sets have the same sizes: 60,000 and 10,000 pictures of 28x28, a byte a pixel and a byte a label. */
function source(name: string, mirrors: string[], sums: [string, string, string, string]): Source {
  const [trainImages, trainLabels, testImages, testLabels] = sums;
  return {
    name,
    mirrors,
    files: [
      { name: 'train-images-idx3-ubyte', bytes: 16 + 60_000 * 784, sha256: trainImages },
      { name: 'train-labels-idx1-ubyte', bytes: 8 + 60_000, sha256: trainLabels },
      { name: 't10k-images-idx3-ubyte', bytes: 16 + 10_000 * 784, sha256: testImages },
      { name: 't10k-labels-idx1-ubyte', bytes: 8 + 10_000, sha256: testLabels },
    ],
  };
}

/** Taken from the files whose .gz have the official md5 (f68b3c2d, d53e105e, 9fb629c4, ec29112d). */
export const mnist = source(
  'mnist',
  ['https://ossci-datasets.s3.amazonaws.com/mnist/', 'https://storage.googleapis.com/cvdf-datasets/mnist/'],
  [
    'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
    '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
    '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
    'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2',
  ],
);

/** Taken from Debian's package, unpacked md5 as published (f4a8712d, 9018921c, 8181f547, 15d48437). */
export const fashionMnist = source(
  'fashion-mnist',
  [
    'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/',
    'https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/',
  ],
  [
    'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888',
    'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9',
    '5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b',
    '0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34',
  ],
);

const LARGEST_CIFAR = 2 ** 28;
const cifarBatch = (n: number, sha256: string): PlainFile => ({
  name: `data_batch_${n}.bin`,
  bytes: 10_000 * 3073,
  sha256,
});

/** The test batch has no published sum in this layout. */
export const cifar10Source: Source = {
  name: 'cifar-10',
  mirrors: ['https://www.cs.toronto.edu/~kriz/'],
  files: [
    {
      name: 'cifar-10-binary.tar.gz',
      largest: LARGEST_CIFAR,
      md5: 'c32a1d4ab5d03f1284b67883e8d87530',
      files: [
        cifarBatch(1, 'cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5'),
        cifarBatch(2, 'a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed'),
        cifarBatch(3, 'bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67'),
        cifarBatch(4, '014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48'),
        cifarBatch(5, '755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add'),
      ],
    },
  ],
};

export const cifar100Source: Source = {
  name: 'cifar-100',
  mirrors: ['https://www.cs.toronto.edu/~kriz/'],
  files: [
    {
      name: 'cifar-100-binary.tar.gz',
      largest: LARGEST_CIFAR,
      md5: '03b5dce01913d631647c71ecec9e9cb8',
      files: [],
    },
  ],
};
