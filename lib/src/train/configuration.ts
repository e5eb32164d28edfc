// Extracted from chapters/04-training/a-the-trainers-desk.ipynb: edit it there, or here and run `npm run backport`.
import { z } from "zod";
import { type KeySchema, isRecord, nearestName, readKeys } from "../formats/keys.js";
import type { Precision } from "../tensor/precision.js";
import { defaultOptimizer } from "./optimizers.js";
import { type Schedule, checkSchedule } from "./schedule.js";
import { type TrainingSettings, defaultRouterTraining } from "./step.js";

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

/** The value under a dotted name; undefined where there is none. */
export function valueAt(json: object, name: string): unknown {
  return name
    .split(".")
    .reduce<unknown>((inner, key) => (inner as Record<string, unknown> | undefined)?.[key], json);
}

/** An object with values at the places that dotted names say. What is undefined is left out. */
export function objectOf(values: [string, unknown][]): Record<string, unknown> {
  const given = values.filter(([, value]) => value !== undefined);
  return given.reduce<Record<string, unknown>>((json, [name, value]) => withSetting(json, name, value), {});
}

//| 04-training/a-the-trainers-desk.ipynb#choices-parts
/** Where the text comes from: a folder of prepared data, a text file, or the synthetic grammar. */
export type DataChoice = string | { synthetic: { bytes: number; seed: number } };

//| 04-training/a-the-trainers-desk.ipynb#choices
/** Everything that is known of one setting. */
export interface Setting<T> {
  /** What it is when a configuration does not say. */
  initial: T;
  /** What it must be, in the words that end the sentence "... must be ...". */
  schema: KeySchema<T>;
  /** What it does, in one line. */
  help: string;
  /** Its place in `TrainingSettings`; none of a setting that does not decide what a run computes. */
  to?: string;
  /** Whether it may be another when a run is taken up again. */
  changeable?: boolean;
}

/** The values of a table's settings. */
export type ValuesOf<T> = {
  [K in keyof T]: T[K] extends Setting<infer V> ? V : ValuesOf<T[K]>;
};

//| 04-training/a-the-trainers-desk.ipynb#choices-helpers
/** Settings by name; some hold others. */
export interface SettingTable {
  [name: string]: Setting<unknown> | SettingTable;
}

/** One row of a table of settings. The type of the values is that of the first one, or stated. */
export function setting<T>(
  initial: T,
  schema: unknown,
  help: string,
  rest: Pick<Setting<T>, "to" | "changeable"> = {},
): Setting<T> {
  return { initial, schema: schema as KeySchema<T>, help, ...rest };
}

/** Whether a row is a setting itself, and not a table of others. */
export function isSetting(row: Setting<unknown> | SettingTable): row is Setting<unknown> {
  return "help" in row && typeof row.help === "string";
}

//| 04-training/a-the-trainers-desk.ipynb#train-config
/** What values must be, each with the words that end the sentence "... must be ...". */
export const mustBe = (() => {
  const number = (words: string) => z.number({ error: words });
  const from = (least: number, words: string) => number(words).min(least, { error: words });
  const steps = "a whole number of steps";
  const whole = (least: number) => {
    const words = `a whole number of at least ${least}`;
    return from(least, words).int({ error: words });
  };
  const belowOne = from(0, "a number from 0 to below 1").lt(1, { error: "a number from 0 to below 1" });
  const synthetic = z.object({ bytes: whole(1000), seed: whole(0) });
  const text =
    'a folder of prepared data, a text file, or {"synthetic": {"bytes": 1000 or more, "seed": 0 or more}}';
  return {
    whole,
    belowOne,
    steps: from(0, steps).int({ error: steps }),
    above0: number("a number above 0").positive({ error: "a number above 0" }),
    from0: from(0, "a number from 0 up"),
    from0To: (most: number) =>
      from(0, `a number from 0 to ${most}`).max(most, { error: `a number from 0 to ${most}` }),
    twoBelowOne: z.tuple([belowOne, belowOne], { error: "two numbers from 0 to below 1" }),
    oneOf: (...names: string[]) =>
      z.enum(names, { error: `${names.slice(0, -1).join(", ")} or ${names[names.length - 1]}` }),
    text: z.string({ error: "text" }),
    yesOrNo: z.boolean({ error: "true or false" }),
    model: z.record(z.string(), z.unknown(), { error: "an object, or the name of a config.json" }),
    tokenizer: z.union([z.string(), z.object({ vocab_size: whole(257) })], {
      error: 'a folder with a tokenizer.json, "char", "bytes", or {"vocab_size": 257 or more}',
    }),
    data: z.union([z.string(), z.object({ synthetic })], { error: text }).optional(),
  };
})();

