// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import type { Kernel } from "../gpu/kernel.js";
import {
  type MatmulPlaces,
  type MatmulShape,
  type Operand,
  fourInsideFunction,
  operands,
  productKernel,
  productSizes,
} from "./operands.js";
import { range } from "./wgsl.js";

//| 02-attention/2-matrix-products.ipynb#units-sizes
/** Rows and columns of C that a workgroup computes, and one of its four subgroups of 32 lanes. */
export const unitTile = 128;
export const unitPart = 64;

/** Inner indices that are kept in shared memory at a time, and the side of the matrices that the hardware multiplies. */
export const unitDepth = 32;
export const unitSide = 16;

/** Whether the adapter multiplies 16 × 16 matrices of 16-bit floats with 32-bit sums, in subgroups of 32 lanes. */
export function hasSubgroupMatrix({ f16, subgroupSize, subgroupMatrices }: AdapterFacts): boolean {
  return f16 && subgroupSize === 32 && subgroupMatrices.includes("f16 f32 16x16x16");
}

/** Numbers from one row of a tile to the next: eight more than it holds, which spreads it over the memory banks. */
export function unitStride({ alongK }: Operand): number {
  return (alongK ? unitDepth : unitTile) + 8;
}

//| 02-attention/2-matrix-products.ipynb#units-place
/** Moves an invocation's fours of the strip at inner index k into the tile, which lies as the operand lies in memory. */
export function placeF16(operand: Operand): string[] {
  const { name, side, alongK } = operand;
  const start = side === "rows" ? "row" : "column";
  const across = (alongK ? unitDepth : unitTile) / 4;
  return range((unitTile * unitDepth) / 4 / unitTile).flatMap((m) => {
    const slot = `(localIndex + ${m * unitTile}u)`;
    const [one, many] = [`${slot} / ${across}u`, `${slot} % ${across}u * 4u`];
    const [i, j] = alongK ? [many, one] : [one, many];
    return [
      `    let ${name}${m} = vec4h(${name}Inside(${name}First, k + ${i}, ${start} + ${j}, to));`,
      `    let ${name}At${m} = ${one} * ${unitStride(operand)}u + ${many};`,
      ...range(4).map((x) => `    ${name}Tile[${name}At${m} + ${x}u] = ${name}${m}[${x}];`),
    ];
  });
}

/** WGSL that takes a 16 × 16 matrix from a tile: the i-th along the operand's side, the q-th along the inner dimension. */
export function takeMatrix(operand: Operand, i: number, q: number): string {
  const { name, side, alongK } = operand;
  const [type, part] = side === "rows" ? ["left", "partRow"] : ["right", "partColumn"];
  const stride = unitStride(operand);
  const [j, k] = [`(${part} + ${i * unitSide}u)`, `${q * unitSide}u`];
  const from = alongK ? `${j} * ${stride}u + ${k}` : `${k} * ${stride}u + ${j}`;
  const majorness = alongK === (side === "columns") ? "col_major" : "row_major";
  const matrix = `subgroup_matrix_${type}<f16, ${unitSide}, ${unitSide}>`;
  return `subgroupMatrixLoad<${matrix}, ${majorness}>(&${name}Tile, ${from}, ${stride}u)`;
}

//| 02-attention/2-matrix-products.ipynb#units-loop
/** Multiplies the strip that lies in the tiles: four matrices down, four across. */
export function multiplyMatrices([a, b]: [Operand, Operand]): string[] {
  const four = range(unitPart / unitSide);
  return range(unitDepth / unitSide).flatMap((q) => [
    "    {",
    ...four.map((i) => `      let left${i} = ${takeMatrix(a, i, q)};`),
    ...four.map((j) => `      let right${j} = ${takeMatrix(b, j, q)};`),
    ...four.flatMap((i) =>
      four.map(
        (j) => `      c${i}_${j} = subgroupMatrixMultiplyAccumulate(left${i}, right${j}, c${i}_${j});`,
      ),
    ),
    "    }",
  ]);
}

