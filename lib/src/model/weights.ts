// Extracted from chapters/03-moe/5-the-families.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import { bindingLimit, checkFits, readableBytes } from "../gpu/buffers.js";
import { openWindow, release, upload } from "../gpu/commands.js";
import { currentGpu } from "../gpu/device.js";
import { bf16Format, bytesIn, f16Format } from "../kernels/formats.js";
import { type OperandFormat, f32Format } from "../kernels/operands.js";
import { parameter } from "../tensor/autograd.js";
import { PackedWeight, type Weight, unpack } from "../tensor/products.js";
import type { normals } from "../tensor/random.js";
import { type DType, type Tensor, empty, sizeOf } from "../tensor/tensor.js";
import { configWarnings, modelConfigText, parseModelConfig } from "./config.js";
import { modelFamilies, weightsOf } from "./families.js";
import {
  type SaveSettings,
  type StoredPiece,
  type StoredTensor,
  checkTensors,
  decoderTensors,
  fileTensors,
  joinBlocks,
  mergeFiles,
  pieceNumbers,
  readPieces,
  settleHead,
  storedLayout,
  storedTensors,
  weightsFile,
  weightsFiles,
} from "./stored.js";
import { type Model, type ModelWeight, buildModel, initialValues, partAt } from "./structure.js";

//| 03-moe/5-the-families.ipynb#read-weight
/** How the weights of a model are kept on the GPU: as 32-bit floats, in 16 bits, or each as its file has it. */
export type ModelDtype = "f32" | "f16" | "bf16" | "auto";

//| 03-moe/5-the-families.ipynb#kept-format
/** The formats in which numbers of a file can stay as they are. */
export const fileFormats: Partial<Record<StoredTensor["dtype"], OperandFormat>> = {
  F16: f16Format,
  BF16: bf16Format,
};

/** The format in which a tensor of a file is there. */
export function fileFormat({ dtype, packed }: StoredTensor): OperandFormat {
  return packed?.format ?? fileFormats[dtype] ?? f32Format;
}

/** The format in which a weight is kept: matrices and tables as wanted, the rest as 32-bit floats. */
export function keptFormat(
  { role, shape, dense }: ModelWeight,
  stored: StoredTensor,
  dtype: ModelDtype,
): OperandFormat {
  const isPacked = !dense && (role === "matrix" || role === "residual" || role === "table");
  if (!isPacked || dtype === "f32" || shape[shape.length - 1] % 4 !== 0) return f32Format;
  return { f16: f16Format, bf16: bf16Format, auto: fileFormat(stored) }[dtype];
}

/** Bytes of each array of a weight in a format, in whole words. */
export function arrayBytes(shape: readonly number[], format: OperandFormat): number[] {
  const columns = shape[shape.length - 1];
  return format.rowBytes(columns).map((bytes) => 4 * Math.ceil(((sizeOf(shape) / columns) * bytes) / 4));
}

//| 03-moe/5-the-families.ipynb#load-weight
/** Writes bytes into a tensor, from a byte on. */
export function writeBytes({ storage }: Tensor<DType>, offset: number, data: Uint8Array): void {
  const window = openWindow(storage, offset, data.length);
  upload(window, data);
  release(window);
}

/** A piece of a weight, of rows of `columns`, as the arrays of a format. Throws for numbers that are too large for it. */
export function packPiece(
  name: string,
  stored: StoredTensor,
  piece: StoredPiece,
  format: OperandFormat,
  columns: number,
): Uint8Array[] {
  const isKept = stored.packed?.format.name === format.name || fileFormats[stored.dtype] === format;
  if (isKept) return [piece.data, ...(piece.others ?? [])];
  const values = pieceNumbers(name, stored, piece, columns);
  if (format === f16Format && values.some((value) => Math.abs(value) >= 65520 && Number.isFinite(value)))
    throw new Error(`The weight ${name} has numbers that f16 cannot hold: choose bf16 or f32.`);
  return format.pack(values, columns).map(bytesIn);
}

//| 03-moe/5-the-families.ipynb#load-weight-2
/** Makes a weight on the GPU from the tensors of a file, a few rows at a time. */
export function loadWeight(
  weight: ModelWeight,
  tensors: Map<string, StoredTensor>,
  dtype: ModelDtype,
): Weight {
  const { shape, files } = weight;
  const format = keptFormat(weight, tensors.get(files[0])!, dtype);
  const isDense = format === f32Format;
  const bytes = arrayBytes(shape, format);
  const arrays = isDense ? [empty(shape)] : bytes.map((size) => empty([size / 4], "u32"));
  const { columns } = storedLayout(weight);
  const rowBytes = format.rowBytes(columns);
  // Rows of scales need not be whole words: they are put together first.
  const gathered = bytes.slice(1).map((size) => new Uint8Array(size));
  const rows = sizeOf(shape) / columns / files.length;
  for (const [expert, name] of files.entries())
    for (const piece of readPieces(name, weight, tensors.get(name)!)) {
      const row = expert * rows + piece.row;
      const [data, ...others] = packPiece(name, tensors.get(name)!, piece, format, columns);
      writeBytes(arrays[0], row * rowBytes[0], data);
      for (const [i, other] of others.entries()) gathered[i].set(other, row * rowBytes[i + 1]);
    }
  if (isDense) return parameter(arrays[0] as Tensor);
  for (const [i, all] of gathered.entries()) writeBytes(arrays[i + 1], 0, all);
  return new PackedWeight(format, [...shape], arrays);
}

