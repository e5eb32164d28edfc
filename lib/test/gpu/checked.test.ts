// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { checkAccesses, runChecked } from "../../src/gpu/checked.js";
import { allocate, download, release, run, upload } from "../../src/gpu/commands.js";
import { openGpu } from "../../src/gpu/device.js";
import { type KernelParts, kernel } from "../../src/gpu/kernel.js";

//| 02-attention/a-the-engine-room.ipynb#checked-test
await openGpu();

await test("indices are found in all their forms, and nothing else is", () => {
  const rewritten = (code: string) =>
    checkAccesses(code, ["x", "y"]).replace(/tslm_inside\((\d)u, u32\(/g, "<$1 ");
  expect(rewritten("y[i] = x[i];")).toBe(
    "y[<3 (i) | 0), arrayLength(&y))] = x[<0 (i) | 0), arrayLength(&x))];",
  );
  expect(rewritten("x[y [ 2 * (i + 1) ]]")).toBe(
    "x[<0 (y[<2 ( 2 * (i + 1) ) | 0), arrayLength(&y))]) | 0), arrayLength(&x))]",
  );
  for (const written of ["y[i].x = 1", "y[i][2] += 1", "y[i]++", "y[i] <<= 1u", "f(&y[i])"])
    expect(rewritten(written)).toContain("<3 ");
  for (const read of ["if (y[i] == 1)", "y[i] <= 2", "y[i] >= 2", "a && y[i] != b", "b - y[i] - c"])
    expect(rewritten(read)).toContain("<2 ");
  for (const other of ["max[i] + a.x[1] + my[2]", "y[i", "arrayLength(&y)"])
    expect(rewritten(other)).toBe(other);
});

await test("a kernel that stays inside does what it does unchecked", async () => {
  const parts: KernelParts = {
    name: "turn rows",
    reads: ["x: array<vec4f>", "order: array<u32>"],
    writes: ["y: array<vec4f>"],
    workgroupSize: 4,
    workgroups: 1,
    head: "var<workgroup> rows: array<vec4f, 4>; // not x[7]",
    body: `
  rows[lane] = x[order[lane]];
  for (var i = 0u; i < order[0]; i++) { workgroupBarrier(); } /* y[9] = y[9]; */
  let x = rows[3i - i32(lane)];
  y[lane] = x; y[lane].x += 1.0; y[lane][1] = -1.0;`,
  };
  const [x, order, checked, plain] = [allocate(64), allocate(16), allocate(64), allocate(64)];
  upload(
    x,
    Float32Array.from({ length: 16 }, (_, i) => i),
  );
  upload(order, Uint32Array.of(2, 0, 1, 3));
  await runChecked(parts, [x, order, checked]);
  run(kernel(parts), [x, order, plain]);
  const turned = new Float32Array(await download(checked));
  expect(turned).toEqual(new Float32Array(await download(plain)));
  expect([...turned.subarray(0, 4)]).toEqual([13, -1, 14, 15]);
});

//| 02-attention/a-the-engine-room.ipynb#checked-test-2
await test("what misses an array is named: array, lowest index, length, how often", async () => {
  for (let round = 0; round < 20; round++) {
    const [length, threads] = [1 + Math.floor(Math.random() * 90), 1 + Math.floor(Math.random() * 300)];
    const goals = Int32Array.from({ length: threads }, () =>
      Math.floor((Math.random() * 1.1 - 0.05) * length),
    );
    const [to, y] = [allocate(4 * threads), allocate(4 * length)];
    upload(to, new Uint32Array(goals.buffer));
    const missed = [...goals].map((goal) => goal >>> 0).filter((goal) => goal >= length);
    const lowest = Math.min(...missed) | 0;
    const more = missed.length > 1 ? `, and missed it ${missed.length - 1} times more` : "";
    const work = runChecked(
      {
        name: "scatter",
        reads: ["to: array<i32>"],
        writes: ["y: array<u32>"],
        workgroupSize: 64,
        workgroups: Math.ceil(threads / 64),
        body: "  if (thread < arrayLength(&to)) { y[to[thread]] = 1u; }",
      },
      [to, y],
    );
    if (missed.length === 0) await work;
    else
      await expect(work).rejects.toThrow(
        `Kernel "scatter" wrote y[${lowest}], which has ${length} elements (last index ${length - 1})${more}.`,
      );
    for (const storage of [to, y]) release(storage);
  }
});

//| 02-attention/a-the-engine-room.ipynb#checked-test-3
await test("reads and writes are told apart, and mistakes in the source are told in its own lines", async () => {
  const parts = {
    name: "off",
    reads: ["x: array<f32>"],
    writes: ["y: array<f32>"],
    workgroupSize: 1,
    workgroups: 1,
  };
  const storages = [allocate(8), allocate(12)];
  await expect(runChecked({ ...parts, body: "  y[thread + 3] = x[2u] + y[4];" }, storages)).rejects.toThrow(
    'Kernel "off" read x[2], which has 2 elements (last index 1); it also read y[4], which has 3 elements ' +
      "(last index 2); it also wrote y[3], which has 3 elements (last index 2).",
  );
  await expect(runChecked({ ...parts, body: "  y[0] =\n  x[0.5];" }, storages)).rejects.toThrow(
    /^Kernel "off" does not compile: line \d+: index must be of type 'i32' or 'u32'/,
  );
  await expect(runChecked({ ...parts, body: "" }, [])).rejects.toThrow("works on 2 arrays, and was given 0.");
  await runChecked({ ...parts, body: "  y[2] = x[1];" }, storages);
});
