// Extracted from chapters/03-moe/6-shared-fine-grained-upcycled.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import { parameter } from "../tensor/autograd.js";
import { PackedWeight, type Weight } from "../tensor/products.js";
import { normals, streamOf, uniforms } from "../tensor/random.js";
import { sizeOf, tensor } from "../tensor/tensor.js";
import { modelFamilies, weightsOf } from "./families.js";
import { type SaveSettings, type StoredTensor, storedNumbers, weightsFiles } from "./stored.js";
import { type Model, type ModelWeight, buildModel, initialValues, partAt } from "./structure.js";

//| 03-moe/6-shared-fine-grained-upcycled.ipynb#upcycle-settings
/** How a dense model becomes a sparse one. */
export interface UpcycleSettings {
  /** Of what begins fresh: the routers, and what is renewed. */
  seed: number;
  /** The share of each expert's inner numbers that begins fresh, from 0 to 1, so that experts differ from the start; 0 unless given. */
  renewed?: number;
}

//| 03-moe/6-shared-fine-grained-upcycled.ipynb#check-upcycling
/** What may differ between a dense model and the sparse one that is made of it. */
export const freeSettings = ["modelType", "moe", "intermediateSize", "initializerRange", "contextLength"];

/** Throws one sentence unless a sparse configuration says of everything but the experts what the dense one says. */
export function checkUpcycling(dense: ModelConfig, sparse: ModelConfig): void {
  if (!sparse.moe) throw new Error(`A ${sparse.modelType} model of this configuration has no experts.`);
  const kept = ([key]: [string, unknown]) =>
    !freeSettings.includes(key) && !key.endsWith("TokenId") && !key.endsWith("TokenIds");
  const all = { ...dense, ...sparse } as unknown as Record<string, unknown>;
  for (const [key] of Object.entries(all).filter(kept)) {
    const [one, other] = [dense, sparse].map((config) =>
      JSON.stringify((config as unknown as typeof all)[key]),
    );
    if (one !== other)
      throw new Error(
        `The models differ in more than experts: ${key} is ${one} in the dense one, ${other} in the sparse one.`,
      );
  }
  const paths = new Set(weightsOf(sparse).map(({ path }) => path));
  const lost = weightsOf(dense).find(({ path }) => !paths.has(path));
  if (lost) throw new Error(`The sparse model has no place for the dense model's ${lost.name}.`);
}

//| 03-moe/6-shared-fine-grained-upcycled.ipynb#renew
/** The inner numbers of an expert that begin fresh: a share of them, in random order; the same for its gate, up and down. */
export function renewedNumbers(
  layer: string,
  expert: number,
  inner: number,
  { seed, renewed = 0 }: UpcycleSettings,
): number[] {
  const draws = uniforms(seed, inner, streamOf(`${layer} ${expert}`));
  const order = Array.from(draws.keys()).sort((a, b) => draws[a] - draws[b]);
  return order.slice(0, Math.round(renewed * inner));
}

/** Draws the weights of some inner numbers of an expert's matrix [outputs, inputs] anew, as large on average as the matrix is. */
export function renew(
  matrix: Float32Array,
  { path, role, shape: [, outputs, inputs] }: ModelWeight,
  expert: number,
  settings: UpcycleSettings,
): void {
  const isColumn = role === "residual"; // the down projection, whose inputs are the inner numbers
  const size = Math.sqrt(matrix.reduce((sum, value) => sum + value * value, 0) / matrix.length);
  const fresh = normals(settings.seed, matrix.length, streamOf(`${path} ${expert}`));
  const layer = path.slice(0, path.lastIndexOf(".feedForward."));
  for (const i of renewedNumbers(layer, expert, isColumn ? inputs : outputs, settings))
    for (let j = 0; j < (isColumn ? outputs : inputs); j++) {
      const at = isColumn ? j * inputs + i : i * inputs + j;
      matrix[at] = size * fresh[at];
    }
}

//| 03-moe/6-shared-fine-grained-upcycled.ipynb#upcycled-values
/** A weight of the dense model. */
export interface DenseWeight {
  shape: readonly number[];
  values: Float32Array;
}

/** The values with which a sparse model's weight begins, from the dense model's at the same path, where it has one there. */
export function upcycledValues(
  config: ModelConfig,
  weight: ModelWeight,
  dense: DenseWeight | undefined,
  settings: UpcycleSettings,
): Float32Array {
  const { shape, role, path } = weight;
  const size = sizeOf(shape);
  if (!dense)
    return role === "residual" ? new Float32Array(size) : initialValues(config, weight, settings.seed);
  if (dense.shape.join() === shape.join()) return dense.values;
  const [experts, ...own] = shape;
  if (own.join() !== dense.shape.join())
    throw new Error(
      `The dense model's ${path} is [${dense.shape.join(", ")}], but an expert's is [${own.join(", ")}].`,
    );
  const values = new Float32Array(size);
  for (let expert = 0; expert < experts; expert++) {
    const copy = values.subarray(expert * dense.values.length, (expert + 1) * dense.values.length);
    copy.set(dense.values);
    if (own.length === 2) renew(copy, weight, expert, settings);
  }
  return values;
}

//| 03-moe/6-shared-fine-grained-upcycled.ipynb#upcycle
/**
 * A sparse model of the given configuration that begins as the dense one: each expert is a copy of the dense feed-forward layer.
 * Where the weights of a token's experts add up to 1 (`norm_topk_prob`) and nothing is renewed, it computes what the dense one
 * does. Throws one sentence if the two differ in more than experts. Source: Komatsuzaki and others, "Sparse Upcycling", 2022.
 */
export async function upcycle(dense: Model, config: ModelConfig, settings: UpcycleSettings): Promise<Model> {
  checkUpcycling(dense.config, config);
  const held = new Map<string, DenseWeight>();
  for (const { path, name } of weightsOf(dense.config)) {
    const weight = partAt(dense, path) as Weight;
    if (weight instanceof PackedWeight)
      throw new Error(`The weight ${name} is packed (${weight.format.name}): open the dense model in f32.`);
    held.set(path, { shape: weight.shape, values: await weight.array() });
  }
  return buildModel(config, modelFamilies[config.modelType], (weight) =>
    parameter(tensor(upcycledValues(config, weight, held.get(weight.path), settings), weight.shape)),
  );
}

//| 03-moe/6-shared-fine-grained-upcycled.ipynb#upcycled-pieces
/** The files of an upcycled model piece by piece, from the tensors of a dense one. Throws as `upcycle` does. */
export function upcycledPieces(
  dense: { config: ModelConfig; tensors: Map<string, StoredTensor> },
  config: ModelConfig,
  settings: UpcycleSettings & SaveSettings,
): Record<string, Iterable<Uint8Array> | string> {
  checkUpcycling(dense.config, config);
  const held = new Map(weightsOf(dense.config).map((weight) => [weight.path, weight]));
  const valuesOf = (weight: ModelWeight) => {
    const source = held.get(weight.path);
    const own = source && { shape: source.shape, values: storedNumbers(source, dense.tensors) };
    return upcycledValues(config, weight, own, settings);
  };
  return weightsFiles(config, valuesOf, settings);
}
