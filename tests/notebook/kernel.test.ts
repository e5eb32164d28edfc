import { describe, expect, test } from "vitest";
import { runBody } from "../../lib/src/notebook/index.js";

const x = Float32Array.of(1, 2, 3, 4, 5);
const frame = { reads: { x }, writes: { y: 5 }, sizes: { count: 5 }, workgroupSize: 8, workgroups: 1 };

describe("a learner's kernel", () => {
  test("sees its arrays and sizes by name", async () => {
    const { y, pastTheEnd } = await runBody("if (thread < count) { y[thread] = 2 * x[thread]; }", frame);
    expect(y).toEqual(Float32Array.of(2, 4, 6, 8, 10));
    expect(pastTheEnd).toBe(0);
  });

  test("what it never writes is NaN", async () => {
    const { y } = await runBody("if (thread < 3) { y[thread] = x[thread]; }", frame);
    expect(Array.from(y as Float32Array)).toEqual([1, 2, 3, Number.NaN, Number.NaN]);
  });

  test("what it writes behind the end is counted", async () => {
    const { pastTheEnd } = await runBody("y[thread] = 1.0;", frame);
    expect(pastTheEnd).toBe(3);
  });

  test("a compile error names the learner's own line and quotes it", async () => {
    const body = "\nlet a = x[thread];\ny[thread] = b;\n";
    await expect(runBody(body, frame)).rejects.toThrow(
      /^Your kernel does not compile\. Line 2, `y\[thread\] = b;`: .*'b'/,
    );
    // Nothing of it is left behind: the next kernel runs.
    expect((await runBody("y[thread % 5] = 7.0;", frame)).y).toEqual(new Float32Array(5).fill(7));
  });

  test("a brace that is missing is looked for at the end", async () => {
    await expect(runBody("if (thread < count) { y[thread] = 1.0;", frame)).rejects.toThrow("At its end");
  });

  test("what is no text is refused with a sentence", async () => {
    await expect(runBody(() => 1, frame)).rejects.toThrow("as a string of WGSL");
  });
});
