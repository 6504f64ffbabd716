/** Training threads against every way a process, a worker or a session can end (design: contract 1). */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import { Dataset } from '../lib/session/Dataset.js';
import { Snapshot } from '../lib/session/Snapshot.js';
import { differences, openSession, network as tiny } from './helpers/digits.js';

const TIMES = 50;
const folder = mkdtempSync(join(tmpdir(), 'lth-lifetime-'));
after(() => rmSync(folder, { recursive: true }));

const digits = new URL('./helpers/digits.js', import.meta.url).href;

/** A module that starts a training without end and then does what `body` says; `delay` is given to it. */
function script(name: string, body: string, executor = 'direct'): string {
  const path = join(folder, `${name}.mjs`);
  writeFileSync(
    path,
    `import { parentPort, workerData } from 'node:worker_threads';
    import { openSession } from '${digits}';
    const delay = Number(workerData ?? process.argv[2]);
    const session = await openSession({ threads: 2, executor: '${executor}' });
    const training = session.train({ until: 1e9, metricsEvery: 1, evaluateEvery: 10 });
    await training.next();
    parentPort?.postMessage('trains');
    ${body}`,
  );
  return path;
}

interface End {
  code: number | null;
  signal: string | null;
  stderr: string;
}

function run(path: string, delay: number): Promise<End> {
  const child = spawn(process.execPath, [path, String(delay)], { stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  return new Promise((resolve) => child.on('close', (code, signal) => resolve({ code, signal, stderr })));
}

/** Runs a script so many times, ended at another moment each time, as many at once as there are cores. */
async function each(path: string, check: (end: End) => void, times = TIMES): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < times) check(await run(path, (next++ * 7) % 61));
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
}

const clean = (expected: number) => (end: End) => {
  assert.deepEqual({ code: end.code, signal: end.signal }, { code: expected, signal: null }, end.stderr);
};

test(`process.exit in the middle of training, ${TIMES} times`, async () => {
  await each(script('exit', 'setTimeout(() => process.exit(3), delay);'), clean(3));
});

test(`an uncaught error in the middle of training, ${TIMES} times`, async () => {
  await each(script('throw', "setTimeout(() => { throw new Error('on purpose'); }, delay);"), (end) => {
    clean(1)(end);
    assert.match(end.stderr, /on purpose/);
  });
});

test('the same for the executors whose statics LibTorch makes late, 10 times each', async () => {
  for (const executor of ['autograd', 'aten']) {
    await each(
      script(`exit-${executor}`, 'setTimeout(() => process.exit(3), delay);', executor),
      clean(3),
      10,
    );
    const thrown = "setTimeout(() => { throw new Error('on purpose'); }, delay);";
    await each(script(`throw-${executor}`, thrown, executor), clean(1), 10);
  }
});

test(`the natural end of a program that disposes of a session in training, or has trained to the end, ${TIMES} times`, async () => {
  const body = `
    if (delay % 2) setTimeout(() => session.dispose(), delay);
    else {
      await training.return();
      session.train({ until: session.step + delay, evaluateEvery: 3 }).next(); // and nobody waits for it
    }`;
  await each(script('natural', body), clean(0));
});

test('an evaluation or a file that is being written does not hold up process.exit', async () => {
  const body = `
    await training.return();
    session.evaluate('train');
    const other = await openSession();
    for (let i = 0; i < 4; i++) (await other.snapshot()).write('${join(folder, 'written')}' + delay + '-' + i);
    setTimeout(() => process.exit(3), delay % 3);`;
  const path = script('evaluate', body);
  for (let i = 0; i < 10; i++) clean(3)(await run(path, i));
});

/** Starts a worker and resolves when it trains. */
function training(path: string, delay: number): Promise<Worker> {
  const worker = new Worker(path, { workerData: delay });
  return new Promise((resolve, reject) => {
    worker.once('message', () => resolve(worker));
    worker.once('error', reject);
  });
}

