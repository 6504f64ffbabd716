import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type RecordBatch, Table, tableFromIPC, tableToIPC } from 'apache-arrow';
import { CompiledNetwork } from '../lib/session/CompiledNetwork.js';
import type { Session } from '../lib/session/Session.js';
import { differences, network, openSession } from './helpers/digits.js';

interface Row {
  step: number;
  split: string;
  loss: number;
  accuracy: number;
  learningRate: number;
  examples: number;
  seconds: number;
}
const rowsOf = (batches: RecordBatch[]): Row[] =>
  new Table(batches).toArray().map((row) => row.toJSON() as Row);

test('training yields Arrow batches with a row per cadence, and ends at the update asked for', async () => {
  const session = await openSession();
  const options = { until: 25, metricsEvery: 10, evaluateEvery: 20, evaluateAtStart: true };
  const { end, batches } = await session.trainToEnd(options);
  assert.equal(end.state, 'done');
  assert.equal(end.step, 25);
  assert.equal(session.step, 25);
  const rows = rowsOf(batches);
  assert.deepEqual(
    rows.map((row) => `${row.step} ${row.split}`),
    [
      '0 validation',
      '0 test',
      '10 train',
      '20 train',
      '20 validation',
      '20 test',
      '25 train',
      '25 validation',
      '25 test',
    ],
  );
  assert.equal(rows[2]?.examples, 600);
  assert.equal(rows.at(-1)?.examples, session.info.examples.test);
  assert.ok(rows.every((row) => row.learningRate === 1.2e-3 && row.accuracy >= 0 && row.accuracy <= 1));
  assert.ok(
    rows.every((row, i) => row.seconds >= (rows[i - 1]?.seconds ?? 0)),
    'time goes forward',
  );
  session.dispose();
});

test('metrics of one call become one Arrow file that reads back the same', async () => {
  const session = await openSession();
  const batches: RecordBatch[] = [];
  for (const until of [5, 10]) batches.push(...(await session.trainToEnd({ until })).batches);
  const table = new Table(batches);
  const again = tableFromIPC(tableToIPC(table, 'file'));
  assert.deepEqual(JSON.stringify(again.toArray()), JSON.stringify(table.toArray()));
  session.dispose();
});

test('training in pieces gives the bits of training in one go', async () => {
  const whole = await openSession();
  await whole.trainToEnd({ until: 200 });
  const pieces = await openSession();
  for (const until of [1, 2, 60, 133, 200])
    await pieces.trainToEnd({ until, metricsEvery: 7, evaluateEvery: 31 });
  assert.deepEqual(differences(await whole.snapshot(), await pieces.snapshot()), []);
  whole.dispose();
  pieces.dispose();
});

test('evaluation gives what the training rows said, and leaves the weights alone', async () => {
  const session = await openSession();
  const { batches } = await session.trainToEnd({ until: 30 });
  const last = rowsOf(batches).at(-1) as Row;
  const before = await session.snapshot();
  const { loss, accuracy, examples } = await session.evaluate('test');
  assert.deepEqual([loss, accuracy, examples], [last.loss, last.accuracy, last.examples]);
  assert.equal((await session.evaluate('validation')).examples, 504);
  assert.deepEqual(differences(before, await session.snapshot()), []);
  session.dispose();
});

test('leaving the loop stops the training, and the session can be used at once', async () => {
  const session = await openSession();
  for await (const batch of session.train({ until: 1_000_000, metricsEvery: 1 })) {
    assert.ok(batch.numRows > 0);
    break;
  }
  const step = session.step;
  assert.ok(step > 0 && step < 1_000_000);
  const { end } = await session.trainToEnd({ until: step + 3 });
  assert.equal(end.step, step + 3);
  session.dispose();
});

test('an AbortSignal stops training within a step and throws its reason; the steps made are kept', async () => {
  const session = await openSession();
  const reason = new Error('enough');
  const controller = new AbortController();
  let at = 0;
  await assert.rejects(async () => {
    for await (const batch of session.train({
      until: 1_000_000,
      metricsEvery: 1,
      signal: controller.signal,
    })) {
      at = batch.getChild('step')?.get(batch.numRows - 1) as number;
      controller.abort(reason);
    }
  }, reason);
  assert.ok(at > 0 && session.step >= at && session.step < 1_000_000);
  await assert.rejects(
    session.trainToEnd({ until: 2_000_000, signal: controller.signal }),
    reason,
    'aborted before it began',
  );
  await assert.rejects(session.evaluate('test', { signal: controller.signal }), reason);
  const resumed = await openSession();
  await resumed.load(await session.snapshot());
  await resumed.trainToEnd({ until: session.step + 5 });
  const straight = await openSession();
  await straight.trainToEnd({ until: session.step + 5 });
  assert.deepEqual(differences(await resumed.snapshot(), await straight.snapshot()), []);
  session.dispose();
});

test('an AbortSignal stops an evaluation', async () => {
  const session = await openSession();
  await assert.rejects(
    session
      .evaluate('train', { signal: AbortSignal.timeout(0) })
      .then(() => session.evaluate('train', { signal: AbortSignal.abort() })),
  );
  assert.ok((await session.evaluate('train')).examples > 0);
  session.dispose();
});

