// Extracted from chapters/03-moe/a-files-of-weights.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import {
  type SafetensorsTensor,
  type TensorType,
  alignBytes,
  joinedBytes,
  readSafetensors,
  safetensorsBits,
  toFloat32,
} from "../formats/safetensors.js";
import { shardFiles } from "../formats/shards.js";
import {
  bf16Format,
  bytesIn,
  f16Format,
  int4Format,
  int8Format,
  mxfp4Format,
  wordsFor,
} from "../kernels/formats.js";
import { type OperandFormat, type PackedArray, f32Format } from "../kernels/operands.js";
import { sizeOf } from "../tensor/tensor.js";
import { modelFamilies, multimodalFamily, weightsOf } from "./families.js";
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

/** The row of the tensor in the file in which row `r` of a weight's stack stands. */
export function storedRow({ first, step, run }: StoredLayout, r: number): number {
  return first + Math.floor(r / run) * step + (r % run);
}

/** Copies a weight's part into a tensor of the file. */
export function putStored(layout: StoredLayout, stored: Float32Array, part: Float32Array): void {
  if (isPlain(layout)) {
    stored.set(part);
    return;
  }
  const { stacks, rows, columns, of, transposed } = layout;
  const [rowStride, columnStride] = transposed ? [1, of] : [columns, 1];
  for (let stack = 0; stack < stacks; stack++)
    for (let r = 0; r < rows; r++)
      for (let c = 0; c < columns; c++) {
        const inFile = stack * of * columns + storedRow(layout, r) * rowStride + c * columnStride;
        stored[inFile] = part[(stack * rows + r) * columns + c];
      }
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
  /** A packed one is several tensors of the file that belong together, such as codes and scales. */
  dtype: SafetensorsTensor["dtype"] | "packed";
  /** Of the numbers. */
  shape: number[];
  /** Reads the bytes `from` to `to`; all unless given. Of a packed one, they are those of the format's first array. */
  read: (from?: number, to?: number) => Uint8Array;
  /** The format of a packed one, and how the format's other arrays are read. */
  packed?: { format: OperandFormat; others: StoredTensor["read"][] };
}

