// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { allocate, download, finish, openWindow, pipelineFor, run, upload } from "../../src/gpu/commands.js";
import { currentGpu, openGpu } from "../../src/gpu/device.js";
import { foldGrid, kernel } from "../../src/gpu/kernel.js";
import { textureFunction, textureOf } from "../../src/gpu/textures.js";

//| 02-attention/a-the-engine-room.ipynb#commands-test
await openGpu();

await test("a kernel over more workgroups than one dimension holds reaches every element", async () => {
  const size = 65_536 * 4 + 3;
  const counting = kernel({
    name: "count",
    reads: [],
    writes: ["y: array<u32>"],
    workgroupSize: 1,
    workgroups: size,
    body: "  if (thread < arrayLength(&y)) { y[thread] = thread + 1u; }",
  });
  const y = allocate(size * 4);
  run(counting, [y]);
  const result = new Uint32Array(await download(y));
  expect(result.every((value, i) => value === i + 1)).toBe(true);
  expect(foldGrid(0)).toEqual([1, 1, 1]);
});

await test("a kernel that does not compile is named with its line, and the GPU goes on", async () => {
  const parts = { name: "broken", reads: [], writes: ["y: array<f32>"], workgroupSize: 1, workgroups: 1 };
  const y = allocate(4);
  run(kernel({ ...parts, body: "  y[0] = two;" }), [y]);
  await expect(finish()).rejects.toThrow(
    /Kernel "broken" does not compile: line \d+: unresolved value 'two'/,
  );
  run(kernel({ ...parts, name: "mended", body: "  y[0] = 2.0;" }), [y]);
  expect(new Float32Array(await download(y))[0]).toBe(2);
  expect(() => run(kernel({ ...parts, body: "" }), [])).toThrow(
    'Kernel "broken" works on 1 arrays, and was given 0.',
  );
});

//| 02-attention/a-the-engine-room.ipynb#commands-test-2
await test("an upload does not overtake the work that was asked before it", async () => {
  const [x, y] = [allocate(4), allocate(4)];
  const copying = kernel({
    name: "copy",
    reads: ["x: array<f32>"],
    writes: ["y: array<f32>"],
    workgroupSize: 1,
    workgroups: 1,
    body: "  y[0] = x[0];",
  });
  upload(x, Float32Array.of(1));
  run(copying, [x, y]);
  upload(x, Float32Array.of(2));
  expect(new Float32Array(await download(y))[0]).toBe(1);
});

await test("sizes are data: one compiled kernel serves them all", async () => {
  const y = allocate(8);
  const write = (first: number, second: number) =>
    kernel({
      name: "sizes",
      reads: [],
      writes: ["y: array<u32>"],
      sizes: { first, second },
      workgroupSize: 1,
      workgroups: 1,
      body: "  y[0] = sizes.first; y[1] = sizes.second;",
    });
  for (const pair of [
    [1, 2],
    [30, 4],
  ]) {
    run(write(pair[0], pair[1]), [y]);
    expect([...new Uint32Array(await download(y))]).toEqual(pair);
  }
  expect(pipelineFor(currentGpu(), write(5, 6))).toBe(pipelineFor(currentGpu(), write(7, 8)));
});

//| 02-attention/a-the-engine-room.ipynb#commands-test-3
await test("an array that is read as a texture is the array that it was when its kernel was run", async () => {
  const doubled = (fours: number) =>
    kernel({
      name: `double the texture of ${fours} fours`,
      reads: ["shift: array<f32>", textureOf("x")],
      writes: ["y: array<vec4f>"],
      workgroupSize: 64,
      workgroups: Math.ceil(fours / 64),
      head: textureFunction("x"),
      body: `  if (thread < ${fours}u) { y[thread] = 2 * xFour(thread) + shift[0]; }`,
    });
  const whole = allocate(16 * 20_480);
  const shift = allocate(4);
  upload(shift, Float32Array.of(0.5));
  upload(
    whole,
    Float32Array.from({ length: 4 * 20_480 }, (_, i) => i),
  );
  // a row of a texture, less, more, several rows and a part, and windows that begin elsewhere
  const cases = [
    [8192, 0],
    [1, 16],
    [8193, 4096],
    [20_480, 0],
    [3, 0],
  ];
  const results = cases.map(([fours, first]) => {
    const x = openWindow(whole, 16 * first, 16 * fours);
    const y = allocate(16 * fours);
    run(doubled(fours), [shift, x, y]);
    return y;
  });
  for (const [c, [fours, first]] of cases.entries()) {
    const y = new Float32Array(await download(results[c]));
    expect(
      y.every((value, i) => value === 2 * (4 * first + i) + 0.5),
      `${fours} fours`,
    ).toBe(true);
  }
});
