import { describe, expect, test } from "vitest";
import { type Check, judge, runBody } from "../../lib/src/notebook/index.js";

const x = Float32Array.of(1, 2, 3, 4, 5);
const frame = { reads: { x }, writes: { y: 5 }, sizes: { count: 5 }, workgroupSize: 8, workgroups: 1 };

describe("a learner's kernel", () => {
  test("sees its arrays and sizes by name", async () => {
    const { y } = await runBody("if (thread < count) { y[thread] = 2 * x[thread]; }", frame);
    expect(y).toEqual(Float32Array.of(2, 4, 6, 8, 10));
  });

  test("what it never writes is NaN", async () => {
    const { y } = await runBody("if (thread < 3) { y[thread] = x[thread]; }", frame);
    expect(Array.from(y)).toEqual([1, 2, 3, Number.NaN, Number.NaN]);
  });

  test("an array has the length that it was given, and what misses it is named", async () => {
    const wrote =
      /^Your kernel wrote y\[5\], which has 5 elements \(last index 4\), and missed it 2 times more\.$/;
    await expect(runBody("y[thread] = 1.0;", frame)).rejects.toThrow(wrote);
    const read = /^Your kernel read x\[-1\], which has 5 elements \(last index 4\)\.$/;
    await expect(
      runBody("if (thread < arrayLength(&y)) { y[thread] = x[i32(thread) - 1]; }", frame),
    ).rejects.toThrow(read);
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

  test("a loop that never ends is ended and named, of every kind; loops that end are left alone", async () => {
    const never =
      /^The GPU stopped your kernel: one of its loops does not end: it went round 65,536 times\.$/;
    const endless = [
      "for (var i = 0u; i < count; i += 0u) { y[thread % 5] += 1.0; }",
      "var i = 1u; while i > 0 { i = i | 1u; y[0] = f32(i); }",
      "loop { if (x[0] > 5.0) { break; } continuing { y[0] += 1.0; } }",
    ];
    for (const body of endless) await expect(runBody(body, frame)).rejects.toThrow(never);
    const sums = `// for each
for (var i = 0u; i < 3u; i++) { for (var j = 0u; j < 2u; j++) { /* while { */ y[thread % 5] = f32(i + j); } }
workgroupBarrier();`;
    expect((await runBody(sums, frame)).y).toEqual(new Float32Array(5).fill(3));
    await expect(runBody("for (var i = 0u; i < 3u; i++) {\n y[i] = b;\n}", frame)).rejects.toThrow(
      "Line 2, `y[i] = b;`",
    );
  });

  test("a loop in step may hold a barrier", async () => {
    const body =
      "for (var i = 0u; i < 2u; i++) { workgroupBarrier(); if (thread < count) { y[thread] = f32(i); } }";
    expect((await runBody(body, frame)).y).toEqual(new Float32Array(5).fill(1));
  });

  test("an array that is to be gone over once is not gone over twice", async () => {
    const once = { ...frame, writes: { y: 1 }, workgroupSize: 1, once: "x" };
    const loop = "for (var j = 0u; j < count; j++) { total += x[j] * x[j]; } // x[ is not read here\n";
    const total = `var total = 0.0;\n${loop}`;
    expect((await runBody(`${total}y[0] = total + x[3];`, once)).y[0]).toBe(59);
    await expect(runBody(`${total}${loop}y[0] = total;`, once)).rejects.toThrow(
      "Your kernel goes over x more than once: it reads 10 times from 5 elements.",
    );
    await expect(runBody(`${total}y[0] = b;`, once)).rejects.toThrow(/Line 3, `y\[0\] = b;`/);
  });

  test("what is no text is refused with a sentence", async () => {
    await expect(runBody(() => 1, frame)).rejects.toThrow("as a string of WGSL");
  });

  test("a check tells what was missed, and knows a typical mistake by it", async () => {
    const doubling: Check = {
      exercise: "e",
      id: "k",
      title: "t",
      hints: [],
      inputs: () => [x],
      run: (body) => runBody(body, frame),
      expected: () => ({ y: x.map((value) => 2 * value) }),
      mistakes: [
        { says: "You read one too far.", answer: "if (thread < count) { y[thread] = 2 * x[thread + 1]; }" },
        { says: "Too many threads write.", answer: "y[thread] = 2 * x[thread];" },
      ],
    };
    const { mistake, says } = await judge(doubling, "let i = thread; y[i] = x[i] + x[i] * 1.0;", 1);
    expect(mistake).toBeUndefined(); // it reads x twice as often as the second mistake
    expect(says[0]).toMatch(/^Your kernel read x\[5\], .* more; it also wrote y\[5\], which has 5 elements/);
    expect((await judge(doubling, "let i = thread; y[i] = x[i] * 2.0;", 1)).mistake).toBe(
      "Too many threads write.",
    );
    expect((await judge(doubling, "if (thread < count) { y[thread] = 2 * x[thread]; }", 1)).passed).toBe(
      true,
    );
    expect((await judge(doubling, "y[thread] = nothing;", 1)).mistake).toBeUndefined();
  });
});
