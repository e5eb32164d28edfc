import fs from "node:fs";
import path from "node:path";
import { type Command, Option } from "commander";
import type { ModelConfig } from "../formats/config.js";
import { indexName } from "../formats/shards.js";
import { configText } from "../formats/write-config.js";
import { readableBytes } from "../gpu/buffers.js";
import { bf16Format, f16Format, int4Format, int8Format, mxfp4Format } from "../kernels/formats.js";
import { type OperandFormat, f32Format } from "../kernels/operands.js";
import { type InputSquares, calibrated, inputSquares } from "../model/calibration.js";
import { checkIds } from "../model/decoder.js";
import { weightsOf } from "../model/families.js";
import { type QuantizeSettings, formatBytes, quantizedConfig, quantizedFormat } from "../model/quantize.js";
import { type StoredTensor, storedNumbers, weightsFiles } from "../model/stored.js";
import { type ModelWeight, partAt } from "../model/structure.js";
import type { Weight } from "../tensor/products.js";
import { readText } from "./files.js";
import { isGguf } from "./gguf.js";
import { type FileContent, checkRoom, openModel, withStoredModel, writeModel } from "./model.js";
import { modelFolder, readChatTemplate } from "./model-folder.js";
import { openTokenizer } from "./open-tokenizer.js";
import { shardOption } from "./options.js";
import { startProgress } from "./progress.js";
import { UsageError, examples, printJson } from "./run.js";

/** What the matrices can become. */
const matrixFormats = ["int8", "int4", "int4-asym", "mxfp4", "f16", "bf16"] as const;

/** `tslm quantize`: a model in fewer bits. */
export function configure(command: Command): void {
  command
    .requiredOption("--model <dir>", "a folder with config.json and weights, or a .gguf file")
    .addOption(
      new Option("--format <format>", "what the matrices become; norms, biases and routers stay as they are")
        .choices(matrixFormats)
        .makeOptionMandatory(),
    )
    .addOption(
      new Option(
        "--group <n>",
        "of int4 and int4-asym: how many numbers share a scale (default: 32; int4-asym 128)",
      ).choices(["32", "64", "128"]),
    )
    .addOption(
      new Option(
        "--tables <format>",
        "what embedding and output layer become (default: int8, or as --format says)",
      ).choices(["int8", "int4", "f16", "bf16", "f32"]),
    )
    .option(
      "--calibrate <file...>",
      "texts of the kind that the model is for: scales are chosen so that it loses least on them",
    )
    .requiredOption("--out <dir>", "the folder to write into")
    .addOption(shardOption())
    .option("--json", "print what was written as one JSON object")
    .action(run);
  examples(
    command,
    "npx tslm quantize --model runs/default/model --format int4 --out small",
    "npx tslm quantize --model model --format int4-asym --group 128 --calibrate stories.txt --out small",
  );
}

/** The options of `tslm quantize`. */
interface QuantizeOptions {
  model: string;
  format: (typeof matrixFormats)[number];
  group?: string;
  tables?: "int8" | "int4" | "f16" | "bf16" | "f32";
  calibrate?: string[];
  out: string;
  maxShardSize: number;
  json?: boolean;
}

/** The formats that options ask for. */
function settingsOf({ format, group, tables }: QuantizeOptions): QuantizeSettings {
  const isInt4 = format === "int4" || format === "int4-asym";
  if (group !== undefined && !isInt4 && tables !== "int4")
    throw new UsageError(`--group is for int4 and int4-asym; ${format} has none to choose.`);
  const int4 = int4Format(Number(group ?? (format === "int4-asym" ? 128 : 32)), format === "int4-asym");
  const formats: Record<string, OperandFormat> = {
    int8: int8Format,
    int4,
    "int4-asym": int4,
    mxfp4: mxfp4Format,
    f16: f16Format,
    bf16: bf16Format,
    f32: f32Format,
  };
  const isHalf = format === "f16" || format === "bf16";
  return {
    matrices: formats[format],
    tables: formats[tables ?? (isHalf ? format : "int8")],
    rest: formats[isHalf ? format : "f32"],
  };
}

