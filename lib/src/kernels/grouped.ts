// Extracted from chapters/03-moe/2-dispatch.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import { type Kernel, kernel } from "../gpu/kernel.js";
import { type DispatchShape, dispatchTiles, padding } from "./dispatch.js";
import type { Epilogue, MatmulPlaces, MatmulShape, OperandFormat } from "./operands.js";
import { matmulRowTile, placedMatmulKernel, subgroupHeights } from "./products.js";
import { prefersSubgroups, vectorAlias, vectorWidth } from "./wgsl.js";

//| 03-moe/2-dispatch.ipynb#grouped-places
/** The matrices of one product of grouped rows: row tile `group.y` of A times the matrix of the expert that owns it. */
export function groupedPlaces(experts: number): MatmulPlaces {
  return {
    name: "grouped matmul",
    reads: ["owners: array<u32>"],
    before: `  let expert = owners[group.y];\n  if (expert == ${padding}u) { return; }`,
    a: "0u",
    b: "expert",
    c: "0u",
    from: "0u",
    to: "sizes.k",
    matrices: experts,
    bias: "expert * sizes.columns",
  };
}

//| 03-moe/2-dispatch.ipynb#grouped-matmul
/** The sizes of a product of grouped rows. */
export interface GroupedShape {
  columns: number;
  /** The inner dimension. */
  k: number;
  /** The experts' matrices are stored as [columns, k], as the weights of linear layers are. */
  transposeB: boolean;
  /** Operands are rounded to 16 bits. */
  f16?: boolean;
  /** How the experts' numbers are stored: as 32-bit floats unless given. */
  format?: OperandFormat;
  /** See `MatmulShape`. */
  invariant?: boolean;
  /** Whether each expert's bias [experts, columns] is added to its rows. */
  epilogue?: Pick<Epilogue, "bias">;
}

//| 03-moe/2-dispatch.ipynb#grouped-matmul-kernel
/**
 * Rows sorted by expert times each expert's own matrix, tile by tile as `owners` says: rows [rows, k] and weight
 * [experts, columns, k] (or [experts, k, columns]) give [rows, columns]. Rows of tiles that nobody owns are
 * not written. Works on rows, the arrays of the weight, owners, the bias or what stands in its place, an input that is not used,
 * and the result. Throws where a workgroup
 * would compute more or fewer rows than a tile has.
 */
export function groupedMatmulKernel(
  shape: DispatchShape,
  grouped: GroupedShape,
  facts: AdapterFacts,
): Kernel {
  const rowTile = prefersSubgroups(facts) ? shape.tile : matmulRowTile(facts, grouped.f16);
  if (shape.tile !== rowTile)
    throw new Error(
      `Rows were sorted into tiles of ${shape.tile}, and this product computes ${rowTile} at a time.`,
    );
  const matrices: MatmulShape = { batch: 1, rows: dispatchTiles(shape) * shape.tile, ...grouped };
  return placedMatmulKernel(matrices, groupedPlaces(shape.experts), facts, shape.tile);
}

//| 03-moe/2-dispatch.ipynb#grouped-weights
/**
 * The gradient of every expert's weight [experts, outputs, inputs]: the transpose of its rows of gradient [rows, outputs]
 * times its rows of x [rows, inputs]. The inner dimension runs over the expert's segment of rows; an expert without rows
 * gets zeros. Rows of padding must be zero in at least one of the two and finite in both.
 */
export function groupedWeightKernel(
  shape: DispatchShape,
  { outputs, inputs, f16 }: { outputs: number; inputs: number; f16?: boolean },
  facts: AdapterFacts,
): Kernel {
  const k = dispatchTiles(shape) * shape.tile;
  const matrices = { batch: shape.experts, rows: outputs, columns: inputs, k, transposeA: true, f16 };
  const places: MatmulPlaces = {
    name: "grouped weight gradient",
    reads: ["segments: array<u32>"],
    before: "",
    a: "0u",
    b: "0u",
    c: "group.z",
    from: "segments[group.z * 2u]",
    to: "segments[group.z * 2u + 1u]",
    matrices: 1,
  };
  const [height] = subgroupHeights(matrices, facts.subgroupSize);
  return placedMatmulKernel(matrices, places, facts, height);
}

//| 03-moe/2-dispatch.ipynb#grouped-bias
/**
 * The gradient of every expert's bias [experts, columns]: the sum of its rows of gradient [rows, columns], in their order.
 * Rows of padding must be zero; an expert without rows gets zeros.
 */
export function groupedBiasKernel({ experts }: DispatchShape, outputs: number): Kernel {
  const element = vectorWidth(outputs);
  const columns = outputs / element;
  return kernel({
    name: `grouped bias gradient ${experts}x${outputs}`,
    reads: ["gradient: array<V>", "segments: array<u32>"],
    writes: ["bias: array<V>"],
    head: vectorAlias(element),
    sizes: { columns },
    workgroupSize: 64,
    workgroups: Math.ceil((experts * columns) / 64),
    body: `
  if (thread >= arrayLength(&bias)) { return; }
  let expert = thread / sizes.columns;
  var sum = V();
  for (var row = segments[expert * 2u]; row < segments[expert * 2u + 1u]; row++) {
    sum += gradient[row * sizes.columns + thread % sizes.columns];
  }
  bias[thread] = sum;`,
  });
}
