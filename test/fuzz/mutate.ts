// The mutations of native/test/fuzz/mutate.h, the same ones for the same number: a failure is repeated from its number.

type Below = (n: number) => number;

/** Numbers of one iteration (mulberry32). */
function numbersOf(iteration: number): Below {
  let state = Math.imul(iteration + 1, 0x9e3779b1);
  return (n) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % n;
  };
}

function pick(seeds: Buffer[], below: Below): Buffer {
  return seeds[below(seeds.length)] as Buffer;
}

/** Half of the inputs come from the first `valid` seeds, mostly by one change or two. */
export function mutated(iteration: number, seeds: Buffer[], valid: number): Buffer {
  const below = numbersOf(iteration);
  let input: Buffer = Buffer.from(below(2) ? (seeds[below(valid)] as Buffer) : pick(seeds, below));
  for (let changes = below(3) !== 0 ? 1 + below(2) : 1 + below(16); changes > 0; changes--) {
    input = changed(input, pick(seeds, below), below);
  }
  return input;
}

function insert(input: Buffer, at: number, piece: Buffer): Buffer {
  return Buffer.concat([input.subarray(0, at), piece, input.subarray(at)]);
}

function changed(input: Buffer, seed: Buffer, below: Below): Buffer {
  if (input.length === 0) return Buffer.from([below(256)]);
  const at = below(input.length);
  switch (below(13)) {
    case 0:
      input[at] = below(256);
      return input;
    case 1:
      input[at] = (input[at] as number) ^ (1 << below(8));
      return input;
    case 2:
      input.write('\0\xff\x7f\x80[]{}",:\\0129-eu \n&*?!|>%#'[below(30)] ?? '\t', at, 'latin1');
      return input;
    case 3:
      return input.subarray(0, at);
    case 4:
      return insert(input, at, Buffer.alloc(1 + below(20), below(256)));
    case 5:
      return Buffer.concat([input.subarray(0, at), input.subarray(at + below(input.length - at + 1))]);
    case 6: {
      const first = below(seed.length + 1);
      return insert(input, at, seed.subarray(first, first + below(seed.length - first + 1)));
    }
    case 7: // a number of interest, in either byte order
      for (let i = at; i < Math.min(at + 8, input.length); i++) input[i] = below(2) ? 0xff : 0;
      return input;
    case 8: {
      const digit = input.findIndex((c, i) => i >= at && c >= 0x30 && c <= 0x39);
      if (digit >= 0) input[digit] = 0x30 + below(10);
      return input;
    }
    case 9:
    case 10: // a small number or a power of two where binary formats have theirs
      if (input.length >= 4)
        input.writeUInt32LE(below(2) ? below(64) : 2 ** below(32), below(input.length >> 2) * 4);
      return input;
    default:
      return changedWord(input, at, seed, below);
  }
}

/** A line, or what stands between two commas or quotes: left out, doubled, or replaced by one of a seed. */
function changedWord(input: Buffer, at: number, seed: Buffer, below: Below): Buffer {
  const mark = '\n,"'.charCodeAt(below(3));
  const [first, last] = wordAt(input, at, mark);
  const [before, behind] = [input.subarray(0, first), input.subarray(last)];
  const what = below(4);
  if (what === 0) return Buffer.concat([before, behind]);
  if (what === 1) return Buffer.concat([input.subarray(0, last), Buffer.from([mark]), input.subarray(first)]);
  const [from, to] = wordAt(seed, below(Math.max(seed.length, 1)), mark);
  return Buffer.concat([before, seed.subarray(from, to), behind]);
}

function wordAt(bytes: Buffer, at: number, mark: number): [number, number] {
  const last = bytes.indexOf(mark, at);
  return [at === 0 ? 0 : bytes.lastIndexOf(mark, at - 1) + 1, last < 0 ? bytes.length : last];
}
