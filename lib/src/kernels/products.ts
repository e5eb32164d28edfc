// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.
import { allocate, release } from "../gpu/commands.js";
import type { AdapterFacts } from "../gpu/device.js";
import type { Kernel } from "../gpu/kernel.js";
import { fastestVariant, tunerChoices } from "../gpu/tuner.js";
import {
  type MatmulPlaces,
  type MatmulShape,
  batchPlaces,
  matmulName,
  prefersSubgroups,
  subgroupMatmulKernel,
  tileRows,
  tiledMatmulKernel,
} from "./matmul.js";
import { hasSubgroupMatrix, subgroupMatrixKernel, unitTile } from "./subgroup-matrix.js";

//| 02-attention/2-matrix-products.ipynb#choose
/** Multiply-adds of a batch of products. */
export function multiplyAdds({ batch, rows, columns, inner }: MatmulShape): number {
  return batch * rows * columns * inner;
}

/** Whether a product has so much to do that what takes its time to begin is soon made up for. */
export function isLarge(shape: MatmulShape): boolean {
  return multiplyAdds(shape) >= 2 ** 23;
}

/**
 * The heights of the subgroup's tile that a product can have, the rule of thumb's first. A tall tile loads less, and takes
 * longer to compile: for small products it is not worth it.
 */
export function subgroupHeights(shape: MatmulShape, lanes: number): number[] {
  const { rows } = shape;
  const usual = rows <= 4 || multiplyAdds(shape) < 2 ** 18 ? 4 : rows <= 16 || !isLarge(shape) ? 16 : 32;
  const possible = [32, 16, 4].filter((height) => height <= 4 * lanes);
  return [...possible.filter((height) => height <= usual), ...possible.filter((height) => height > usual)];
}

/** Rows of C that one workgroup computes on a graphics processor. */
export function matmulRowTile(facts: AdapterFacts, halves = false): number {
  return halves && hasSubgroupMatrix(facts) ? unitTile : tileRows;
}

/** The kernel that suits the adapter by a rule of thumb, for matrices at given places; on a processor, of `rows` rows. */
export function placedMatmulKernel(
  shape: MatmulShape,
  places: MatmulPlaces,
  facts: AdapterFacts,
  rows: number,
): Kernel {
  if (shape.halves && hasSubgroupMatrix(facts)) return subgroupMatrixKernel(shape, places);
  if (!prefersSubgroups(facts)) return tiledMatmulKernel(shape, places);
  const tile = { lanes: facts.subgroupSize, rows, images: isLarge(shape) };
  return subgroupMatmulKernel(shape, places, tile);
}

//| 02-attention/2-matrix-products.ipynb#variants
/** The kernels for a batch of products that this adapter can run, by name; the first is the rule of thumb's choice. */
export function matmulVariants(shape: MatmulShape, facts: AdapterFacts): Record<string, () => Kernel> {
  const lanes = facts.subgroupSize;
  const places = batchPlaces(shape);
  const heights = lanes < 4 ? [] : subgroupHeights(shape, lanes);
  const images = prefersSubgroups(facts) && isLarge(shape);
  const subgroups = heights.map((rows): [string, () => Kernel] => [
    `subgroup, ${rows} rows`,
    () => subgroupMatmulKernel(shape, places, { lanes, rows, images }),
  ]);
  const tiled: [string, () => Kernel] = ["tiled", () => tiledMatmulKernel(shape, places)];
  const onUnits = shape.halves && hasSubgroupMatrix(facts);
  return Object.fromEntries([
    ...(onUnits ? [["matrix units", () => subgroupMatrixKernel(shape, places)] as const] : []),
    ...(prefersSubgroups(facts) ? [...subgroups, tiled] : [tiled, ...subgroups]),
  ]);
}

//| 02-attention/2-matrix-products.ipynb#products
/** Products that were asked for and that the tuner has not measured, by its question. */
export const unmeasured = new Map<string, MatmulShape>();

/** What the tuner wants to know: adapter, operation and shape. */
export function matmulQuestion(shape: MatmulShape, facts: AdapterFacts): string {
  return `${facts.name}: ${matmulName(batchPlaces(shape), shape)}${shape.sharedB ? ", one B" : ""}`;
}

/** The kernel for a batch of products: the one that the tuner found fastest, or the rule of thumb's. */
export function matmulKernel(shape: MatmulShape, facts: AdapterFacts): Kernel {
  const question = matmulQuestion(shape, facts);
  const variants = matmulVariants(shape, facts);
  const usual = Object.keys(variants)[0];
  if (!(question in tunerChoices)) unmeasured.set(question, shape);
  return (variants[tunerChoices[question]] ?? variants[usual])();
}

//| 02-attention/2-matrix-products.ipynb#tune-products
/** A measured product: what the rule of thumb says, what was fastest, and the seconds of each. */
export interface MeasuredProduct {
  question: string;
  usual: string;
  fastest: string;
  seconds: Record<string, number>;
}

/** Floats in each array of a product: A, B, what the epilogue reads, and C. */
export function matmulSizes({ batch, rows, columns, inner, sharedB, epilogue = {} }: MatmulShape): number[] {
  return [
    batch * rows * inner,
    (sharedB ? 1 : batch) * inner * columns,
    ...(epilogue.bias ? [columns] : []),
    ...(epilogue.residual ? [batch * rows * columns] : []),
    batch * rows * columns,
  ];
}

/** Measures all products that were asked for so far. From then on `matmulKernel` takes the fastest. */
export async function tuneProducts(
  facts: AdapterFacts,
  onMeasured: (product: MeasuredProduct, left: number) => void = () => {},
): Promise<MeasuredProduct[]> {
  const measured: MeasuredProduct[] = [];
  for (const [question, shape] of unmeasured) {
    unmeasured.delete(question);
    const variants = Object.entries(matmulVariants(shape, facts)).map(([name, build]) => [name, build()]);
    const storages = matmulSizes(shape).map((size) => allocate(4 * size));
    const found = await fastestVariant(question, Object.fromEntries(variants), storages);
    for (const storage of storages) release(storage);
    const product = { question, usual: String(variants[0][0]), fastest: found.name, seconds: found.seconds };
    measured.push(product);
    onMeasured(product, unmeasured.size);
  }
  return measured;
}
