// Extracted from chapters/05-inference/2-the-cache.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { type CacheShape, cacheWriteKernel, int8CacheWriteKernel } from "../../src/kernels/cache.js";
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

//| 05-inference/2-the-cache.ipynb#cache-write-int8-test
await test("a cache of int8 holds each row rounded, with its scale behind it, at its place in pages or without", async () => {
  for (const [seed, tableBlocks] of [0, 3].entries()) {
    const [batch, heads, tokens, width, capacity] = [2, 3, 7, 8, 48];
    const fresh = normals(seed, batch * heads * tokens * width, 3);
    fresh.fill(0, 0, width); // a row of zeros
    const positions = Uint32Array.from({ length: tokens }, (_, t) => 20 + t);
    const table = [4, 0, 5, 1, 3, 2];
    const cache = indices(new Uint32Array(batch * heads * capacity * (width / 4 + 1)));
    const kernel = int8CacheWriteKernel({ rows: batch * heads, tokens, width, capacity, heads, tableBlocks });
    launchInto(
      kernel,
      [tensor(fresh), indices(positions), ...(tableBlocks > 0 ? [indices(table)] : [])],
      [cache],
    );
    const words = await cache.array();
    for (let row = 0; row < batch * heads; row++)
      for (const [token, place] of positions.entries()) {
        const [sequence, head] = [Math.floor(row / heads), row % heads];
        const paged = (table[sequence * 3 + (place >> 4)] * heads + head) * 16 + (place % 16);
        const own = (tableBlocks > 0 ? paged : row * capacity + place) * (width / 4 + 1);
        const [scale] = new Float32Array(words.slice(own + width / 4, own + width / 4 + 1).buffer);
        const codes = new Int8Array(words.slice(own, own + width / 4).buffer);
        const values = fresh.subarray((row * tokens + token) * width, (row * tokens + token + 1) * width);
        expect(scale).toBeCloseTo(Math.max(...values.map(Math.abs)) / 127, 7);
        for (const [i, value] of values.entries())
          expect(Math.abs(codes[i] * scale - value)).toBeLessThanOrEqual(0.501 * scale);
      }
  }
});

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
