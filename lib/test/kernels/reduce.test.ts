// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import {
  columnSumKernel,
  partialSumKernel,
  partialSums,
  repeatKernel,
  totalKernel,
} from "../../src/kernels/reduce.js";
import { relativeError } from "../../src/tensor/check.js";
import { type Tensor, launchInto, tensor } from "../../src/tensor/tensor.js";

//| 02-attention/a-the-engine-room.ipynb#sum-tests
await openGpu();

/** A result tensor full of garbage, so that an element that is not written shows. */
function unwritten(size: number): Tensor {
  return tensor(new Float32Array(size).fill(Number.NaN));
}

function randomNumbers(size: number): Float32Array {
  return Float32Array.from({ length: size }, () => Math.random() * 2 - 0.5);
}

await test("sums of any length equal sums in 64 bits, and are the same bits each time", async () => {
  for (const size of [1, 5, 255, 256, 257, 70_001]) {
    const values = randomNumbers(size);
    const [x, partial] = [tensor(values), unwritten(Math.min(partialSums, size))];
    const totals = [unwritten(1), unwritten(1)];
    for (const total of totals) {
      launchInto(partialSumKernel(size, "x * x"), [x], [partial]);
      launchInto(totalKernel(partial.size, 0.5), [partial], [total]);
    }
    const expected = values.reduce((sum, value) => sum + value * value, 0) / 2;
    expect(relativeError(await totals[0].array(), [expected]), `${size}`).toBeLessThan(1e-5);
    expect(await totals[1].value()).toBe(await totals[0].value());
  }
});

//| 02-attention/a-the-engine-room.ipynb#column-sum-tests
await test("sums over rows equal plain ones, however the rows are shared out", async () => {
  for (const [rows, columns] of [
    [1, 1],
    [3, 70],
    [65, 5],
    [100, 64],
  ]) {
    const values = randomNumbers(rows * columns);
    const expected = new Float64Array(columns);
    values.forEach((value, i) => {
      expected[i % columns] += value;
    });
    for (const groups of [1, 2, 7]) {
      const [partial, sums] = [unwritten(groups * columns), unwritten(columns)];
      launchInto(columnSumKernel(rows, columns, groups), [tensor(values)], [partial]);
      launchInto(columnSumKernel(groups, columns, 1), [partial], [sums]);
      expect(relativeError(await sums.array(), expected), `${rows}x${columns} in ${groups}`).toBeLessThan(
        1e-5,
      );
    }
  }
});

await test("one number is written into every element", async () => {
  for (const size of [1, 65, 1000]) {
    const y = unwritten(size);
    launchInto(repeatKernel(size, 0.25), [tensor([3])], [y]);
    expect((await y.array()).every((value) => value === 0.75)).toBe(true);
  }
});
