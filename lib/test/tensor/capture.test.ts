// Extracted from chapters/04-training/5-one-step-recorded.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { dropFreeBuffers, memory, poolOf } from "../../src/gpu/buffers.js";
import { finish, recordDispatches } from "../../src/gpu/commands.js";
import { currentGpu, openGpu } from "../../src/gpu/device.js";
import { kernel } from "../../src/gpu/kernel.js";
import { textureFunction, textureOf } from "../../src/gpu/textures.js";
import { elementwiseKernel } from "../../src/kernels/elementwise.js";
import { gradients, parameter } from "../../src/tensor/autograd.js";
import { capture, prepareStep } from "../../src/tensor/capture.js";
import { add, mean, multiply, subtract, unary } from "../../src/tensor/operations.js";
import { linear } from "../../src/tensor/products.js";
import { type Tensor, launchInto, scope, tensor } from "../../src/tensor/tensor.js";

//| 04-training/5-one-step-recorded.ipynb#capture-tests
await openGpu();

/** A small network that learns to add up its inputs by gradient descent; the weights change in place. */
function smallTraining() {
  const wave = (size: number, phase: number) =>
    Float32Array.from({ length: size }, (_, i) => Math.sin(i * 1.7 + phase));
  const weights = [tensor(wave(24, 1), [6, 4]), tensor(wave(6, 2), [1, 6])].map(parameter);
  const [x, y] = [tensor(wave(20, 3), [5, 4]), tensor(wave(5, 4), [5, 1])];
  const step = () => {
    const guess = linear(unary("tanh", linear(x, weights[0])), weights[1]);
    const error = subtract(guess, y);
    const loss = mean(multiply(error, error));
    gradients(loss, weights).forEach((gradient, i) => descend(weights[i], gradient));
    return loss;
  };
  return { x, y, weights, step };
}

function descend(weight: Tensor, gradient: Tensor): void {
  const next = add(weight, gradient);
  launchInto(
    elementwiseKernel("descend", [next.size, gradient.size], ["a - 1.1 * b"]),
    [next, gradient],
    [weight],
  );
}

//| 04-training/5-one-step-recorded.ipynb#capture-tests-replay
await test("a replayed step gives the same bits as an eager one, 20 steps long", async () => {
  const [eager, recorded] = [smallTraining(), smallTraining()];
  const recording = capture(recorded.step);
  for (let i = 0; i < 20; i++) {
    for (const { x } of [eager, recorded])
      x.write(Float32Array.from({ length: 20 }, (_, k) => Math.cos(k + i)));
    const loss = scope(eager.step);
    expect(await recording.run().value()).toBe(await loss.value());
  }
  for (const k of [0, 1]) expect(await recorded.weights[k].array()).toEqual(await eager.weights[k].array());
  expect(await eager.weights[0].array()).not.toEqual(await smallTraining().weights[0].array());
});

await test("a step that does not fit is refused in the name of its kernel, and keeps no memory", async () => {
  const { step } = smallTraining();
  await finish();
  dropFreeBuffers();
  const pool = poolOf(currentGpu());
  const [{ room }, { held }] = [pool, memory];
  pool.room = held + 600; // two small arrays
  try {
    expect(() => capture(step)).toThrow(/^Out of GPU memory: Kernel "[^"]+" needs 256 bytes/);
    expect(memory.held - memory.free).toBe(held);
  } finally {
    pool.room = room;
  }
  expect(await capture(step).run().value()).toBeGreaterThan(0);
});

//| 04-training/5-one-step-recorded.ipynb#capture-tests-2
await test("intermediate results share memory, and free gives it back", () => {
  const { step } = smallTraining();
  const recording = capture(step);
  expect(recording.plannedBytes).toBeLessThan(0.6 * recording.unplannedBytes);
  recording.free();
});

await test("a texture is filled once for as long as its array stays the same", async () => {
  const doubling = kernel({
    name: "double a texture",
    reads: [textureOf("x")],
    writes: ["y: array<vec4f>"],
    workgroupSize: 1,
    workgroups: 2,
    head: textureFunction("x"),
    body: "  y[thread] = 2 * xFour(thread);",
  });
  const of = (value: number) => tensor(new Float32Array(8).fill(value), [8]);
  const [a, b, c, d] = [1, 10, 0, 0].map(of);
  const step = () => {
    launchInto(doubling, [a], [c]);
    launchInto(doubling, [a], [d]); // the same again
    launchInto(doubling, [c], [d]); // another array
    launchInto(doubling, [b], [c]);
    launchInto(doubling, [c], [d]); // this one again, but something was written into it
  };
  const { dispatches } = recordDispatches(step);
  expect(prepareStep(dispatches).map(({ copies }) => copies.length)).toEqual([1, 0, 1, 1, 1]);
  const recording = capture(step);
  for (const value of [10, 3]) {
    b.write(new Float32Array(8).fill(value));
    recording.run();
    expect([...(await d.array())]).toEqual(Array(8).fill(4 * value));
  }
});

await test("reading or writing values inside a recorded step is refused", async () => {
  const { step } = smallTraining();
  expect(() => capture(() => tensor([1]))).toThrow("only planned");
  await expect(
    capture(() => step())
      .run()
      .value(),
  ).resolves.toBeTypeOf("number");
});
