// Extracted from chapters/03-moe/2-dispatch.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import {
  type DispatchShape,
  combineKernel,
  countingSortKernel,
  dispatchTiles,
  gatherKernel,
  padding,
  weightGradientKernel,
} from "../../src/kernels/dispatch.js";
import { range } from "../../src/kernels/wgsl.js";
import { relativeError } from "../../src/tensor/check.js";
import { indices, launchInto, tensor } from "../../src/tensor/tensor.js";

//| 03-moe/2-dispatch.ipynb#plain-sort
await openGpu();

/** The counting sort on arrays. */
function plainSort(chosen: ArrayLike<number>, shape: DispatchShape) {
  const { experts, tile } = shape;
  const load = range(experts).map(() => 0);
  for (let pair = 0; pair < chosen.length; pair++) load[chosen[pair]] += 1;
  const tiles = load.map((count) => Math.ceil(count / tile));
  const firsts = range(experts).map((e) => tile * tiles.slice(0, e).reduce((sum, count) => sum + count, 0));
  const segments = firsts.flatMap((first, e) => [first, first + tile * tiles[e]]);
  const owners = range(dispatchTiles(shape)).map(() => padding);
  for (const e of range(experts)) owners.fill(e, firsts[e] / tile, firsts[e] / tile + tiles[e]);
  const pairs = range(dispatchTiles(shape) * tile).map(() => padding);
  const slots = Array.from(chosen, (e, pair) => {
    pairs[firsts[e]] = pair;
    return firsts[e]++;
  });
  return { slots, pairs, owners, segments, load };
}

//| 03-moe/2-dispatch.ipynb#sort-cases
const dispatchShapes: DispatchShape[] = [
  { tokens: 1, expertsPerToken: 1, experts: 1, tile: 16 },
  { tokens: 1, expertsPerToken: 2, experts: 8, tile: 64 },
  { tokens: 3, expertsPerToken: 2, experts: 33, tile: 4 },
  { tokens: 301, expertsPerToken: 2, experts: 8, tile: 16 },
  { tokens: 500, expertsPerToken: 8, experts: 128, tile: 16 },
];

//| 03-moe/2-dispatch.ipynb#draw-choices
/** Different experts for each token, drawn evenly or all for the same few. */
function drawChoices(shape: DispatchShape, isCollapsed: boolean): Uint32Array {
  const { tokens, expertsPerToken, experts } = shape;
  return Uint32Array.from({ length: tokens * expertsPerToken }, (_, pair) => {
    const token = Math.floor(pair / expertsPerToken);
    const first = isCollapsed ? experts - 1 : Math.floor(Math.abs(Math.sin(token * 78.233) * 43758.5));
    return (first + (pair % expertsPerToken)) % experts;
  });
}

//| 03-moe/2-dispatch.ipynb#sort-test
await test("the counting sort equals the sort on arrays, and every element is written", async () => {
  for (const shape of dispatchShapes)
    for (const isCollapsed of [false, true]) {
      const chosen = drawChoices(shape, isCollapsed);
      const expected = plainSort(chosen, shape);
      const names = ["slots", "pairs", "owners", "segments", "load"] as const;
      const outputs = names.map((name) => indices(new Uint32Array(expected[name].length).fill(77777)));
      launchInto(countingSortKernel(shape), [indices(chosen)], outputs);
      for (const [i, name] of names.entries())
        expect([...(await outputs[i].array())], `${name} ${JSON.stringify(shape)}`).toEqual(expected[name]);
    }
});

//| 03-moe/2-dispatch.ipynb#worst-case-test
await test("the worst case is reached and never passed", () => {
  for (const experts of [1, 2, 5]) {
    const shape = { tokens: 7, expertsPerToken: 1, experts, tile: 4 };
    let most = 0;
    for (let code = 0; code < experts ** 7; code++) {
      const load = range(experts).map(() => 0);
      for (let rest = code, i = 0; i < 7; i++, rest = Math.floor(rest / experts)) load[rest % experts] += 1;
      most = Math.max(
        most,
        load.reduce((sum, count) => sum + Math.ceil(count / 4), 0),
      );
    }
    expect(dispatchTiles(shape)).toBe(most);
  }
});

//| 03-moe/2-dispatch.ipynb#plain-carry
/** What the three kernels do, on arrays: rows for x, and for rows their sums and their products with x. */
function plainCarry(
  sorted: ReturnType<typeof plainSort>,
  x: Float32Array,
  rows: Float32Array,
  weights: number[],
) {
  const { slots, pairs } = sorted;
  const choices = slots.length / (x.length / (rows.length / pairs.length));
  const width = rows.length / pairs.length;
  const [gathered, combined] = [rows.map(() => 0), x.map(() => 0)];
  const products = slots.map(() => 0);
  for (const [pair, slot] of slots.entries())
    for (let i = 0; i < width; i++) {
      const at = Math.floor(pair / choices) * width + i;
      gathered[slot * width + i] = x[at] * weights[pair];
      combined[at] += rows[slot * width + i] * weights[pair];
      products[pair] += rows[slot * width + i] * x[at];
    }
  return { gathered, combined, products };
}

//| 03-moe/2-dispatch.ipynb#carry-test
await test("gather, combine and the weights' gradient equal sums on arrays", async () => {
  for (const [width, at] of [
    [1, 0],
    [6, 2],
    [132, 3],
  ]) {
    const shape = dispatchShapes[at];
    const sorted = plainSort(drawChoices(shape, false), shape);
    const random = (size: number) => Float32Array.from({ length: size }, () => Math.random() * 2 - 1);
    const [x, rows] = [random(shape.tokens * width), random(sorted.pairs.length * width)];
    const [slots, pairs] = [indices(sorted.slots), indices(sorted.pairs)];
    const fresh = (size: number) => tensor(new Float32Array(size).fill(Number.NaN));
    for (const weighted of [false, true]) {
      const weights = sorted.slots.map(() => (weighted ? Math.random() : 1));
      const expected = plainCarry(sorted, x, rows, weights);
      const given = weighted ? [tensor(weights)] : [];
      const [gathered, combined, products] = [fresh(rows.length), fresh(x.length), fresh(weights.length)];
      launchInto(gatherKernel(shape, width, weighted), [tensor(x), pairs, ...given], [gathered]);
      launchInto(combineKernel(shape, width, { weighted }), [tensor(rows), slots, ...given], [combined]);
      launchInto(weightGradientKernel(shape, width), [tensor(rows), slots, tensor(x)], [products]);
      expect(relativeError(await gathered.array(), expected.gathered)).toBeLessThan(1e-6);
      expect(relativeError(await combined.array(), expected.combined)).toBeLessThan(1e-6);
      expect(relativeError(await products.array(), expected.products)).toBeLessThan(1e-5);
    }
  }
});
