// `tslm bench decode`: how fast a model reads and writes, by size, context, batch and format, as shares of what the adapter can do.
import { dropFreeBuffers } from "../gpu/buffers.js";
import { allocate, finish, release } from "../gpu/commands.js";
import { type AdapterFacts, currentGpu, GpuError } from "../gpu/device.js";
import { kernel } from "../gpu/kernel.js";
import { shortestRuns } from "../gpu/timing.js";
import { keyValueCache } from "../infer/cache.js";
import { plainSampling, writeSampling } from "../infer/sampling.js";
import type { ModelConfig } from "../formats/config.js";
import { bf16Format, f16Format, int4Format, int8Format, mxfp4Format } from "../kernels/formats.js";
import { f32Format, type OperandFormat } from "../kernels/operands.js";
import { completeModelConfig, parseModelConfig } from "../model/config.js";
import { cacheBytes } from "../model/count.js";
import { hiddenStates, outputLogits } from "../model/decoder.js";
import { modelFamilies, weightsOf } from "../model/families.js";
import { ropeTables } from "../model/positions.js";
import { buildModel, type Model, type ModelWeight } from "../model/structure.js";
import { withInference } from "../tensor/autograd.js";
import { capture, type Recording } from "../tensor/capture.js";
import { embed } from "../tensor/embedding.js";
import { linear, PackedWeight, type Weight } from "../tensor/products.js";
import { sampleInputs, sampleRows } from "../tensor/sample.js";
import {
  type DType,
  indices,
  scope,
  sizeOf,
  tensor,
  type Tensor,
  tensorsIn,
  view,
} from "../tensor/tensor.js";
import { randomTensor } from "./bench-operations.js";
import type { DecodeModelName, FormatName } from "./bench-names.js";
import { median } from "./bench-timing.js";

/** Shapes of Qwen3's kind, by the number of their parameters. */
export const decodeModels: Record<DecodeModelName, Record<string, unknown>> = {
  "12m": {
    hidden_size: 256,
    num_hidden_layers: 8,
    num_attention_heads: 4,
    intermediate_size: 960,
    vocab_size: 16_384,
  },
  "124m": {
    hidden_size: 768,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    intermediate_size: 2048,
    vocab_size: 50_304,
  },
  "0.6b": {
    hidden_size: 1024,
    num_hidden_layers: 28,
    num_attention_heads: 16,
    num_key_value_heads: 8,
    head_dim: 128,
    intermediate_size: 3072,
    vocab_size: 151_936,
  },
};

/** The formats of matrices by name. */
export const decodeFormats: Record<FormatName, OperandFormat> = {
  f32: f32Format,
  f16: f16Format,
  bf16: bf16Format,
  int8: int8Format,
  int4: int4Format(32),
  mxfp4: mxfp4Format,
};

/** What is to be measured: every combination. */
export interface DecodeSettings {
  models: DecodeModelName[];
  formats: FormatName[];
  contexts: number[];
  batches: number[];
  /** Tokens of a prompt that are read at once; 0 for none. */
  prompt: number;
  /** Tokens that are written, and prompts that are read, for each number. */
  tokens: number;
}

/** One measurement: writing a token for each text, or reading a prompt. */
export interface DecodeRow {
  task: "decode" | "prefill";
  model: string;
  format: string;
  batch: number;
  context: number;
  seconds?: number;
  tokens_per_second?: number;
  /** What a step of writing must load, and how fast it does. */
  bytes?: number;
  gigabytes?: number;
  /** The multiply-adds of reading, as two operations each. */
  gigaflops?: number;
  /** The rate as a share of the adapter's: of loading where a token is written, of a product of that size where a prompt is read. */
  share?: number;
  why?: string;
}

/** All that was measured. */
export interface DecodeReport {
  adapter: { name: string; kind: string };
  /** Bytes a second of a kernel that only loads, in 10⁹. */
  load_gigabytes: number;
  rows: DecodeRow[];
}

/** The configuration of a model by name. */
export function decodeConfig(name: DecodeModelName, positions: number): ModelConfig {
  const shape = {
    head_dim: 64,
    num_key_value_heads: decodeModels[name].num_attention_heads,
    ...decodeModels[name],
  };
  const settings = { model_type: "qwen3", tie_word_embeddings: true, ...shape };
  return parseModelConfig(completeModelConfig(settings, { max_position_embeddings: positions }));
}

