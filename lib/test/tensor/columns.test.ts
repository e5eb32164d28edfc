// Extracted from chapters/02-attention/8-local-attention-sinks-latent-caches.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { range } from "../../src/kernels/wgsl.js";
import { gradientError } from "../../src/tensor/check.js";
import { joinColumns } from "../../src/tensor/columns.js";
import { normals } from "../../src/tensor/random.js";
import { tensor, zeros } from "../../src/tensor/tensor.js";

//| 02-attention/8-local-attention-sinks-latent-caches.ipynb#join-test
await openGpu();

await test("columns are put side by side, and gradients go where the numbers came from", async () => {
  for (const [headsB, first, second] of [
    [3, 8, 4],
    [1, 8, 4],
    [1, 5, 3],
  ]) {
    const [a, b] = [normals(1, 2 * 3 * 5 * first), normals(2, 2 * headsB * 5 * second)];
    const shapes = [
      [2, 3, 5, first],
      [2, headsB, 5, second],
    ];
    const y = await joinColumns(tensor(a, shapes[0]), tensor(b, shapes[1])).array();
    const expected = range(2 * 3 * 5).flatMap((row) => {
      const other = headsB === 1 ? Math.floor(row / 15) * 5 + (row % 5) : row;
      return [
        ...a.subarray(row * first, (row + 1) * first),
        ...b.subarray(other * second, (other + 1) * second),
      ];
    });
    expect([...y]).toEqual(expected);
    const sources = [a, b].map((values, i) => ({ shape: shapes[i], values }));
    expect(await gradientError(joinColumns, sources)).toBeLessThan(1e-2);
  }
  expect(() => joinColumns(zeros([1, 4, 2, 8]), zeros([1, 2, 2, 8]))).toThrow(
    "not f32 [1, 4, 2, 8] and f32 [1, 2, 2, 8]",
  );
});
