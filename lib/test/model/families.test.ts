// Extracted from chapters/03-moe/a-files-of-weights.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { expertsPart, rotaryPart } from "../../src/formats/config-parts.js";
import type { ConfigPart, ModelConfig } from "../../src/formats/config.js";
import { readSafetensors, toFloat32, writeSafetensors } from "../../src/formats/safetensors.js";
import { openGpu } from "../../src/gpu/device.js";
import { parseModelConfig } from "../../src/model/config.js";
import { hiddenStates, outputLogits, sequenceContext } from "../../src/model/decoder.js";
import { modelFamilies, parametersByName, parametersOf, randomModel } from "../../src/model/families.js";
import type { Experts, Heads, ModelFamily, WeightEntry } from "../../src/model/structure.js";
import { loadModel, saveModel } from "../../src/model/weights.js";
import { gradients } from "../../src/tensor/autograd.js";
import { mean, subtract, unary } from "../../src/tensor/operations.js";
import { indices, tensor } from "../../src/tensor/tensor.js";

//| 03-moe/a-files-of-weights.ipynb#toy-family
/** The width of all query heads, and of all key heads. */
const widths = ({ heads, kvHeads, headDim }: ModelConfig) => [heads * headDim, kvHeads * headDim];

/** The rows of queries, keys and values in one tensor. */
const fusedRows = (which: 0 | 1 | 2) => (config: ModelConfig) => {
  const [q, k] = widths(config);
  return { first: [0, q, q + k][which], of: q + 2 * k };
};

/** Every second row, from `first` on. */
const alternating = (first: number) => (config: ModelConfig) => ({
  first,
  of: 2 * config.moe!.intermediateSize,
  step: 2,
});

/** A LayerNorm: its weight and its bias. */
const layerNormEntries = (path: string, file: string): WeightEntry[] =>
  (["weight", "bias"] as const).map((part) => ({
    path: `${path}.${part}`,
    file: `${file}.${part}`,
    role: part === "weight" ? "norm" : "bias",
    shape: ({ hiddenSize }) => [hiddenSize],
  }));

//| 03-moe/a-files-of-weights.ipynb#toy-entries
const qkv = { file: "h.*.attn.qkv", role: "matrix", transposed: true } as const;
const wide = {
  file: "h.*.moe.{expert}.wi",
  role: "matrix",
  shape: ({ moe, hiddenSize }: ModelConfig) => [moe!.experts, moe!.intermediateSize, hiddenSize],
} as const;

/** A family that differs from those of the library in everything that a table can say. */
const toyEntries: WeightEntry[] = [
  { path: "embedding", file: "wte", role: "table", shape: (c) => [c.vocabSize, c.hiddenSize] },
  { path: "positions", file: "wpe", role: "table", shape: (c) => [c.contextLength, c.hiddenSize] },
  ...layerNormEntries("blocks.*.norms.beforeAttention", "h.*.ln_1"),
  {
    ...qkv,
    path: "blocks.*.attention.q.weight",
    shape: (c) => [widths(c)[0], c.hiddenSize],
    rows: fusedRows(0),
  },
  {
    ...qkv,
    path: "blocks.*.attention.k.weight",
    shape: (c) => [widths(c)[1], c.hiddenSize],
    rows: fusedRows(1),
  },
  {
    ...qkv,
    path: "blocks.*.attention.v.weight",
    shape: (c) => [widths(c)[1], c.hiddenSize],
    rows: fusedRows(2),
  },
  {
    path: "blocks.*.attention.o.weight",
    file: "h.*.attn.out",
    role: "residual",
    transposed: true,
    shape: (c) => [c.hiddenSize, widths(c)[0]],
  },
  ...layerNormEntries("blocks.*.norms.afterAttention", "h.*.ln_2"),
  ...layerNormEntries("blocks.*.norms.beforeFeedForward", "h.*.ln_3"),
  {
    path: "blocks.*.feedForward.router.weight",
    file: "h.*.moe.router",
    role: "router",
    shape: (c) => [c.moe!.experts, c.hiddenSize],
  },
  { ...wide, path: "blocks.*.feedForward.gate.weight", rows: alternating(0) },
  { ...wide, path: "blocks.*.feedForward.up.weight", rows: alternating(1) },
  {
    path: "blocks.*.feedForward.down.weight",
    file: "h.*.moe.{expert}.wo",
    role: "residual",
    transposed: true,
    shape: (c) => [c.moe!.experts, c.hiddenSize, c.moe!.intermediateSize],
  },
  ...layerNormEntries("norm", "ln_f"),
];

