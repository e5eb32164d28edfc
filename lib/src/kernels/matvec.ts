// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import type { Kernel } from "../gpu/kernel.js";
import { type MatmulPlaces, type MatmulShape, operands, productKernel } from "./operands.js";
import { range } from "./wgsl.js";

//| 02-attention/2-matrix-products.ipynb#matvec-kernel
/** The most rows that the matrix-vector form takes. */
export const matvecRows = 8;

/** Whether a product has few rows, and weights that are stored along k in whole fours. */
export function suitsMatvec({ batch, rows, k, transposeA, transposeB }: MatmulShape): boolean {
  return batch === 1 && rows <= matvecRows && !transposeA && transposeB === true && k % 4 === 0;
}

/** Adds up what the lanes have in s0_0 …, and leaves in `y` of lane r the four results of row r. */
export function addLanes(rows: number, lanes: number, subgroups: boolean): string[] {
  const sums = (r: number) => range(4).map((c) => `s${r}_${c}`);
  if (subgroups) {
    const total = (r: number) =>
      `vec4f(${sums(r)
        .map((sum) => `subgroupAdd(${sum})`)
        .join(", ")})`;
    return [
      ...range(rows).map((r) => `  let y${r} = ${total(r)};`),
      "  var y = y0;",
      ...range(rows - 1).map((r) => `  if (lane == ${r + 1}u) { y = y${r + 1}; }`),
    ];
  }
  return [
    ...range(rows).map((r) => `  sums[lane * ${rows}u + ${r}u] = vec4f(${sums(r).join(", ")});`),
    "  workgroupBarrier();",
    "  var y = vec4f();",
    `  for (var other = 0u; other < ${lanes}u; other++) { y += sums[other * ${rows}u + min(lane, ${rows - 1}u)]; }`,
  ];
}

//| 02-attention/2-matrix-products.ipynb#matvec-kernel-code
/** Products of 1 to 8 rows with a weight [columns, k]: a workgroup computes four columns, its lanes side by side along k. */
export function matvecKernel(
  shape: MatmulShape,
  places: MatmulPlaces,
  { subgroupSize }: AdapterFacts,
): Kernel {
  const subgroups = subgroupSize >= matvecRows;
  const lanes = subgroups ? subgroupSize : 32;
  const rows = shape.rows === 1 ? 1 : shape.rows <= 4 ? 4 : matvecRows;
  const products = range(rows).flatMap((r) => range(4).map((c) => `    s${r}_${c} += dot(a${r}, b${c});`));
  return productKernel(shape, places, {
    name: `matrix-vector ${lanes} ${rows} ${subgroups}`,
    operands: operands(shape),
    tile: [rows, 4],
    workgroupSize: lanes,
    workgroups: Math.ceil(shape.columns / 4),
    vec4: shape.columns % 4 === 0,
    enable: subgroups ? ["subgroups"] : [],
    rounds: true,
    head: () => (subgroups ? [] : [`var<workgroup> sums: array<vec4f, ${lanes * rows}>;`]),
    body: () => [
      "  let first = workgroup * 4u;",
      "  if (first >= sizes.columns) { return; }",
      ...range(rows).map(
        (r) => `  let aRow${r} = aFirst + min(${r}u, sizes.rows - 1u); let aStart${r} = aRow${r} * sizes.k;`,
      ),
      ...range(4).map(
        (c) =>
          `  let bRow${c} = bFirst + min(first + ${c}u, sizes.columns - 1u); let bStart${c} = bRow${c} * sizes.k;`,
      ),
      ...range(rows).flatMap((r) => range(4).map((c) => `  var s${r}_${c} = 0.0;`)),
      `  for (var k = ${places.from} + lane * 4u; k < to; k += ${lanes * 4}u) {`,
      ...range(rows).map((r) => `    let a${r} = aFour(aRow${r}, aStart${r}, k);`),
      ...range(4).map((c) => `    let b${c} = bFour(bRow${c}, bStart${c}, k);`),
      ...products,
      "  }",
      ...addLanes(rows, lanes, subgroups),
      `  if (lane < ${rows}u) { storeFour(cFirst, lane, first, y); finishRows(cFirst, lane, 1u, first); }`,
    ],
  });
}
