// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { copyKernel } from "../../src/gpu/ceiling.js";
import { allocate, run } from "../../src/gpu/commands.js";
import { currentGpu, openGpu } from "../../src/gpu/device.js";
import { profile } from "../../src/gpu/profiler.js";

//| 02-attention/a-the-engine-room.ipynb#profiler-test
await openGpu();

await test("a profile counts the calls of each kernel, longest first", async () => {
  if (!currentGpu().device.features.has("timestamp-query"))
    return void console.log("skipped: this adapter has no timestamps");
  const [small, large] = [allocate(16), allocate(2 ** 24)];
  const rows = await profile(() => {
    for (let i = 0; i < 3; i++) run({ ...copyKernel(1), name: "small" }, [small, allocate(16)]);
    run({ ...copyKernel(2 ** 20), name: "large" }, [large, allocate(2 ** 24)]);
  });
  expect(Object.fromEntries(rows.map(({ name, calls }) => [name, calls]))).toEqual({ large: 1, small: 3 });
  const times = rows.map(({ microseconds }) => microseconds);
  expect(times.every((time) => time > 0)).toBe(true);
  expect(times).toEqual([...times].sort((a, b) => b - a));
});