async function run(options: QuantizeOptions): Promise<void> {
  const { model, out, maxShardSize, json } = options;
  const settings = settingsOf(options);
  await withStoredModel(model, async ({ config, tensors }) => {
    refusePacked(model, [...tensors.values()]);
    const formatOf = (weight: ModelWeight) => quantizedFormat(weight, settings);
    const weights = weightsOf(config);
    const formats = new Map<string, number>();
    for (const weight of weights) {
      const { name } = formatOf(weight);
      formats.set(name, (formats.get(name) ?? 0) + formatBytes(weight.shape, formatOf(weight)));
    }
    const bytes = [...formats.values()].reduce((sum, own) => sum + own, 0);
    checkRoom(out, bytes, "The model");
    const stored = (weight: ModelWeight) =>
      checkedNumbers(weight, storedNumbers(weight, tensors), formatOf(weight));
    const numbersOf = options.calibrate
      ? calibrated({
          config,
          numbersOf: stored,
          squares: await squaresOf(model, options.calibrate),
          formatOf,
        })
      : stored;
    const progress = startProgress("Quantizing", weights.length);
    const seen = new Set<string>();
    const valuesOf = (weight: ModelWeight) => {
      progress.update(seen.add(weight.path).size, weight.path);
      return numbersOf(weight);
    };
    await writeModel(out, { by: "quantize", inputs: [model] }, () => ({
      ...otherFiles(model, config),
      ...weightsFiles(config, valuesOf, { formatOf, maxShardBytes: maxShardSize }),
      "config.json": configText(quantizedConfig(config, formatOf)),
    }));
    progress.done(out);
    if (json) return printJson({ folder: out, bytes, formats: Object.fromEntries(formats) });
    const listed = [...formats].map(([name, own]) => `${name} ${readableBytes(own)}`).join(", ");
    process.stdout.write(`${readableBytes(bytes)} of weights (${listed}), in ${out}\n`);
  });
}

/** Tokens of texts that a calibration takes at most, and those of a row. */
const calibrationTokens = { most: 16384, row: 512 };

/** What texts send through the matrices of a model. */
async function squaresOf(folder: string, files: string[]): Promise<InputSquares> {
  const tokenizer = openTokenizer(folder);
  const ids = files
    .flatMap((file) => Array.from(tokenizer.encode(readText(file))))
    .slice(0, calibrationTokens.most);
  const model = await openModel(folder, "f32");
  checkIds(ids, model.config.vocabSize);
  // Each row begins as a text does.
  const before = Array.from(tokenizer.around?.before ?? []);
  const length = Math.min(calibrationTokens.row, model.config.contextLength) - before.length;
  const rows = Array.from({ length: Math.ceil(ids.length / length) }, (_, i) => [
    ...before,
    ...ids.slice(i * length, (i + 1) * length),
  ]);
  if (rows.length === 0) throw new Error(`${files.join(", ")}: there is no text to calibrate by.`);
  const progress = startProgress("Calibrating", rows.length);
  const squares = await inputSquares(model, rows, progress.update);
  progress.done(`${ids.length} tokens`);
  for (const { path } of weightsOf(model.config)) (partAt(model, path) as Weight).free();
  return squares;
}

/** The numbers of a weight. Throws where a format cannot have them. */
function checkedNumbers({ name }: ModelWeight, values: Float32Array, format: OperandFormat): Float32Array {
  let most = 0;
  for (const value of values) if (!(Math.abs(value) <= most)) most = Math.abs(value);
  if (!Number.isFinite(most))
    throw new Error(`The weight ${name} has numbers that are not finite: it is damaged.`);
  if (format === f16Format && most >= 65520)
    throw new Error(`The weight ${name} has numbers that f16 cannot hold: choose bf16.`);
  return values;
}

/** Throws for a model that is in few bits already. MXFP4 is let through: gpt-oss is published in nothing else. */
function refusePacked(model: string, tensors: StoredTensor[]): void {
  if (!tensors.some(({ packed }) => packed && packed.format !== mxfp4Format)) return;
  throw new Error(`${model} is quantized already: quantize the model that it was made from.`);
}

/** What a model folder holds beside config.json and weights; of a .gguf file, what a folder made from it holds. */
function otherFiles(model: string, config: ModelConfig): Record<string, FileContent> {
  if (isGguf(model)) {
    const tokenizer = openTokenizer(model);
    return modelFolder({ config, weights: {}, tokenizer, chatTemplate: readChatTemplate(model) });
  }
  const isWeights = (name: string) =>
    name === indexName || /\.(safetensors|bin|pth?|gguf|onnx|h5|npz)$/.test(name);
  const names = fs
    .readdirSync(model)
    .filter((name) => name !== "config.json" && !name.startsWith(".") && !isWeights(name))
    .filter((name) => fs.statSync(path.join(model, name)).isFile());
  return Object.fromEntries(names.map((name) => [name, fs.readFileSync(path.join(model, name))]));
}
