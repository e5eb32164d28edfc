// Loaded before test files and in the process of a notebook: Math.random draws from a seed, so that a test which fails
// fails again, and a notebook leaves the same outputs. TEST_SEED=N draws other inputs.
let state;

/** Begins the numbers anew. */
export function seedRandom() {
  state = Number(process.env.TEST_SEED ?? 1) >>> 0;
}
seedRandom();

/** mulberry32 (Tommy Ettinger): numbers from 0 up to 1, without 1. */
Math.random = () => {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
};
