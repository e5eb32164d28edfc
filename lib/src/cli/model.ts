// Models in folders: config.json beside model.safetensors, or beside the several files that an index names.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fillSynced, readExactly } from "../data/files.js";
import { writeWholeFolder } from "../data/folders.js";
import { type GenerationConfig, parseGenerationConfig, stopTokenIds } from "../formats/generation.js";
import { type SamplingSettings, plainSampling } from "../infer/sampling.js";
import { isRecord, shown } from "../formats/keys.js";
import { readSafetensorsHeader, safetensorsHeaderLength } from "../formats/safetensors.js";
import { indexName } from "../formats/shards.js";
import { readableBytes } from "../gpu/buffers.js";
import type { ModelConfig } from "../formats/config.js";
import { parseModelConfig } from "../model/config.js";
import { weightsOf } from "../model/families.js";
import { type Model, partAt } from "../model/structure.js";
import type { StoredTensor } from "../model/stored.js";
import { type ModelDtype, checkModelFiles, openModelFiles } from "../model/weights.js";
import { PackedWeight } from "../tensor/products.js";
import { openAdapter } from "./adapter.js";
import { readJson } from "./files.js";
import { isGguf, withGgufModel } from "./gguf.js";

/** The most bytes that are held as one array here. */
const largestArray = 2 ** 31 - 1;

/** Throws unless so many bytes can be held as one array. */
export function checkArraySize(bytes: number, what: string): void {
  if (bytes <= largestArray) return;
  const [needed, most] = [readableBytes(bytes), readableBytes(largestArray)];
  throw new Error(
    `${what} needs ${needed}, but one array holds at most ${most} here: choose a smaller size.`,
  );
}

/** Throws unless the disk of a folder, which need not exist yet, has room for so many bytes. */
export function checkRoom(folder: string, bytes: number, what: string): void {
  let place = path.resolve(folder);
  while (!fs.existsSync(place)) place = path.dirname(place);
  const { bavail, bsize } = fs.statfsSync(place);
  const [needed, left] = [bytes, bavail * bsize].map(readableBytes);
  if (bytes > bavail * bsize)
    throw new Error(`${what} needs ${needed}, and the disk of ${folder} has ${left} left.`);
}

/** Where the weights of a model lie, and what its folder says that is ignored. */
interface WeightFiles {
  files: string[];
  /** Where an index is followed: the name of the file in which each weight is said to be. */
  places?: Record<string, string>;
  warnings: string[];
}

/** The files that hold a model's weights: model.safetensors, else those that its index names. */
export function weightFiles(folder: string): WeightFiles {
  const single = path.join(folder, "model.safetensors");
  const index = path.join(folder, indexName);
  if (fs.existsSync(single)) {
    const warning = `${indexName} is ignored, because there is a model.safetensors.`;
    return { files: [single], warnings: fs.existsSync(index) ? [warning] : [] };
  }
  if (!fs.existsSync(index)) throw new Error(noWeights(folder));
  const places = readIndex(index);
  const names = [...new Set(Object.values(places))].sort();
  const missing = names.filter((name) => !fs.existsSync(path.join(folder, name)));
  if (missing.length > 0)
    throw new Error(
      `${folder}: ${missing.length} of ${names.length} files of weights are missing: ${missing[0]}.`,
    );
  for (const name of names) checkInside(folder, index, name);
  return { files: names.map((name) => path.join(folder, name)), places, warnings: [] };
}

/**
 * Throws where a file that an index names is a link that leads away. Links into the place where the index itself lies are fine: so a
 * cache of downloads keeps the files of a model.
 */
function checkInside(folder: string, index: string, name: string): void {
  const placeOf = (file: string) => path.dirname(fs.realpathSync(file));
  const places = [fs.realpathSync(folder), placeOf(index)];
  if (!places.includes(placeOf(path.join(folder, name))))
    throw new Error(`${index} names ${shown(name)}, which is a link to a file outside of its folder.`);
}

/** The sentence for a folder without weights that we read; other kinds of weights in it are named. */
function noWeights(folder: string): string {
  const names = fs.existsSync(folder) && fs.statSync(folder).isDirectory() ? fs.readdirSync(folder) : [];
  const other = names.find((name) => /\.(safetensors|bin|pth?|gguf|onnx|h5|npz)$/.test(name));
  const advice = other?.endsWith(".gguf") ? `name that: ${path.join(folder, other)}` : "which is not read";
  const but = other ? ` (but ${other}, ${advice})` : "";
  return `${folder} has no model.safetensors and no ${indexName}${but}.`;
}

/** Reads a JSON file of a model. Throws where it has a key twice: two readers would see two models in it. */
function readOnce(file: string): unknown {
  return readJson(file, { once: true });
}

