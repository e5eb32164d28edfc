// Loses the device in every way a program can be surprised by it, and goes on. In a process of its own, since all tests
// share theirs. Prints a line for each thing that held; the first that does not ends it.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import {
  allocate,
  capture,
  currentGpu,
  download,
  finish,
  flush,
  GpuError,
  type Kernel,
  kernel,
  memory,
  openGpu,
  profile,
  release,
  run,
  scale,
  tensor,
  upload,
} from "../../lib/src/index.ts";

const lost = /^GpuError: The GPU device was lost/;

/** Rounds that take longer than it takes to destroy a device, on adapters of both kinds. */
const aWhile = () => (currentGpu().facts.kind === "gpu" ? 2 ** 25 : 100_000);

/** A kernel that takes a while, and then writes its value into all elements. */
function slow(value: number, rounds = aWhile()): Kernel {
  return kernel({
    name: "slow",
    reads: ["x: array<u32>"],
    writes: ["y: array<u32>"],
    workgroupSize: 64,
    workgroups: 16,
    body: `
  var state = thread + x[0];
  for (var i = 0u; i < ${rounds}u; i++) { state = state * 1664525u + 1013904223u; }
  y[thread] = ${value}u + state / 4294967295u;`,
  });
}

const arrays = () => [allocate(4), allocate(4096)];

async function computes(value: number): Promise<void> {
  const [x, y] = arrays();
  upload(x, Uint32Array.of(3));
  run(slow(value, 1), [x, y]);
  assert(new Uint32Array(await download(y)).every((each) => each === value));
  for (const storage of [x, y]) release(storage);
}

/** Destroys the device behind the library's back, and waits until that is known. */
async function destroy(): Promise<void> {
  const { device } = currentGpu();
  device.destroy();
  await device.lost;
  await sleep(0);
}

async function check(what: string, work: () => unknown): Promise<void> {
  await work();
  console.log(what);
}

await openGpu();
await computes(5);
const kept = arrays();
const recorded = tensor([1, 2, 3]);
const recording = capture(() => scale(recorded, 2));

await check("every pending wait names the loss and the kernel", async () => {
  run(slow(1), kept);
  const pending = [finish(), finish(), download(kept[1]), recorded.array()];
  const outcomes = Promise.allSettled(pending);
  await sleep(1);
  currentGpu().device.destroy();
  for (const outcome of await outcomes) {
    assert(outcome.status === "rejected" && outcome.reason instanceof GpuError);
    assert.match(
      outcome.reason.message,
      /^The GPU device was lost after it was given kernel "slow" \(.+\): /,
    );
  }
});

await check("every later call says so too", async () => {
  for (const wait of [finish, () => download(kept[1]), () => recorded.array(), () => profile(() => {})])
    await assert.rejects(wait, lost);
  for (const call of [
    currentGpu,
    () => run(slow(1), kept),
    () => upload(kept[0], Uint32Array.of(1)),
    () => allocate(4),
    () => recording.run(),
  ])
    assert.throws(call, lost);
});

await check("a new device opens, once for all who ask, and computes", async () => {
  const { held } = memory;
  const [first, second] = await Promise.all([openGpu(), openGpu()]);
  assert.equal(first, second);
  assert.equal(await openGpu(), currentGpu());
  await computes(6);
  assert(memory.held < held, "the books begin anew");
});

await check("what belonged to the lost device is refused in words, and never handed out again", async () => {
  assert.throws(
    () => run(slow(1), kept),
    /^GpuError: Kernel "slow" was given memory that was lost with its device/,
  );
  await assert.rejects(() => download(kept[1]), /was given memory that was lost/);
  assert.throws(() => upload(kept[0], Uint32Array.of(1)), /was given memory that was lost/);
  assert.throws(() => recording.run(), lost);
  const { held, free } = memory;
  for (const storage of kept) release(storage);
  recording.free();
  assert.deepEqual({ held: memory.held, free: memory.free }, { held, free });
  await computes(7);
});

await check("work that was not handed over yet is dropped with its device", async () => {
  const storages = arrays();
  run(slow(1), storages);
  await destroy();
  flush();
  await openGpu();
  await computes(8);
  run(slow(1), arrays());
  await destroy();
  await openGpu();
  await computes(9);
});

await check("errors of the lost device do not reach the new one", async () => {
  run({ ...slow(1), code: "no kernel at all" }, arrays());
  flush();
  await destroy();
  await openGpu();
  await computes(10);
});

await check("tensors of a lost device can be collected, with no device open and with a new one", async () => {
  for (const reopens of [false, true]) {
    for (let i = 0; i < 100; i++) tensor([1, 2, 3]);
    await destroy();
    if (reopens) await openGpu();
    const { free } = memory;
    gc!();
    await sleep(10); // finalizers run in turns of their own
    if (reopens) assert.equal(memory.free, free);
    await openGpu();
    await computes(11);
  }
});

process.exit(0); // closing a device may take its time
