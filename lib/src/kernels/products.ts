// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.
import type { Storage } from "../gpu/buffers.js";
import { allocate, release } from "../gpu/commands.js";
import type { AdapterFacts } from "../gpu/device.js";
import type { Kernel } from "../gpu/kernel.js";
import { fastestVariant, tunerChoices } from "../gpu/tuner.js";
import { matvecKernel, suitsMatvec } from "./matvec.js";
import {
  type MatmulPlaces,
  type MatmulShape,
  batchPlaces,
  f32Format,
  matmulName,
  sliceLength,
} from "./operands.js";
import { hasSubgroupMatrix, subgroupMatrixKernel, unitTile } from "./subgroup-matrix.js";
import { subgroupMatmulKernel } from "./subgroup.js";
import { tileRows, tiledMatmulKernel } from "./tiled.js";
import { prefersSubgroups } from "./wgsl.js";

//| 02-attention/2-matrix-products.ipynb#choose
/** Multiply-adds of a batch of products. */
export function multiplyAdds({ batch, rows, columns, k }: MatmulShape): number {
  return batch * rows * columns * k;
}

/** Whether a product has so much to do that what takes its time to begin is soon made up for. */
export function isLarge(shape: MatmulShape): boolean {
  return multiplyAdds(shape) >= 2 ** 23;
}

/** The tallest tile that the rule of thumb may choose: whoever computes little sets it lower, for tall ones are slow to compile. */
export const tallestTile = { rows: 32 };

/**
 * The heights of the subgroup's tile that a product can have, the rule of thumb's first. A tall tile loads less, and takes
 * longer to compile: for small products it is not worth it.
 */
export function subgroupHeights(shape: MatmulShape, lanes: number): number[] {
  const { rows, invariant } = shape;
  const tall = invariant && rows <= 8 ? 8 : rows <= 16 || !isLarge(shape) ? 16 : 32;
  const suitable = rows <= 4 || multiplyAdds(shape) < 2 ** 18 ? 4 : tall;
  const usual = Math.min(suitable, tallestTile.rows);
  const fits = (height: number) =>
    height <= 4 * lanes && !(shape.invariant && (4 * lanes) / height > sliceLength); // a slice is whole rounds
  const possible = (invariant ? [32, 16, 8, 4] : [32, 16, 4]).filter(fits);
  return [...possible.filter((height) => height <= usual), ...possible.filter((height) => height > usual)];
}

/** Rows of C that one workgroup computes on a graphics processor. */
export function matmulRowTile(facts: AdapterFacts, f16 = false): number {
  return f16 && hasSubgroupMatrix(facts) ? unitTile : tileRows;
}

//| 02-attention/2-matrix-products.ipynb#placed-kernel
/** The kernel that suits the adapter by a rule of thumb, for matrices at given places; on a processor, of `rows` rows. */
export function placedMatmulKernel(
  shape: MatmulShape,
  places: MatmulPlaces,
  facts: AdapterFacts,
  rows: number,
): Kernel {
  if (shape.f16 && hasSubgroupMatrix(facts)) return subgroupMatrixKernel(shape, places);
  if (!prefersSubgroups(facts)) return tiledMatmulKernel(shape, places);
  const tile = { lanes: facts.subgroupSize, rows, textures: isLarge(shape) };
  return subgroupMatmulKernel(shape, places, tile);
}

//| 02-attention/2-matrix-products.ipynb#variants
/** The kernels for a batch of products that this adapter can run, by name; the first is the rule of thumb's choice. */
export function matmulVariants(shape: MatmulShape, facts: AdapterFacts): Record<string, () => Kernel> {
  const lanes = facts.subgroupSize;
  const places = batchPlaces(shape);
  const heights = lanes < 4 ? [] : subgroupHeights(shape, lanes);
  const textures = prefersSubgroups(facts) && isLarge(shape);
  const subgroups = heights.map((rows): [string, () => Kernel] => [
    `subgroup, ${rows} rows`,
    () => subgroupMatmulKernel(shape, places, { lanes, rows, textures }),
  ]);
  const tiled: [string, () => Kernel] = ["tiled", () => tiledMatmulKernel(shape, places)];
  const onUnits = shape.f16 && hasSubgroupMatrix(facts);
  if (onUnits && shape.invariant) return { "matrix units": () => subgroupMatrixKernel(shape, places) };
  return Object.fromEntries([
    ...(suitsMatvec(shape, facts)
      ? [["matrix-vector", () => matvecKernel(shape, places, facts)] as const]
      : []),
    ...(onUnits ? [["matrix units", () => subgroupMatrixKernel(shape, places)] as const] : []),
    ...(prefersSubgroups(facts) ? [...subgroups, tiled] : [tiled, ...subgroups]),
  ]);
}

//| 02-attention/2-matrix-products.ipynb#products
/** Products that were asked for and that the tuner has not measured, by its question. */
export const unmeasured = new Map<string, MatmulShape>();

/** What the tuner wants to know: adapter, operation and shape, without what the epilogue adds. */
export function matmulQuestion(shape: MatmulShape, facts: AdapterFacts): string {
  const product = matmulName(batchPlaces(shape), { ...shape, epilogue: undefined });
  return `${facts.name}: ${product}${shape.sharedB ? ", one B" : ""}`;
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

/** Memory for a product without bias and residual, which its kernels are given something else for. */
export function matmulStorages(shape: MatmulShape): Storage[] {
  const { batch, rows, columns, k, sharedB, transposeB, format = f32Format } = shape;
  const [storedRows, length] = transposeB ? [columns, k] : [k, columns];
  const wholeWords = (bytes: number) => 4 * Math.ceil(bytes / 4);
  const bytesB = format
    .rowBytes(length)
    .map((bytes) => wholeWords((sharedB ? 1 : batch) * storedRows * bytes));
  const [a, ...b] = [batch * rows * k * 4, ...bytesB].map((bytes) => allocate(bytes));
  const unused = format === f32Format ? b[0] : a;
  return [a, ...b, unused, unused, allocate(4 * batch * rows * columns)];
}

/** Measures all products that were asked for so far. From then on `matmulKernel` takes the fastest. */
export async function tuneProducts(
  facts: AdapterFacts,
  onMeasured: (product: MeasuredProduct, left: number) => void = () => {},
): Promise<MeasuredProduct[]> {
  const measured: MeasuredProduct[] = [];
  for (const [question, asked] of unmeasured) {
    unmeasured.delete(question);
    const shape = { ...asked, epilogue: undefined };
    const variants = Object.entries(matmulVariants(shape, facts)).map(([name, build]) => [name, build()]);
    const storages = matmulStorages(shape);
    const found = await fastestVariant(question, Object.fromEntries(variants), storages);
    for (const storage of new Set(storages)) release(storage);
    const product = { question, usual: String(variants[0][0]), fastest: found.name, seconds: found.seconds };
    measured.push(product);
    onMeasured(product, unmeasured.size);
  }
  return measured;
}