/** What an index says: the file of each weight. Throws unless each is a name in the same folder. */
function readIndex(index: string): Record<string, string> {
  const { weight_map: places } = Object(readOnce(index));
  if (!isRecord(places) || Object.keys(places).length === 0)
    throw new Error(`${index} has no weight_map, the list of which weight is in which file.`);
  for (const name of Object.values(places))
    if (typeof name !== "string" || !/^[^/\\]{1,200}\.safetensors$/.test(name))
      throw new Error(`${index} names ${shown(name)}, which is not a safetensors file in its folder.`);
  return places as Record<string, string>;
}

/** An open file of weights: its tensors, each of which is read when it is asked for. */
interface WeightFile {
  tensors: Map<string, StoredTensor>;
  close(): void;
}

/** Opens a file of weights and checks its head. Errors name the file. */
function openWeightFile(file: string): WeightFile {
  // Before it is opened: opening a pipe would wait for whoever writes into it.
  if (!fs.statSync(file).isFile()) throw new Error(`${file} is not a file.`);
  const handle = fs.openSync(file, "r");
  try {
    const stat = fs.fstatSync(handle);
    const { tensors, fileLength } = readSafetensorsHeader(readHead(path.basename(file), handle, stat.size));
    if (fileLength !== stat.size)
      throw new Error(`it has ${stat.size} bytes where its head says ${fileLength}: copy it again.`);
    const stored = [...tensors].map(([name, { dtype, shape, begin, end }]): [string, StoredTensor] => {
      const read = (from = 0, to = end - begin) => {
        const bytes = new Uint8Array(to - from);
        readExactly(path.basename(file), handle, bytes, begin + from);
        return bytes;
      };
      return [name, { dtype, shape, read }];
    });
    return { tensors: new Map(stored), close: () => fs.closeSync(handle) };
  } catch (error) {
    fs.closeSync(handle);
    throw "code" in (error as Error) ? error : new Error(`${file}: ${(error as Error).message}`);
  }
}

/** The start of a safetensors file of `size` bytes: its whole head, or what there is of it. */
function readHead(file: string, handle: number, size: number): Uint8Array {
  const read = (length: number) => {
    const bytes = new Uint8Array(Math.min(length, size));
    readExactly(file, handle, bytes, 0);
    return bytes;
  };
  return read(safetensorsHeaderLength(read(8)));
}

/** The names of the tensors that each file holds, by the file's name. */
function heldBy(files: string[], opened: WeightFile[]): Map<string, Set<string>> {
  return new Map(files.map((file, i) => [path.basename(file), new Set(opened[i].tensors.keys())]));
}

/** A sentence if an index says of weights that they are in files which do not hold them. */
function misplaced(places: Record<string, string>, held: Map<string, Set<string>>): string[] {
  const wrong = Object.keys(places).filter((weight) => !held.get(places[weight])?.has(weight));
  if (wrong.length === 0) return [];
  const more = wrong.length > 1 ? ` and is wrong about ${wrong.length - 1} more` : "";
  return [
    `${indexName} says that ${shown(wrong[0])} is in ${places[wrong[0]]}, where it is not${more}: it is ignored there.`,
  ];
}

/** The generation_config.json of a folder, where there is one. Errors name the file. */
export function readGenerationConfig(folder: string): GenerationConfig | undefined {
  const file = path.join(folder, "generation_config.json");
  if (!fs.existsSync(file)) return undefined;
  const json = readOnce(file);
  return named(file, () => parseGenerationConfig(json));
}

/** How a model's tokens are chosen where nobody says: as its generation_config.json does, else plainly. */
export function usualSampling(given: GenerationConfig | undefined): SamplingSettings {
  const { temperature, topK, topP, minP } = plainSampling;
  return {
    temperature: given?.doSample === false ? 0 : (given?.temperature ?? temperature),
    topK: given?.topK ?? topK,
    topP: given?.topP ?? topP,
    minP: given?.minP ?? minP,
    repetitionPenalty: given?.repetitionPenalty,
  };
}

/**
 * Opens the model in a folder, on the GPU, its weights kept as `dtype` says; the ids that end its texts are those of config.json and
 * of generation_config.json. Errors name the folder; what is ignored, since two of its files disagree, is said on stderr, and so is
 * how the weights are kept where that is not as 32-bit floats.
 */
