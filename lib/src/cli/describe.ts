import fs from "node:fs";
import path from "node:path";
import type { Command } from "commander";
import type { ModelConfig } from "../formats/config.js";
import { isRecord } from "../formats/keys.js";
import { configWarnings, parseModelConfig } from "../model/config.js";
import { modelReport } from "./describe-report.js";
import { descriptionText } from "./describe-text.js";
import { readJson, readText } from "./files.js";
import { readDescription } from "./init.js";
import { readChatTemplate } from "./model-folder.js";
import { wholeNumber } from "./options.js";
import { examples, printJson } from "./run.js";

/** `tslm describe`: what a model is and what it costs, from its configuration alone. */
export function configure(command: Command): void {
  command
    .argument(
      "<model>",
      "a folder with a config.json, such a file, or a training configuration with a model in it",
    )
    .option(
      "--context <n>",
      "the context length for which arithmetic and cache are told; unless given 4096, or the model's own if that is shorter",
      wholeNumber(1),
    )
    .option("--json", "print it as one JSON object")
    .action(describe);
  examples(command, "npx tslm describe model", "npx tslm describe config.json --context 32768 --json");
}

async function describe(model: string, options: { context?: number; json?: boolean }): Promise<void> {
  const isFolder = fs.existsSync(model) && fs.statSync(model).isDirectory();
  const file = isFolder ? path.join(model, "config.json") : model;
  const { config, architecture, packing } = await readConfig(file);
  const context = options.context ?? Math.min(4096, config.contextLength);
  const report = {
    model,
    ...modelReport(config, architecture, context),
    ...(packing ? { packing } : {}),
    ...(isFolder ? { tokenizer: tokenizerReport(model), license: licenseOf(model) } : {}),
  };
  if (options.json) return printJson(report);
  process.stdout.write(descriptionText(report));
}

/** What a config.json says of a model. */
interface StatedModel {
  config: ModelConfig;
  architecture?: string;
  /** How its weights are packed, where they are. */
  packing?: string;
}

/** The configuration in a file, and the class that it names; what is ignored in it is said on stderr. Errors name the file. */
async function readConfig(file: string): Promise<StatedModel> {
  const json = readJson(file);
  if (isRecord(json) && json.model !== undefined) return { config: (await readDescription(file)).config };
  try {
    const config = parseModelConfig(json);
    for (const warning of configWarnings(json)) process.stderr.write(`${file}: ${warning}\n`);
    const [named] = [(json as Record<string, unknown>).architectures ?? []].flat();
    const packing = statedPacking((json as Record<string, unknown>).quantization_config);
    return { config, architecture: named === undefined ? undefined : String(named), packing };
  } catch (error) {
    throw new Error(`${file}: ${(error as Error).message}`);
  }
}

/** In words what a config.json notes of how weights are packed, such as `int4 in groups of 32, int8`. */
function statedPacking(note: unknown): string | undefined {
  if (!isRecord(note)) return undefined;
  if (note.quant_method === "mxfp4") return "mxfp4";
  const groups = Object.values(Object(note.config_groups)).map((group) => Object(Object(group).weights));
  return groups
    .sort((a, b) => a.num_bits - b.num_bits)
    .map(({ num_bits, group_size, symmetric }) => {
      const shared = group_size ? ` in groups of ${group_size}` : "";
      return `int${num_bits}${shared}${symmetric === false ? " with zero points" : ""}`;
    })
    .join(", ");
}

/** What a folder's tokenizer.json is; null where there is none. */
function tokenizerReport(folder: string) {
  const file = path.join(folder, "tokenizer.json");
  if (!fs.existsSync(file)) return null;
  const json = Object(readJson(file));
  const added: { id: number; special?: boolean }[] = json.added_tokens ?? [];
  const { type, vocab = {}, byte_fallback } = Object(json.model);
  const ids = Array.isArray(vocab)
    ? vocab.map((_, id) => id)
    : Object.values(vocab as Record<string, number>);
  const largest = [...ids, ...added.map(({ id }) => id)].reduce((most, id) => Math.max(most, id), -1);
  return {
    kind: `${type ?? "unknown"}${byte_fallback ? " with bytes to fall back on" : hasByteLevel(json) ? " on bytes" : ""}`,
    vocabulary: largest + 1,
    specials: added.filter(({ special }) => special).length,
    added: added.length,
    chat_template: readChatTemplate(folder) !== undefined,
  };
}

/** Whether a tokenizer.json works on bytes spelled as letters. */
function hasByteLevel({ pre_tokenizer, decoder }: Record<string, unknown>): boolean {
  return JSON.stringify([pre_tokenizer, decoder]).includes('"ByteLevel"');
}

/** The licence of a model folder and where it is stated: in its README's front matter, or by a LICENSE file; null where it is not. */
function licenseOf(folder: string): { name: string; file: string } | null {
  const readme = path.join(folder, "README.md");
  const front = fs.existsSync(readme) ? /^---\r?\n([\s\S]*?)\r?\n---/.exec(readText(readme))?.[1] : undefined;
  const stated = (key: string) =>
    new RegExp(`^${key}:[ \\t]*(.+?)[ \\t]*$`, "m").exec(front ?? "")?.[1].replace(/^["']|["']$/g, "");
  const license = stated("license");
  if (license)
    return { name: license === "other" ? (stated("license_name") ?? license) : license, file: "README.md" };
  const file = fs.readdirSync(folder).find((name) => /^(licen[cs]e|copying)(\.(md|txt))?$/i.test(name));
  if (!file) return null;
  const title = readText(path.join(folder, file))
    .split("\n")
    .map((line) => line.replace(/^[#\s]+/, "").trim())
    .find((line) => line !== "");
  return { name: title ?? file, file };
}
