// Sentences about results: shown when the result bears them out, thrown when it does not.
import { afterEach, describe, expect, test, vi } from "vitest";
import { asFastAs, claim, shortestInTurns } from "../../lib/src/notebook/index.js";

describe("claims", () => {
  afterEach(() => vi.restoreAllMocks());

  test("a sentence is shown if the result bears it out, and thrown if the result says otherwise", () => {
    const said = vi.spyOn(console, "log").mockImplementation(() => {});
    claim(3 > 2, "Three is more than two.");
    expect(said).toHaveBeenCalledWith("Three is more than two.");
    expect(() => claim(2 > 3, "Two is more than three.")).toThrow(/says otherwise: Two is more than three/);
    expect(said).toHaveBeenCalledTimes(1);
  });

  test("works take turns, the first round is not measured, and the shortest of the others counts", async () => {
    const order: string[] = [];
    let now = 0;
    vi.spyOn(performance, "now").mockImplementation(() => now);
    const works = { a: [1, 30, 20, 40], b: [2, 10, 15, 5] };
    const step = (name: "a" | "b") => async () => {
      now += works[name][order.filter((each) => each === name).length];
      order.push(name);
    };
    expect(await shortestInTurns({ a: step("a"), b: step("b") }, 3)).toEqual({ a: 20, b: 5 });
    expect(order.join("")).toBe("abababab");
  });

  test("speeds are compared in words for either outcome", () => {
    expect(asFastAs(10, 21)).toBe("2.1 times as fast as");
    expect(asFastAs(10, 10.5)).toBe("about as fast as");
    expect(asFastAs(10.5, 10)).toBe("about as fast as");
    expect(asFastAs(15, 10)).toBe("1.5 times as slow as");
  });
});
