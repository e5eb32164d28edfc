import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { firstDifference, showValue } from "../../lib/src/notebook/compare.js";
import { type Check, judge, randomFrom, scoreRow, todo } from "../../lib/src/notebook/index.js";

const reversed: Check<[number[]]> = {
  exercise: "00-test/1-lists",
  id: "reversed",
  title: "A list, backwards",
  hints: ["Start at the end."],
  names: ["items"],
  inputs: (random, round) => [random.list(round, () => random.integer(0, 9999))],
  expected: (items) => [...items].reverse(),
  mistakes: [
    { says: "You lose the first element.", makes: (items) => [...items].reverse().slice(0, -1) },
    {
      says: "You sort the list; it should be turned round.",
      makes: (items) => [...items].sort((a, b) => a - b),
    },
  ],
};

/** Writes into its second argument, as a kernel does. */
const doubled: Check<[Float32Array, Float32Array]> = {
  exercise: "00-test/1-lists",
  id: "doubled",
  title: "Twice",
  hints: [],
  names: ["x", "out"],
  output: 1,
  inputs: (random, round) => [
    Float32Array.from(random.list(round + 1, random.normal)),
    new Float32Array(round + 1),
  ],
  expected: (x) => x.map((value) => value * 2),
  mistakes: [
    {
      says: "The last element is never written.",
      makes: (x, out) => {
        for (let i = 0; i + 1 < x.length; i++) out[i] = 2 * x[i];
      },
    },
  ],
};

const said = async (check: Check, answer: unknown) => {
  const { passed, says } = await judge(check, answer, 5);
  expect(passed).toBe(false);
  return says.join("\n");
};

