// The configuration of a run: from its file, from `--set`, or from the folder of the run itself.
import fs from "node:fs";
import path from "node:path";
import type { ModelConfig } from "../formats/config.js";
import type { TrainConfig } from "../train/configuration.js";
import { readJson } from "./files.js";
import { UsageError } from "./run.js";

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
  set?: string[];
  resume?: boolean;
  tune?: boolean;
  json?: boolean;
}

/** The run that a folder holds, if it holds one. */
export function readRunFile(folder: string): RunFile | undefined {
  const file = path.join(folder, "run.json");
  return fs.existsSync(file) ? (readJson(file) as RunFile) : undefined;
}

/** The configuration that the options ask for, whole and checked. File names in it are absolute. */
export async function chosenConfig(flags: TrainFlags, begun: TrainConfig | undefined): Promise<TrainConfig> {
  const { parseTrainConfig, settingValue, withSetting } = await import("../train/configuration.js");
  let json = startingPoint(flags, begun);
  for (const assignment of flags.set ?? []) {
    const at = assignment.indexOf("=");
    if (at < 1) throw new UsageError(`--set wants key=value, such as steps=100, not ${assignment}`);
    json = withSetting(json, assignment.slice(0, at), settingValue(assignment.slice(at + 1)));
  }
  if (flags.data !== undefined) json = { ...json, data: flags.data };
  const config = parseTrainConfig(resolved(json, process.cwd()));
  await modelOf(config, { vocab_size: 2, max_position_embeddings: config.context }); // to find mistakes at once
  return config;
}

/** The model of a configuration, what is left out filled in. Throws one sentence that names what is wrong in it. */
export async function modelOf(
  config: TrainConfig,
  sizes: { vocab_size: number; max_position_embeddings: number },
): Promise<ModelConfig> {
  const { completeModelConfig, parseModelConfig } = await import("../formats/config.js");
  try {
    return parseModelConfig(completeModelConfig(config.model, sizes), { strict: true });
  } catch (error) {
    throw new Error(`model: ${(error as Error).message}`);
  }
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
  const { model, tokenizer, data } = json;
  const whole = (name: string) => (name === "-" ? name : path.resolve(folder, name));
  return {
    ...json,
    ...(typeof model === "string" ? { model: readJson(whole(model)) } : {}),
    ...(typeof data === "string" ? { data: whole(data) } : {}),
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
