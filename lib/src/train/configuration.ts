// Extracted from chapters/04-training/a-the-trainers-desk.ipynb: edit it there, or here and run `npm run backport`.
import { z } from "zod";
import { type KeySchema, isRecord, nearestName, readKeys } from "../formats/keys.js";
import type { Precision } from "../tensor/precision.js";
import { type OptimizerSettings, defaultOptimizer } from "./optimizers.js";
import { type Schedule, checkSchedule } from "./schedule.js";
import type { TrainingPlan } from "./step.js";

//| 04-training/a-the-trainers-desk.ipynb#choices
/** The optimizer of a training configuration. */
export interface OptimizerChoice {
  kind: OptimizerSettings["kind"];
  /** The highest learning rate; the schedule says how it gets there and away again. */
  learning_rate: number;
  betas: [number, number];
  epsilon: number;
  weight_decay: number;
  /** Gradients are scaled down to this norm; 0 for never. */
  clip: number;
  momentum: number;
  /** Muon: the learning rate of hidden matrices as a multiple of `learning_rate`. */
  matrix_rate: number;
}

/** The schedule of a training configuration. */
export interface ScheduleChoice {
  kind: Schedule["kind"];
  /** Steps of the warm-up. */
  warmup: number;
  /** The learning rate at the end, as a fraction of the highest. */
  floor: number;
  /** wsd: steps of the way down; a fifth of the run unless given. */
  decay?: number;
}

/** Where the text comes from: a folder of prepared data, a text file, or the synthetic grammar. */
export type DataChoice = string | { synthetic: { bytes: number; seed: number } };

//| 04-training/a-the-trainers-desk.ipynb#train-config
/** A training configuration: everything that decides what a run computes. Keys as in the JSON file. */
export interface TrainConfig {
  /** A config.json, or as much of one as is not plain from the rest. */
  model: Record<string, unknown>;
  /** A folder or file with a tokenizer.json, "char", "bytes", or how large a vocabulary to learn from the data. */
  tokenizer: string | { vocab_size: number };
  /** Missing only if the command line names the data. */
  data?: DataChoice;
  /** The share of text that is kept for validation when the run prepares its data itself. */
  val_fraction: number;
  steps: number;
  /** Sequences of a step, and of each of the `accumulate` parts that a step's gradient is summed over. */
  batch_size: number;
  accumulate: number;
  /** Tokens of a sequence. */
  context: number;
  seed: number;
  /** Validate every so many steps, on so many tokens; and at the end, on up to `final_eval_tokens`. */
  eval_every: number;
  eval_tokens: number;
  final_eval_tokens: number;
  checkpoint_every: number;
  /** Steps between two lines of metrics. */
  log_every: number;
  /** Steps between two samples of text (0: only at the end), their first words (none: those of the validation text), and
   * their length in tokens. */
  sample_every: number;
  sample_prompt: string;
  sample_tokens: number;
  optimizer: OptimizerChoice;
  schedule: ScheduleChoice;
  /** f16: matrix products in 16 bits with a scaled loss, where the adapter has such floats. */
  precision: Precision;
  /** No token sees another document than its own. Wants a tokenizer with a token between documents. */
  separate_documents: boolean;
}

//| 04-training/a-the-trainers-desk.ipynb#defaults
/** What a configuration says where it says nothing. */
export const defaultTrainConfig: TrainConfig = {
  model: {},
  tokenizer: { vocab_size: 1024 },
  val_fraction: 0.1,
  steps: 1000,
  batch_size: 8,
  accumulate: 1,
  context: 128,
  seed: 1,
  eval_every: 100,
  eval_tokens: 16384,
  final_eval_tokens: 2 ** 18,
  checkpoint_every: 100,
  log_every: 1,
  sample_every: 0,
  sample_prompt: "",
  sample_tokens: 120,
  optimizer: {
    kind: defaultOptimizer.kind,
    learning_rate: 1e-3,
    betas: [defaultOptimizer.beta1, defaultOptimizer.beta2],
    epsilon: defaultOptimizer.epsilon,
    weight_decay: defaultOptimizer.decay,
    clip: defaultOptimizer.clip,
    momentum: defaultOptimizer.momentum,
    matrix_rate: defaultOptimizer.matrixRate,
  },
  schedule: { kind: "cosine", warmup: 50, floor: 0.1 },
  precision: "f32",
  separate_documents: false,
};

