/** Where a value stands between the two ends of an axis, and which values are written there. */
export interface Scale {
  /** 0 at the axis' begin, 1 at its end. */
  at(value: number): number;
  ticks: number[];
}

/** How much room a label wants, as a fraction of the axis' length. */
export type LabelRoom = (value: number) => number;

/** Do all labels stand apart? Half a label to each side of its tick, and a little air. */
function fits(ticks: number[], at: (value: number) => number, room: LabelRoom): boolean {
  return ticks.every((tick, i) => {
    const next = ticks[i + 1];
    return next === undefined || Math.abs(at(next) - at(tick)) >= (room(tick) + room(next)) / 2;
  });
}

/** Without the noise of 0.1 + 0.2. */
const tidy = (value: number) => Number(value.toPrecision(12));

/** Steps of 1, 2 or 5 times a power of ten, from the finest that fits; at least the two ends of one step. */
function linearTicks(low: number, high: number, at: (value: number) => number, room: LabelRoom): number[] {
  const span = high - low;
  const power = 10 ** Math.floor(Math.log10(span / 10));
  const steps = [1, 2, 5, 10, 20, 50, 100].map((factor) => factor * power);
  const candidates = steps.map((step) => {
    const first = Math.ceil(low / step - 1e-9);
    const last = Math.floor(high / step + 1e-9);
    return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => tidy((first + i) * step));
  });
  return candidates.find((ticks) => ticks.length <= 8 && fits(ticks, at, room)) ?? [tidy(low), tidy(high)];
}

/** The span of the values, widened to whole steps that are about a tenth of it. */
export function niceDomain(values: number[], limits: { low?: number; high?: number } = {}): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (low > high) [low, high] = [0, 1];
  if (high - low < 1e-9 * Math.max(1, Math.abs(high))) {
    const margin = Math.max(Math.abs(high) * 0.05, 1e-3);
    [low, high] = [low - margin, high + margin];
  }
  const raw = (high - low) / 10;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= raw) as number) * power;
  const nice: [number, number] = [
    tidy(Math.floor(low / step + 1e-9) * step),
    tidy(Math.ceil(high / step - 1e-9) * step),
  ];
  return [Math.max(nice[0], limits.low ?? -Infinity), Math.min(nice[1], limits.high ?? Infinity)];
}

export function linearScale([low, high]: [number, number], room: LabelRoom): Scale {
  const at = (value: number) => (value - low) / (high - low);
  return { at, ticks: linearTicks(low, high, at, room) };
}

const decades = (low: number, high: number, factors: number[]) => {
  const ticks: number[] = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const factor of factors) {
      const tick = tidy(factor * 10 ** power);
      if (tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9)) ticks.push(tick);
    }
  return ticks;
};

/** Logarithmic, from the largest value at the left to the smallest at the right, as papers draw weights remaining. */
export function fallingLogScale(values: number[], room: LabelRoom): Scale {
  let [low, high] = [Infinity, 0];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (!(high > low)) [low, high] = low === Infinity ? [0.1, 1] : [low / 2, high];
  const at = (value: number) => Math.log(high / value) / Math.log(high / low);
  const sets = [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 5], [1, 3], [1]].map((factors) =>
    decades(low, high, factors),
  );
  // Over less than a decade even steps are read more easily.
  if (high / low < 4) sets.unshift(linearTicks(low, high, at, room));
  const found = sets.find((ticks) => ticks.length >= 2 && ticks.length <= 9 && fits(ticks, at, room));
  return { at, ticks: found ?? [tidy(high), tidy(low)] };
}

/** The same from the smallest to the largest value. */
export function risingLogScale(values: number[], room: LabelRoom): Scale {
  const falling = fallingLogScale(values, room);
  return { at: (value) => 1 - falling.at(value), ticks: falling.ticks };
}

/**
 * Updates: linear, or logarithmic where they go over more than a factor of ten; 0 then stands one share before the
 * smallest. Ticks are the values themselves where they have room.
 */
export function updatesScale(values: number[], room: LabelRoom): Scale {
  const known = [...new Set(values)].sort((a, b) => a - b);
  const positive = known.filter((value) => value > 0);
  const [least, most] = [positive[0] ?? 1, positive.at(-1) ?? 1];
  const logarithmic = most / least > 10;
  const before = known[0] === 0 ? 1 / Math.max(2, positive.length) : 0;
  const width = most > least ? Math.log(most / least) : 1;
  const first = known[0] ?? 0;
  const at = logarithmic
    ? (value: number) => (value > 0 ? before + ((1 - before) * Math.log(value / least)) / width : 0)
    : (value: number) => (most > first ? (value - first) / (most - first) : 0.5);
  // The ends first, then what has room between what is there.
  const ticks: number[] = [];
  for (const value of [known[0], known.at(-1), ...known]) {
    if (value === undefined || ticks.includes(value)) continue;
    const more = [...ticks, value].sort((a, b) => a - b);
    if (fits(more, at, room)) ticks.splice(0, ticks.length, ...more);
  }
  return { at, ticks };
}
