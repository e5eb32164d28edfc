// Extracted from chapters/02-attention/9-the-block.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { multiplyHigh, normals, philox, randomBits, streamOf, uniforms } from "../../src/tensor/random.js";

//| 02-attention/9-the-block.ipynb#random-known-test
await test("philox gives the known answers of its authors' library (Random123, kat_vectors)", () => {
  const zeros = new Uint32Array(4);
  philox(zeros, 0, 0);
  expect([...zeros]).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
  const ones = new Uint32Array(4).fill(0xffffffff);
  philox(ones, 0xffffffff, 0xffffffff);
  expect([...ones]).toEqual([0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
  const digits = Uint32Array.of(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344);
  philox(digits, 0xa4093822, 0x299f31d0);
  expect([...digits]).toEqual([0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
});

await test("the high half of a product is exact", () => {
  const numbers = [0, 1, 0xffff, 0x10000, 0xcd9e8d57, 0xffffffff];
  for (const a of numbers)
    for (const b of numbers) expect(multiplyHigh(a, b)).toBe(Number((BigInt(a) * BigInt(b)) >> 32n));
});

//| 02-attention/9-the-block.ipynb#random-stream-test
await test("the same seed and stream give the same numbers, others give others", () => {
  expect(randomBits(7, 10, 3)).toEqual(randomBits(7, 1000, 3).subarray(0, 10));
  expect(normals(7, 9, 3, 400)).toEqual(normals(7, 1000, 3).subarray(400, 409));
  const firsts = [
    randomBits(7, 1),
    randomBits(8, 1),
    randomBits(7 + 2 ** 32, 1),
    randomBits(7, 1, 1),
    randomBits(7, 1, streamOf("a")),
  ];
  expect(new Set(firsts.map(([bits]) => bits)).size).toBe(5);
});

await test("uniforms fill 0 to 1 evenly and normals have mean 0, variance 1 and the right tails", () => {
  const even = new Array(10).fill(0);
  for (const value of uniforms(1, 100_000)) even[Math.floor(value * 10)] += 1;
  for (const share of even) expect(Math.abs(share - 10_000)).toBeLessThan(500);
  const values = Array.from(normals(1, 100_000));
  const moment = (power: number) => values.reduce((sum, x) => sum + x ** power, 0) / values.length;
  expect(moment(1)).toBeCloseTo(0, 1.5);
  expect(Math.abs(moment(2) - 1)).toBeLessThan(0.02);
  expect(Math.abs(moment(4) - 3)).toBeLessThan(0.2);
  expect(values.filter((x) => Math.abs(x) < 1.96).length / values.length).toBeCloseTo(0.95, 2);
});
