// Extracted from chapters/03-moe/a-files-of-weights.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import {
  type SafetensorsTensor,
  joinedBytes,
  orderTensors,
  readSafetensors,
  safetensorsHeaderBytes,
  toFloat32,
} from "../formats/safetensors.js";
import { sizeOf } from "../tensor/tensor.js";
import { modelFamilies, weightsOf } from "./families.js";
import type { ModelFamily, ModelWeight, Role } from "./structure.js";

//| 03-moe/a-files-of-weights.ipynb#stored-layout
/** How the numbers of a weight (of one expert, where each has a tensor) lie in a tensor of the file. */
export interface StoredLayout {
  stacks: number;
  rows: number;
  columns: number;
  /** Of the tensor's `of` rows: from `first` on `run` rows, and so on every `step` rows. */
  first: number;
  step: number;
  run: number;
  of: number;
  transposed: boolean;
}

/** What stands in a file as a vector, one for each expert perhaps. */
export const vectorRoles: Role[] = ["norm", "bias", "buffer"];

/** The layout of a weight in its file. Norms and biases have rows of one number. */
export function storedLayout({
  role,
  shape,
  perExpert,
  transposed,
  rows: stored,
}: ModelWeight): StoredLayout {
  const part = perExpert ? shape.slice(1) : shape;
  const isVector = vectorRoles.includes(role);
  const columns = isVector ? 1 : part[part.length - 1];
  const rows = isVector ? part[part.length - 1] : part[part.length - 2];
  const { first, of, step = 1, run = 1 } = stored ?? { first: 0, of: rows };
  return { stacks: sizeOf(part) / (rows * columns), rows, columns, first, step, run, of, transposed };
}

/** The shape of the tensor in the file. */
export function storedShape({ role, shape, perExpert, transposed, rows }: ModelWeight): number[] {
  const part = perExpert ? shape.slice(1) : [...shape];
  const rowsAt = part.length - (vectorRoles.includes(role) ? 1 : 2);
  if (rows) part[rowsAt] = rows.of;
  if (transposed) part.push(...part.splice(-2).reverse());
  return part;
}

//| 03-moe/a-files-of-weights.ipynb#copy-stored
/** Whether the tensor of the file is the weight as it stands. */
export function isPlain({ rows, of, transposed }: StoredLayout): boolean {
  return rows === of && !transposed;
}

/** Calls `move(inFile, inWeight)` for each number: its place in the tensor of the file, and its place in the weight. */
export function eachStored(layout: StoredLayout, move: (inFile: number, inWeight: number) => void): void {
  const { stacks, rows, columns, first, step, run, of, transposed } = layout;
  const [rowStride, columnStride] = transposed ? [1, of] : [columns, 1];
  for (let stack = 0; stack < stacks; stack++)
    for (let r = 0; r < rows; r++)
      for (let c = 0; c < columns; c++) {
        const row = first + Math.floor(r / run) * step + (r % run);
        const inFile = stack * of * columns + row * rowStride + c * columnStride;
        move(inFile, (stack * rows + r) * columns + c);
      }
}

/** Copies a weight's part out of a tensor of the file. */
export function takeStored(layout: StoredLayout, stored: Float32Array, part: Float32Array): void {
  if (isPlain(layout)) part.set(stored);
  else
    eachStored(layout, (inFile, inWeight) => {
      part[inWeight] = stored[inFile];
    });
}

/** Copies a weight's part into a tensor of the file. */
export function putStored(layout: StoredLayout, stored: Float32Array, part: Float32Array): void {
  if (isPlain(layout)) stored.set(part);
  else
    eachStored(layout, (inFile, inWeight) => {
      stored[inFile] = part[inWeight];
    });
}

//| 03-moe/a-files-of-weights.ipynb#file-tensors
/** A tensor in the file of a model: its shape, and the weights (of which expert) that it holds. */
export interface FileTensor {
  shape: number[];
  holds: { weight: ModelWeight; expert: number }[];
}

/** The tensors in the file of a model, by name, in the order of its weights. */
export function fileTensors(weights: ModelWeight[]): Map<string, FileTensor> {
  const tensors = new Map<string, FileTensor>();
  for (const weight of weights) {
    const shape = storedShape(weight);
    weight.files.forEach((name, expert) => {
      const tensor = tensors.get(name) ?? { shape, holds: [] };
      tensor.holds.push({ weight, expert });
      tensors.set(name, tensor);
    });
  }
  return tensors;
}

