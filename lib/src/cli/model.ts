// Models in folders: config.json beside model.safetensors, or beside the several files that an index names.
import fs from "node:fs";
import path from "node:path";
import { writeSynced } from "../data/files.js";
import { writeWholeFolder } from "../data/folders.js";
import { isRecord } from "../formats/safetensors.js";
import { readableBytes } from "../gpu/buffers.js";
import type { Model } from "../model/decoder.js";
import type { ModelFiles } from "../model/weights.js";
import { readJson } from "./files.js";

/** The bytes that Node reads or writes at once. */
const largestFile = 2 ** 31 - 1;

/** Throws unless so many bytes fit into one file. */
export function checkFileSize(bytes: number, what: string): void {
  if (bytes <= largestFile) return;
  const [needed, most] = [readableBytes(bytes), readableBytes(largestFile)];
  throw new Error(`${what} needs ${needed}, but one file holds at most ${most} here: choose a smaller size.`);
}

/** The files that hold a model's weights: those that its index names, or the only one. */
export function weightFiles(folder: string): string[] {
  const index = path.join(folder, "model.safetensors.index.json");
  if (!fs.existsSync(index)) return [path.join(folder, "model.safetensors")];
  const { weight_map: places } = Object(readJson(index));
  if (!isRecord(places) || !Object.values(places).every((name) => typeof name === "string"))
    throw new Error(`${index} has no weight_map, the list of which weight is in which file.`);
  const names = new Set(Object.values(places) as string[]);
  return [...names].map((name) => path.join(folder, path.basename(name)));
}

/** The bytes of a weights file. */
function readWeightFile(file: string): Uint8Array {
  checkFileSize(fs.statSync(file).size, file);
  return fs.readFileSync(file);
}

/** Opens the model in a folder, on the GPU. Errors name the folder. */
export async function openModel(folder: string): Promise<Model> {
  const config = readJson(path.join(folder, "config.json"));
  const files = weightFiles(folder).map(readWeightFile);
  const { openGpu } = await import("../gpu/device.js");
  const { loadModel } = await import("../model/weights.js");
  await openGpu({ robust: false });
  try {
    return loadModel(config, ...files);
  } catch (error) {
    throw new Error(`${folder}: ${(error as Error).message}`);
  }
}

/** Makes a model's files and writes them into a folder; `inputs` are the files that they are made of. A reader never sees half of them. */
export function writeModel(folder: string, inputs: string[], make: () => ModelFiles): void {
  writeWholeFolder(folder, "init", { last: "config.json", inputs }, (partial) => {
    const { config, weights } = make();
    writeSynced(path.join(partial, "model.safetensors"), weights);
    writeSynced(path.join(partial, "config.json"), config);
  });
}
