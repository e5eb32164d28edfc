// Extracted from chapters/02-attention/9-the-block.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { gradients, parameter } from "../../src/tensor/autograd.js";
import { relativeError } from "../../src/tensor/check.js";
import { dropout, dropoutState } from "../../src/tensor/dropout.js";
import { multiply, sum } from "../../src/tensor/operations.js";
import { normals, randomBits } from "../../src/tensor/random.js";
import { type Tensor, indices, tensor } from "../../src/tensor/tensor.js";

//| 02-attention/9-the-block.ipynb#dropout-test
await openGpu();

/** Dropout by its definition: number i stays if its random bits are at least rate · 2³². */
function plainDropout(values: ArrayLike<number>, rate: number, [seed, step, place]: number[]): number[] {
  const bits = randomBits(seed, values.length, place + step * 2 ** 32);
  return Array.from(values, (value, i) => (bits[i] >= rate * 2 ** 32 ? value / (1 - rate) : 0));
}

await test("dropout equals its plain form, for every seed, step and place, with a residual and without", async () => {
  for (const [size, rate, seed, step, place] of [
    [1, 0.5, 7, 0, 0],
    [67, 0.3, 2 ** 32 + 5, 9, 3],
    [1024, 0.1, 2 ** 53 - 1, 2_000_000, 77],
    [64, 0, 1, 1, 1],
  ]) {
    const [values, stream] = [normals(1, size), normals(2, size)];
    const settings = { rate, state: indices(dropoutState(seed, step)), place };
    const expected = plainDropout(values, rate, [seed, step, place]);
    const alone = await dropout(tensor(values), settings).array();
    expect(relativeError(alone, expected), `${size}`).toBeLessThan(1e-6);
    expect(Array.from(alone, (value) => value === 0)).toEqual(expected.map((value) => value === 0));
    const added = await dropout(tensor(values), settings, tensor(stream)).array();
    const sums = expected.map((value, i) => value + stream[i]);
    expect(relativeError(added, sums), `${size}`).toBeLessThan(1e-6);
  }
});

//| 02-attention/9-the-block.ipynb#dropout-gradient-test
await test("a recorded dropout draws anew when its state is written, and its gradient passes where the number passed", async () => {
  const [state, x] = [indices(dropoutState(3, 0)), parameter(tensor(new Float32Array(40).fill(2)))];
  const mix = tensor(normals(4, 40));
  const results = () => {
    const y = dropout(x, { rate: 0.4, state, place: 5 }, x);
    return [y, ...gradients(sum(multiply(y, mix)), [x])];
  };
  const read = (tensors: Tensor[]) => Promise.all(tensors.map((one) => one.array()));
  const [first, gradient] = await read(results());
  const weights = await mix.array();
  for (const [i, value] of first.entries()) expect(gradient[i]).toBeCloseTo((value / 2) * weights[i], 5);
  state.write(dropoutState(3, 1));
  const [second] = await read(results());
  expect(second).not.toEqual(first);
  state.write(dropoutState(3, 0));
  expect((await read(results()))[0]).toEqual(first);
});

await test("dropout leaves out the share that was asked for, and refuses a rate of 1", async () => {
  const state = indices(dropoutState(11, 2));
  const ones = tensor(new Float32Array(40_000).fill(1));
  const values = await dropout(ones, { rate: 0.2, state, place: 0 }).array();
  const left = values.reduce((total, value) => total + (value === 0 ? 1 : 0), 0) / values.length;
  expect(Math.abs(left - 0.2)).toBeLessThan(0.01);
  expect(() => dropout(ones, { rate: 1, state, place: 0 })).toThrow(
    "dropout wants a rate from 0 to below 1, not 1.",
  );
});