//| 04-training/a-the-trainers-desk.ipynb#names
/** Settings inside of settings, with what each may hold. `model` is checked by `parseModelConfig`. */
export const nestedSettings: Record<string, Record<string, unknown>> = {
  optimizer: { ...defaultTrainConfig.optimizer },
  schedule: { ...defaultTrainConfig.schedule, decay: undefined },
  tokenizer: { vocab_size: undefined },
  data: { synthetic: undefined },
  "data.synthetic": { bytes: undefined, seed: undefined },
};

/** The dotted names of all settings, such as `optimizer.learning_rate`. */
export function settingNames(): string[] {
  const inner = Object.entries(nestedSettings).flatMap(([outer, keys]) =>
    Object.keys(keys).map((key) => `${outer}.${key}`),
  );
  return [...Object.keys(defaultTrainConfig), "data", ...inner];
}

/** The known setting that a mistyped dotted name may mean: by its whole name, or by its last part in another place. */
export function nearestSetting(name: string): string | undefined {
  const names = settingNames();
  const last = (dotted: string) => dotted.split(".").pop() ?? "";
  const elsewhere = nearestName(last(name), names.map(last));
  return nearestName(name, names) ?? names.find((known) => last(known) === elsewhere);
}

/** Throws if a configuration has a setting that there is not, naming the nearest that there is. */
export function checkSettings(json: Record<string, unknown>, outer = ""): void {
  const known = outer ? Object.keys(nestedSettings[outer]) : [...Object.keys(defaultTrainConfig), "data"];
  for (const [key, value] of Object.entries(json)) {
    const name = outer ? `${outer}.${key}` : key;
    if (!known.includes(key)) {
      const nearest = nearestSetting(name);
      throw new Error(
        `${name} is not a setting of a training run${nearest ? `; did you mean ${nearest}?` : "."}`,
      );
    }
    if (isRecord(value) && nestedSettings[name]) checkSettings(value, name);
  }
}

//| 04-training/a-the-trainers-desk.ipynb#read-optimizer
/** Reads the optimizer's settings, all of them given. */
export function readOptimizer(json: Record<string, unknown>): OptimizerChoice {
  const above = { error: "a number above 0" };
  const positive = z.number(above).positive(above);
  const zeroUp = { error: "a number from 0 up" };
  const notNegative = z.number(zeroUp).nonnegative(zeroUp);
  const unit = { error: "a number from 0 to below 1" };
  const share = z.number(unit).min(0, unit).lt(1, unit);
  const schema = z.object({
    kind: z.enum(["adamw", "muon", "momentum", "sgd"], { error: "adamw, muon, momentum or sgd" }),
    learning_rate: positive,
    betas: z.tuple([share, share], { error: "two numbers from 0 to below 1" }),
    epsilon: positive,
    weight_decay: notNegative,
    clip: notNegative,
    momentum: share,
    matrix_rate: positive,
  });
  return readKeys(schema as unknown as KeySchema<OptimizerChoice>, json, "optimizer.");
}

//| 04-training/a-the-trainers-desk.ipynb#read-schedule
/** Reads the schedule's settings, all of them given but `decay`. */
export function readSchedule(json: Record<string, unknown>): ScheduleChoice {
  const steps = { error: "a whole number of steps" };
  const unit = { error: "a number from 0 to 1" };
  const count = z.number(steps).int(steps).nonnegative(steps);
  const schema = z.object({
    kind: z.enum(["cosine", "wsd", "constant"], { error: "cosine, wsd or constant" }),
    warmup: count,
    floor: z.number(unit).min(0, unit).max(1, unit),
    decay: count.optional(),
  });
  return readKeys(schema, json, "schedule.");
}

