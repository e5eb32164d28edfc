/** Fresh inputs for exercise checks. */

/** Where a check draws its inputs from. */
export interface Random {
  /** From 0 up to 1, without 1. */
  next(): number;
  /** A whole number from `low` to `high`, both included. */
  integer(low: number, high: number): number;
  /** A number from `low` up to `high`. */
  real(low: number, high: number): number;
  /** Normally distributed with mean 0 and deviation 1 (Box and Muller 1958). */
  normal(): number;
  /** One of a list. */
  pick<T>(items: readonly T[]): T;
  /** `length` values, each made by `make`. */
  list<T>(length: number, make: (index: number) => T): T[];
}

/** Numbers from a seed, by the generator mulberry32: small, and good enough to draw test inputs. */
export function randomFrom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const integer = (low: number, high: number) => low + Math.floor(next() * (high - low + 1));
  return {
    next,
    integer,
    real: (low, high) => low + next() * (high - low),
    normal: () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
    pick: (items) => items[integer(0, items.length - 1)],
    list: (length, make) => Array.from({ length }, (_, i) => make(i)),
  };
}

/** Where a row of scores lies: around 0, around `far`, around −`far`, or from one to the other. */
export type RowKind = "near" | "high" | "low" | "wide";

/**
 * A row of scores as a model may give them, `far` being beyond what exp can do. In a wide row the first score is the least
 * and the largest, another one, lies 2·`far` above it: nothing but the largest will do to measure it against.
 */
export function scoreRow(random: Random, length: number, far: number, kind?: RowKind): number[] {
  const drawn = kind ?? random.pick<RowKind>(["near", "high", "low", "wide"]);
  const middle = { near: 0, high: far, low: -far, wide: 0 }[drawn];
  const row = random.list(length, () => middle + 2 * random.normal());
  if (drawn !== "wide" || length === 1) return row;
  row[0] = -far;
  row[random.pick([length - 1, random.integer(1, length - 1)])] = far;
  return row;
}
