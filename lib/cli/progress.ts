import type { ExperimentEvent } from '../experiment/Event.js';
import { statusLine } from './statusLine.js';
import { duration, size, speed } from './words.js';

/** What a comparison of two copies found, in words. */
function findings({ stability, connectivity, diverged }: Extract<ExperimentEvent, { type: 'unit-end' }>) {
  if (diverged) return 'diverged';
  const sample = stability.find(({ scope }) => scope === 'masked');
  if (sample)
    return `distance ${sample.distance.toPrecision(4)}, angle ${sample.angle?.toFixed(1) ?? 'none'}`;
  return connectivity && `test barrier ${(connectivity.barrier.test * 100).toFixed(2)} points`;
}

/**
 * Tells people on stderr what an experiment does: one line a finished training, and on a terminal a bar below them.
 */
export function progressPrinter(stream: NodeJS.WriteStream): (event: ExperimentEvent) => void {
  const { line, status } = statusLine(stream);
  let total = 0;
  return (event) => {
    switch (event.type) {
      case 'plan': {
        total = event.updates;
        const disk =
          event.bytes === null || event.peakBytes === null
            ? ''
            : `; about ${size(event.bytes)} on disk, ${size(event.peakBytes)} on the way`;
        const done = event.done > 0 ? `; ${event.done} units are done already` : '';
        line(`${event.units} units, ${event.updates} updates${disk}${done}`);
        break;
      }
      case 'unit-start':
        if (event.resumed > 0) line(`${event.label}: goes on after ${event.resumed} updates`);
        break;
      case 'unit-failed':
        line(`${event.label}: failed: ${event.message}`);
        break;
      case 'notice':
        line(event.message);
        break;
      case 'progress': {
        const left = duration(((1 - event.fraction) * total) / event.updatesPerSecond);
        const share = `${(event.fraction * 100).toFixed(0).padStart(3)}%  ${speed(event.updatesPerSecond)}  ${left} left`;
        status(event.fraction, share);
        break;
      }
      case 'unit-end': {
        const how = event.skipped ? 'done by another process' : `${event.seconds.toFixed(1)} s`;
        const [result] = event.results;
        if (!result) {
          const found = findings(event);
          if (found) line(`${event.label}: ${found}, ${how}`);
          break;
        }
        const accuracy =
          result.testAccuracy === null
            ? 'diverged'
            : `test accuracy ${(result.testAccuracy * 100).toFixed(2)} %`;
        const { training = 0, evaluation = 0 } = result.replacedPictures ?? {};
        const pictures = training + evaluation;
        const replaced =
          pictures > 0 ? `, ${pictures} ${pictures === 1 ? 'picture' : 'pictures'} that cannot be read` : '';
        line(
          `${event.label}: ${(result.densityPrunable * 100).toFixed(2)} % left, ${accuracy}, ${how}${replaced}`,
        );
        break;
      }
    }
  };
}
