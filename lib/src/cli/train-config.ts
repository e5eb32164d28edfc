// The configuration of a run: from its file, from `--set`, or from the folder of the run itself.
import fs from "node:fs";
import path from "node:path";
import { type ModelConfig, strayValues } from "../formats/config.js";
import type { Checkpoint } from "../train/checkpoint.js";
import {
  type TrainConfig,
  changeableSettings,
  parseTrainConfig,
  settingValue,
  settingsThatDiffer,
  withSetting,
} from "../train/configuration.js";
import { readJson } from "./files.js";
import { readChatTemplate } from "./model-folder.js";
import { UsageError } from "./run.js";
import { checkedJson, parseChecked } from "../data/files.js";
import { completeModelConfig, modelConfigToJson, parseModelConfig } from "../model/config.js";
import { withStoredModel } from "./model.js";

/** What a run's folder says about it, in run.json. */
export interface RunFile {
  config: TrainConfig;
  /** sha256 of what the data's manifest says of the shards. */
  data_sha256: string;
}

/** The options of `tslm train`. */
export interface TrainFlags {
  config?: string;
  out: string;
  data?: string;
  initFrom?: string;
  set?: string[];
  resume?: boolean;
  tune?: boolean;
  /** Bytes that one file of the model's weights may have. */
  maxShardSize: number;
  json?: boolean;
}

/** How run.json begins. */
const format = { format: "tslm run", version: 1 };

/** The text of run.json. */
export function runFileText({ config, data_sha256 }: RunFile): string {
  return checkedJson({ ...format, config, data_sha256 });
}

/** What a text of run.json says, every setting checked. Throws a few words on what is wrong with it. */
function parseRunFile(text: string): RunFile {
  const { config, data_sha256, ...others } = parseChecked(text, { unsigned: true });
  const isKnownFormat = [{}, format].some((one) => JSON.stringify(one) === JSON.stringify(others));
  if (!isKnownFormat) throw new Error("it is not of version 1, or holds what does not belong there");
  if (typeof data_sha256 !== "string" || !/^[0-9a-f]{64}$/.test(data_sha256))
    throw new Error("its data_sha256 is no checksum");
  return { config: parseTrainConfig(config), data_sha256 };
}

/** The run that a folder holds, if it holds one: what run.json says, or where that is missing, the checkpoint. */
export function readRunFile(folder: string, checkpoint?: Checkpoint): RunFile | undefined {
  const file = path.join(folder, "run.json");
  const copy = checkpoint?.files.get("run.json");
  const saved = copy && parseRunFile(new TextDecoder().decode(copy));
  if (!fs.existsSync(file)) return saved;
  try {
    const begun = parseRunFile(fs.readFileSync(file, "utf8"));
    if (saved) checkBelongs(begun, saved);
    return begun;
  } catch (error) {
    const advice = copy
      ? "Remove it and resume: the settings are then those of the last checkpoint."
      : "Begin the run again, in another folder.";
    const problem = (error as Error).message.replace(/\.$/, "");
    throw new Error(
      `${file} is damaged or was edited: ${problem}. ${advice} Settings are changed with --set.`,
    );
  }
}

/** Throws if run.json is not that of the run that a checkpoint is of. */
function checkBelongs(begun: RunFile, saved: RunFile): void {
  if (begun.data_sha256 !== saved.data_sha256)
    throw new Error("it is of a run on other data than the checkpoint");
  const other = settingsThatDiffer(saved.config, begun.config).find(
    ({ name }) => !changeableSettings.includes(name),
  );
  if (other)
    throw new Error(`it says ${other.name} ${other.is}, and the checkpoint was made with ${other.was}`);
}

/** The configuration that the options ask for, whole and checked. File names in it are absolute. */
export async function chosenConfig(flags: TrainFlags, begun: TrainConfig | undefined): Promise<TrainConfig> {
  let json = startingPoint(flags, begun);
  for (const assignment of flags.set ?? []) {
    const at = assignment.indexOf("=");
    if (at < 1) throw new UsageError(`--set wants key=value, such as steps=100, not ${assignment}`);
    json = withSetting(json, assignment.slice(0, at), settingValue(assignment.slice(at + 1)));
  }
  if (flags.data !== undefined) json = { ...json, data: flags.data };
  if (flags.initFrom !== undefined) json = { ...json, init_from: flags.initFrom };
  const whole = resolved(json, process.cwd());
  const config = parseTrainConfig(begun ? whole : await withGivenModel(whole));
  // To find mistakes at once; how many tokens there are is not known yet.
  const ids = [config.model.bos_token_id, config.model.eos_token_id].flat().map((id) => Number(id) || 0);
  const sizes = {
    vocab_size: Math.min(2 ** 31 - 1, Math.max(2, 1 + Math.max(...ids))),
    max_position_embeddings: config.context,
  };
  modelOf(config, sizes);
  if (typeof config.tokenizer === "string") readChatTemplate(config.tokenizer);
  return config;
}

/** The model of a configuration, what is left out filled in. Throws one sentence that names what is wrong in it. */
export function modelOf(
  config: TrainConfig,
  sizes: { vocab_size: number; max_position_embeddings: number },
): ModelConfig {
  try {
    const json = completeModelConfig(config.model, sizes);
    const parsed = parseModelConfig(json, { strict: true });
    const [stray] = strayValues(json, parsed);
    if (stray) throw new Error(stray);
    return parsed;
  } catch (error) {
    throw new Error(`model: ${(error as Error).message}`);
  }
}

/** The configuration of a run that begins with a model: its shape is the run's, and its tokenizer, where it has one. */
async function withGivenModel(json: Record<string, unknown>): Promise<Record<string, unknown>> {
  const folder = json.init_from;
  if (typeof folder !== "string") return json;
  const model = await withStoredModel(folder, ({ config }) => modelConfigToJson(config));
  const hasTokenizer = fs.existsSync(path.join(folder, "tokenizer.json"));
  return { ...json, model, ...(hasTokenizer ? { tokenizer: folder } : {}) };
}

/** The configuration before `--set`: of the file if one is named, else that which the run was begun with. */
function startingPoint(flags: TrainFlags, begun: TrainConfig | undefined): Record<string, unknown> {
  if (flags.config !== undefined) {
    const json = readJson(flags.config);
    if (typeof json !== "object" || json === null || Array.isArray(json))
      throw new Error(`${flags.config} must hold a JSON object.`);
    return resolved(json as Record<string, unknown>, path.dirname(path.resolve(flags.config)));
  }
  if (begun) return { ...begun };
  throw new UsageError("name the configuration of the run: --config FILE (such as configs/default.json)");
}

/** The same configuration with file names seen from `folder`, and the model read where a file is named. */
function resolved(json: Record<string, unknown>, folder: string): Record<string, unknown> {
  const { model, tokenizer, data, init_from: from } = json;
  const whole = (name: string) => (name === "-" ? name : path.resolve(folder, name));
  return {
    ...json,
    ...(typeof model === "string" ? { model: readJson(whole(model)) } : {}),
    ...(typeof data === "string" ? { data: whole(data) } : {}),
    ...(typeof from === "string" ? { init_from: whole(from) } : {}),
    ...(typeof tokenizer === "string" && !["char", "bytes"].includes(tokenizer)
      ? { tokenizer: whole(tokenizer) }
      : {}),
  };
}

/** The exact command that goes on with a run. */
export function resumeCommand(out: string): string {
  const name = /^[\w./:\\-]+$/.test(out) ? out : JSON.stringify(out);
  return `npx tslm train --out ${name} --resume`;
}