//| 04-training/a-the-trainers-desk.ipynb#defaults-run
/** What is trained, and on what. */
export const dataSettings = {
  model: setting<Record<string, unknown>>(
    {},
    mustBe.model,
    "a config.json, or as much of one as is not plain from the rest",
  ),
  tokenizer: setting<string | { vocab_size: number }>(
    { vocab_size: 1024 },
    mustBe.tokenizer,
    'a folder or file with a tokenizer.json, "char", "bytes", or how large a vocabulary to learn',
  ),
  init_from: setting<string | undefined>(
    undefined,
    mustBe.text.optional(),
    "a folder with a model to begin with: its weights, its tokenizer and its shape, instead of fresh ones",
  ),
  data: setting<DataChoice | undefined>(
    undefined,
    mustBe.data,
    "a folder of prepared data, a text file, or the synthetic grammar",
    { changeable: true }, // it may have moved; whether it is the same is told by its checksum
  ),
  val_fraction: setting(0.1, mustBe.from0To(0.9), "the part of the text that is kept for validation"),
};

/** How long a run is, and what it does on its way. */
export const runSettings = {
  steps: setting(1000, mustBe.whole(1), "steps of the run", { to: "steps", changeable: true }),
  batch_size: setting(8, mustBe.whole(1), "sequences of a microbatch", { to: "batchSize" }),
  accumulate: setting(1, mustBe.whole(1), "microbatches whose gradients make one step", { to: "accumulate" }),
  context: setting(128, mustBe.whole(1), "tokens of a sequence", { to: "context" }),
  seed: setting(1, mustBe.whole(0), "of the weights and of the order of the text", { to: "seed" }),
  eval_every: setting(100, mustBe.whole(1), "steps between two validations", { changeable: true }),
  eval_tokens: setting(16384, mustBe.whole(1), "tokens of a validation on the way", { changeable: true }),
  final_eval_tokens: setting(2 ** 18, mustBe.whole(1), "tokens of the last validation", { changeable: true }),
  checkpoint_every: setting(100, mustBe.whole(1), "steps between two checkpoints", { changeable: true }),
  log_every: setting(1, mustBe.whole(1), "steps between two lines of metrics", { changeable: true }),
  sample_every: setting(0, mustBe.whole(0), "steps between two samples; 0: only at the end", {
    changeable: true,
  }),
  sample_prompt: setting("", mustBe.text, "how a sample begins; empty: as the validation text does", {
    changeable: true,
  }),
  sample_tokens: setting(120, mustBe.whole(1), "tokens of a sample", { changeable: true }),
};

//| 04-training/a-the-trainers-desk.ipynb#defaults-optimizer
/** The optimizer, section `optimizer`. */
export const optimizerSettings = {
  kind: setting(
    defaultOptimizer.kind,
    mustBe.oneOf("adamw", "muon", "momentum", "sgd"),
    "adamw, muon, momentum or sgd",
    {
      to: "optimizer.kind",
    },
  ),
  // This and `clip` do change a run's numbers, from there on: they are the way out for a run whose loss is lost.
  learning_rate: setting(1e-3, mustBe.above0, "the highest learning rate", {
    to: "schedule.peak",
    changeable: true,
  }),
  betas: setting(defaultOptimizer.betas, mustBe.twoBelowOne, "AdamW: how slowly its two means move", {
    to: "optimizer.betas",
  }),
  epsilon: setting(defaultOptimizer.epsilon, mustBe.above0, "AdamW: what keeps it from dividing by 0", {
    to: "optimizer.epsilon",
  }),
  weight_decay: setting(
    defaultOptimizer.weightDecay,
    mustBe.from0,
    "what matrices lose a step, times the learning rate",
    { to: "optimizer.weightDecay" },
  ),
  clip: setting(defaultOptimizer.clip, mustBe.from0, "gradients are scaled down to this norm; 0: never", {
    to: "optimizer.clip",
    changeable: true,
  }),
  momentum: setting(
    defaultOptimizer.momentum,
    mustBe.belowOne,
    "momentum, Muon: how slowly the velocity moves",
    { to: "optimizer.momentum" },
  ),
  matrix_rate: setting(
    defaultOptimizer.matrixRate,
    mustBe.above0,
    "Muon: how much faster hidden matrices move than the rest",
    { to: "optimizer.matrixRate" },
  ),
};

