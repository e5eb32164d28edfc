// Extracted from chapters/05-inference/4-smaller-numbers.ipynb: edit it there, or here and run `npm run backport`.
import fc from "fast-check";
import { expect, test } from "vitest";
import { int4Format, nearestHalf } from "../../src/kernels/formats.js";
import { range } from "../../src/kernels/wgsl.js";

//| 05-inference/4-smaller-numbers.ipynb#plain-codes
/** The scale and the codes of a group around zero. */
function plainCodes(group: number[]): { scale: number; codes: number[] } {
  const largest = group.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);
  const scale = nearestHalf(largest / -8);
  const codeOf = (value: number) => (scale === 0 ? 8 : Math.round(value / scale) + 8);
  return { scale, codes: group.map((value) => Math.max(0, Math.min(15, codeOf(value)))) };
}

/** The same with a zero point: the codes go from the smallest number to the largest. */
function plainRange(group: number[]): { scale: number; zero: number; codes: number[] } {
  const [least, most] = [Math.min(0, ...group), Math.max(0, ...group)];
  const scale = nearestHalf((most - least) / 15);
  const zero = scale === 0 ? 0 : Math.round(-least / scale);
  const codeOf = (value: number) => (scale === 0 ? zero : Math.round(value / scale) + zero);
  return { scale, zero, codes: group.map((value) => Math.max(0, Math.min(15, codeOf(value)))) };
}

//| 05-inference/4-smaller-numbers.ipynb#formats-property-test
await test("packed and unpacked again, numbers are what the plain form makes of them", () => {
  const numbers = fc.array(fc.float({ noNaN: true, min: -200, max: 200 }), { minLength: 64, maxLength: 64 });
  fc.assert(
    fc.property(numbers, fc.constantFrom(32, 64), (values, group) => {
      const groups = range(64 / group).map((g) => values.slice(g * group, (g + 1) * group));
      const around = groups
        .map(plainCodes)
        .flatMap(({ scale, codes }) => codes.map((code) => scale * (code - 8)));
      const ranged = groups
        .map(plainRange)
        .flatMap(({ scale, zero, codes }) => codes.map((code) => scale * (code - zero)));
      for (const [format, expected] of [
        [int4Format(group), around],
        [int4Format(group, true), ranged],
      ] as const) {
        const arrays = format.pack(Float32Array.from(values), 64);
        expect(arrays.map(({ byteLength }) => byteLength)).toEqual(
          format.rowBytes(64).map((bytes) => 4 * Math.ceil(bytes / 4)),
        );
        const same = format
          .unpack(arrays, 64)
          .every((value, i) => value === Math.fround(expected[i]) || value + expected[i] === 0);
        expect(same, `${format.name} of ${values}`).toBe(true);
      }
    }),
  );
});