export async function openModel(folder: string, dtype: ModelDtype = "f32"): Promise<Model> {
  if (isGguf(folder)) return openGgufOnGpu(folder, dtype);
  const json = readOnce(path.join(folder, "config.json"));
  named(path.join(folder, "config.json"), () => parseModelConfig(json));
  const generation = readGenerationConfig(folder);
  const { files, places, warnings } = weightFiles(folder);
  const { facts } = await openAdapter();
  // The memory of a software adapter is the machine's own; how much a graphics card has, WebGPU does not say.
  const available = facts.kind === "cpu" ? machineMemory() : undefined;
  const opened: WeightFile[] = [];
  try {
    for (const file of files) opened.push(openWeightFile(file));
    if (places) warnings.push(...misplaced(places, heldBy(files, opened)));
    const tensors = opened.map((file) => file.tensors);
    const loaded = named(folder, () => openModelFiles(json, tensors, { dtype, available }));
    const { warnings: others, ...model } = loaded;
    for (const warning of [...warnings, ...others, ...packedSentence(model)])
      process.stderr.write(`${folder}: ${warning}\n`);
    const config = { ...model.config, eosTokenIds: stopTokenIds(model.config, generation) };
    return { ...model, config };
  } finally {
    for (const file of opened) file.close();
  }
}

/** How the weights of a model are kept, where some are packed. */
function packedSentence(model: Model): string[] {
  const weights = weightsOf(model.config).map((weight) => partAt(model, weight.path));
  const packed = weights.filter((weight) => weight instanceof PackedWeight);
  if (packed.length === 0) return [];
  const bytes = packed.flatMap(({ parts }) => parts).reduce((sum, part) => sum + 4 * part.size, 0);
  const formats = [...new Set(packed.map(({ format }) => format.name))].join(" and ");
  return [`matrices are kept in ${formats}, ${readableBytes(bytes)}.`];
}

/** Opens the model in a GGUF file, on the GPU. */
async function openGgufOnGpu(file: string, dtype: ModelDtype): Promise<Model> {
  return withGgufModel(file, async ({ json, tensors }) => {
    const { facts } = await openAdapter();
    const available = facts.kind === "cpu" ? machineMemory() : undefined;
    const { warnings, ...model } = openModelFiles(json, [tensors], { dtype, available });
    for (const warning of [...warnings, ...packedSentence(model)])
      process.stderr.write(`${file}: ${warning}\n`);
    return model;
  });
}

/** A model in its files, without a GPU. */
interface StoredModel {
  config: ModelConfig;
  /** Under the names of its family's files; each is read when it is asked for. */
  tensors: Map<string, StoredTensor>;
}

/** The model in tensors of files, checked. What is ignored is said on stderr. */
function storedModel(name: string, json: unknown, files: Map<string, StoredTensor>[]): StoredModel {
  const { warnings, ...model } = checkModelFiles(json, files);
  for (const warning of warnings) process.stderr.write(`${name}: ${warning}\n`);
  return model;
}

/** Does something with the files of a model (a folder or a GGUF file), without a GPU. Errors name it. */
export async function withStoredModel<T>(
  folder: string,
  work: (model: StoredModel) => T | Promise<T>,
): Promise<T> {
  if (isGguf(folder))
    return withGgufModel(folder, ({ json, tensors }) => work(storedModel(folder, json, [tensors])));
  const json = readOnce(path.join(folder, "config.json"));
  const generation = readGenerationConfig(folder);
  const opened: WeightFile[] = [];
  try {
    for (const file of weightFiles(folder).files) opened.push(openWeightFile(file));
    const tensors = opened.map((file) => file.tensors);
    const { config, ...model } = named(folder, () => storedModel(folder, json, tensors));
    return await work({ ...model, config: { ...config, eosTokenIds: stopTokenIds(config, generation) } });
  } finally {
    for (const file of opened) file.close();
  }
}

/** Does something with a file or folder whose name goes before the message of an error. */
function named<T>(name: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new Error(`${name}: ${(error as Error).message}`);
  }
}

/** Bytes of memory that this process may have: its limit where it has one, else all of the machine's. */
function machineMemory(): number {
  const limit = process.constrainedMemory?.() || Number.POSITIVE_INFINITY;
  return Math.min(limit, os.totalmem());
}

/** The content of a file: whole, or piece by piece. */
export type FileContent = string | Uint8Array | Iterable<Uint8Array>;

/** Writes a file and waits until it is on the disk. */
function writeContent(file: string, content: FileContent): void {
  const isWhole = typeof content === "string" || content instanceof Uint8Array;
  fillSynced(file, (write) => {
    for (const piece of isWhole ? [content] : content) write(piece);
  });
}

/**
 * Writes the files of a model, by name, into a folder; `inputs` are what they are made of, and `by` the command. The folder is
 * claimed before they are made, and a reader never sees half of them.
 */
export async function writeModel(
  folder: string,
  { by, inputs }: { by: string; inputs: string[] },
  make: () => Record<string, FileContent>,
): Promise<void> {
  await writeWholeFolder(folder, { by, last: "config.json", inputs }, async (partial) => {
    for (const [name, content] of Object.entries(make())) writeContent(path.join(partial, name), content);
  });
}
