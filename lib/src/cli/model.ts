// Models in folders: config.json beside model.safetensors, or beside the several files that an index names.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fillSynced, readExactly } from "../data/files.js";
import { writeWholeFolder } from "../data/folders.js";
import { type GenerationConfig, parseGenerationConfig, stopTokenIds } from "../formats/generation.js";
import { isRecord, shown } from "../formats/keys.js";
import { readSafetensorsHeader, safetensorsHeaderLength } from "../formats/safetensors.js";
import { readableBytes } from "../gpu/buffers.js";
import { parseModelConfig } from "../model/config.js";
import type { Model } from "../model/structure.js";
import type { StoredTensor } from "../model/stored.js";
import { openModelFiles } from "../model/weights.js";
import { openAdapter } from "./adapter.js";
import { readJson } from "./files.js";

/** The bytes that Node reads or writes at once. */
const largestFile = 2 ** 31 - 1;

/** Throws unless so many bytes fit into one file. */
export function checkFileSize(bytes: number, what: string): void {
  if (bytes <= largestFile) return;
  const [needed, most] = [readableBytes(bytes), readableBytes(largestFile)];
  throw new Error(`${what} needs ${needed}, but one file holds at most ${most} here: choose a smaller size.`);
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
  const index = path.join(folder, "model.safetensors.index.json");
  if (fs.existsSync(single)) {
    const warning = "model.safetensors.index.json is ignored, because there is a model.safetensors.";
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
  return { files: names.map((name) => path.join(folder, name)), places, warnings: [] };
}

/** The sentence for a folder without weights that we read; other kinds of weights in it are named. */
function noWeights(folder: string): string {
  const names = fs.existsSync(folder) && fs.statSync(folder).isDirectory() ? fs.readdirSync(folder) : [];
  const other = names.find((name) => /\.(safetensors|bin|pth?|gguf|onnx|h5|npz)$/.test(name));
  const but = other ? ` (but ${other}, which is not read)` : "";
  return `${folder} has no model.safetensors and no model.safetensors.index.json${but}.`;
}

/** What an index says: the file of each weight. Throws unless each is a name in the same folder. */
function readIndex(index: string): Record<string, string> {
  const { weight_map: places } = Object(readJson(index));
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
      checkFileSize(end - begin, `the tensor ${name}`);
      const read = () => {
        const bytes = new Uint8Array(end - begin);
        readExactly(path.basename(file), handle, bytes, begin);
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
    `model.safetensors.index.json says that ${shown(wrong[0])} is in ${places[wrong[0]]}, where it is not${more}: it is ignored there.`,
  ];
}

/** Throws if files of weights are more than the memory that this process may have. */
function checkMemory(files: string[], available: number): void {
  const needed = files.reduce((total, file) => total + fs.statSync(file).size, 0);
  if (needed > available)
    throw new Error(
      `${path.dirname(files[0])}: its weights need ${readableBytes(needed)} of memory, and there are ${readableBytes(available)}.`,
    );
}

/** The generation_config.json of a folder, where there is one. Errors name the file. */
async function readGenerationConfig(folder: string): Promise<GenerationConfig | undefined> {
  const file = path.join(folder, "generation_config.json");
  if (!fs.existsSync(file)) return undefined;
  const json = readJson(file);
  try {
    return parseGenerationConfig(json);
  } catch (error) {
    throw new Error(`${file}: ${(error as Error).message}`);
  }
}

/**
 * Opens the model in a folder, on the GPU; the ids that end its texts are those of config.json and of generation_config.json.
 * Errors name the folder; what is ignored, since two of its files disagree, is said on stderr.
 */
export async function openModel(folder: string): Promise<Model> {
  const json = readJson(path.join(folder, "config.json"));
  named(path.join(folder, "config.json"), () => parseModelConfig(json));
  const generation = await readGenerationConfig(folder);
  const { files, places, warnings } = weightFiles(folder);
  checkMemory(files, machineMemory());
  await openAdapter();
  const opened: WeightFile[] = [];
  try {
    for (const file of files) opened.push(openWeightFile(file));
    if (places) warnings.push(...misplaced(places, heldBy(files, opened)));
    const loaded = named(folder, () =>
      openModelFiles(
        json,
        opened.map(({ tensors }) => tensors),
      ),
    );
    const { warnings: others, ...model } = loaded;
    for (const warning of [...warnings, ...others]) process.stderr.write(`${folder}: ${warning}\n`);
    const config = { ...model.config, eosTokenIds: stopTokenIds(model.config, generation) };
    return { ...model, config };
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
 * Writes the files of a model, by name, into a folder; `inputs` are what they are made of. The folder is claimed before they
 * are made, and a reader never sees half of them.
 */
export async function writeModel(
  folder: string,
  inputs: string[],
  make: () => Promise<Record<string, FileContent>>,
): Promise<void> {
  await writeWholeFolder(folder, { by: "init", last: "config.json", inputs }, async (partial) => {
    for (const [name, content] of Object.entries(await make()))
      writeContent(path.join(partial, name), content);
  });
}