//| 03-moe/a-files-of-weights.ipynb#toy-settings
/** Its two layers differ, and no key says it. */
const toyPart: ConfigPart = {
  keys: [],
  read: () => ({ window: 3, localLayers: [true, false], rotatingLayers: [true, false] }),
  write: () => ({}),
};

const toyFamily: ModelFamily = {
  architecture: "ToyForCausalLM",
  qkNorm: "none",
  parts: [rotaryPart, expertsPart, toyPart],
  defaults: { norm_topk_prob: true },
  spelling: { hidden_size: "n_embd", num_hidden_layers: "n_layer" },
  entries: toyEntries,
  norm: "layer",
  embeddingScale: ({ hiddenSize }) => Math.sqrt(hiddenSize),
};

/** The config.json of a toy model. */
const toyJson = {
  model_type: "toy",
  n_embd: 16,
  n_layer: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 8,
  intermediate_size: 8,
  vocab_size: 24,
  max_position_embeddings: 12,
  num_experts: 3,
  num_experts_per_tok: 2,
  moe_intermediate_size: 4,
  tie_word_embeddings: true,
  initializer_range: 0.2,
};

/** Does something while the library knows the toy family. */
async function withToyFamily(work: () => Promise<void>): Promise<void> {
  modelFamilies.toy = toyFamily;
  try {
    await work();
  } finally {
    Reflect.deleteProperty(modelFamilies, "toy");
  }
}

//| 03-moe/a-files-of-weights.ipynb#toy-test
await openGpu();

await test("a family that is data alone is saved as its table says, and loads to the same model", () =>
  withToyFamily(async () => {
    const config = parseModelConfig(toyJson, { strict: true });
    const model = randomModel(config, 5);
    const saved = await saveModel(model);
    expect(JSON.parse(saved.config)).toMatchObject({ n_embd: 16, n_layer: 2, model_type: "toy" });
    const { tensors } = readSafetensors(saved.weights);
    expect([...tensors.keys()].filter((name) => name.includes(".moe.")).length).toBe(2 * (1 + 2 * 3));
    const [fused, mixed] = ["h.1.attn.qkv", "h.0.moe.2.wi"].map((name) => tensors.get(name)!);
    expect([fused.shape, mixed.shape]).toEqual([
      [16, 32],
      [8, 16],
    ]);
    const [k, up] = [(model.blocks[1].attention as Heads).k, (model.blocks[0].feedForward as Experts).up];
    const [keyValues, upValues] = [await k.weight.array(), await up.weight.array()];
    expect(toFloat32(fused)[5 * 32 + 16 + 3]).toBe(keyValues[3 * 16 + 5]); // column 5 of key row 3
    expect(toFloat32(mixed)[(2 * 1 + 1) * 16 + 7]).toBe(upValues[(2 * 4 + 1) * 16 + 7]); // of expert 2, row 1
    const again = loadModel(JSON.parse(saved.config), saved.weights);
    for (const [name, value] of parametersByName(again))
      expect(await value.array(), name).toEqual(await parametersByName(model).get(name)!.array());
    expect(await saveModel(again)).toEqual(saved);
    expect(() => loadModel(toyJson, writeSafetensors(new Map([["wte", tensors.get("wte")!]])))).toThrow(
      "The weights are incomplete",
    );
  }));

//| 03-moe/a-files-of-weights.ipynb#toy-test-2
await test("it learns: a step along the gradient lowers the loss as the gradient promises", () =>
  withToyFamily(async () => {
    const model = randomModel(parseModelConfig(toyJson), 5);
    const ids = indices([3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [1, 10]);
    const loss = () => {
      const { hidden } = hiddenStates(model, ids, sequenceContext(model.config, 10));
      const targets = tensor(new Float32Array(10 * 24).fill(0.1), [1, 10, 24]);
      return mean(unary("square", subtract(outputLogits(model, hidden), targets)));
    };
    const before = loss();
    const values = parametersOf(model).map(({ value }) => value);
    const found = gradients(before, values);
    let promised = 0;
    for (const [i, value] of values.entries()) {
      const [numbers, gradient] = [await value.array(), await found[i].array()];
      promised += 1e-4 * gradient.reduce((total, slope) => total + slope * slope, 0);
      value.write(numbers.map((number, k) => number - 1e-4 * gradient[k]));
    }
    expect(found.length).toBe(parametersOf(model).length);
    expect(promised).toBeGreaterThan(1e-4);
    expect(((await before.value()) - (await loss().value())) / promised).toBeCloseTo(1, 1);
  }));
