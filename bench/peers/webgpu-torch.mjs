import "../dawn.mjs";
import { createRequire } from "node:module";
import { factors } from "../inputs.mjs";

const torch = createRequire(import.meta.url)("webgpu-torch");
if (!(await torch.initWebGPUAsync())) throw new Error("it found no WebGPU adapter");

export async function matmul(size) {
  const rows = (values) =>
    Array.from({ length: size }, (_, i) => [...values.subarray(i * size, (i + 1) * size)]);
  const [a, b] = factors(size).map((values) => torch.tensor({ data: rows(values), device: "webgpu" }));
  const { queue } = a.device.gpuDevice;
  const run = async () => {
    a.mm(b);
    await queue.onSubmittedWorkDone();
  };
  return { run, read: async () => Float32Array.from((await a.mm(b).toArrayAsync()).flat()) };
}
