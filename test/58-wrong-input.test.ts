/** What a new user gets wrong with pictures in files: one line that says what to do, and no folder that is in the way later. */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { loadAddon } from '../lib/native/load.js';
import { CommandLine } from './helpers/commandLine.js';
import { png, writeFiles } from './helpers/pictures.js';
import { temporaryFolder } from './helpers/runs.js';

const { jpeg } = loadAddon().info();
const skip: string | false = jpeg.built ? false : jpeg.reason;
const folder = temporaryFolder('wrong-input');
const at = (...parts: string[]) => join(folder, ...parts);
const lth = new CommandLine({ LTH_CACHE: at('cache'), LTH_DATA: '' });
after(() => lth.end());

const pictures = (part: string, place: (i: number) => string) =>
  Object.fromEntries(
    Array.from({ length: 6 }, (_, i) => [`${part}/${place(i)}p${i}.png`, png(20 + i, 24, i)]),
  );
const inClasses = (i: number) => `c${i % 2}/`;
const inThree = (i: number) => `c${i % 3}/`;
const train = pictures('train', inClasses);
writeFiles(at('whole'), { ...train, ...pictures('val', inClasses) });
writeFiles(at('flat'), { ...train, ...pictures('val', () => '') });
writeFiles(at('only-train'), train);
writeFiles(at('hollow'), { ...train, ...pictures('val', inClasses) });
mkdirSync(at('hollow', 'train', 'c2'));
writeFiles(at('more-classes'), { ...train, ...pictures('val', inThree) });
writeFiles(at('three'), { ...pictures('train', inThree), ...pictures('val', inThree) });
writeFileSync(at('short.txt'), 'p0 c0\np1 c1\n');
writeFileSync(at('foreign.txt'), 'p0 zebra\n');
writeFileSync(at('twice.txt'), 'p0 c0\np1 c1\np0 c1\n');
writeFileSync(at('numbers.txt'), '490\n361\n');

const set = (...values: string[]) => values.flatMap((value) => ['--set', value]);
const small = [
  ...['imagenet/resnet50-oneshot', '--rewind', '1it', '--levels', '1', '--out', at('runs', 'one')],
  ...set('network=squeezenet1_1-s64-c2', 'data.crop.training.size=64', 'data.crop.evaluation.size=64'),
  ...set('training.schedule={}', 'training.steps=4it', 'training.batch=3', 'training.precision=fp32'),
];
const of = (name: string, ...more: string[]) => [...small, ...set(`data.folder=${at(name)}`, ...more)];

/** Arguments of `run` and `plan`, exit code, words. */
const wrong: [string[], number, RegExp][] = [
  [
    ['imagenet/resnet50'],
    2,
    /no recipe "imagenet\/resnet50"\. Did you mean "imagenet\/resnet50-iterative"\?/,
  ],
  [small, 1, /"imagenet" is not in .*cache.*image-net\.org.*--set data\.folder=DIR/],
  [of('nowhere'), 1, /not in .*nowhere: expected train\/CLASS\/\*\.JPEG and val\/ there/],
  [of('whole/train'), 1, /not in .*whole\/train: expected train\/CLASS/],
  [of('short.txt'), 1, /not in .*short\.txt: expected train\/CLASS/],
  [of('only-train'), 1, /only-train\/val: there is no such folder/],
  [of('hollow'), 1, /hollow\/train\/c2: this class folder holds no \.JPEG, \.jpg or \.png file/],
  [of('more-classes'), 1, /more-classes\/val\/c2: the training set has no class c2/],
  [of('flat'), 1, /flat\/val: holds pictures and no class folders: .*data\.groundTruth.*--ground-truth/],
  [of('flat', `data.groundTruth=${at('none.txt')}`), 1, /none\.txt: there is no such file/],
  [of('flat', `data.groundTruth=${at('short.txt')}`), 1, /short\.txt: has no line for p2\.png/],
  [of('flat', `data.groundTruth=${at('foreign.txt')}`), 1, /foreign\.txt: line 1: .* no class zebra/],
  [
    of('flat', `data.groundTruth=${at('twice.txt')}`),
    1,
    /twice\.txt: line 3: p0 is of class c1 here, of another one in a line above/,
  ],
  [
    of('flat', `data.groundTruth=${at('numbers.txt')}`),
    1,
    /numbers\.txt: line 1 is "490", expected NAME CLASS/,
  ],
  [
    of('whole', `data.groundTruth=${at('short.txt')}`),
    1,
    /whole\/val: holds class folders, which tell the classes/,
  ],
  [of('whole', 'data.foldr=x'), 2, /unknown key "data\.foldr"\. Did you mean "folder"\?/],
  [of('whole', 'data.set=imagnet'), 2, /no data set "imagnet"\. Did you mean "imagenet"\?/],
  [of('whole', 'data.set=cifar-10'), 2, /crop, groundTruth and upright are for pictures in files/],
  [of('whole', 'data.augment={crop: 4, flip: true}'), 2, /data\.augment is for data sets in memory/],
  [of('whole', 'data.crop.training.size=40'), 2, /for training are of 40 pixels, those for evaluation of 64/],
  [of('whole', 'data.crop.evaluation.resize=16'), 2, /between 64 and 8192 for crop\.resize/],
  [of('whole', 'data.crop.training.kind=random'), 2, /data\.crop\.training\.kind: .*'random-resized'/],
  [
    of('whole', 'data.crop.evaluation.area=[0.1, 1]'),
    2,
    /unknown key .*area"\. Known: kind, size, filter, resize\./,
  ],
  [
    of('whole', 'training.optimiser.type=adam'),
    2,
    /unknown key .*momentum"\. Known: type, learningRate, beta1/,
  ],
  [
    of('whole', 'network=squeezenet1_1-s96-c2'),
    2,
    /reads .*\(3,96,96\).*\(3,64,64\).*data\.crop.*resnet18-s64-c10/,
  ],
  [of('three'), 2, /network: .* has 2 classes, the data set has 3.*network=NAME-sSIZE-cCLASSES/],
  [of('whole', 'network=resnet19-s64-c2'), 2, /no network "resnet19-s64-c2".*Did you mean/],
  [of('whole', 'training.steps=0it'), 2, /training\.steps: expected at least one update/],
  [of('whole', 'training.batch=7'), 2, /training\.batch: expected at most the 6 examples .* received 7/],
  [of('whole', 'data.validation=6'), 2, /between 0 and 5 for validation but received 6/],
  [of('whole', 'data.subset=9'), 2, /between 1 and 6 for subset but received 9/],
  [[...of('whole'), '--rewind', '2ep'], 2, /rewind: expected less than the 4 updates .*"2ep" \(4 updates\)/],
  [
    [...of('whole'), '--levels', '40'],
    2,
    /pruning\.levels: expected at most 12 but received 40: from level 13 on .*left: 1/,
  ],
  [[...of('whole'), '--jobs', '0'], 2, /'0' is invalid\. Expected a whole number between 1 and 1024/],
  [[...of('whole'), '--device', 'gpu'], 2, /device: expected cpu, cuda or cuda:N/],
];