//| 04-training/a-the-trainers-desk.ipynb#defaults-schedule
/** The learning rate, section `schedule`. */
export const scheduleSettings = {
  kind: setting<Schedule["kind"]>(
    "cosine",
    mustBe.oneOf("cosine", "wsd", "constant"),
    "cosine, wsd or constant",
    { to: "schedule.kind" },
  ),
  warmup: setting(50, mustBe.steps, "steps in which the learning rate rises; at most half the run", {
    to: "schedule.warmup",
  }),
  floor: setting(0.1, mustBe.from0To(1), "the last learning rate, as a fraction of the highest", {
    to: "schedule.floor",
  }),
  decay: setting<number | undefined>(
    undefined,
    mustBe.steps.optional(),
    "wsd: steps of the way down; else a fifth of the run",
    { to: "schedule.decaySteps" },
  ),
};

//| 04-training/a-the-trainers-desk.ipynb#defaults-router
/** Routers of models with experts, section `router`. */
export const routerSettings = {
  bias_rate: setting(
    defaultRouterTraining.biasRate,
    mustBe.from0,
    "how far a step moves the biases that steer the choice of experts, in families that have them",
    { to: "router.biasRate" },
  ),
  z_loss: setting(
    defaultRouterTraining.zLoss,
    mustBe.from0,
    "the weight of the router's z-loss, which keeps its scores small; OLMoE's is 0.001",
    { to: "router.zLoss" },
  ),
};

//| 04-training/a-the-trainers-desk.ipynb#defaults
/**
 * All settings of a training run. From this table follow the type of a configuration, its defaults and checks, the names
 * that `--set` knows, the help, what a resumed run may change, and the settings of the loop.
 */
export const trainSettings = {
  ...dataSettings,
  ...runSettings,
  optimizer: optimizerSettings,
  schedule: scheduleSettings,
  router: routerSettings,
  precision: setting<Precision>("f32", mustBe.oneOf("f32", "f16"), "of matrix products: f32 or f16", {
    to: "precision",
  }),
  loss_scale: setting(2 ** 16, mustBe.from0, "f16: what the loss is multiplied by at first; 0: never", {
    to: "lossScale",
  }),
  dropout: setting(
    0,
    mustBe.belowOne,
    "the part of what a block adds that is left out in training; 0: none",
    {
      to: "dropout",
    },
  ),
  separate_documents: setting(false, mustBe.yesOrNo, "no token sees another document than its own"),
};

//| 04-training/a-the-trainers-desk.ipynb#config-type-parts
/** Every setting by its dotted name, such as `optimizer.learning_rate`, in order. */
export function namedSettings(table: SettingTable = trainSettings, outer = ""): [string, Setting<unknown>][] {
  return Object.entries(table).flatMap(([key, row]) =>
    isSetting(row)
      ? [[outer + key, row] as [string, Setting<unknown>]]
      : namedSettings(row, `${outer}${key}.`),
  );
}

//| 04-training/a-the-trainers-desk.ipynb#config-type
/** A training configuration, whole: the keys and values of its JSON file. */
export type TrainConfig = ValuesOf<typeof trainSettings>;

//| 04-training/a-the-trainers-desk.ipynb#config-type-helpers
/** What a configuration says where it says nothing. */
export const defaultTrainConfig = objectOf(
  namedSettings().map(([name, { initial }]) => [name, initial]),
) as unknown as TrainConfig;

//| 04-training/a-the-trainers-desk.ipynb#names
/** As much of a schema as says what else it holds: keys of an object, forms of a choice, what is optional. */
export interface SchemaForm {
  shape?: Record<string, SchemaForm>;
  options?: SchemaForm[];
  def?: { innerType?: SchemaForm };
}

/** The dotted names of what a value may hold that is itself an object, as its schema says. */
export function innerNames(schema: SchemaForm): string[] {
  const inside = Object.entries(schema.shape ?? {}).flatMap(([key, inner]) => [
    key,
    ...innerNames(inner).map((name) => `${key}.${name}`),
  ]);
  const forms = [...(schema.options ?? []), ...(schema.def?.innerType ? [schema.def.innerType] : [])];
  return [...inside, ...forms.flatMap(innerNames)];
}

/** The dotted names of all settings, and of the objects that hold them. */
export function settingNames(): string[] {
  const names = namedSettings().flatMap(([name, { schema }]) => [
    name,
    ...innerNames(schema as unknown as SchemaForm).map((inner) => `${name}.${inner}`),
  ]);
  return [...Object.keys(trainSettings), ...names.filter((name) => name.includes("."))];
}