test('while it trains, every other call is refused as busy', async () => {
  const session = await openSession();
  const snapshot = await session.snapshot();
  const running = session.train({ until: 1_000_000, metricsEvery: 1 });
  await running.next();
  for (const call of [
    () => session.snapshot(),
    () => session.load(snapshot),
    () => session.setMasks(null),
    async () => session.setStep(0),
    async () => session.batchIndices(0),
    () => session.initialise(),
    () => session.gradients(0),
  ]) {
    await assert.rejects(call, { code: 'busy' });
  }
  await assert.rejects(session.evaluate('test'), { code: 'busy' });
  await assert.rejects(session.trainToEnd({ until: 2_000_000 }), { code: 'busy' });
  await running.return(undefined as never);
  await session.snapshot();
  session.dispose();
});

test('disposing a session that trains stops it', async () => {
  const session = await openSession();
  const running = session.train({ until: 1_000_000_000, metricsEvery: 1 });
  await running.next();
  session.dispose();
  let next = await running.next();
  while (!next.done) next = await running.next();
  assert.equal(next.value.state, 'aborted');
});

test('a run that has ended does not stop the next one, however late JavaScript hears of its end', async () => {
  const session = await openSession();
  const other = await openSession();
  await other.trainToEnd({ until: 20, evaluate: [] });
  const expected = await other.evaluate('test');
  const first = session.trainToEnd({ until: 20, evaluate: [] });
  // The thread ends while nobody listens.
  for (const start = performance.now(); performance.now() - start < 400; );
  const [evaluation] = await Promise.all([session.evaluate('test'), first]);
  assert.deepEqual(evaluation, expected);
  const second = session.trainToEnd({ until: 40, evaluate: [] });
  for (const start = performance.now(); performance.now() - start < 400; );
  const [third] = await Promise.all([session.trainToEnd({ until: 400, evaluate: [] }), second]);
  assert.deepEqual([third.end.state, third.end.step], ['done', 400]);
  for (const one of [session, other]) one.dispose();
});

test('an evaluation whose session is disposed of gives no figures', async () => {
  const session = await openSession({ network: CompiledNetwork.compile('lenet-1000-1000') });
  const evaluation = session.evaluate('train');
  session.dispose();
  await assert.rejects(evaluation, { code: 'disposed' });
});

test('a training that diverges says so and does not throw', async () => {
  const session = await openSession({ optimiser: { type: 'sgd', learningRate: 1e6 } });
  const { end, batches } = await session.trainToEnd({ until: 200 });
  assert.equal(end.state, 'diverged');
  assert.ok(end.step < 200);
  assert.ok(rowsOf(batches).length > 0);
  session.dispose();
});

test('an epoch visits every training example once, the last smaller batch included; other noise, other order', async () => {
  const session = await openSession();
  const { updatesPerEpoch, examples } = session.info;
  assert.equal(updatesPerEpoch, Math.ceil(examples.train / 60));
  const epoch = (number: number, noise: number) =>
    Array.from({ length: updatesPerEpoch }, (_, i) => [
      ...session.batchIndices(number * updatesPerEpoch + i, noise),
    ]);
  const first = epoch(0, 0);
  assert.equal(first.at(-1)?.length, examples.train % 60 || 60);
  const sorted = (batches: number[][]) => batches.flat().sort((a, b) => a - b);
  assert.equal(new Set(first.flat()).size, examples.train);
  for (const other of [epoch(1, 0), epoch(0, 1)]) {
    assert.deepEqual(sorted(other), sorted(first));
    assert.notDeepEqual(other, first);
  }
  assert.deepEqual(epoch(0, 0), first);
  session.dispose();
});

test('the split is decided by the seed alone, the order and the weights by the replicate too', async () => {
  const trained = (session: Session) => {
    const rows: number[] = [];
    for (let step = 0; step < session.info.updatesPerEpoch; step++) rows.push(...session.batchIndices(step));
    return rows;
  };
  const sorted = (rows: number[]) => [...rows].sort((a, b) => a - b);
  const a = await openSession();
  const b = await openSession({ replicate: 1 });
  const c = await openSession({ seed: 8 });
  assert.deepEqual(sorted(trained(a)), sorted(trained(b)));
  assert.notDeepEqual(trained(a), trained(b));
  assert.notDeepEqual(sorted(trained(a)), sorted(trained(c)));
  assert.ok(differences(await a.snapshot(), await b.snapshot()).includes('fc1.weight'));
  assert.deepEqual(differences(await a.snapshot(), await (await openSession()).snapshot()), []);
});

test('gradients are those of the batch asked for, and change nothing', async () => {
  const session = await openSession({ precision: 'fp64' });
  const before = await session.snapshot();
  const { loss, correct, gradients } = await session.gradients(3);
  assert.ok(Number.isFinite(loss) && correct >= 0 && correct <= 60);
  assert.deepEqual(
    [...gradients.tensors().keys()],
    network.summary.parameters.map((parameter) => parameter.name),
  );
  assert.notEqual((await session.gradients(4)).loss, loss);
  assert.equal((await session.gradients(3)).loss, loss);
  assert.deepEqual(differences(before, await session.snapshot()), []);
  session.dispose();
});