test('run and plan: one line, the exit code of its kind, and nothing is left', { skip }, async () => {
  const before = readdirSync(folder).sort();
  for (const command of ['run', 'plan'])
    for (const [args, code, words] of wrong) {
      const { out, err, ...ended } = await lth.run(command, ...args);
      assert.match(err, words);
      assert.deepEqual([ended.code, out], [code, ''], err);
      assert.equal(err.trimEnd().split('\n').length, 1, err);
    }
  assert.deepEqual(readdirSync(folder).sort(), before);
});

test('a mistake in normalise is not told of as one in the network', async () => {
  const { code, err } = await lth.run(
    'plan',
    'quickstart',
    ...set('data.normalise={mean: [0, 0, 0], std: [1, 1, 1]}'),
  );
  assert.deepEqual([code, err], [2, 'lth-train: normalise wants 1 means and deviations, has 3 and 3\n']);
});

test('a batch that the memory does not hold is told of with what makes it smaller', async () => {
  const layers =
    '[{name: conv, type: conv, channels: 65536, kernel: 1}, {name: pool, type: globalpool}, {name: fc, type: linear, units: 10}]';
  const wide = `network={name: wide, input: [1, 28, 28], classes: 10, layers: ${layers}}`;
  const values = set(wide, 'training.batch=8000', 'pruning.rates={}');
  const { code, err } = await lth.run('plan', 'quickstart', ...values);
  assert.match(
    err,
    /^lth-train: \[memory\] out of memory: wanted \d+ bytes, .*--set training\.microBatch=N.*\n$/,
  );
  assert.equal(code, 1);
});

test('a file where the run folder would be is told of, and stays', { skip }, async () => {
  const { code, err } = await lth.run('run', ...of('whole'), '--out', at('short.txt'));
  assert.deepEqual([code, err], [1, `lth-train: ${at('short.txt')}: there is a file of this name\n`]);
});

test('data pack and data verify: the same', { skip }, async () => {
  const to = ['--out', at('packed')];
  for (const [args, code, words] of [
    [['pack', at('whole')], 2, /required option '--out <folder>'/],
    [['pack', at('nowhere'), ...to], 1, /nowhere: there is no such folder/],
    [['pack', at('flat'), ...to], 1, /--ground-truth of `data pack`/],
    [['pack', at('whole'), ...to, '--ground-truth', at('short.txt')], 1, /val: holds class folders/],
    [['pack', at('hollow'), ...to], 1, /c2: this class folder holds no/],
    [['pack', at('whole'), '--out', at('whole', 'packed')], 2, /lies in the folder that is packed/],
    [['pack', at('whole'), ...to, '--shard-size', '3zb'], 2, /Expected a size such as 256MiB/],
    [['verify', at('whole')], 1, /holds no shards\.json.*`lth-train data pack` makes shards/],
    [['verify', at('nowhere')], 1, /nowhere: there is no such folder/],
    [['fetch', 'imagenet'], 2, /image-net\.org/],
  ] as [string[], number, RegExp][]) {
    const { out, err, ...ended } = await lth.run('data', ...args);
    assert.match(err, words);
    assert.deepEqual([ended.code, out], [code, ''], err);
    assert.doesNotMatch(err, /^ {4}at /m);
    assert.ok(!readdirSync(folder).includes('packed'), args.join(' '));
  }
});

test('after all that, the right command works in the same folder', { skip }, async () => {
  const { code, err } = await lth.run('run', ...of('whole'), '--threads', '2');
  assert.equal(code, 0, err);
});
