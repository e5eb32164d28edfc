// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import {
  elementwiseKernel,
  unaryBackwardKernel,
  unaryFunctions,
  unaryKernel,
} from "../../src/kernels/elementwise.js";
import { relativeError } from "../../src/tensor/check.js";
import { type Tensor, launchInto, tensor } from "../../src/tensor/tensor.js";

//| 02-attention/a-the-engine-room.ipynb#elementwise-tests
await openGpu();

/** Sizes of one, odd ones, whole fours, and over one workgroup's share. */
const elementwiseSizes = [1, 7, 64, 1023, 4096 + 12];

/** A result tensor full of garbage, so that an element that is not written shows. */
function garbage(size: number): Tensor {
  return tensor(new Float32Array(size).fill(Number.NaN));
}

/** Random numbers between 0.2 and 2, where all of the functions are defined. */
function randomPositive(size: number): Float32Array {
  return Float32Array.from({ length: size }, () => 0.2 + 1.8 * Math.random());
}

await test("element-wise kernels equal plain loops; a shorter operand repeats; several results at once", async () => {
  for (const size of elementwiseSizes) {
    const period = size % 4 === 0 ? size / 4 : size;
    const [a, b] = [randomPositive(size), randomPositive(period)];
    const outputs = [garbage(size), garbage(size)];
    launchInto(
      elementwiseKernel("test", [size, period], ["a + b", "a * b"]),
      [tensor(a), tensor(b)],
      outputs,
    );
    const sums = Float64Array.from(a, (value, i) => value + b[i % period]);
    const products = Float64Array.from(a, (value, i) => value * b[i % period]);
    expect(relativeError(await outputs[0].array(), sums), `${size}`).toBeLessThan(1e-6);
    expect(relativeError(await outputs[1].array(), products), `${size}`).toBeLessThan(1e-6);
  }
});

//| 02-attention/a-the-engine-room.ipynb#function-value-tests
/** The functions and their derivatives on plain numbers. */
const plainFunctions: Record<keyof typeof unaryFunctions, [(x: number) => number, (x: number) => number]> = {
  negate: [(x) => -x, () => -1],
  exp: [Math.exp, Math.exp],
  log: [Math.log, (x) => 1 / x],
  sqrt: [Math.sqrt, (x) => 0.5 / Math.sqrt(x)],
  square: [(x) => x * x, (x) => 2 * x],
  tanh: [Math.tanh, (x) => 1 - Math.tanh(x) ** 2],
  sigmoid: [(x) => 1 / (1 + Math.exp(-x)), (x) => Math.exp(-x) / (1 + Math.exp(-x)) ** 2],
};

await test("functions of one number and their gradients equal plain ones", async () => {
  for (const [name, [value, derivative]] of Object.entries(plainFunctions)) {
    const definition = unaryFunctions[name as keyof typeof unaryFunctions];
    for (const size of [7, 1024]) {
      const [x, g] = [randomPositive(size), randomPositive(size)];
      const [y, gradient] = [garbage(size), garbage(size)];
      launchInto(unaryKernel(name, definition, size), [tensor(x)], [y]);
      launchInto(unaryBackwardKernel(name, definition, size), [tensor(x), y, tensor(g)], [gradient]);
      expect(relativeError(await y.array(), Float64Array.from(x, value)), name).toBeLessThan(1e-5);
      const expected = Float64Array.from(x, (each, i) => g[i] * derivative(each));
      expect(relativeError(await gradient.array(), expected), `${name} backward`).toBeLessThan(1e-5);
    }
  }
});
