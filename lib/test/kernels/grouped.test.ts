// Extracted from chapters/03-moe/2-dispatch.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { type AdapterFacts, currentGpu, openGpu } from "../../src/gpu/device.js";
import {
  type DispatchShape,
  countingSortKernel,
  dispatchTile,
  dispatchTiles,
} from "../../src/kernels/dispatch.js";
import { groupedBiasKernel, groupedMatmulKernel, groupedWeightKernel } from "../../src/kernels/grouped.js";
import { prefersSubgroups, range } from "../../src/kernels/wgsl.js";
import { relativeError } from "../../src/tensor/check.js";
import { empty, indices, launchInto, sizeOf, tensor } from "../../src/tensor/tensor.js";

//| 03-moe/2-dispatch.ipynb#plain-grouped
await openGpu();
const groupedCase = { tokens: 90, expertsPerToken: 2, experts: 5, outputs: 70, inners: 36 };
const groupedChoices = range(180).map((pair) => [0, 1, 3, 1, 3, 3, 0, 3, 1][pair % 9]);

/** Each pair's row times its expert's matrix, plus its bias, and what the pair adds to that expert's gradients. */
function plainGrouped(x: Float32Array, weight: Float32Array, bias: Float32Array, gradient: Float32Array) {
  const { outputs, inners } = groupedCase;
  const [forward, back] = [new Float64Array(gradient.length), new Float64Array(x.length)];
  const [slopes, biasSlopes] = [new Float64Array(weight.length), new Float64Array(bias.length)];
  for (const [pair, e] of groupedChoices.entries())
    for (let o = 0; o < outputs; o++) {
      forward[pair * outputs + o] += bias[e * outputs + o];
      biasSlopes[e * outputs + o] += gradient[pair * outputs + o];
      for (let i = 0; i < inners; i++) {
        const at = (e * outputs + o) * inners + i;
        forward[pair * outputs + o] += x[pair * inners + i] * weight[at];
        back[pair * inners + i] += gradient[pair * outputs + o] * weight[at];
        slopes[at] += gradient[pair * outputs + o] * x[pair * inners + i];
      }
    }
  return { forward, back, slopes, biasSlopes };
}

//| 03-moe/2-dispatch.ipynb#check-grouped
/** Sorts the rows of pairs by expert, with zeros for padding; and picks the rows of pairs out again. */
function carriers(slots: number[], rows: number) {
  const into = (values: Float32Array) => {
    const width = values.length / slots.length;
    const sorted = new Float32Array(rows * width);
    for (const [pair, slot] of slots.entries())
      sorted.set(values.subarray(pair * width, pair * width + width), slot * width);
    return tensor(sorted, [rows, width]);
  };
  const outOf = (values: Float32Array) => {
    const width = values.length / rows;
    return slots.flatMap((slot) => [...values.subarray(slot * width, slot * width + width)]);
  };
  return { into, outOf };
}

//| 03-moe/2-dispatch.ipynb#sorted-case
/** The case's choices, sorted by the kernel from above. */
function sortedCase(shape: DispatchShape) {
  const tiles = dispatchTiles(shape);
  const [slots, pairs, owners] = [180, tiles * shape.tile, tiles].map((size) => empty([size], "u32"));
  const [segments, load] = [10, 5].map((size) => empty([size], "u32"));
  launchInto(countingSortKernel(shape), [indices(groupedChoices)], [slots, pairs, owners, segments, load]);
  return { slots, rows: pairs.size, owners, segments };
}

//| 03-moe/2-dispatch.ipynb#check-grouped-products
/** The products of a case, each written over NaN. */
async function checkGrouped(facts: AdapterFacts, pairsPerExpert: number): Promise<void> {
  const { tokens, expertsPerToken, experts, outputs, inners } = groupedCase;
  const shape = { tokens, expertsPerToken, experts, tile: dispatchTile(facts, pairsPerExpert) };
  const { slots, rows, owners, segments } = sortedCase(shape);
  const { into, outOf } = carriers([...(await slots.array())], rows);
  const random = (size: number) => Float32Array.from({ length: size }, () => Math.random() * 2 - 1);
  const fresh = (...dims: number[]) => tensor(new Float32Array(sizeOf(dims)).fill(Number.NaN), dims);
  const [x, gradient] = [random(180 * inners), random(180 * outputs)];
  const [weight, bias] = [random(5 * outputs * inners), random(5 * outputs)];
  const [y, dx, dw, db] = [
    fresh(rows, outputs),
    fresh(rows, inners),
    fresh(5, outputs, inners),
    fresh(5, outputs),
  ];
  const product = (columns: number, k: number, transposeB: boolean) =>
    groupedMatmulKernel(shape, { columns, k, transposeB, epilogue: { bias: transposeB } }, facts);
  const [matrices, biases] = [tensor(weight), tensor(bias)];
  launchInto(product(outputs, inners, true), [into(x), matrices, owners, biases, matrices], [y]);
  launchInto(product(inners, outputs, false), [into(gradient), matrices, owners, matrices, matrices], [dx]);
  const [g, rowsOfX] = [into(gradient), into(x)];
  launchInto(
    groupedWeightKernel(shape, { outputs, inputs: inners }, facts),
    [g, rowsOfX, segments, rowsOfX, rowsOfX],
    [dw],
  );
  launchInto(groupedBiasKernel(shape, outputs), [g, segments], [db]);
  const expected = plainGrouped(x, weight, bias, gradient);
  expect(relativeError(outOf(await y.array()), expected.forward)).toBeLessThan(1e-5);
  expect(relativeError(outOf(await dx.array()), expected.back)).toBeLessThan(1e-5);
  expect(relativeError(await dw.array(), expected.slopes)).toBeLessThan(1e-5);
  expect(relativeError(await db.array(), expected.biasSlopes)).toBeLessThan(1e-5);
}

//| 03-moe/2-dispatch.ipynb#grouped-test
await test("grouped products equal sums on arrays, for both kinds of adapter", async () => {
  const { facts } = currentGpu();
  for (const pairsPerExpert of prefersSubgroups(facts) ? [1, 36, 100] : [36])
    await checkGrouped(facts, pairsPerExpert);
  await checkGrouped({ ...facts, kind: "gpu", subgroupSize: 0 }, 36);
});