//| 03-moe/a-files-of-weights.ipynb#merge-files
/** A tensor in a file, whose bytes are read when they are asked for. */
export interface StoredTensor {
  dtype: SafetensorsTensor["dtype"];
  shape: number[];
  read: () => Uint8Array;
}

//| 03-moe/a-files-of-weights.ipynb#merge-files-helpers
/** The tensors in the bytes of a safetensors file. */
export function storedTensors(bytes: Uint8Array): Map<string, StoredTensor> {
  const { tensors } = readSafetensors(bytes);
  return new Map(
    [...tensors].map(([name, { dtype, shape, data }]) => [name, { dtype, shape, read: () => data }]),
  );
}

/** The tensors of a model's files together. Throws if two files hold a tensor of the same name. */
export function mergeFiles(files: Map<string, StoredTensor>[]): Map<string, StoredTensor> {
  const merged = new Map<string, StoredTensor>();
  for (const file of files)
    for (const [name, stored] of file) {
      if (merged.has(name)) throw new Error(`The weight ${name} stands in two files.`);
      merged.set(name, stored);
    }
  return merged;
}

//| 03-moe/a-files-of-weights.ipynb#some-of
/** Names some of many: all up to three, else the first and how many more there are. */
export function someOf(names: string[]): string {
  const short = names.slice(0, 3).map((name) => (name.length <= 100 ? name : `${name.slice(0, 99)}…`));
  return names.length <= 3 ? short.join(", ") : `${short[0]} and ${names.length - 1} more`;
}

/** The name in a file of what stands at a path of the structure, whether or not this model has it. */
export function fileNameOf({ modelType }: ModelConfig, path: string): string | undefined {
  return modelFamilies[modelType].entries.find((entry) => entry.path === path)?.file;
}

/** The tensors that files of a model may carry beside its weights: those of its family, and the output layer when tied. */
export function redundantNames(config: ModelConfig): Set<string> {
  const { redundant = [] } = modelFamilies[config.modelType];
  const head = config.tied ? fileNameOf(config, "head.weight") : undefined;
  const inLayers = Array.from({ length: config.layers }, (_, layer) =>
    redundant.map((name) => name.replace("*", String(layer))),
  );
  return new Set([...inLayers.flat(), ...(head ? [head] : [])]);
}

//| 03-moe/a-files-of-weights.ipynb#check-tensors
/** Throws one sentence unless the file has exactly the tensors that the configuration calls for, in their shapes. */
export function checkTensors(
  config: ModelConfig,
  tensors: Map<string, StoredTensor>,
  expected: Map<string, FileTensor>,
): void {
  const missing = [...expected.keys()].filter((name) => !tensors.has(name));
  if (missing.length > 0) throw new Error(`The weights are incomplete: ${someOf(missing)} missing.`);
  const redundant = redundantNames(config);
  const extra = [...tensors.keys()].filter((name) => !expected.has(name) && !redundant.has(name));
  if (extra.length > 0) throw new Error(`The configuration has no place for the weights ${someOf(extra)}.`);
  for (const [name, { shape }] of expected) {
    const given = tensors.get(name)!.shape;
    if (given.join() !== shape.join())
      throw new Error(
        `The weight ${name} is [${given.join(", ")}], but the configuration wants [${shape.join(", ")}].`,
      );
  }
}

//| 03-moe/a-files-of-weights.ipynb#with-prefix
/** The tensors of a file under the names of the family's table, some of whose files leave out a prefix. */
export function completeNames(
  tensors: Map<string, StoredTensor>,
  { optionalPrefix: prefix, entries }: ModelFamily,
): Map<string, StoredTensor> {
  const names = [...tensors.keys()];
  if (prefix === undefined || names.some((name) => name.startsWith(prefix))) return tensors;
  const whole = new Set(entries.map(({ file }) => file)); // names that have no prefix anywhere
  return new Map([...tensors].map(([name, stored]) => [whole.has(name) ? name : prefix + name, stored]));
}

