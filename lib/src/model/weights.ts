// Extracted from chapters/03-moe/4-the-decoder.ipynb: edit it there, or here and run `npm run backport`.
import { type ModelConfig, configWarnings, modelConfigText, parseModelConfig } from "../formats/config.js";
import {
  type SafetensorsTensor,
  float32Tensor,
  readSafetensors,
  toFloat32,
  writeSafetensors,
} from "../formats/safetensors.js";
import { bindingLimit, checkFits } from "../gpu/buffers.js";
import { currentGpu } from "../gpu/device.js";
import { parameter } from "../tensor/autograd.js";
import { sizeOf, tensor } from "../tensor/tensor.js";
import { type Weights, initialValues, weightShapes } from "./block.js";
import { type Model, parametersOf } from "./decoder.js";

//| 03-moe/4-the-decoder.ipynb#file-names
/**
 * The names under which a weight stands in a file. The stacked matrices of a layer's experts [experts, outputs, inputs]
 * are one tensor for each expert there; every other weight stands under its own name.
 */
export function fileNames(name: string, shape: readonly number[]): string[] {
  if (!name.includes(".mlp.experts.")) return [name];
  return Array.from({ length: shape[0] }, (_, e) => name.replace(".experts.", `.experts.${e}.`));
}

//| 03-moe/4-the-decoder.ipynb#file-shapes
/** The name and shape of every tensor in the file of a model, in the order of `weightShapes`. */
export function fileShapes(config: ModelConfig): Map<string, number[]> {
  const shapes = new Map<string, number[]>();
  for (const [name, shape] of weightShapes(config)) {
    const names = fileNames(name, shape);
    const part = names[0] === name ? shape : shape.slice(1);
    for (const each of names) shapes.set(each, part);
  }
  return shapes;
}

//| 03-moe/4-the-decoder.ipynb#some-of
/** Names some of many: all up to three, else the first and how many more there are. */
export function someOf(names: string[]): string {
  const short = names.slice(0, 3).map((name) => (name.length <= 100 ? name : `${name.slice(0, 99)}…`));
  return names.length <= 3 ? short.join(", ") : `${short[0]} and ${names.length - 1} more`;
}

/** Tensors that files of some models carry and that say nothing new: computed turns, and the output layer when tied. */
export function isRedundant(config: ModelConfig, name: string): boolean {
  return name.endsWith(".rotary_emb.inv_freq") || (config.tied && name === "lm_head.weight");
}

//| 03-moe/4-the-decoder.ipynb#check-tensors
/** Throws one sentence unless the file has exactly the tensors that the configuration calls for, in their shapes. */
export function checkTensors(config: ModelConfig, tensors: Map<string, SafetensorsTensor>): void {
  const wanted = fileShapes(config);
  const missing = [...wanted.keys()].filter((name) => !tensors.has(name));
  if (missing.length > 0) throw new Error(`The weights are incomplete: ${someOf(missing)} missing.`);
  const extra = [...tensors.keys()].filter((name) => !wanted.has(name) && !isRedundant(config, name));
  if (extra.length > 0) throw new Error(`The configuration has no place for the weights ${someOf(extra)}.`);
  for (const [name, shape] of wanted) {
    const given = tensors.get(name)!.shape;
    if (given.join() !== shape.join())
      throw new Error(
        `The weight ${name} is [${given.join(", ")}], but the configuration wants [${shape.join(", ")}].`,
      );
  }
}

//| 03-moe/4-the-decoder.ipynb#read-weight
/** The numbers of a named tensor as f32. */
export function numbersOf(name: string, stored: SafetensorsTensor): Float32Array {
  try {
    return toFloat32(stored);
  } catch (error) {
    throw new Error(`The weight ${name}: ${(error as Error).message}`);
  }
}

/** The values of one weight from a file; those of experts are put one after the other. */
export function readWeight(
  name: string,
  shape: readonly number[],
  tensors: Map<string, SafetensorsTensor>,
): Float32Array {
  const parts = fileNames(name, shape).map((each) => numbersOf(each, tensors.get(each)!));
  if (parts.length === 1) return parts[0];
  const values = new Float32Array(sizeOf(shape));
  for (const [i, part] of parts.entries()) values.set(part, i * part.length);
  return values;
}

//| 03-moe/4-the-decoder.ipynb#weights-fit
/** Throws unless the adapter can hold each weight. */
export function checkWeightsFit(config: ModelConfig): void {
  const { maxBufferSize } = currentGpu().facts.limits;
  for (const [name, shape] of weightShapes(config)) {
    // What has a row for each token is used in pieces.
    const most = /embed_tokens|lm_head/.test(name) ? maxBufferSize : bindingLimit();
    checkFits(4 * sizeOf(shape), `The weight ${name}`, most);
  }
}

