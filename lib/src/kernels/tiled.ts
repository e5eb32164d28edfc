// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.
import type { Kernel } from "../gpu/kernel.js";
import {
  type MatmulPlaces,
  type MatmulShape,
  type Operand,
  addSlice,
  fourInsideFunction,
  isScaled,
  operands,
  productKernel,
  sliceLength,
  sliceScale,
} from "./operands.js";
import { range } from "./wgsl.js";

//| 02-attention/2-matrix-products.ipynb#tiles
/** Rows and columns of C that a workgroup of the tiled kernel computes, and its invocations. */
export const tileRows = 64;
export const tileInvocations = 128;

/** Inner indices that the tiled kernel keeps in shared memory at a time. */
export const tileDepth = 16;

/** Fours in the tile from one inner index to the next. */
export const tileStride = tileRows / 4 + 1;

/** Fours of each operand that an invocation moves. */
export const tileMoves = (tileRows * tileDepth) / 4 / tileInvocations;

/** Loads an invocation's fours of the strip that starts at inner index `k` into registers. */
export function fetchTile({ name, side, alongK }: Operand, k: string): string[] {
  const start = side === "rows" ? "row" : "column";
  return range(tileMoves).map((m) => {
    const slot = `(localIndex + ${m * tileInvocations}u)`;
    const [i, j] = alongK
      ? [`${slot} % ${tileDepth / 4}u * 4u`, `${slot} / ${tileDepth / 4}u`]
      : [`${slot} / ${tileRows / 4}u`, `${slot} % ${tileRows / 4}u * 4u`];
    return `    ${name}${m} = ${name}Inside(${name}First, ${k} + ${i}, ${start} + ${j}, to);`;
  });
}

/** Puts them into the tile: whole fours along the side, or one by one when they lie along k. */
export function placeTile({ name, alongK }: Operand): string[] {
  return range(tileMoves).flatMap((m) => {
    const slot = `(localIndex + ${m * tileInvocations}u)`;
    const four = `Four(${name}${m})`;
    if (!alongK)
      return [
        `    ${name}Tile[${slot} / ${tileRows / 4}u * ${tileStride}u + ${slot} % ${tileRows / 4}u] = ${four};`,
      ];
    const [i, j] = [`${slot} % ${tileDepth / 4}u * 4u`, `${slot} / ${tileDepth / 4}u`];
    return range(4).map(
      (x) => `    ${name}Tile[(${i} + ${x}u) * ${tileStride}u + ${j} / 4u][${j} % 4u] = ${four}[${x}];`,
    );
  });
}

//| 02-attention/2-matrix-products.ipynb#tiled-slice
/** Where a slice of the inner dimension ends after this strip, its sums go to the others'. */
export function endSlice(from: string, scaled?: Operand): string[] {
  const inSlice = `(k + ${tileDepth}u - ${from}) % ${sliceLength}u`;
  const scale = (j: number) => {
    const row = `(bFirst + min(column + x * 4u + ${j}u, sizes.columns - 1u))`;
    return sliceScale(scaled!, row, `${row} * sizes.k`, "k");
  };
  return [
    `    if (${inSlice} == 0u || k + ${tileDepth}u >= to) {`,
    ...(scaled ? [`      let scales = vec4f(${range(4).map(scale).join(", ")});`] : []),
    ...range(8).map((r) => `      ${addSlice(`sum${r}`, `c${r}`, scaled && "scales")} c${r} = vec4f();`),
    "    }",
  ];
}

//| 02-attention/2-matrix-products.ipynb#tiled-loop
/** The statements that leave an invocation's results in c0 … c7. */
export function tiledLoop(
  both: Operand[],
  from: string,
  { invariant = false, scaled }: { invariant?: boolean; scaled?: Operand } = {},
): string[] {
  const registers = both.flatMap(({ name }) => range(tileMoves).map((m) => `  var ${name}${m}: vec4f;`));
  return [
    "  let localIndex = lane;",
    "  let x = localIndex % 16u;",
    "  let y = localIndex / 16u;",
    ...registers,
    ...range(8).map((r) => `  var c${r} = vec4f();`),
    ...(invariant ? range(8).map((r) => `  var sum${r} = vec4f();`) : []),
    ...both.flatMap((operand) => fetchTile(operand, from)),
    `  for (var k = ${from}; k < to; k += ${tileDepth}u) {`,
    ...both.flatMap(placeTile),
    "    workgroupBarrier();",
    ...both.flatMap((operand) => fetchTile(operand, `k + ${tileDepth}u`)),
    `    for (var i = 0u; i < ${tileDepth}u; i++) {`,
    ...range(2).map((g) => `      let rows${g} = vec4f(aTile[i * ${tileStride}u + y + ${g * 8}u]);`),
    `      let columns4 = vec4f(bTile[i * ${tileStride}u + x]);`,
    ...range(8).map((r) => {
      const x = `rows${r >> 2}[${r & 3}]`;
      return invariant
        ? `      c${r} = fma(vec4f(${x}), columns4, c${r});`
        : `      c${r} += ${x} * columns4;`;
    }),
    "    }",
    ...(invariant ? endSlice(from, scaled) : []),
    "    workgroupBarrier();",
    "  }",
    ...(invariant ? range(8).map((r) => `  c${r} = sum${r};`) : []),
  ];
}

/** Stores the 8 × 4 results, two groups of four rows, 32 apart. */
export function storeTile(): string[] {
  const first = (r: number) => `row + y * 4u + ${r < 4 ? r : 28 + r}u`;
  return [
    ...range(8).map((r) => `  storeFour(cFirst, ${first(r)}, column + x * 4u, c${r});`),
    "  for (var half = 0u; half < min(2u, sizes.rows); half++) {",
    "    finishRows(cFirst, row + y * 4u + half * 32u, 4u, column + x * 4u);",
    "  }",
  ];
}

//| 02-attention/2-matrix-products.ipynb#tiled-kernel
/**
 * 128 invocations compute 64 × 64 results, 8 × 4 each: they load a 64 × 16 piece of A and a 16 × 64 piece of B into
 * workgroup memory, wait for each other, and multiply from there. Each element is loaded from far away once a tile.
 */
export function tiledMatmulKernel(shape: MatmulShape, places: MatmulPlaces): Kernel {
  const both = operands(shape);
  const vec4 = shape.columns % 4 === 0;
  // In halves, numbers below 2^-14 may count as zero, which other kernels do not do: invariant ones keep what they round in 32 bits.
  const halves = shape.f16 && !shape.invariant;
  const scaled = isScaled(shape, both[1]) ? both[1] : undefined;
  return productKernel(shape, places, {
    name: "tiled",
    operands: both,
    tile: [tileRows, tileRows],
    workgroupSize: tileInvocations,
    vec4,
    codes: true,
    rounds: shape.invariant,
    enable: halves ? ["f16"] : [],
    head: () => [
      `alias Four = ${halves ? "vec4h" : "vec4f"};`,
      ...both.map(({ name }) => `var<workgroup> ${name}Tile: array<Four, ${tileDepth * tileStride}>;`),
      ...both.map(fourInsideFunction),
    ],
    body: () => [...tiledLoop(both, places.from, { invariant: shape.invariant, scaled }), ...storeTile()],
  });
}