/** A weight in a format: some rows, again and again, since packing millions of numbers takes longer than what is measured. */
export function repeatedWeight({ shape }: ModelWeight, format: OperandFormat): Weight {
  if (format === f32Format) return randomTensor(shape, 0.02);
  const columns = shape[shape.length - 1];
  const rows = sizeOf(shape) / columns;
  const some = Float32Array.from({ length: 64 * columns }, (_, i) => 0.04 * Math.sin(1 + i * i));
  const parts = format.pack(some, columns).map((array, i): Tensor<DType> => {
    const bytes = new Uint8Array(Math.ceil((rows * format.rowBytes(columns)[i]) / 16) * 16);
    const piece = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    for (let at = 0; at < bytes.length; at += piece.length)
      bytes.set(piece.subarray(0, Math.min(piece.length, bytes.length - at)), at);
    const words = bytes.length / 4;
    return array instanceof Float32Array
      ? (tensor(new Float32Array(bytes.buffer), [words]) as Tensor<DType>)
      : indices(new Uint32Array(bytes.buffer), [words]);
  });
  return new PackedWeight(format, shape, parts);
}

/** A model whose matrices and tables are in a format. */
export function decodeModel(config: ModelConfig, format: OperandFormat): Model {
  const isPacked = ({ role, dense }: ModelWeight) =>
    !dense && (role === "matrix" || role === "residual" || role === "table");
  return buildModel(config, modelFamilies[config.modelType], (weight) =>
    repeatedWeight(weight, isPacked(weight) ? format : f32Format),
  );
}

/** Bytes of all weights that a token of text needs: of a table that is also the head all rows, else none to speak of. */
export function weightBytes(config: ModelConfig, format: OperandFormat): number {
  return weightsOf(config)
    .filter(({ role }) => config.tied || role !== "table")
    .reduce((sum, { role, shape }) => {
      const columns = shape[shape.length - 1];
      const packed = ["matrix", "residual", "table"].includes(role) ? format : f32Format;
      const row = packed.rowBytes(columns).reduce((bytes, part) => bytes + part, 0);
      return sum + (row * sizeOf(shape)) / columns;
    }, 0);
}

/** Bytes a second at which kernels that do nothing else load arrays that no cache holds, the faster of two ways, in 10⁹. */
export async function loadRate({ kind, subgroupSize }: AdapterFacts): Promise<number> {
  const bytes = kind === "cpu" ? 2 ** 26 : 2 ** 27;
  const lanes = kind === "cpu" ? subgroupSize || 8 : 64;
  const [stretch, sums] = [192, bytes / 16 / 192];
  const storages = [allocate(bytes), allocate(4 * Math.ceil(sums / lanes) * lanes)];
  const form = (name: string, at: string) =>
    kernel({
      name: `load probe, ${name}`,
      reads: ["x: array<vec4f>"],
      writes: ["y: array<f32>"],
      sizes: { stretch, last: bytes / 16 - 1 },
      workgroupSize: lanes,
      workgroups: Math.ceil(sums / lanes),
      body: `
  var sum = vec4f();
  for (var i = 0u; i < sizes.stretch; i++) { sum += x[min(${at}, sizes.last)]; }
  y[thread] = dot(sum, vec4f(1));`,
    });
  const kernels = [
    form("a stretch a lane", "thread * sizes.stretch + i"),
    form("lanes side by side", `(workgroup * sizes.stretch + i) * ${lanes}u + lane`),
  ];
  const seconds = await shortestRuns(kernels, storages, 2, 5);
  for (const storage of storages) release(storage);
  return bytes / Math.min(...seconds) / 1e9;
}

/** A recorded step on `tokens` new tokens of each of `batch` texts, which leaves the likeliest next token of each. */
interface RecordedStep {
  ids: Tensor<"u32">;
  recording: Recording<Tensor<"u32">>;
  free(): void;
}

function recordStep(model: Model, batch: number, tokens: number, start: number): RecordedStep {
  const { config } = model;
  const capacity = start + tokens;
  const cache = keyValueCache(config, capacity, batch);
  const turns = ropeTables(config, capacity);
  const ids = indices(new Uint32Array(batch * tokens), [batch, tokens]);
  const positions = indices(
    Array.from({ length: batch * tokens }, (_, i) => start + (i % tokens)),
    [batch, tokens],
  );
  const last = indices(
    Array.from({ length: batch }, (_, i) => (i + 1) * tokens - 1),
    [batch, 1],
  );
  const inputs = sampleInputs(batch, config.vocabSize);
  const settings = { ...plainSampling, temperature: 0 };
  writeSampling(
    inputs,
    Array.from({ length: batch }, () => ({ settings, uniform: 0, vocabSize: config.vocabSize })) as never,
  );
  const recording = capture(() =>
    withInference(() => {
      const { hidden } = hiddenStates(model, ids, { positions, ...turns, cache: cache.at(positions) });
      const logits = outputLogits(model, embed(last, view(hidden, [batch * tokens, config.hiddenSize])));
      return sampleRows(view(logits, [batch, config.vocabSize]), inputs);
    }),
  );
  const owned = tensorsIn([ids, positions, last, inputs, turns]);
  return {
    ids,
    recording,
    free() {
      recording.free();
      cache.free();
      for (const one of owned) one.free();
    },
  };
}