//| 03-moe/a-files-of-weights.ipynb#settle-head
/** The numbers of a named tensor as f32. */
export function numbersOf(name: string, { dtype, shape, read }: StoredTensor): Float32Array {
  const data = read();
  try {
    return toFloat32({ dtype, shape, data });
  } catch (error) {
    throw new Error(`The weight ${name}: ${(error as Error).message}`);
  }
}

/** Whether two tensors of a file hold the same numbers. */
export function sameNumbers(name: string, one: StoredTensor, other: StoredTensor): boolean {
  if (one.shape.join() !== other.shape.join()) return false;
  const others = numbersOf(name, other);
  return numbersOf(name, one).every((value, i) => value === others[i]);
}

/**
 * Holds the output layer of a tied configuration against the tensors of the file. One with other values than the embedding is
 * used, and said; where it is all there is, it becomes the embedding (in `tensors`). So does transformers.
 */
export function settleHead(
  config: ModelConfig,
  tensors: Map<string, StoredTensor>,
): { config: ModelConfig; warnings: string[] } {
  const [source, target] = [fileNameOf(config, "embedding")!, fileNameOf(config, "head.weight")];
  const embedding = tensors.get(source);
  const head = target === undefined ? undefined : tensors.get(target);
  if (!config.tied || !target || !head) return { config, warnings: [] };
  if (!embedding) tensors.set(source, head);
  if (!embedding || sameNumbers(target, embedding, head)) return { config, warnings: [] };
  const warning = `tie_word_embeddings is true and is ignored, because the file has a ${target} of other values than ${source}.`;
  return { config: { ...config, tied: false }, warnings: [warning] };
}

//| 03-moe/a-files-of-weights.ipynb#weights-file
/** Values of weights as they are asked for, each made once and kept until no tensor of the file wants it any more. */
export function keptWhileWanted(weights: ModelWeight[], valuesOf: (weight: ModelWeight) => Float32Array) {
  const kept = new Map<ModelWeight, Float32Array>();
  const left = new Map(weights.map((weight) => [weight, weight.files.length]));
  return (weight: ModelWeight): Float32Array => {
    const values = kept.get(weight) ?? valuesOf(weight);
    const more = left.get(weight)! - 1;
    left.set(weight, more);
    if (more > 0) kept.set(weight, values);
    else kept.delete(weight);
    return values;
  };
}

/** The numbers of one tensor of a file, from the values of the weights that it holds. */
export function fileNumbers(
  { shape, holds }: FileTensor,
  valuesOf: (weight: ModelWeight) => Float32Array,
): Float32Array {
  const parts = holds.map(({ weight, expert }) => {
    const values = valuesOf(weight);
    const size = values.length / weight.files.length;
    return { layout: storedLayout(weight), part: values.subarray(expert * size, (expert + 1) * size) };
  });
  if (parts.length === 1 && isPlain(parts[0].layout)) return parts[0].part;
  const stored = new Float32Array(sizeOf(shape));
  for (const { layout, part } of parts) putStored(layout, stored, part);
  return stored;
}

//| 03-moe/a-files-of-weights.ipynb#weights-pieces
/**
 * A model's safetensors file piece by piece: its head, then each tensor, from the values of its weights. So a file may be
 * written that is larger than what fits into memory.
 */
export function* weightsFilePieces(
  config: ModelConfig,
  valuesOf: (weight: ModelWeight) => Float32Array,
): Generator<Uint8Array> {
  const weights = weightsOf(config);
  const types = [...fileTensors(weights)].map(
    ([name, tensor]) => [name, { ...tensor, dtype: "F32" as const }] as const,
  );
  const ordered = orderTensors(new Map(types));
  yield safetensorsHeaderBytes(ordered, { format: "pt" }); // transformers wants to be told whose tensors they are
  const kept = keptWhileWanted(weights, valuesOf);
  for (const [, tensor] of ordered) {
    const { buffer, byteOffset, byteLength } = fileNumbers(tensor, kept);
    yield new Uint8Array(buffer, byteOffset, byteLength);
  }
}

/** The same as one array. */
export function weightsFile(
  config: ModelConfig,
  valuesOf: (weight: ModelWeight) => Float32Array,
): Uint8Array {
  return joinedBytes([...weightsFilePieces(config, valuesOf)]);
}