//| 04-training/a-the-trainers-desk.ipynb#check-sources
/** Checks where model, tokenizer and text come from, and what else is no whole number. */
export function checkSources(json: Record<string, unknown>): void {
  const atLeast = (least: number) => {
    const words = { error: `a whole number of at least ${least}` };
    return z.number(words).int(words).min(least, words);
  };
  const vocabulary = z.object({ vocab_size: atLeast(257) });
  const synthetic = z.object({ bytes: atLeast(1000), seed: atLeast(0) });
  const text =
    'a folder of prepared data, a text file, or {"synthetic": {"bytes": 1000 or more, "seed": 0 or more}}';
  const share = { error: "a number from 0 to 0.9" };
  const schema = z.object({
    model: z.record(z.string(), z.unknown(), { error: "an object, or the name of a config.json" }),
    tokenizer: z.union([z.string(), vocabulary], {
      error: 'a folder with a tokenizer.json, "char", "bytes", or {"vocab_size": 257 or more}',
    }),
    data: z.union([z.string(), z.object({ synthetic })], { error: text }).optional(),
    val_fraction: z.number(share).min(0, share).max(0.9, share),
    sample_prompt: z.string({ error: "text" }),
    precision: z.enum(["f32", "f16"], { error: "f32 or f16" }),
    separate_documents: z.boolean({ error: "true or false" }),
  });
  readKeys(schema, json);
}

//| 04-training/a-the-trainers-desk.ipynb#whole-settings
/** Settings that are whole numbers, and the least that each may be. */
export const wholeSettings = {
  steps: 1,
  batch_size: 1,
  accumulate: 1,
  context: 1,
  seed: 0,
  eval_every: 1,
  eval_tokens: 1,
  final_eval_tokens: 1,
  checkpoint_every: 1,
  log_every: 1,
  sample_every: 0,
  sample_tokens: 1,
};

/** Checks every setting that is a whole number. */
export function checkWholeSettings(json: Record<string, unknown>): void {
  for (const [key, least] of Object.entries(wholeSettings)) {
    const value = json[key];
    if (Number.isSafeInteger(value) && (value as number) >= least) continue;
    throw new Error(`${key} must be a whole number of at least ${least}, not ${JSON.stringify(value)}.`);
  }
}

//| 04-training/a-the-trainers-desk.ipynb#plan-of
/** The schedule of a run as the loop wants it. */
export function scheduleOf({ steps, schedule, optimizer }: TrainConfig): Schedule {
  const peak = optimizer.learning_rate;
  // A warm-up that is longer than a short run would never end.
  const warmup = Math.min(schedule.warmup, Math.floor(steps / 2));
  const decay = schedule.decay === undefined ? {} : { decay: schedule.decay };
  return { kind: schedule.kind, warmup, steps, peak, floor: peak * schedule.floor, ...decay };
}

/** The optimizer of a run as `makeOptimizer` and `stepNumbers` want it. */
export function optimizerOf({ optimizer }: TrainConfig): OptimizerSettings {
  const { kind, betas, epsilon, clip, momentum } = optimizer;
  const renamed = { decay: optimizer.weight_decay, matrixRate: optimizer.matrix_rate };
  return { kind, beta1: betas[0], beta2: betas[1], epsilon, clip, momentum, ...renamed };
}

/** What the loop wants to know of a configuration; `separator` is the token between documents, where they are kept apart. */
export function planOf(config: TrainConfig, separator?: number): TrainingPlan {
  const { steps, accumulate, context, seed, precision } = config;
  const numbers = { steps, batchSize: config.batch_size, accumulate, context, seed, precision, separator };
  return { ...numbers, optimizer: optimizerOf(config), schedule: scheduleOf(config) };
}

