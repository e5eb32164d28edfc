/** Tests inside a notebook: the same `test` and `expect` that vitest has, so that a test cell runs in both. */
import { chai, JestAsymmetricMatchers, JestChaiExpect, JestExtend } from "@vitest/expect";

/** What can be said of a value. The names and meanings are vitest's (and Jest's). */
export interface Matchers {
  not: Matchers;
  /** Waits for a promise and speaks of its value. */
  resolves: AsyncMatchers;
  /** Waits for a promise to fail and speaks of its error. */
  rejects: AsyncMatchers;
  toBe(expected: unknown): void;
  toEqual(expected: unknown): void;
  toStrictEqual(expected: unknown): void;
  toBeCloseTo(expected: number, digits?: number): void;
  toBeDefined(): void;
  toBeUndefined(): void;
  toBeNull(): void;
  toBeNaN(): void;
  toBeTruthy(): void;
  toBeFalsy(): void;
  toBeGreaterThan(expected: number | bigint): void;
  toBeGreaterThanOrEqual(expected: number | bigint): void;
  toBeLessThan(expected: number | bigint): void;
  toBeLessThanOrEqual(expected: number | bigint): void;
  toBeInstanceOf(expected: unknown): void;
  toBeTypeOf(expected: string): void;
  toContain(expected: unknown): void;
  toContainEqual(expected: unknown): void;
  toHaveLength(expected: number): void;
  toHaveProperty(path: string | (string | number)[], value?: unknown): void;
  toMatch(expected: string | RegExp): void;
  toMatchObject(expected: object): void;
  // biome-ignore lint/suspicious/noExplicitAny: the predicate knows what it is given
  toSatisfy(predicate: (value: any) => boolean, message?: string): void;
  /** A part of the message, a pattern, an error, its class, or what stands for one (`expect.objectContaining`). */
  toThrow(expected?: unknown): void;
  toBeOneOf(expected: unknown[]): void;
}

type Later<M> = M extends (...args: infer A) => void ? (...args: A) => Promise<void> : never;

/** The same statements, to be awaited. */
export type AsyncMatchers = { not: AsyncMatchers } & {
  [K in Exclude<keyof Matchers, "not" | "resolves" | "rejects">]: Later<Matchers[K]>;
};

/** Values that stand for a whole class of values inside an expected one. */
export interface AsymmetricMatchers {
  anything(): unknown;
  any(type: unknown): unknown;
  closeTo(value: number, digits?: number): unknown;
  arrayContaining(items: unknown[]): unknown;
  objectContaining(part: object): unknown;
  stringContaining(text: string): unknown;
  stringMatching(pattern: string | RegExp): unknown;
}

/** `expect(value).toBe(…)`; see Matchers. */
export interface Expect extends AsymmetricMatchers {
  (actual: unknown, message?: string): Matchers;
  not: Pick<
    AsymmetricMatchers,
    "arrayContaining" | "objectContaining" | "stringContaining" | "stringMatching"
  >;
}

chai.use(JestExtend);
chai.use(JestChaiExpect);
chai.use(JestAsymmetricMatchers);

/** Says what a value must be and throws when it is not; vitest's own `expect`, usable in a cell. */
export const expect: Expect = chai.expect as unknown as Expect;

/** What went wrong, in words: an assertion's sentence alone, any other error with where it came from. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.name === "AssertionError" ? error.message : (error.stack ?? error.message);
}

/**
 * Runs one test and prints a line with its name. When `body` fails this throws, with the name and the
 * reason, so that the cell fails too. Where TSLM_TEST_BODIES is "skip" it only says that it was left out: `npm test`
 * runs the same test under vitest.
 */
export async function test(name: string, body: () => unknown): Promise<void> {
  if (process.env.TSLM_TEST_BODIES === "skip") return console.log(`- ${name} (left to vitest)`);
  try {
    await body();
  } catch (error) {
    const failure = new Error(`✗ ${name}\n  ${reasonOf(error).replace(/\n/g, "\n  ")}`);
    failure.stack = failure.message;
    throw failure;
  }
  console.log(`✓ ${name}`);
}
