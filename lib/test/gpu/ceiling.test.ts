// Extracted from chapters/02-attention/1-the-first-kernel.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import {
  copyKernel,
  measureCeiling,
  multiplyAddKernel,
  probeForms,
  probeRound,
  probeRounds,
} from "../../src/gpu/ceiling.js";
import { allocate, download, run, upload } from "../../src/gpu/commands.js";
import { currentGpu, openGpu } from "../../src/gpu/device.js";

//| 02-attention/1-the-first-kernel.ipynb#ceiling-test
await openGpu();

await test("both copy probes copy every element", async () => {
  const values = Float32Array.from({ length: 4 * 1000 }, (_, i) => Math.sin(i));
  for (const inRow of [false, true]) {
    const [from, to] = [allocate(values.byteLength), allocate(values.byteLength)];
    upload(from, values);
    run(copyKernel(1000, inRow), [from, to]);
    expect(new Float32Array(await download(to))).toEqual(values);
  }
});

await test("every arithmetic probe really does its multiply-adds", async () => {
  for (const form of probeForms) {
    const y = allocate(64 * 4);
    run(multiplyAddKernel("f32", form, 2), [y]);
    let [expected, x] = [0, 0.999];
    for (let chain = 0; chain < form.chains; chain++) {
      let value = chain;
      const steps = (probeRounds * probeRound) / (form.chains * form.width);
      for (let i = 0; i < steps; i++) value = value * x + 0.001;
      expected += form.width * value;
    }
    expect(new Float32Array(await download(y))[0]).toBeCloseTo(expected, 1);
  }
});

await test("the ceiling has a 16-bit rate where the adapter computes in 16 bits", async () => {
  const { gigaflops, gigaflops16, gigabytes } = await measureCeiling();
  expect(Math.min(gigaflops, gigabytes, gigaflops16 ?? 1)).toBeGreaterThan(0);
  expect(gigaflops16 !== undefined).toBe(currentGpu().facts.f16);
});