//| 03-moe/5-the-families.ipynb#weights-fit
/** Throws unless the adapter can hold each weight, in the format in which it is kept. Gives the bytes of all. */
export function checkWeightsFit(
  config: ModelConfig,
  weights = weightsOf(config),
  formatOf: (weight: ModelWeight) => OperandFormat = () => f32Format,
): number {
  const { maxBufferSize } = currentGpu().facts.limits;
  let total = 0;
  for (const weight of weights) {
    // What has a row for each token is used in pieces.
    const most = weight.role === "table" ? maxBufferSize : bindingLimit();
    const bytes = arrayBytes(weight.shape, formatOf(weight));
    for (const array of bytes) checkFits(array, `The weight ${weight.name}`, most);
    total += bytes.reduce((sum, array) => sum + array, 0);
  }
  return total;
}

//| 03-moe/5-the-families.ipynb#load-model
/** A model from files, and a sentence for each thing that was ignored in them. */
export interface LoadedModel extends Model {
  warnings: string[];
}

/** How a model is opened. */
export interface OpenSettings {
  /** How its weights are kept: as 32-bit floats, which can be trained, unless it says something else. */
  dtype?: ModelDtype;
  /** Bytes of memory that the weights may take, where that is known. */
  available?: number;
}

//| 03-moe/5-the-families.ipynb#check-model-files
/** What files of a model hold, found to belong together. */
export interface CheckedFiles {
  config: ModelConfig;
  tensors: Map<string, StoredTensor>;
  /** What was ignored, a sentence each. */
  warnings: string[];
}

/** Holds a config.json (parsed) against the tensors of its files, before any of them is read. Needs no GPU. */
export function checkModelFiles(json: unknown, files: Map<string, StoredTensor>[]): CheckedFiles {
  const stated = parseModelConfig(json);
  const { tensors, leftOut } = decoderTensors(json as Record<string, unknown>, stated, mergeFiles(files));
  const { config, warnings } = settleHead(stated, tensors);
  const expected = fileTensors(weightsOf(config));
  joinBlocks(tensors, expected.keys());
  checkTensors(config, tensors, expected);
  return { config, tensors, warnings: [...configWarnings(json), ...leftOut, ...warnings] };
}

//| 03-moe/5-the-families.ipynb#open-model-files
/**
 * Makes a model from its config.json (parsed) and the tensors of its files, which are read a few rows at a time. `warnings` says
 * what was ignored, where two places contradict each other. Throws one sentence for a configuration that we do not run, for
 * weights that do not belong to it, and for more of them than there is memory for.
 */
export function openModelFiles(
  json: unknown,
  files: Map<string, StoredTensor>[],
  { dtype = "f32", available = Number.POSITIVE_INFINITY }: OpenSettings = {},
): LoadedModel {
  const { config, tensors, warnings } = checkModelFiles(json, files);
  const needed = checkWeightsFit(config, weightsOf(config), (weight) =>
    keptFormat(weight, tensors.get(weight.files[0])!, dtype),
  );
  if (needed > available)
    throw new Error(
      `Its weights need ${readableBytes(needed)} of memory, and there are ${readableBytes(available)}.`,
    );
  const family = modelFamilies[config.modelType];
  const model = buildModel(config, family, (weight) => loadWeight(weight, tensors, dtype));
  return { ...model, warnings };
}

/** Makes a model, to be trained or run, from its config.json (parsed) and the bytes of its safetensors file or files. */
export function loadModel(config: unknown, ...files: Uint8Array[]): LoadedModel {
  return openModelFiles(config, files.map(storedTensors));
}

//| 03-moe/5-the-families.ipynb#save-model
/** What is written to make a model readable by others: the text of config.json, the bytes of model.safetensors. */
export interface ModelFiles {
  config: string;
  weights: Uint8Array;
}

/** The files of a model, its weights read back from the GPU, as 32-bit floats. The same weights always give the same bytes. */
export async function saveModel(model: Model): Promise<ModelFiles> {
  const values = new Map<string, Float32Array>();
  for (const { path } of weightsOf(model.config))
    values.set(path, await unpack(partAt(model, path) as Weight));
  const weights = weightsFile(model.config, ({ path }) => values.get(path)!);
  return { config: modelConfigText(model.config), weights };
}

//| 03-moe/5-the-families.ipynb#random-files
/** The safetensors files of a model with fresh random weights piece by piece, made without a GPU. `draw` does what `normals` does. */
export function randomModelPieces(
  config: ModelConfig,
  seed: number,
  draw?: typeof normals,
  settings?: SaveSettings,
): Record<string, Iterable<Uint8Array> | string> {
  return weightsFiles(config, (weight) => initialValues(config, weight, seed, draw), settings);
}

/** The files of a model with fresh random weights: those of `randomModel`, made without a GPU. */
export function randomModelFiles(config: ModelConfig, seed: number): ModelFiles {
  const weights = weightsFile(config, (weight) => initialValues(config, weight, seed));
  return { config: modelConfigText(config), weights };
}