describe("judging an answer", () => {
  test("a right answer passes with every seed", async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), async (seed) => {
        const verdict = await judge(reversed, (items: number[]) => [...items].reverse(), seed);
        return verdict.passed && verdict.rounds === 24;
      }),
      { numRuns: 20 },
    );
  });

  test("an async answer is awaited", async () => {
    expect((await judge(reversed, async (items: number[]) => [...items].reverse(), 1)).passed).toBe(true);
  });

  test("half-written answers get a sentence, never an exception", async () => {
    expect(await said(reversed, undefined)).toContain("A function is expected here");
    expect(await said(reversed, 12)).toContain("this is a number");
    expect(await said(reversed, () => undefined)).toContain("returns nothing yet");
    expect(await said(reversed, () => todo("walk from the end"))).toBe(
      "Nothing is written yet: walk from the end.",
    );
    expect(await said(reversed, () => "x")).toContain("a string, not a list");
    expect(await said(reversed, (items: { no: { thing: 1 } }) => items.no.thing)).toContain("TypeError");
    expect(await said(reversed, () => Promise.reject("no"))).toContain('threw "no"');
    expect(await said(reversed, (items: number[]) => items.map(String).reverse())).toContain(
      "a string, not a number",
    );
  });

  test("an answer that never comes is given up on", async () => {
    const check = { ...reversed, patience: 30 };
    expect(await said(check, () => new Promise(() => {}))).toMatch(/did not finish within [\d.]+ s/);
  });

  test("so is a loop that never ends, in a function and in what a check runs", async () => {
    const check = { ...reversed, patience: 30 };
    const endless = () => {
      for (;;);
    };
    expect(await said(check, endless)).toMatch(/did not finish within [\d.]+ s: does every loop end/);
    expect(await said({ ...check, run: (answer) => answer() }, endless)).toContain("did not finish");
  });

  test("the limit is a multiple of what the right answer takes", async () => {
    const busy = (milliseconds: number) => {
      for (const end = performance.now() + milliseconds; performance.now() < end; );
    };
    const check: Check = { ...reversed, patience: 1, rounds: 1, inputs: () => [[1]] };
    const expected = (items: number[]) => [...items, busy(2)].slice(0, 1);
    const answer = (items: number[]) => [...items, busy(40)].slice(0, 1);
    expect((await judge({ ...check, expected }, answer, 1)).passed).toBe(true);
  });

  test.skipIf(process.platform === "win32")("an interrupt ends a loop that never ends at once", async () => {
    const endless = () => {
      process.kill(process.pid, "SIGINT");
      for (;;);
    };
    expect(await said({ ...reversed, patience: 600_000 }, endless)).toContain("It was interrupted");
    const stop = new AbortController();
    const waiting = () => {
      stop.abort();
      return new Promise(() => {});
    };
    const { says, passed } = await judge({ ...reversed, patience: 600_000 }, waiting, 1, stop.signal);
    expect({ says: says[0], passed }).toEqual({
      says: "It was interrupted before it returned.",
      passed: false,
    });
  });

  test("the first wrong element is named, with the input", async () => {
    const answer = (items: number[]) => [...items].reverse().map((value, i) => (i === 2 ? -1 : value));
    const text = await said(reversed, answer);
    expect(text).toMatch(/Look at the result\[2\]: it is -1, and should be \d+\./);
    expect(text).toMatch(/With items = \[\d+, \d+, \d+\]\./);
  });

  test("a length that is off is said with both lengths", async () => {
    expect(await said(reversed, (items: number[]) => [...items].reverse().concat(1))).toContain(
      "1 elements, not 0",
    );
  });

  test("an input that was changed is noticed even when the result is right", async () => {
    expect(await said(reversed, (items: number[]) => items.reverse())).toContain("items was changed");
  });

  test("each typical mistake is recognised, other errors are not taken for one", async () => {
    for (const { says, makes } of reversed.mistakes) {
      expect((await judge(reversed, makes, 3)).mistake).toBe(says);
    }
    expect((await judge(reversed, (items: number[]) => items, 3)).mistake).toBeUndefined();
    // Right for a while, then mistaken in another way: no sentence may mislead.
    const odd = (items: number[]) => (items.length < 3 ? [...items].reverse() : [7]);
    expect((await judge(reversed, odd, 3)).mistake).toBeUndefined();
  });

  test("an output is poisoned, so an element left out shows", async () => {
    expect(
      (await judge(doubled, (x: Float32Array, out: Float32Array) => out.set(x.map((v) => 2 * v)), 1)).passed,
    ).toBe(true);
    const text = await said(doubled, doubled.mistakes[0].makes);
    expect(text).toContain("was it ever written?");
    expect(text).toContain("The last element is never written.");
  });

  test("a NaN that was written is not said to be missing", async () => {
    const nan = (x: Float32Array, out: Float32Array) => out.fill(Number.NaN, 0, x.length);
    expect(await said(doubled, nan)).toMatch(/Look at out\[0\]: it is NaN, and should be \S+\.\n/);
    const whole: Check = {
      ...doubled,
      inputs: () => [Uint32Array.of(1, 2), new Uint32Array(2)],
      expected: (x: Uint32Array) => x.map((value) => 2 * value),
    };
    expect(await said(whole, (_: Uint32Array, out: Uint32Array) => out.fill(2, 0, 1))).toContain(
      "Look at out[1]: it is 2143346349, and should be 4 (was it ever written?).",
    );
    const list: Check = {
      ...doubled,
      inputs: () => [
        [1, 2],
        [0, 0],
      ],
      expected: () => [2, 4],
    };
    expect(await said(list, (_: number[], out: number[]) => out.fill(Number.NaN))).not.toContain("written");
  });

  test("a value can be asked for instead of a function, and is not given away", async () => {
    const mistakes = [{ says: "That counts the space too.", makes: () => 6 }];
    const check: Check = { exercise: "e", id: "v", title: "t", hints: [], expected: () => 5, mistakes };
    expect((await judge(check, 5, 1)).passed).toBe(true);
    expect(await said(check, undefined)).toContain("put your answer in place");
    expect(await said(check, 4)).toBe("That is not it: it is not 4.");
    expect((await judge(check, 6, 1)).mistake).toBe("That counts the space too.");
  });

  test("an answer that is no function is put to work by the check's own run", async () => {
    const check: Check<[number]> = {
      exercise: "e",
      id: "source",
      title: "t",
      hints: [],
      inputs: (random) => [random.integer(1, 100)],
      run: (source: string, x) => new Function("x", `return ${source}`)(x),
      expected: (x) => x + 1,
      mistakes: [{ says: "One less, not one more.", answer: "x - 1" }],
    };
    expect((await judge(check, "x + 1", 1)).passed).toBe(true);
    expect((await judge(check, "x - 1", 1)).mistake).toBe("One less, not one more.");
    expect(await said(check, "x +")).toContain("SyntaxError");
  });
});