/** The median seconds of a step, each with its tokens written before and what was drawn read back, as an engine does it. */
async function timeSteps({ ids, recording }: RecordedStep, count: number): Promise<number> {
  const times: number[] = [];
  const values = Uint32Array.from({ length: ids.size }, (_, i) => (7919 * i) % 1000);
  for (let i = 0; i <= count; i++) {
    const start = performance.now();
    ids.write(values);
    await recording.run().array();
    if (i > 0) times.push((performance.now() - start) / 1000); // the first one compiles
  }
  return median(times);
}

/** The rate of a model's largest products on so many rows, in 10⁹ operations a second. */
async function productRate(model: Model, rows: number, count: number): Promise<number> {
  const layer = model.blocks[0].feedForward;
  if (layer.kind !== "dense") throw new Error("Only dense models are measured.");
  const { weight } = layer.up;
  const [outputs, inputs] = weight.shape;
  const x = randomTensor([rows, inputs]);
  const recording = scope(() => capture(() => withInference(() => linear(x, weight))));
  const times: number[] = [];
  for (let i = 0; i <= count; i++) {
    const start = performance.now();
    for (let k = 0; k < 4; k++) recording.run();
    await finish();
    if (i > 0) times.push((performance.now() - start) / 4000);
  }
  recording.free();
  x.free();
  return (2 * rows * inputs * outputs) / median(times) / 1e9;
}

/** The operations of reading `tokens` tokens: of the matrices for each, of the head for the last, and of attention. */
export function prefillFlops(config: ModelConfig, tokens: number): number {
  const matrices = weightsOf(config)
    .filter(({ role }) => role === "matrix" || role === "residual")
    .reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const attention = config.layers * config.heads * config.headDim * tokens * tokens;
  return 2 * (matrices * tokens + config.vocabSize * config.hiddenSize + attention);
}

/** What `work` gives, or why the adapter cannot do it. */
async function orWhy(row: DecodeRow, work: () => Promise<Partial<DecodeRow>>): Promise<DecodeRow> {
  try {
    return { ...row, ...(await work()) };
  } catch (error) {
    if (!(error instanceof GpuError)) throw error;
    return { ...row, why: error.message };
  } finally {
    await finish();
    dropFreeBuffers();
  }
}

/** Measures every combination, and says before each what it is. */
export async function measureDecode(
  { models, formats, contexts, batches, prompt, tokens }: DecodeSettings,
  onRow: (what: string) => void = () => {},
): Promise<DecodeReport> {
  const { facts } = currentGpu();
  const rate = await loadRate(facts);
  const rows: DecodeRow[] = [];
  for (const name of models)
    for (const formatName of formats) {
      const config = decodeConfig(name, Math.max(...contexts, prompt) + 1);
      const format = decodeFormats[formatName];
      const model = decodeModel(config, format);
      const row = { model: name, format: formatName };
      for (const context of contexts)
        for (const batch of batches) {
          onRow(`${name} ${formatName}, ${batch} x ${context}`);
          const decode = async () => {
            const step = recordStep(model, batch, 1, context);
            const seconds = await timeSteps(step, tokens).finally(() => step.free());
            const bytes = weightBytes(config, format) + batch * cacheBytes(config, context);
            const gigabytes = bytes / seconds / 1e9;
            return { seconds, tokens_per_second: batch / seconds, bytes, gigabytes, share: gigabytes / rate };
          };
          rows.push(await orWhy({ task: "decode", ...row, batch, context }, decode));
        }
      const prefill = async () => {
        const step = recordStep(model, 1, prompt, 0);
        const seconds = await timeSteps(step, Math.min(tokens, 3)).finally(() => step.free());
        const gigaflops = prefillFlops(config, prompt) / seconds / 1e9;
        const share = gigaflops / (await productRate(model, prompt, 3));
        return { seconds, tokens_per_second: prompt / seconds, gigaflops, share };
      };
      if (prompt > 0) onRow(`${name} ${formatName}, a prompt of ${prompt}`);
      if (prompt > 0) rows.push(await orWhy({ task: "prefill", ...row, batch: 1, context: prompt }, prefill));
      freeModel(model);
    }
  return { adapter: { name: facts.name, kind: facts.kind }, load_gigabytes: rate, rows };
}

/** Frees the weights, packed ones too. */
function freeModel(model: Model): void {
  for (const one of new Set(tensorsIn(model))) one.free();
}