//| 04-training/a-the-trainers-desk.ipynb#check-names
/** The known setting that a mistyped dotted name may mean: by its whole name, or by its last part in another place. */
export function nearestSetting(name: string): string | undefined {
  const names = settingNames();
  const last = (dotted: string) => dotted.split(".").pop() ?? "";
  const elsewhere = nearestName(last(name), names.map(last));
  return nearestName(name, names) ?? names.find((candidate) => last(candidate) === elsewhere);
}

/** Throws if a configuration has a setting that there is not, naming the nearest that there is. */
export function checkNames(json: Record<string, unknown>, names = settingNames(), outer = ""): void {
  for (const [key, value] of Object.entries(json)) {
    const name = outer + key;
    if (!names.includes(name)) {
      const nearest = nearestSetting(name);
      throw new Error(
        `${name} is not a setting of a training run${nearest ? `; did you mean ${nearest}?` : "."}`,
      );
    }
    const holdsOthers = names.some((other) => other.startsWith(`${name}.`));
    if (isRecord(value) && holdsOthers) checkNames(value, names, `${name}.`);
  }
}

//| 04-training/a-the-trainers-desk.ipynb#plan-of
/**
 * What the loop wants to know of a configuration: each value at the place that the table says. `separator` is the token
 * between documents, where they are kept apart.
 */
export function trainingSettings(config: TrainConfig, separator?: number): TrainingSettings {
  const placed = namedSettings().flatMap(([name, { to, initial }]): [string, unknown][] =>
    to ? [[to, valueAt(config, name) ?? initial]] : [],
  );
  const settings = objectOf(placed) as unknown as TrainingSettings;
  const { steps, schedule } = settings;
  // A warm-up that is longer than a short run would never end.
  const warmup = Math.min(schedule.warmup, Math.floor(steps / 2));
  const floor = schedule.peak * schedule.floor;
  return { ...settings, separator, schedule: { ...schedule, steps, warmup, floor } };
}

//| 04-training/a-the-trainers-desk.ipynb#parse-config-parts
/** The value of a setting, checked; what is not given has its default. Throws one sentence that names the setting. */
export function checkedValue(
  json: Record<string, unknown>,
  name: string,
  { initial, schema }: Setting<unknown>,
): unknown {
  const key = name.split(".").pop()!;
  const outer = name.slice(0, name.length - key.length);
  const holder = outer === "" ? json : (valueAt(json, outer.slice(0, -1)) ?? {});
  if (!isRecord(holder))
    throw new Error(`${outer.slice(0, -1)} must be an object, not ${JSON.stringify(holder)}.`);
  const value = holder[key] === undefined ? initial : holder[key];
  const one = z.object({ [key]: schema as unknown as z.ZodType });
  return readKeys(one as unknown as KeySchema<Record<string, unknown>>, { [key]: value }, outer)[key];
}

//| 04-training/a-the-trainers-desk.ipynb#parse-config
/** Fills in what a configuration leaves out, and checks every value. Throws one sentence that names the setting. */
export function parseTrainConfig(json: unknown): TrainConfig {
  if (!isRecord(json)) throw new Error("A training configuration must be a JSON object.");
  checkNames(json);
  const values = namedSettings().map(([name, row]): [string, unknown] => [
    name,
    checkedValue(json, name, row),
  ]);
  const config = objectOf(values) as unknown as TrainConfig;
  checkSchedule(trainingSettings(config).schedule);
  return config;
}

//| 04-training/a-the-trainers-desk.ipynb#same-run
/** Settings that may differ when a run is taken up again: they change how it is watched, or how long it goes on. */
export const changeableSettings = namedSettings()
  .filter(([, { changeable }]) => changeable)
  .map(([name]) => name);

/**
 * The settings in which two configurations differ, by their dotted names, each with both its values as JSON. A setting that is
 * newer than a run had its default then.
 */
export function settingsThatDiffer(
  before: TrainConfig,
  after: TrainConfig,
): { name: string; was: string; is: string }[] {
  const compared = namedSettings().map(([name, { initial }]) => {
    const shown = (config: TrainConfig) => JSON.stringify(valueAt(config, name) ?? initial) ?? "none";
    return { name, was: shown(before), is: shown(after) };
  });
  return compared.filter(({ was, is }) => was !== is);
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