//| 04-training/a-the-trainers-desk.ipynb#parse-config
/** Settings inside of a setting: the defaults, and over them what is given. */
export function filledIn(
  json: Record<string, unknown>,
  key: "optimizer" | "schedule",
): Record<string, unknown> {
  const given = json[key] ?? {};
  if (!isRecord(given)) throw new Error(`${key} must be an object, not ${JSON.stringify(given)}.`);
  return { ...defaultTrainConfig[key], ...given };
}

/** Fills in what a configuration leaves out, and checks every value. Throws one sentence that names the setting. */
export function parseTrainConfig(json: unknown): TrainConfig {
  if (!isRecord(json)) throw new Error("A training configuration must be a JSON object.");
  checkSettings(json);
  const filled = { ...defaultTrainConfig, ...json };
  checkSources(filled);
  checkWholeSettings(filled);
  const optimizer = readOptimizer(filledIn(json, "optimizer"));
  const config = { ...filled, optimizer, schedule: readSchedule(filledIn(json, "schedule")) };
  checkSchedule(scheduleOf(config));
  return config;
}

//| 04-training/a-the-trainers-desk.ipynb#set
/** The value in `key=value`: JSON where it is JSON, else text. */
export function settingValue(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Puts a value under a dotted name, as `--set optimizer.learning_rate=1e-3` does; returns a changed copy. */
export function withSetting(
  json: Record<string, unknown>,
  name: string,
  value: unknown,
): Record<string, unknown> {
  const [key, ...rest] = name.split(".");
  if (rest.length === 0) return { ...json, [key]: value };
  const inner = json[key];
  return { ...json, [key]: withSetting(isRecord(inner) ? inner : {}, rest.join("."), value) };
}

/**
 * Settings that may differ when a run is taken up again: they change how it is watched, or how long it goes on. (Data may
 * have moved; whether it is the same is told by its checksum.)
 */
export const changeableSettings = [
  "data",
  "steps",
  "eval_every",
  "eval_tokens",
  "final_eval_tokens",
  "checkpoint_every",
  "log_every",
  "sample_every",
  "sample_prompt",
  "sample_tokens",
  // These two do change its numbers, from there on: they are the way out for a run whose loss is lost.
  "optimizer.learning_rate",
  "optimizer.clip",
];

/** A setting by its dotted name. A setting that is newer than the run had its default then. */
export function settingOf(config: TrainConfig, name: string): unknown {
  const found = (from: object) =>
    name.split(".").reduce<unknown>((inner, key) => (inner as Record<string, unknown>)?.[key], from);
  return found(config) ?? found(defaultTrainConfig);
}

/** The settings in which two configurations differ, by their dotted names, each with both its values as JSON. */
export function settingsThatDiffer(
  before: TrainConfig,
  after: TrainConfig,
): { name: string; was: string; is: string }[] {
  const inner = (key: string) => Object.keys(nestedSettings[key]).map((name) => `${key}.${name}`);
  const names = [...Object.keys(defaultTrainConfig), "data"].flatMap((key) =>
    ["optimizer", "schedule"].includes(key) ? inner(key) : [key],
  );
  const json = (config: TrainConfig, name: string) => JSON.stringify(settingOf(config, name)) ?? "none";
  const all = names.map((name) => ({ name, was: json(before, name), is: json(after, name) }));
  return all.filter(({ was, is }) => was !== is);
}

/** Throws, naming the setting, if a run is to go on with another setting that decides its numbers. */
export function checkSameRun(begun: TrainConfig, now: TrainConfig): void {
  const changed = settingsThatDiffer(begun, now).find(({ name }) => !changeableSettings.includes(name));
  if (!changed) return;
  const { name, was, is } = changed;
  throw new Error(
    `The run was begun with ${name} ${was}, and cannot go on with ${is}: leave it as it was, or begin a new run.`,
  );
}