test(`worker.terminate in the middle of training, ${TIMES} times; what is left of the process trains on`, async () => {
  const endless = script('endless', 'for await (const batch of training) void batch;');
  const busy = script('busy', 'for (;;) session.info;');
  for (let i = 0; i < TIMES; i++) {
    const worker = await training(i % 2 ? endless : busy, 0);
    await new Promise((resolve) => setTimeout(resolve, i % 7));
    await worker.terminate();
  }
  const session = await openSession();
  assert.equal((await session.trainToEnd({ until: 50 })).end.state, 'done');
  session.dispose();
});

test('process.exit in a worker ends the worker alone; in the main thread it ends workers that train', async () => {
  const leaves = script('leaves', 'setTimeout(() => process.exit(5), delay);');
  for (let i = 0; i < 5; i++) {
    const worker = await training(leaves, i * 5);
    assert.equal(await new Promise((resolve) => worker.once('exit', resolve)), 5);
  }
  const endless = script('endless-2', 'for await (const batch of training) void batch;');
  const main = script(
    'main',
    `const { Worker } = await import('node:worker_threads');
    const worker = new Worker('${endless}', { workerData: 0 });
    worker.once('message', () => setTimeout(() => process.exit(3), delay));`,
  );
  for (let i = 0; i < 5; i++) clean(3)(await run(main, i * 9));
});

test('sessions in several workers train beside one another and give the same bits', async () => {
  const path = join(folder, 'several.mjs');
  writeFileSync(
    path,
    `import { parentPort, workerData } from 'node:worker_threads';
    import { openSession } from '${digits}';
    const session = await openSession({ threads: workerData });
    await session.trainToEnd({ until: 60 });
    await (await session.snapshot()).write('${join(folder, 'several-')}' + workerData);`,
  );
  const ends = [1, 2, 3].map((threads) => {
    const worker = new Worker(path, { workerData: threads });
    return new Promise((resolve, reject) => worker.once('exit', resolve).once('error', reject));
  });
  assert.deepEqual(await Promise.all(ends), [0, 0, 0]);
  const [a, b, c] = await Promise.all(
    [1, 2, 3].map((n) => Snapshot.read(tiny, join(folder, `several-${n}`))),
  );
  assert.deepEqual([differences(a as never, b as never), differences(a as never, c as never)], [[], []]);
});

test('an abort stops training within one step, however long a step is', async () => {
  const network = CompiledNetwork.compile('lenet-1000-1000');
  const { train } = await Dataset.open('mnist-10k');
  const session = await openSession({ network, train, batch: 4096, threads: 1 });
  const controller = new AbortController();
  let seen = -1;
  await assert.rejects(async () => {
    const options = { until: 1000, metricsEvery: 1, evaluate: [], signal: controller.signal };
    for await (const batch of session.train(options)) {
      seen = batch.getChild('step')?.get(batch.numRows - 1) as number;
      controller.abort(new Error('enough'));
    }
  }, /enough/);
  assert.ok(seen >= 1);
  assert.ok(session.step - seen <= 1, `aborted at ${seen}, stopped at ${session.step}`);
  session.dispose();
});

test('rows that nobody reads are kept, not dropped, and do not grow without bound: the training waits', async () => {
  const network = CompiledNetwork.compile('lenet-1');
  const session = await openSession({ network, batch: 1, optimiser: { type: 'sgd', learningRate: 1e-3 } });
  const iterator = session.train({ until: 400_000, metricsEvery: 1, evaluate: [], ends: false });
  await iterator.next();
  await new Promise((resolve) => setTimeout(resolve, 1500));
  let last = 0;
  for await (const batch of iterator) {
    const steps = batch.getChild('step')?.toArray() as Int32Array;
    assert.ok(steps.length <= 65_536);
    if (last > 0) assert.equal(steps[0], last + 1);
    last = steps.at(-1) as number;
    if (last > 150_000) break;
  }
  session.dispose();
});