/** Stores the matrix in row i and column j of a subgroup's part: as it is, or number by number, at the edges and for an epilogue. */
export function storeMatrix(isPlain: boolean, i: number, j: number): string[] {
  const [y, x] = [`(row + partRow + ${i * unitSide}u)`, `(column + partColumn + ${j * unitSide}u)`];
  const start = `(cFirst + ${y}) * sizes.columns + ${x}`;
  if (isPlain)
    return [
      `  if (${y} < sizes.rows && ${x} < sizes.columns) { subgroupMatrixStore<row_major>(&c, ${start}, c${i}_${j}, sizes.columns); }`,
    ];
  return [
    `  subgroupMatrixStore<row_major>(&edge, part * 256u, c${i}_${j}, 16u);`,
    "  workgroupBarrier();",
    "  for (var e = localIndex % 32u; e < 256u; e += 32u) {",
    `    let at = ${start} + e / 16u * sizes.columns + e % 16u;`,
    `    let inside = ${y} + e / 16u < sizes.rows && ${x} + e % 16u < sizes.columns;`,
    `    if (inside) { c[at] = finish(edge[part * 256u + e], ${x} + e % 16u, at); }`,
    "  }",
    "  workgroupBarrier();",
  ];
}

//| 02-attention/2-matrix-products.ipynb#units-body
/** The statements of the kernel. */
export function subgroupMatrixBody(from: string, both: [Operand, Operand], isPlain: boolean): string[] {
  const four = range(unitPart / unitSide);
  const results = four.flatMap((i) => four.map((j): [number, number] => [i, j]));
  return [
    "  let localIndex = lane;",
    "  let part = subgroupBroadcastFirst(localIndex / 32u);",
    `  let partRow = part / 2u * ${unitPart}u;`,
    `  let partColumn = part % 2u * ${unitPart}u;`,
    // Tint cannot see that the four subgroups each do the same thing in all their lanes.
    "  @diagnostic(off, chromium.subgroup_matrix_uniformity) {",
    ...results.map(([i, j]) => `  var c${i}_${j}: subgroup_matrix_result<f32, ${unitSide}, ${unitSide}>;`),
    `  for (var k = ${from}; k < to; k += ${unitDepth}u) {`,
    ...both.flatMap(placeF16),
    "    workgroupBarrier();",
    ...multiplyMatrices(both),
    "    workgroupBarrier();",
    "  }",
    ...results.flatMap(([i, j]) => storeMatrix(isPlain, i, j)),
    "  }",
  ];
}

//| 02-attention/2-matrix-products.ipynb#units-kernel
/**
 * Products on the hardware's matrix units: operands are rounded to 16-bit floats on their way in, sums and results have
 * 32 bits. Only for adapters that `hasSubgroupMatrix` accepts.
 */
export function subgroupMatrixKernel(shape: MatmulShape, places: MatmulPlaces): Kernel {
  const both = operands(shape);
  const isPlain =
    shape.rows % unitSide === 0 && shape.columns % unitSide === 0 && productSizes(shape).flags === 0;
  const tile = (operand: Operand) =>
    `var<workgroup> ${operand.name}Tile: array<f16, ${unitStride(operand) * (operand.alongK ? unitTile : unitDepth)}>;`;
  return productKernel({ ...shape, f16: true }, places, {
    name: `matrix units ${isPlain}`,
    operands: both,
    tile: [unitTile, unitTile],
    workgroupSize: unitTile,
    vec4: false,
    enable: ["f16", "subgroups", "chromium_experimental_subgroup_matrix"],
    head: () => [
      "var<workgroup> edge: array<f32, 1024>;",
      ...both.map(tile),
      ...both.map(fourInsideFunction),
    ],
    body: () => subgroupMatrixBody(places.from, both, isPlain),
    note: " on matrix units",
  });
}