describe("comparing values", () => {
  test("equal values have no difference, and a changed element is found where it is", () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(fc.integer(), { minLength: 1 }), { minLength: 1 }),
        fc.nat(),
        (lists, at) => {
          const copy = structuredClone(lists);
          expect(firstDifference(copy, lists)).toBeUndefined();
          const [i, j] = [at % lists.length, at % lists[at % lists.length].length];
          copy[i][j] += 1;
          expect(firstDifference(copy, lists)?.path).toBe(`[${i}][${j}]`);
        },
      ),
    );
  });

  test("large ids that differ by one are different, floats within tolerance are not", () => {
    expect(firstDifference([1_000_000], [1_000_001], 1e-5)).toBeDefined();
    expect(firstDifference([1_000_000.5], [1_000_001.5], 1e-5)).toBeUndefined();
    expect(firstDifference(Number.NaN, 1, 1e-5)).toBeDefined();
    expect(firstDifference(Number.NaN, Number.NaN)).toBeUndefined();
  });

  test("maps, sets and objects say which key", () => {
    expect(firstDifference(new Map([["a", 1]]), new Map([["a", 2]]))?.path).toBe('.get("a")');
    expect(firstDifference(new Set([1]), new Set([2]))?.because).toBe("2 is missing");
    expect(firstDifference({ a: [1] }, { a: [2] })?.path).toBe(".a[0]");
    expect(firstDifference(null, { a: 1 })?.because).toContain("null");
  });

  test("values are shown in one short line", () => {
    expect(showValue(new Float32Array([0.1, 2]))).toBe("[0.1, 2]");
    expect(showValue(Array(100).fill(1))).toContain("100 in all");
    expect(showValue({ a: "x", b: undefined })).toBe('{ a: "x", b: undefined }');
  });
});

test("the random numbers are fresh by seed, and inside their bounds", () => {
  fc.assert(
    fc.property(fc.nat(), fc.integer({ min: -50, max: 50 }), fc.nat(50), (seed, low, span) => {
      const random = randomFrom(seed);
      const drawn = random.list(20, () => random.integer(low, low + span));
      expect(drawn.every((value) => value >= low && value <= low + span)).toBe(true);
      expect(randomFrom(seed).list(3, (i) => i)).toEqual([0, 1, 2]);
    }),
  );
  expect(randomFrom(1).next()).toBe(randomFrom(1).next());
  expect(randomFrom(1).next()).not.toBe(randomFrom(2).next());
});

test("a row of scores has its first and its largest far apart when it is wide", () => {
  fc.assert(
    fc.property(fc.nat(), fc.integer({ min: 2, max: 40 }), (seed, length) => {
      const row = scoreRow(randomFrom(seed), length, 120, "wide");
      expect(row).toHaveLength(length);
      expect([row[0], Math.max(...row)]).toEqual([-120, 120]);
    }),
    { numRuns: 20 },
  );
  expect(scoreRow(randomFrom(1), 1, 120, "high")[0]).toBeGreaterThan(100);
});
