// Extracted from chapters/03-moe/2-dispatch.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import type { Kernel } from "../gpu/kernel.js";
import { type DispatchShape, dispatchTiles, nobody } from "./dispatch.js";
import type { MatmulPlaces, MatmulShape } from "./matmul.js";
import { placedMatmulKernel, subgroupHeights } from "./products.js";

//| 03-moe/2-dispatch.ipynb#grouped-places
/** The matrices of one product of grouped rows: row tile `group.y` of A times the matrix of the expert that owns it. */
export function groupedPlaces(experts: number): MatmulPlaces {
  return {
    name: "grouped matmul",
    reads: ["owners: array<u32>"],
    before: `  let expert = owners[group.y];\n  if (expert == ${nobody}u) { return; }`,
    a: "0u",
    b: "expert * sizes.inner * sizes.columns",
    c: "0u",
    from: "0u",
    to: "sizes.inner",
    shares: experts,
  };
}

//| 03-moe/2-dispatch.ipynb#grouped-matmul
/** The sizes of a product of grouped rows. */
export interface GroupedShape {
  columns: number;
  inner: number;
  /** The experts' matrices are stored as [columns, inner], as the weights of linear layers are. */
  transposeB: boolean;
  /** Operands are rounded to 16 bits. */
  halves?: boolean;
}

//| 03-moe/2-dispatch.ipynb#grouped-matmul-kernel
/**
 * Rows sorted by expert times each expert's own matrix, tile by tile as `owners` says: rows [rows, inner] and weight
 * [experts, columns, inner] (or [experts, inner, columns]) give [rows, columns]. Rows of tiles that nobody owns are
 * not written.
 */
export function groupedMatmulKernel(
  shape: DispatchShape,
  grouped: GroupedShape,
  facts: AdapterFacts,
): Kernel {
  const matrices: MatmulShape = { batch: 1, rows: dispatchTiles(shape) * shape.tile, ...grouped };
  return placedMatmulKernel(matrices, groupedPlaces(shape.experts), facts, shape.tile);
}

//| 03-moe/2-dispatch.ipynb#grouped-weights
/**
 * The gradient of every expert's weight [experts, outputs, inners]: the transpose of its rows of gradient [rows, outputs]
 * times its rows of x [rows, inners]. The inner dimension runs over the expert's segment of rows; an expert without rows
 * gets zeros. Rows of padding must be zero in at least one of the two and finite in both.
 */
export function groupedWeightKernel(
  shape: DispatchShape,
  { outputs, inners, halves }: { outputs: number; inners: number; halves?: boolean },
  facts: AdapterFacts,
): Kernel {
  const inner = dispatchTiles(shape) * shape.tile;
  const matrices = { batch: shape.experts, rows: outputs, columns: inners, inner, transposeA: true, halves };
  const places: MatmulPlaces = {
    name: "grouped weight gradient",
    reads: ["segments: array<u32>"],
    before: "",
    a: "0u",
    b: "0u",
    c: "group.z * sizes.rows * sizes.columns",
    from: "segments[group.z * 2u]",
    to: "segments[group.z * 2u + 1u]",
    shares: 1,
  };
  const [height] = subgroupHeights(matrices, facts.subgroupSize);
  return placedMatmulKernel(matrices, places, facts, height);
}
