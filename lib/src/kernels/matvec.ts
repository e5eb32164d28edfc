// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import type { Kernel } from "../gpu/kernel.js";
import { type MatmulPlaces, type MatmulShape, operands, productKernel, sliceLength } from "./operands.js";
import { range } from "./wgsl.js";

//| 02-attention/2-matrix-products.ipynb#matvec-kernel
/** The most rows that the matrix-vector form takes. */
export const matvecRows = 8;

/** Whether a product has few rows, and weights that are stored along k in whole fours. */
export function suitsMatvec({ batch, rows, k, transposeA, transposeB }: MatmulShape): boolean {
  return batch === 1 && rows <= matvecRows && !transposeA && transposeB === true && k % 4 === 0;
}

/** Rows that a kernel is written for: the next of 1, 2, 4 and 8. */
export function rowClass(rows: number): number {
  return 2 ** Math.ceil(Math.log2(rows));
}

//| 02-attention/2-matrix-products.ipynb#matvec-kernel-code
/** Products of 1 to 8 rows with a weight [columns, k]: each lane computes four columns, and all lanes read the same numbers of A. */
export function matvecKernel(shape: MatmulShape, places: MatmulPlaces, facts: AdapterFacts): Kernel {
  const lanes = facts.subgroupSize || 32;
  const rows = rowClass(shape.rows);
  const terms = range(4).flatMap((i) =>
    range(rows).map(
      (r) => `    s${r} = fma(vec4f(a${r}[${i}]), vec4f(b0[${i}], b1[${i}], b2[${i}], b3[${i}]), s${r});`,
    ),
  );
  return productKernel(shape, places, {
    name: `matrix-vector ${lanes} ${rows}`,
    operands: operands(shape),
    tile: [rows, 4 * lanes],
    workgroupSize: lanes,
    vec4: shape.columns % 4 === 0,
    rounds: true,
    body: () => [
      "  let first = column + lane * 4u;",
      "  if (first >= sizes.columns) { return; }",
      ...range(rows).map(
        (r) => `  let aRow${r} = aFirst + min(${r}u, sizes.rows - 1u); let aStart${r} = aRow${r} * sizes.k;`,
      ),
      ...range(4).map(
        (c) =>
          `  let bRow${c} = bFirst + min(first + ${c}u, sizes.columns - 1u); let bStart${c} = bRow${c} * sizes.k;`,
      ),
      ...range(rows).map((r) => `  var y${r} = vec4f();`),
      `  for (var slice = ${places.from}; slice < to; slice += ${sliceLength}u) {`,
      `  let end = min(slice + ${sliceLength}u, to);`,
      ...range(rows).map((r) => `  var s${r} = vec4f();`),
      "  for (var k = slice; k < end; k += 4u) {",
      ...range(rows).map((r) => `    let a${r} = aFour(aRow${r}, aStart${r}, k);`),
      ...range(4).map((c) => `    let b${c} = bFour(bRow${c}, bStart${c}, k);`),
      ...terms,
      "  }",
      ...range(rows).map((r) => `  y${r} += s${r};`),
      "  }",
      ...range(rows).map((r) => `  storeFour(cFirst, ${r}u, first, y${r});`),
      `  finishRows(cFirst, 0u, ${rows}u, first);`,
    ],
  });
}
