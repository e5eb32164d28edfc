// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { isRecording, recordDispatches } from "../../src/gpu/commands.js";
import { openGpu } from "../../src/gpu/device.js";
import { gradients, parameter, withoutGradients } from "../../src/tensor/autograd.js";
import { multiply, sum } from "../../src/tensor/operations.js";
import { matmulPrecision, withPrecision } from "../../src/tensor/precision.js";
import { type Tensor, scope, tensor } from "../../src/tensor/tensor.js";

//| 02-attention/a-the-engine-room.ipynb#context-test
await openGpu();

await test("a context refuses an async function in one sentence, and is closed again", async () => {
  // as a program without types would call them
  const later = (async () => tensor([1])) as unknown as () => Tensor;
  const sentence = (name: string) =>
    `${name} takes a synchronous function: return the tensors from it, and read them outside.`;
  expect(() => scope(later)).toThrow(sentence("scope"));
  expect(() => withoutGradients(later)).toThrow(sentence("withoutGradients"));
  expect(() => withPrecision("f32", later)).toThrow(sentence("withPrecision"));
  expect(() => recordDispatches((async () => 1) as unknown as () => number)).toThrow(sentence("Recording"));
  // @ts-expect-error: the types say the same
  expect(() => scope(async () => 1)).toThrow(sentence("scope"));
  const x = parameter(tensor([3]));
  const [gradient] = gradients(sum(multiply(x, x)), [x]);
  expect(await gradient.value()).toBe(6);
  expect([isRecording(), matmulPrecision.now]).toEqual([false, "f32"]);
});

await test("a context is closed when its function fails", () => {
  const fails = () => {
    throw new Error("no");
  };
  for (const context of [scope, withoutGradients, recordDispatches])
    expect(() => context(fails)).toThrow("no");
  const x = parameter(tensor([3]));
  expect(sum(x).node).toBeDefined();
  expect(isRecording()).toBe(false);
});
