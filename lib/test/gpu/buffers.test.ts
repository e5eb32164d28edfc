// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { dropFreeBuffers, memory, poolOf, readableBytes } from "../../src/gpu/buffers.js";
import { allocate, download, finish, release, run } from "../../src/gpu/commands.js";
import { currentGpu, openGpu } from "../../src/gpu/device.js";
import { kernel } from "../../src/gpu/kernel.js";

//| 02-attention/a-the-engine-room.ipynb#out-of-memory-test
await openGpu();

/** Lets the driver refuse every buffer that is made while `work` runs. */
async function withoutMemory<T>(work: () => T): Promise<Awaited<T>> {
  const { device } = currentGpu();
  const make = device.createBuffer;
  device.createBuffer = (descriptor) => {
    device.createTexture({ size: [8192, 8192, 256], format: "rgba32float", usage: 0x04 });
    return make.call(device, descriptor);
  };
  try {
    return await work();
  } finally {
    device.createBuffer = make;
  }
}

/** A kernel that writes its number into every element. */
const filling = (value: number, size: number) =>
  kernel({
    name: `fill ${size}`,
    reads: [],
    writes: ["y: array<f32>"],
    workgroupSize: 64,
    workgroups: Math.ceil(size / 64),
    body: `  if (thread < arrayLength(&y)) { y[thread] = ${value}.0; }`,
  });

//| 02-attention/a-the-engine-room.ipynb#out-of-memory-test-2
await test("memory that the driver refuses is an error that names who wanted how much, and the GPU goes on", async () => {
  await finish();
  dropFreeBuffers();
  const before = { ...memory };
  const bytes = 3 * 2 ** 20;
  const refused = await withoutMemory(() => [0, 1].map((i) => allocate(bytes, `Array ${i}`)));
  run(filling(1, bytes / 4), refused.slice(0, 1));
  const [held, peak] = [before.held, before.peak].map(readableBytes);
  await expect(finish()).rejects.toThrow(
    new RegExp(`^Out of GPU memory: Array 0 needs 3.0 MiB, and this process holds ${held}.* is ${peak}\\.$`),
  );
  refused.forEach(release);
  expect(memory.held).toBe(before.held);
  const y = allocate(bytes);
  run(filling(2, bytes / 4), [y]);
  expect(new Float32Array(await download(y)).every((value) => value === 2)).toBe(true);
  await expect(withoutMemory(() => download(y))).rejects.toThrow(/Reading an array back needs 3.0 MiB/);
  expect(new Float32Array(await download(y))[5]).toBe(2);
});

//| 02-attention/a-the-engine-room.ipynb#out-of-memory-test-3
await test("a software adapter has the room that the machine had, and not more", () => {
  const pool = poolOf(currentGpu());
  const { room } = pool;
  expect(Number.isFinite(room)).toBe(currentGpu().facts.kind === "cpu");
  pool.room = memory.held + 2 ** 20;
  try {
    expect(() => allocate(2 ** 21, "A wish")).toThrow(/A wish needs 2.0 MiB, and this process holds .* of /);
  } finally {
    pool.room = room;
  }
  release(allocate(2 ** 21));
});

await test("an array over the adapter's limit is refused with both sizes", () => {
  const most = currentGpu().facts.limits.maxBufferSize;
  expect(() => allocate(most + 4, "A wish")).toThrow(
    `A wish needs ${readableBytes(most + 4)}, but one array on ${currentGpu().facts.name} holds at most`,
  );
});