//| 03-moe/4-the-decoder.ipynb#merge-files
/** The tensors of a model's files together. Throws if two files hold a tensor of the same name. */
export function mergeFiles(files: Uint8Array[]): Map<string, SafetensorsTensor> {
  const merged = new Map<string, SafetensorsTensor>();
  for (const file of files)
    for (const [name, stored] of readSafetensors(file).tensors) {
      if (merged.has(name)) throw new Error(`The weight ${name} stands in two files.`);
      merged.set(name, stored);
    }
  return merged;
}

//| 03-moe/4-the-decoder.ipynb#settle-head
/** Whether two tensors of a file hold the same numbers. */
export function sameNumbers(name: string, one: SafetensorsTensor, other: SafetensorsTensor): boolean {
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
  tensors: Map<string, SafetensorsTensor>,
): { config: ModelConfig; warnings: string[] } {
  const source = "model.embed_tokens.weight";
  const target = "lm_head.weight";
  const embedding = tensors.get(source);
  const head = tensors.get(target);
  if (!config.tied || !head) return { config, warnings: [] };
  if (!embedding) tensors.set(source, head);
  if (!embedding || sameNumbers(target, embedding, head)) return { config, warnings: [] };
  const warning = `tie_word_embeddings is true and is ignored, because the file has a ${target} of other values than ${source}.`;
  return { config: { ...config, tied: false }, warnings: [warning] };
}

//| 03-moe/4-the-decoder.ipynb#load-model
/** A model from files, and a sentence for each thing that was ignored in them. */
export interface LoadedModel extends Model {
  warnings: string[];
}

/**
 * Makes a model from its config.json (parsed) and the bytes of its safetensors file or files. Numbers of 16 bits become
 * f32. `warnings` says what was ignored, where two places contradict each other. Throws one sentence for a configuration that
 * we do not run, and for weights that do not belong to it.
 */
export function loadModel(config: unknown, ...files: Uint8Array[]): LoadedModel {
  const stated = parseModelConfig(config);
  const tensors = mergeFiles(files);
  const settled = settleHead(stated, tensors);
  const parsed = settled.config;
  checkTensors(parsed, tensors);
  checkWeightsFit(parsed);
  const weights: Weights = new Map();
  for (const [name, shape] of weightShapes(parsed))
    weights.set(name, parameter(tensor(readWeight(name, shape, tensors), shape)));
  return { config: parsed, weights, warnings: [...configWarnings(config), ...settled.warnings] };
}

//| 03-moe/4-the-decoder.ipynb#weights-file
/** A model's safetensors file from the values of its weights, by their names in the library. */
export function weightsFile(
  config: ModelConfig,
  valuesOf: (name: string, shape: number[]) => Float32Array,
): Uint8Array {
  const tensors = new Map<string, SafetensorsTensor>();
  for (const [name, shape] of weightShapes(config)) {
    const values = valuesOf(name, shape);
    const names = fileNames(name, shape);
    const [part, size] = [names[0] === name ? shape : shape.slice(1), values.length / names.length];
    for (const [e, each] of names.entries())
      tensors.set(each, float32Tensor(part, values.subarray(e * size, (e + 1) * size)));
  }
  return writeSafetensors(tensors, { format: "pt" }); // transformers wants to be told whose tensors they are
}

//| 03-moe/4-the-decoder.ipynb#save-model
/** What is written to make a model readable by others: the text of config.json, the bytes of model.safetensors. */
export interface ModelFiles {
  config: string;
  weights: Uint8Array;
}

/** The files of a model, its weights read back from the GPU. The same weights always give the same bytes. */
export async function saveModel(model: Model): Promise<ModelFiles> {
  const values = new Map<string, Float32Array>();
  for (const [name, weight] of parametersOf(model)) values.set(name, await weight.array());
  const weights = weightsFile(model.config, (name) => values.get(name)!);
  return { config: modelConfigText(model.config), weights };
}

//| 03-moe/4-the-decoder.ipynb#random-files
/** The files of a model with fresh random weights: those of `randomModel`, made without a GPU. */
export function randomModelFiles(config: ModelConfig, seed: number): ModelFiles {
  const weights = weightsFile(config, (name, shape) => initialValues(config, name, shape, seed));
  return { config: modelConfigText(config), weights };
}

//| 03-moe/4-the-decoder.ipynb#count-parameters
/** How many numbers a model has: `total`, and `active`, those that one token meets on its way. */
export interface ParameterCount {
  total: number;
  active: number;
}

/** Counts the parameters of a model. Experts that a token does not visit are not active; a tied table counts once. */
export function countParameters(config: ModelConfig): ParameterCount {
  const count = { total: 0, active: 0 };
  for (const [name, shape] of weightShapes(config)) {
    const { experts, expertsPerToken } = config.moe ?? { experts: 1, expertsPerToken: 1 };
    count.total += sizeOf(shape);
    count.active +=
      fileNames(name, shape)[0] === name ? sizeOf(shape) : (sizeOf(shape) / experts) * expertsPerToken;
  }
  return count;
}
