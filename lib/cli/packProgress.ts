import type { PackEvent } from '../data/pack.js';
import { statusLine } from './statusLine.js';
import { duration, size } from './words.js';

/** Tells people on stderr what packing does: one line a shard and a broken picture, and on a terminal a bar below them. */
export function packPrinter(stream: NodeJS.WriteStream): (event: PackEvent) => void {
  const { line, status } = statusLine(stream);
  return (event) => {
    switch (event.type) {
      case 'waiting':
        line(`another process packs into ${event.folder}: waiting for it`);
        break;
      case 'part': {
        const { folder, pictures, done } = event;
        const there = done === pictures ? ', all packed already' : done > 0 ? `, ${done} packed already` : '';
        line(`${folder}: ${pictures} pictures${there}`);
        break;
      }
      case 'progress': {
        const { done, pictures, perSecond } = event;
        const left = duration((pictures - done) / perSecond);
        status(done / pictures, `${done} of ${pictures} pictures  ${perSecond.toFixed(0)}/s  ${left} left`);
        break;
      }
      case 'shard':
        line(`${event.path}: ${event.pictures} pictures, ${size(event.bytes)}`);
        break;
      case 'broken':
        line(
          `${event.path}: cannot be packed, ${event.kept ? 'kept as it is' : 'its row is empty'}: ${event.why}`,
        );
        break;
    }
  };
}
