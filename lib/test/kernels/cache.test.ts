// Extracted from chapters/05-inference/2-the-cache.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { type CacheShape, cacheWriteKernel } from "../../src/kernels/cache.js";
import { normals, randomBits } from "../../src/tensor/random.js";
import { indices, launchInto, tensor } from "../../src/tensor/tensor.js";

//| 05-inference/2-the-cache.ipynb#plain-cache-write
/** Puts token t of each row at place positions[t] of that row; tokens beyond the capacity are dropped. */
function plainCacheWrite(
  cache: number[][][],
  fresh: number[][][],
  positions: ArrayLike<number>,
): number[][][] {
  return cache.map((places, row) =>
    places.map((old, place) => {
      const token = Array.from(positions).indexOf(place);
      return token < 0 ? old : fresh[row][token];
    }),
  );
}

/** Flat values as [rows, length, width]. */
function nested(values: ArrayLike<number>, rows: number, length: number): number[][][] {
  const width = values.length / rows / length;
  const at = (row: number, i: number) => (row * length + i) * width;
  return Array.from({ length: rows }, (_, row) =>
    Array.from({ length }, (_, i) => Array.from(values).slice(at(row, i), at(row, i) + width)),
  );
}

//| 05-inference/2-the-cache.ipynb#cache-write-test
await openGpu();

await test("new keys go to their places, all others stay, and what does not fit is dropped", async () => {
  const shapes: CacheShape[] = [
    { rows: 1, tokens: 1, width: 1, capacity: 1 },
    { rows: 2, tokens: 1, width: 8, capacity: 5 },
    { rows: 3, tokens: 7, width: 5, capacity: 11 },
    { rows: 5, tokens: 32, width: 16, capacity: 40 },
  ];
  for (const [seed, shape] of shapes.entries()) {
    const { rows, tokens, width, capacity } = shape;
    const before = normals(seed, rows * capacity * width, 1);
    const fresh = normals(seed, rows * tokens * width, 2);
    // From nothing dropped to all dropped: the first of the new tokens may stand at any place, or behind the last.
    for (const first of [0, randomBits(seed, 1)[0] % (capacity + 1), capacity]) {
      const positions = Uint32Array.from({ length: tokens }, (_, t) => first + t);
      const cache = tensor(before, [rows, capacity, width]);
      launchInto(cacheWriteKernel(shape), [tensor(fresh), indices(positions)], [cache]);
      const expected = plainCacheWrite(
        nested(before, rows, capacity),
        nested(fresh, rows, tokens),
        positions,
      );
      expect([...(await cache.array())]).toEqual(expected.flat(2));
    }
  }
});
