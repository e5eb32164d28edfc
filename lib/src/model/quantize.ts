// Extracted from chapters/05-inference/4-smaller-numbers.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import { int8Format, mxfp4Format } from "../kernels/formats.js";
import type { OperandFormat } from "../kernels/operands.js";
import { modelConfigToJson } from "./config.js";
import { weightsOf } from "./families.js";
import { savedFormats } from "./stored.js";
import type { ModelWeight } from "./structure.js";
import { arrayBytes } from "./weights.js";

//| 05-inference/4-smaller-numbers.ipynb#quantized-format
/** How a model is quantized: the format of its matrices, that of its tables (embedding, positions, output layer), and of the rest. */
export interface QuantizeSettings {
  matrices: OperandFormat;
  tables: OperandFormat;
  rest: OperandFormat;
}

//| 05-inference/4-smaller-numbers.ipynb#quantized-format-2
/** Whether rows of so many numbers can be had in a format, in files and on the GPU. */
export function fitsFormat({ block = 4 }: OperandFormat, columns: number): boolean {
  return columns % block === 0;
}

/** The format that a weight is written in, by its role. Rows that are no whole blocks become int8, or stay as they are. */
export function quantizedFormat(
  { role, shape, dense }: ModelWeight,
  settings: QuantizeSettings,
): OperandFormat {
  const { matrices, tables, rest } = settings;
  const asked = dense
    ? rest
    : role === "matrix" || role === "residual"
      ? matrices
      : role === "table"
        ? tables
        : rest;
  if (isPlain(asked)) return asked;
  const columns = shape[shape.length - 1];
  return [asked, int8Format].find((format) => fitsFormat(format, columns)) ?? rest;
}

/** Whether numbers in a format are what safetensors has a type for. */
export function isPlain(format: OperandFormat): boolean {
  return Object.values(savedFormats).includes(format);
}

/** Bytes of a weight in a format, in a file. */
export function formatBytes(shape: readonly number[], format: OperandFormat): number {
  return arrayBytes(shape, format).reduce((sum, bytes) => sum + bytes, 0);
}

/** The rounding of numbers [..., columns] by a format, back as numbers. */
export function roundedBy(format: OperandFormat, numbers: Float32Array, columns: number): Float32Array {
  return format.unpack(format.pack(numbers, columns), columns).subarray(0, numbers.length);
}

//| 05-inference/4-smaller-numbers.ipynb#quantized-config
/** What compressed-tensors calls the numbers of a format. */
export function codeArguments(format: OperandFormat): Record<string, unknown> {
  const isByte = format === int8Format;
  const symmetric = !("zeroPoints" in format && format.zeroPoints);
  const strategy = isByte
    ? { strategy: "channel", group_size: null }
    : { strategy: "group", group_size: format.block };
  return { num_bits: isByte ? 8 : 4, type: "int", symmetric, ...strategy, dynamic: false };
}

/** The names of the linear layers and tables in files that hold a weight. */
export function moduleNames({ files }: ModelWeight): string[] {
  return files.map((name) => (name.endsWith(".weight") ? name.slice(0, -".weight".length) : name));
}

//| 05-inference/4-smaller-numbers.ipynb#quantized-config-note
/** The note about packed weights in a config.json, as transformers and vLLM read it; nothing where none are packed. */
export function quantizationJson(
  config: ModelConfig,
  formatOf: (weight: ModelWeight) => OperandFormat,
): Record<string, unknown> {
  const modules = new Map<string, { format: OperandFormat; names: Set<string>; linear: boolean }>();
  for (const weight of weightsOf(config).filter(({ shape }) => shape.length > 1)) {
    const format = formatOf(weight);
    const group = modules.get(format.name) ?? { format, names: new Set(), linear: false };
    for (const name of moduleNames(weight)) group.names.add(name);
    group.linear ||= weight.role === "matrix";
    modules.set(format.name, group);
  }
  const groups = [...modules.values()];
  const packed = groups.filter(({ format }) => !isPlain(format));
  const ignore = groups.filter(({ format }) => isPlain(format)).flatMap(({ names }) => [...names]);
  if (packed.length === 0) return {};
  if (packed.some(({ format }) => format === mxfp4Format))
    return { quantization_config: { quant_method: "mxfp4", modules_to_not_convert: ignore } };
  const groupJson = ({ format, names, linear }: (typeof packed)[number]) => ({
    targets: linear ? ["Linear"] : [...names],
    weights: codeArguments(format),
  });
  const config_groups = Object.fromEntries(packed.map((group, i) => [`group_${i}`, groupJson(group)]));
  const method = {
    quant_method: "compressed-tensors",
    format: "pack-quantized",
    quantization_status: "compressed",
  };
  return { quantization_config: { ...method, config_groups, ignore } };
}

//| 05-inference/4-smaller-numbers.ipynb#quantized-config-json
/** The content of the config.json of a model whose weights are written so. */
export function quantizedConfig(
  config: ModelConfig,
  formatOf: (weight: ModelWeight) => OperandFormat,
): Record<string, unknown> {
  const norm = weightsOf(config).find(({ role }) => role === "norm");
  const rest = norm ? formatOf(norm).name : "f32";
  const torch_dtype = { f16: "float16", bf16: "bfloat16" }[rest] ?? "float32";
  return { ...modelConfigToJson(config), torch_dtype, ...quantizationJson(config, formatOf) };
}
