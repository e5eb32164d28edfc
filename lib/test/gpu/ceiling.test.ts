// Extracted from chapters/02-attention/1-the-first-kernel.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { copyKernel, multiplyAddKernel, probeRounds } from "../../src/gpu/ceiling.js";
import { allocate, download, run, upload } from "../../src/gpu/commands.js";
import { openGpu } from "../../src/gpu/device.js";

//| 02-attention/1-the-first-kernel.ipynb#ceiling-test
await openGpu();

await test("the copy probe copies every element", async () => {
  const values = Float32Array.from({ length: 4 * 1000 }, () => Math.random());
  const [from, to] = [allocate(values.byteLength), allocate(values.byteLength)];
  upload(from, values);
  run(copyKernel(1000), [from, to]);
  expect(new Float32Array(await download(to))).toEqual(values);
});

await test("the arithmetic probe really does its multiply-adds", async () => {
  const y = allocate(64 * 4);
  run(multiplyAddKernel(1), [y]);
  let [expected, x] = [0, 0.999];
  for (let chain = 0; chain < 8; chain++) {
    let value = chain;
    for (let i = 0; i < probeRounds; i++) value = value * x + 0.001;
    expected += 4 * value;
  }
  expect(new Float32Array(await download(y))[0]).toBeCloseTo(expected, 2);
});
