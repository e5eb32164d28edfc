// Loaded before test files: notes how many pipelines each of them makes, in the file that TSLM_PIPELINES names. Compiling is most
// of what tests take on a machine without a GPU, so `npm test` shows where.
import fs from "node:fs";
import { afterAll, expect } from "vitest";

const file = process.env.TSLM_PIPELINES;

if (file) {
  const { globals } = await import("webgpu");
  const { prototype } = globals.GPUDevice;
  const { createComputePipeline } = prototype;
  if (!createComputePipeline.counted) {
    globalThis.tslmPipelines = 0;
    prototype.createComputePipeline = function (...args) {
      globalThis.tslmPipelines++;
      return createComputePipeline.apply(this, args);
    };
    prototype.createComputePipeline.counted = true;
  }
  const before = globalThis.tslmPipelines;
  afterAll(() => {
    const line = { test: expect.getState().testPath, pipelines: globalThis.tslmPipelines - before };
    fs.appendFileSync(file, `${JSON.stringify(line)}\n`);
  });
}