//| 03-moe/a-files-of-weights.ipynb#merge-files-helpers
/** The tensors in the bytes of a safetensors file. */
export function storedTensors(bytes: Uint8Array): Map<string, StoredTensor> {
  const { tensors } = readSafetensors(bytes);
  const stored = ({ dtype, shape, data }: SafetensorsTensor): StoredTensor => ({
    dtype,
    shape,
    read: (from = 0, to = data.length) => data.subarray(from, to),
  });
  return new Map([...tensors].map(([name, tensor]) => [name, stored(tensor)]));
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

//| 03-moe/a-files-of-weights.ipynb#join-blocks
/** The one tensor that blocks and their scales are. Throws unless they fit each other. */
export function joinedBlocks(
  name: string,
  blocks: StoredTensor,
  scales: StoredTensor | undefined,
): StoredTensor {
  if (!scales) throw new Error(`The weight ${name}_blocks has no ${name}_scales beside it.`);
  const [inBlocks, bytes] = [blocks.shape.slice(0, -1), blocks.shape[blocks.shape.length - 1]];
  const isFitting = bytes === 16 && inBlocks.length >= 2 && scales.shape.join() === inBlocks.join();
  if (blocks.dtype !== "U8" || scales.dtype !== "U8" || !isFitting) {
    const given = [blocks, scales].map(({ dtype, shape }) => `${dtype} [${shape.join(", ")}]`);
    throw new Error(
      `The weight ${name} is no MXFP4: its blocks are ${given[0]} and its scales ${given[1]}, where blocks of 16 bytes with a scale each are wanted.`,
    );
  }
  const shape = [...inBlocks.slice(0, -1), 32 * inBlocks[inBlocks.length - 1]];
  return {
    dtype: "packed",
    shape,
    read: blocks.read,
    packed: { format: mxfp4Format, others: [scales.read] },
  };
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
/** The shape that a tensor of the file has to have: packed rows are never transposed. */
export function wantedShape({ shape, holds }: FileTensor, { dtype }: StoredTensor): number[] {
  const isTurned = dtype === "packed" && holds[0].weight.transposed;
  return isTurned ? [...shape.slice(0, -2), ...shape.slice(-2).reverse()] : shape;
}

/** Throws one sentence unless the tensors have the shapes that the configuration calls for. */
export function checkShapes(tensors: Map<string, StoredTensor>, expected: Map<string, FileTensor>): void {
  const wrong = [...expected].filter(
    ([name, tensor]) => tensors.get(name)!.shape.join() !== wantedShape(tensor, tensors.get(name)!).join(),
  );
  if (wrong.length === 0) return;
  const [name, tensor] = wrong[0];
  const [given, wanted] = [tensors.get(name)!.shape, wantedShape(tensor, tensors.get(name)!)];
  const others = wrong.slice(1).map(([other]) => other);
  const more = others.length > 0 ? ` So it is with ${someOf(others)}.` : "";
  throw new Error(
    `The weight ${name} is [${given.join(", ")}], but the configuration wants [${wanted.join(", ")}].${more}`,
  );
}

/** Throws one sentence unless the file has exactly the tensors that the configuration calls for, in their shapes. */
export function checkTensors(
  config: ModelConfig,
  tensors: Map<string, StoredTensor>,
  expected: Map<string, FileTensor>,
): void {
  const missing = [...expected.keys()].filter((name) => !tensors.has(name));
  const redundant = redundantNames(config);
  const extra = [...tensors.keys()].filter((name) => !expected.has(name) && !redundant.has(name));
  if (missing.length > 0) {
    const also =
      extra.length > 0 ? `, and ${someOf(extra)} ${extra.length > 1 ? "are" : "is"} not wanted` : "";
    throw new Error(`The weights are incomplete: ${someOf(missing)} missing${also}.`);
  }
  if (extra.length > 0) throw new Error(`The configuration has no place for the weights ${someOf(extra)}.`);
  checkShapes(tensors, expected);
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

//| 03-moe/a-files-of-weights.ipynb#decoder-tensors
/** Tensors without those whose names begin in one of these ways; which of the ways there were; how many tensors. */
export function leaveOut(tensors: Map<string, StoredTensor>, beginnings: string[]) {
  const beginningOf = (name: string) => beginnings.find((beginning) => name.startsWith(beginning));
  const kept = new Map([...tensors].filter(([name]) => beginningOf(name) === undefined));
  const found = new Set([...tensors.keys()].flatMap((name) => beginningOf(name) ?? []));
  const parts = [...found].map((beginning) => beginning.slice(0, -1)).sort();
  return { kept, parts, count: tensors.size - kept.size };
}

/** How the names of tensors begin that belong to layers which predict further tokens, of at most so many layers. */
export function predictionBeginnings(
  json: Record<string, unknown>,
  { modelType, layers }: ModelConfig,
  most: number,
): string[] {
  const { keys, names } = modelFamilies[modelType].predictionLayers ?? { keys: [], names: "" };
  const count = Math.max(0, ...keys.map((key) => Number(json[key]) || 0));
  return Array.from({ length: Math.min(count, most) }, (_, i) => names.replace("*", String(layers + i)));
}

//| 03-moe/a-files-of-weights.ipynb#decoder-tensors-2
/**
 * The tensors of a model's decoder among those of its files, under the names of its family's table; and a sentence for what is left
 * out beside them.
 */
export function decoderTensors(
  json: Record<string, unknown>,
  config: ModelConfig,
  stored: Map<string, StoredTensor>,
): { tensors: Map<string, StoredTensor>; leftOut: string[] } {
  const { prefixes = {}, others = [] } = multimodalFamily(json) ?? {};
  const shorter = (name: string) => {
    const long = Object.keys(prefixes).find((beginning) => name.startsWith(beginning));
    return long === undefined ? name : prefixes[long] + name.slice(long.length);
  };
  const seeing = leaveOut(stored, others);
  const short = new Map([...seeing.kept].map(([name, tensor]) => [shorter(name), tensor]));
  const decoder = completeNames(short, modelFamilies[config.modelType]);
  const ahead = leaveOut(decoder, predictionBeginnings(json, config, decoder.size));
  const sentence = ({ parts, count }: ReturnType<typeof leaveOut>, why: string) =>
    count > 0 ? [`${count} tensors of ${parts.join(" and ")} are left out: ${why}.`] : [];
  return {
    tensors: ahead.kept,
    leftOut: [
      ...sentence(seeing, "of such a model the decoder alone is run"),
      ...sentence(ahead, "what predicts the token after the next is not used so far"),
    ],
  };
}

//| 03-moe/a-files-of-weights.ipynb#settle-head
/** Numbers that are read and turned at a time: 1 MiB as 32-bit floats. */
export const numbersAtOnce = 2 ** 18;

/** Bytes of a tensor as f32. Errors name the weight. */
export function numbersIn(name: string, dtype: StoredTensor["dtype"], data: Uint8Array): Float32Array {
  try {
    return toFloat32({ dtype: dtype as SafetensorsTensor["dtype"], shape: [], data });
  } catch (error) {
    throw new Error(`The weight ${name}: ${(error as Error).message}`);
  }
}

/** The bytes of one number of a tensor. Throws for a type whose numbers cannot be read. */
export function numberWidth(name: string, { dtype }: StoredTensor): number {
  numbersIn(name, dtype, new Uint8Array(0));
  return safetensorsBits[dtype as SafetensorsTensor["dtype"]] / 8;
}

/** Whether two tensors of a file hold the same numbers. */
export function sameNumbers(name: string, one: StoredTensor, other: StoredTensor): boolean {
  if (one.shape.join() !== other.shape.join()) return false;
  const size = sizeOf(one.shape);
  const part = (stored: StoredTensor, from: number) => {
    const width = numberWidth(name, stored);
    const data = stored.read(from * width, Math.min(size, from + numbersAtOnce) * width);
    return numbersIn(name, stored.dtype, data);
  };
  for (let from = 0; from < size; from += numbersAtOnce) {
    const others = part(other, from);
    if (!part(one, from).every((value, i) => value === others[i])) return false;
  }
  return true;
}

//| 03-moe/a-files-of-weights.ipynb#settle-tied
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

//| 03-moe/a-files-of-weights.ipynb#read-rows
/** Some rows of a weight as bytes of its file, from row `row` on (counted over all experts); of a packed one, those of its other arrays too. */
export interface StoredPiece {
  row: number;
  data: Uint8Array;
  others?: Uint8Array[];
}

/** The rows of a weight in order, a few at a time, where each has `rowBytes` neighbouring bytes in the file. */
export function* readRows(
  layout: StoredLayout,
  rowBytes: number,
  read: StoredTensor["read"],
): Generator<StoredPiece> {
  const { stacks, rows, columns, step, run, of } = layout;
  const atOnce = Math.max(1, Math.floor((numbersAtOnce * run) / (columns * step)));
  for (let stack = 0; stack < stacks; stack++)
    for (let r = 0; r < rows; r += atOnce) {
      const count = Math.min(atOnce, rows - r);
      const [from, last] = [storedRow(layout, r), storedRow(layout, r + count - 1)];
      const bytes = read((stack * of + from) * rowBytes, (stack * of + last + 1) * rowBytes);
      const row = stack * rows + r;
      if (step === run) yield { row, data: bytes };
      else yield { row, data: pickRows(bytes, rowBytes, count, (i) => storedRow(layout, r + i) - from) };
    }
}

/** `count` rows out of many: row i is the one at place `placeOf(i)`. */
export function pickRows(
  bytes: Uint8Array,
  rowBytes: number,
  count: number,
  placeOf: (row: number) => number,
): Uint8Array {
  const rows = new Uint8Array(count * rowBytes);
  for (let i = 0; i < count; i++) {
    const at = placeOf(i) * rowBytes;
    rows.set(bytes.subarray(at, at + rowBytes), i * rowBytes);
  }
  return rows;
}

//| 03-moe/a-files-of-weights.ipynb#read-columns
/** Numbers of so many bytes as an array, to be moved without a look at what they are. */
export function unitsOf(bytes: Uint8Array, width: number): Uint16Array | Uint32Array | Float64Array {
  const { buffer, byteOffset, length } = alignBytes(bytes, width);
  const Units = { 2: Uint16Array, 4: Uint32Array, 8: Float64Array }[width]!;
  return new Units(buffer as ArrayBuffer, byteOffset, length / width);
}

/** The same where the file holds the matrix transposed: each stack is read whole, and turned a few rows at a time. */
export function* readColumns(
  layout: StoredLayout,
  width: number,
  read: StoredTensor["read"],
): Generator<StoredPiece> {
  const { stacks, rows, columns, of } = layout;
  const atOnce = Math.max(1, Math.floor(numbersAtOnce / columns));
  const stackBytes = of * columns * width;
  for (let stack = 0; stack < stacks; stack++) {
    const whole = unitsOf(read(stack * stackBytes, (stack + 1) * stackBytes), width);
    for (let r = 0; r < rows; r += atOnce) {
      const count = Math.min(atOnce, rows - r);
      const turned = unitsOf(new Uint8Array(count * columns * width), width);
      for (let c = 0; c < columns; c++)
        for (let i = 0; i < count; i++) turned[i * columns + c] = whole[c * of + storedRow(layout, r + i)];
      yield { row: stack * rows + r, data: new Uint8Array(turned.buffer) };
    }
  }
}

//| 03-moe/a-files-of-weights.ipynb#read-pieces
/** Packed rows: of each array of their format. Throws for a scale of MXFP4 that is no number. */
export function* readPacked(
  name: string,
  layout: StoredLayout,
  { read, packed }: StoredTensor,
): Generator<StoredPiece> {
  const [first, ...rest] = packed!.format.rowBytes(layout.columns);
  const others = packed!.others.map((readOther, i) => readRows(layout, rest[i], readOther));
  for (const piece of readRows(layout, first, read)) {
    const arrays = others.map((rows) => rows.next().value!.data);
    if (packed!.format === mxfp4Format && arrays[0].includes(255))
      throw new Error(`The weight ${name} has a scale that is no number (255): copy its file again.`);
    yield { ...piece, others: arrays };
  }
}

/** The rows of a weight (of one expert, where each has a tensor) from its tensor in the file, a few at a time. */
export function readPieces(name: string, weight: ModelWeight, stored: StoredTensor): Iterable<StoredPiece> {
  const layout = storedLayout(weight);
  if (stored.packed) return readPacked(name, layout, stored);
  const width = numberWidth(name, stored);
  if (layout.transposed) return readColumns(layout, width, stored.read);
  return readRows(layout, layout.columns * width, stored.read);
}

/** The numbers of a piece of rows of `columns`, row by row, as f32. */
export function pieceNumbers(
  name: string,
  { dtype, packed }: StoredTensor,
  { data, others = [] }: StoredPiece,
  columns: number,
): Float32Array {
  if (!packed) return numbersIn(name, dtype, data);
  const words = [data, ...others].map((bytes) => {
    const whole = wordsFor(bytes.length);
    bytesIn(whole).set(bytes);
    return whole;
  });
  return packed.format.unpack(words, columns);
}

//| 03-moe/a-files-of-weights.ipynb#stored-numbers
/** The numbers of a weight in the tensors of its model's files. */
export function storedNumbers(weight: ModelWeight, tensors: Map<string, StoredTensor>): Float32Array {
  const values = new Float32Array(sizeOf(weight.shape));
  const { columns } = storedLayout(weight);
  const part = values.length / weight.files.length;
  for (const [expert, name] of weight.files.entries()) {
    const stored = tensors.get(name)!;
    for (const piece of readPieces(name, weight, stored))
      values.set(pieceNumbers(name, stored, piece, columns), expert * part + piece.row * columns);
  }
  return values;
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
/** The types that numbers may have in a file that is written. */
export type SavedDtype = "F32" | "F16" | "BF16";

/** The formats of those types. */
export const savedFormats: Record<SavedDtype, OperandFormat> = {
  F32: f32Format,
  F16: f16Format,
  BF16: bf16Format,
};

/** Numbers as the bytes of a file. */
export function numberBytes(values: Float32Array, dtype: SavedDtype): Uint8Array {
  const [words] = savedFormats[dtype].pack(values, values.length);
  return bytesIn(words).subarray(0, (values.length * safetensorsBits[dtype]) / 8);
}

/** A tensor that a file holds of a weight: what follows the weight's name in its own, and its bytes, from the weight's packed arrays. */
export interface FilePart extends TensorType {
  suffix: string;
  bytesOf(arrays: () => PackedArray[]): Uint8Array;
}

//| 03-moe/a-files-of-weights.ipynb#codes-readers
/** What follows the name of a weight in the names of its tensors. */
export const codeSuffixes = ["_packed", "_scale", "_zero_point", "_shape"];

/** Codes of 8 bits that begin at 0 as those that begin at -128, and the other way round. */
export function flipSigns(codes: Uint8Array): Uint8Array {
  return codes.map((code) => code ^ 0x80);
}

/** Reads scales of any type as f16 or f32. */
export function scaleReader(name: string, scales: StoredTensor, dtype: "F16" | "F32"): StoredTensor["read"] {
  if (scales.dtype === dtype) return scales.read;
  const [from, to] = [numberWidth(name, scales), safetensorsBits[dtype] / 8];
  return (begin = 0, end = to * sizeOf(scales.shape)) =>
    numberBytes(numbersIn(name, scales.dtype, scales.read((begin / to) * from, (end / to) * from)), dtype);
}

/** Reads scales and zero points as words with an f16 below and a zero point above. */
export function zeroPointReader(
  name: string,
  scales: StoredTensor,
  zeros: StoredTensor,
): StoredTensor["read"] {
  const [rows, groups] = scales.shape.slice(-2);
  const [halves, words] = [scaleReader(name, scales, "F16"), unitsOf(zeros.read(), 4)];
  const zeroOf = (place: number) => {
    const [row, group] = [Math.floor(place / groups), place % groups];
    const block = Math.floor(row / rows) * Math.ceil(rows / 8) + Math.floor((row % rows) / 8);
    return (words[block * groups + group] >>> (4 * ((row % rows) % 8))) & 15;
  };
  return (begin = 0, end = 4 * sizeOf(scales.shape)) => {
    const own = unitsOf(halves(begin / 2, end / 2), 2);
    return bytesIn(Uint32Array.from(own, (half, i) => half | (zeroOf(begin / 4 + i) << 16)));
  };
}

//| 03-moe/a-files-of-weights.ipynb#join-codes
/** The sizes that a tensor of whole numbers states. */
export function statedShape(stated: StoredTensor): number[] {
  const { buffer, byteOffset, length } = alignBytes(stated.read(), 8);
  return Array.from(new BigInt64Array(buffer as ArrayBuffer, byteOffset, length / 8), Number);
}

/** The format of codes with so many bits and groups. Throws for one that we do not run. */
export function formatOfCodes(
  name: string,
  bits: number,
  group: number,
  hasZeros: boolean,
  isWhole: boolean,
): OperandFormat {
  if (bits === 8 && isWhole && !hasZeros) return int8Format;
  if (bits === 4 && group % 32 === 0) return int4Format(group, hasZeros);
  const zeros = hasZeros ? " with zero points" : "";
  throw new Error(
    `The weight ${name} has ${bits} bits a number in groups of ${group}${zeros}, but only 8 bits with a scale for each row ` +
      "and 4 bits in groups of 32 or a multiple of it are run so far.",
  );
}

//| 03-moe/a-files-of-weights.ipynb#check-code-parts
/** The tensors that a packed weight is in a file. */
export interface CodeParts {
  codes: StoredTensor;
  scales: StoredTensor;
  zeros?: StoredTensor;
}

/** Throws unless codes, scales and zero points make a weight of the stated shape. */
export function checkCodeParts(
  name: string,
  { shape, groups, codes, scales, zeros }: { shape: number[]; groups: number } & CodeParts,
): void {
  const [rows, columns] = [shape.slice(0, -1), shape[shape.length - 1]];
  const blocks = [...rows.slice(0, -1), Math.ceil(rows[rows.length - 1] / 8), groups];
  const isFitting =
    codes.dtype === "I32" &&
    codes.shape.slice(0, -1).join() === rows.join() &&
    scales.shape.join() === [...rows, groups].join() &&
    (!zeros || (zeros.dtype === "I32" && zeros.shape.join() === blocks.join())) &&
    rows.length > 0 &&
    columns % groups === 0;
  if (isFitting) return;
  const parts = [codes, scales, ...(zeros ? [zeros] : [])].map(
    (part) => `${part.dtype} [${part.shape.join(", ")}]`,
  );
  throw new Error(
    `The weight ${name} says that it is [${shape.join(", ")}], which its ${parts.join(", ")} do not make.`,
  );
}

//| 03-moe/a-files-of-weights.ipynb#join-codes-whole
/** The one tensor that codes, scales, zero points and the sizes are. Throws unless they fit one another. */
export function joinedCodes(
  name: string,
  partOf: (suffix: string) => StoredTensor | undefined,
): StoredTensor {
  const [codes, scales, zeros, stated] = codeSuffixes.map(partOf);
  for (const [suffix, part] of [
    ["_scale", scales],
    ["_shape", stated],
  ] as const)
    if (!part) throw new Error(`The weight ${name}_packed has no ${name}${suffix} beside it.`);
  const shape = stated!.dtype === "I64" ? statedShape(stated!) : [];
  const columns = shape[shape.length - 1];
  const groups = scales!.shape[scales!.shape.length - 1];
  const bits = (32 * codes!.shape[codes!.shape.length - 1]) / columns;
  checkCodeParts(name, { shape, groups, codes: codes!, scales: scales!, zeros });
  const format = formatOfCodes(name, bits, columns / groups, zeros !== undefined, groups === 1);
  const read: StoredTensor["read"] =
    format === int8Format ? (from, to) => flipSigns(codes!.read(from, to)) : codes!.read;
  const others = zeros
    ? zeroPointReader(name, scales!, zeros)
    : scaleReader(name, scales!, format === int8Format ? "F32" : "F16");
  return { dtype: "packed", shape, read, packed: { format, others: [others] } };
}

//| 03-moe/a-files-of-weights.ipynb#join-parts
/** Puts the tensors of each packed weight that a model has together, in `tensors`. */
export function joinBlocks(tensors: Map<string, StoredTensor>, names: Iterable<string>): void {
  for (const name of names) {
    const partOf = (suffix: string) => tensors.get(name + suffix);
    const [blocks, codes] = [partOf("_blocks"), partOf("_packed")];
    if (tensors.has(name) || !(blocks ?? codes)) continue;
    tensors.set(name, blocks ? joinedBlocks(name, blocks, partOf("_scales")) : joinedCodes(name, partOf));
    for (const suffix of blocks ? ["_blocks", "_scales"] : codeSuffixes) tensors.delete(name + suffix);
  }
}

//| 03-moe/a-files-of-weights.ipynb#file-parts
/** The zero points in the upper halves of words [rows, groups], of eight rows in a word [rows / 8, groups]. */
export function packZeroPoints(words: PackedArray, rows: number, groups: number): Uint32Array {
  const packed = new Uint32Array(Math.ceil(rows / 8) * groups);
  for (let row = 0; row < rows; row++)
    for (let g = 0; g < groups; g++)
      packed[(row >> 3) * groups + g] |= (words[row * groups + g] >>> 16) << (4 * (row & 7));
  return packed;
}

/** The tensor of zero points: those of eight neighbouring rows in a word. */
export function zeroPart(suffix: string, rows: number[], groups: number): FilePart {
  const inBlock = rows[rows.length - 1];
  const packed = (words: PackedArray) =>
    joinedBytes(
      Array.from({ length: sizeOf(rows) / inBlock }, (_, stack) => {
        const own = words.subarray(stack * inBlock * groups, (stack + 1) * inBlock * groups);
        return bytesIn(packZeroPoints(own, inBlock, groups));
      }),
    );
  const shape = [...rows.slice(0, -1), Math.ceil(inBlock / 8), groups];
  return { suffix, dtype: "I32", shape, bytesOf: (arrays) => packed(arrays()[1]) };
}

//| 03-moe/a-files-of-weights.ipynb#file-parts-codes
/** The tensors of codes and scales. */
export function codeParts(format: OperandFormat, shape: number[]): FilePart[] {
  const [rows, columns] = [shape.slice(0, -1), shape[shape.length - 1]];
  const [isBytes, groups] = [format === int8Format, columns / (format.block ?? columns)];
  const [codes, scales, zeros, sizes] = codeSuffixes;
  const hasZeros = "zeroPoints" in format && format.zeroPoints === true;
  const scaleBytes = (array: PackedArray) =>
    hasZeros
      ? bytesIn(Uint16Array.from(array, (word) => word & 0xffff))
      : bytesIn(array).subarray(0, sizeOf(rows) * format.rowBytes(columns)[1]);
  const parts: FilePart[] = [
    {
      suffix: codes,
      dtype: "I32",
      shape: [...rows, columns / (isBytes ? 4 : 8)],
      bytesOf: (arrays) => (isBytes ? flipSigns(bytesIn(arrays()[0])) : bytesIn(arrays()[0])),
    },
    {
      suffix: scales,
      dtype: isBytes ? "F32" : "F16",
      shape: [...rows, groups],
      bytesOf: (arrays) => scaleBytes(arrays()[1]),
    },
    {
      suffix: sizes,
      dtype: "I64",
      shape: [shape.length],
      bytesOf: () => bytesIn(BigInt64Array.from(shape, BigInt)),
    },
  ];
  if (!hasZeros) return parts;
  return [...parts, zeroPart(zeros, rows, groups)];
}

//| 03-moe/a-files-of-weights.ipynb#file-parts-all
/** The tensors that a file holds of a weight [..., columns] in a format. */
export function fileParts(format: OperandFormat, shape: number[]): FilePart[] {
  const [rows, columns] = [shape.slice(0, -1), shape[shape.length - 1]];
  const plain = (Object.keys(savedFormats) as SavedDtype[]).find((dtype) => savedFormats[dtype] === format);
  const whole = (i: number) => (arrays: () => PackedArray[]) =>
    bytesIn(arrays()[i]).subarray(0, sizeOf(rows) * format.rowBytes(columns)[i]);
  if (plain) return [{ suffix: "", dtype: plain, shape, bytesOf: whole(0) }];
  if (format !== mxfp4Format) return codeParts(format, shape);
  return [
    { suffix: "_blocks", dtype: "U8", shape: [...rows, columns / 32, 16], bytesOf: whole(0) },
    { suffix: "_scales", dtype: "U8", shape: [...rows, columns / 32], bytesOf: whole(1) },
  ];
}

//| 03-moe/a-files-of-weights.ipynb#weights-files
/** How weights are written: as numbers of which type, or each in a format of its own, and how many bytes one file may have. */
export interface SaveSettings {
  dtype?: SavedDtype;
  formatOf?: (weight: ModelWeight) => OperandFormat;
  maxShardBytes?: number;
}

//| 03-moe/a-files-of-weights.ipynb#weights-files-all
/**
 * The files of a model's weights by name, piece by piece: each head, then each tensor, from the values of its weights, which are asked
 * for once for each of its tensors. So they may be larger than what fits into memory. They are to be written in their order.
 */
export function weightsFiles(
  config: ModelConfig,
  valuesOf: (weight: ModelWeight) => Float32Array,
  {
    dtype = "F32",
    formatOf = () => savedFormats[dtype],
    maxShardBytes = Number.POSITIVE_INFINITY,
  }: SaveSettings = {},
): Record<string, Iterable<Uint8Array> | string> {
  const weights = new Map(weightsOf(config).map((weight) => [weight.path, weight]));
  const isPlain = (weight: ModelWeight) => Object.values(savedFormats).includes(formatOf(weight));
  const stored = [...weights.values()].map((weight) =>
    isPlain(weight) ? weight : { ...weight, transposed: false },
  );
  const readers = new Map<string, (weight: ModelWeight) => Float32Array>();
  const entries = [...fileTensors(stored)].flatMap(([name, tensor]) => {
    const format = formatOf(weights.get(tensor.holds[0].weight.path)!);
    return fileParts(format, tensor.shape).map(({ suffix, ...part }) => {
      // What one kind of tensor wants of a weight is soon written: then the values are dropped, until another kind wants them.
      const kept = readers.get(suffix) ?? keptWhileWanted(stored, ({ path }) => valuesOf(weights.get(path)!));
      readers.set(suffix, kept);
      const arrays = () => format.pack(fileNumbers(tensor, kept), tensor.shape[tensor.shape.length - 1]);
      return [name + suffix, { ...part, arrays }] as const;
    });
  });
  return shardFiles(new Map(entries), maxShardBytes, ({ bytesOf, arrays }) => bytesOf(arrays));
}

//| 03-moe/a-files-of-weights.ipynb#weights-files-one
/** All of it as one array. */
export function weightsFile(
  config: ModelConfig,
  valuesOf: (weight: ModelWeight) => Float32Array,
  dtype?: SavedDtype,
): Uint8Array {
  const [pieces] = Object.values(weightsFiles(config, valuesOf, { dtype }));
  return joinedBytes([...(pieces as Iterable<Uint8Array>)]);
}
