// Extracted from chapters/03-moe/4-the-decoder.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import { bindingLimit, checkFits } from "../gpu/buffers.js";
import { currentGpu } from "../gpu/device.js";
import { parameter } from "../tensor/autograd.js";
import type { normals } from "../tensor/random.js";
import { sizeOf, tensor } from "../tensor/tensor.js";
import { configWarnings, modelConfigText, parseModelConfig } from "./config.js";
import { modelFamilies, parametersByName, weightsOf } from "./families.js";
import {
  type StoredTensor,
  checkTensors,
  completeNames,
  fileTensors,
  isPlain,
  mergeFiles,
  numbersOf,
  settleHead,
  storedLayout,
  storedTensors,
  takeStored,
  weightsFile,
  weightsFilePieces,
} from "./stored.js";
import { type Model, type ModelWeight, buildModel, initialValues } from "./structure.js";

//| 03-moe/4-the-decoder.ipynb#read-weight
/** The values of one weight from the tensors of a file. */
export function readWeight(weight: ModelWeight, tensors: Map<string, StoredTensor>): Float32Array {
  const layout = storedLayout(weight);
  const numbers = (name: string) => numbersOf(name, tensors.get(name)!);
  if (!weight.perExpert && isPlain(layout)) return numbers(weight.files[0]);
  const values = new Float32Array(sizeOf(weight.shape));
  const part = values.length / weight.files.length;
  for (const [expert, name] of weight.files.entries())
    takeStored(layout, numbers(name), values.subarray(expert * part, (expert + 1) * part));
  return values;
}

//| 03-moe/4-the-decoder.ipynb#weights-fit
/** Throws unless the adapter can hold each weight. */
export function checkWeightsFit(config: ModelConfig, weights = weightsOf(config)): void {
  const { maxBufferSize } = currentGpu().facts.limits;
  for (const { name, role, shape } of weights) {
    // What has a row for each token is used in pieces.
    const most = role === "table" ? maxBufferSize : bindingLimit();
    checkFits(4 * sizeOf(shape), `The weight ${name}`, most);
  }
}

//| 03-moe/4-the-decoder.ipynb#load-model
/** A model from files, and a sentence for each thing that was ignored in them. */
export interface LoadedModel extends Model {
  warnings: string[];
}

/**
 * Makes a model from its config.json (parsed) and the tensors of its files, each of which is read when its turn has come.
 * Numbers of 16 bits become f32. `warnings` says what was ignored, where two places contradict each other. Throws one
 * sentence for a configuration that we do not run, and for weights that do not belong to it.
 */
export function openModelFiles(config: unknown, files: Map<string, StoredTensor>[]): LoadedModel {
  const stated = parseModelConfig(config);
  const tensors = completeNames(mergeFiles(files), modelFamilies[stated.modelType]);
  const settled = settleHead(stated, tensors);
  const weights = weightsOf(settled.config);
  checkTensors(settled.config, tensors, fileTensors(weights));
  checkWeightsFit(settled.config, weights);
  const model = buildModel(settled.config, modelFamilies[settled.config.modelType], (weight) =>
    parameter(tensor(readWeight(weight, tensors), weight.shape)),
  );
  return { ...model, warnings: [...configWarnings(config), ...settled.warnings] };
}

/** Makes a model from its config.json (parsed) and the bytes of its safetensors file or files, as `openModelFiles` does. */
export function loadModel(config: unknown, ...files: Uint8Array[]): LoadedModel {
  return openModelFiles(config, files.map(storedTensors));
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
  for (const [name, value] of parametersByName(model)) values.set(name, await value.array());
  const weights = weightsFile(model.config, ({ name }) => values.get(name)!);
  return { config: modelConfigText(model.config), weights };
}

//| 03-moe/4-the-decoder.ipynb#random-files
/** The safetensors file of a model with fresh random weights piece by piece, made without a GPU. `draw` does what `normals` does. */
export function randomModelPieces(
  config: ModelConfig,
  seed: number,
  draw?: typeof normals,
): Generator<Uint8Array> {
  return weightsFilePieces(config, (weight) => initialValues(config, weight, seed, draw));
}

/** The files of a model with fresh random weights: those of `randomModel`, made without a GPU. */
export function randomModelFiles(config: ModelConfig, seed: number): ModelFiles {
  const weights = weightsFile(config, (weight) => initialValues(config, weight, seed));
  return { config: modelConfigText(config), weights };
}
