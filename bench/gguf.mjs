// llama.cpp as the judge of our files: it opens what we export and has to continue as we do.
// In a built clone, after `npm install --prefix bench --ignore-scripts`: node bench/gguf.mjs [FOLDER WITH A MODEL]
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { LlamaLogLevel, getLlama } from "node-llama-cpp";
import {
  forward,
  generate,
  indices,
  openGpu,
  parseModelConfig,
  scope,
  sequenceContext,
} from "../lib/dist/index.js";
import { readGgufHead } from "../lib/dist/formats/gguf.js";
import { ggufModelPieces, openGgufModel, storedNumbers } from "../lib/dist/model/gguf.js";
import { ggufTokenizerKeys } from "../lib/dist/model/gguf-tokenizer.js";
import { joinBlocks, storedTensors } from "../lib/dist/model/stored.js";
import { weightsOf } from "../lib/dist/index.js";
import { openModelFiles } from "../lib/dist/model/weights.js";

const fixtures = path.join(import.meta.dirname, "..", "tests", "fixtures");
const outputs = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-gguf-"));
const tokens = 64;

/** What must be changed of a tiny model for its architecture to run it. */
const changes = {
  mistral: { sliding_window: null },
  gemma3: {
    query_pre_attn_scalar: 8,
    layer_types: ["sliding_attention", "sliding_attention", "sliding_attention"],
  },
};

/** The tiny models, by their folders, and a trained one. */
const models = [
  "llama",
  "llama_linear",
  "mistral",
  "mixtral",
  "qwen2",
  "qwen3",
  "qwen3_yarn",
  "qwen3_moe",
  "olmoe",
  "gpt2",
  "gemma3",
  "gpt_oss",
]
  .map((name) => ({ name, folder: path.join(fixtures, "families", name), start: [1, 5, 9] }))
  .filter(({ folder }) => fs.existsSync(folder));
const trained = process.argv[2] ?? path.join(fixtures, "stories260k");
models.push({ name: path.basename(trained), folder: trained, start: [1] });

/** Keys of a tokenizer for models that have none: llama.cpp's binding wants one. */
function standIn(vocabSize) {
  const strings = (value) => ({ type: "string", isArray: true, value });
  return new Map([
    ["tokenizer.ggml.model", { type: "string", value: "gpt2" }],
    ["tokenizer.ggml.pre", { type: "string", value: "gpt-2" }],
    [
      "tokenizer.ggml.tokens",
      strings(Array.from({ length: vocabSize }, (_, id) => String.fromCodePoint(0x4e00 + id))),
    ],
    [
      "tokenizer.ggml.token_type",
      { type: "i32", isArray: true, value: Array.from({ length: vocabSize }, () => 1) },
    ],
    ["tokenizer.ggml.merges", strings([])],
  ]);
}

/** Writes a model as a GGUF file. */
function exportModel({ name, folder }, dtype) {
  const json = { ...JSON.parse(fs.readFileSync(path.join(folder, "config.json"), "utf8")), ...changes[name] };
  const config = parseModelConfig(json);
  const tensors = storedTensors(new Uint8Array(fs.readFileSync(path.join(folder, "model.safetensors"))));
  joinBlocks(
    tensors,
    weightsOf(config).flatMap(({ files }) => files),
  );
  const file = path.join(folder, "tokenizer.json");
  const ends = { vocabSize: config.vocabSize, bos: config.bosTokenId, eos: config.eosTokenIds };
  const tokenizer = fs.existsSync(file)
    ? ggufTokenizerKeys(JSON.parse(fs.readFileSync(file, "utf8")), ends)
    : standIn(config.vocabSize);
  const pieces = ggufModelPieces(config, (weight) => storedNumbers(weight, tensors), {
    dtype,
    name,
    tokenizer,
  });
  const written = path.join(outputs, `${name}-${dtype}.gguf`);
  fs.writeFileSync(written, Buffer.concat([...pieces]));
  return written;
}

/** Our model of a GGUF file. */
function openHere(file) {
  const bytes = new Uint8Array(fs.readFileSync(file));
  const read = (begin, end) => bytes.subarray(begin, end);
  const { json, tensors } = openGgufModel(readGgufHead(bytes.length, read), read);
  return openModelFiles(json, [tensors]);
}

/** The tokens that a model of ours continues with, the likeliest each time. */
async function continueHere(model, start) {
  const settings = { maxTokens: tokens, temperature: 0, topK: 0, topP: 1, minP: 0, seed: 0, stopIds: [] };
  const ids = [];
  for await (const id of generate(model, start, settings)) ids.push(id);
  return ids;
}

/** The likeliest token after each of some ids, by our model. */
async function likeliestHere(model, ids) {
  const { logits } = scope(() =>
    forward(model, indices(ids, [1, ids.length]), sequenceContext(model.config, ids.length)),
  );
  const scores = await logits.array();
  const { vocabSize } = model.config;
  return ids.map((_, i) => {
    const row = scores.subarray(i * vocabSize, (i + 1) * vocabSize);
    return row.indexOf(row.reduce((most, score) => Math.max(most, score), Number.NEGATIVE_INFINITY));
  });
}

const llama = await getLlama({
  gpu: false,
  build: "never",
  skipDownload: true,
  logLevel: LlamaLogLevel.error,
  maxThreads: 1,
});

/** Does something with llama.cpp's sequence of tokens over a file. */
async function withJudge(file, work) {
  const model = await llama.loadModel({ modelPath: file });
  const context = await model.createContext({ contextSize: 256, threads: 1 });
  try {
    return await work(context.getSequence());
  } finally {
    await context.dispose();
    await model.dispose();
  }
}

/** The tokens that llama.cpp continues with, the likeliest each time. */
function continueThere(file, start) {
  return withJudge(file, async (sequence) => {
    const ids = [];
    for await (const id of sequence.evaluate(start, { temperature: 0, yieldEogToken: true })) {
      ids.push(id);
      if (ids.length === tokens) break;
    }
    return ids;
  });
}

/** The likeliest token after each of some ids, by llama.cpp. */
function likeliestThere(file, ids) {
  const asking = { generateNext: { token: true, options: { temperature: 0 } } };
  return withJudge(file, async (sequence) => {
    const results = await sequence.controlledEvaluate(ids.map((id) => [id, asking]));
    return results.map((result) => result.next.token);
  });
}

console.log((await openGpu()).facts.name);
let failures = 0;
const say = (holds, line) => {
  if (!holds) failures++;
  console.log(`${holds ? "✓" : "✗"} ${line}`);
};
for (const model of models) {
  const file = exportModel(model, "f32");
  const here = openHere(file);
  const [ours, theirs] = [await continueHere(here, model.start), await continueThere(file, model.start)];
  const same = ours.findIndex((id, i) => id !== theirs[i]);
  say(same < 0, `${model.name}, f32: ${same < 0 ? `the same ${tokens} tokens` : `differs at token ${same}`}`);
  const ids = [...model.start, ...ours];
  for (const dtype of ["f16", "q8_0", "q4_0", "mxfp4"]) {
    const packed = exportModel(model, dtype);
    const [left, right] = [await likeliestHere(openHere(packed), ids), await likeliestThere(packed, ids)];
    const agreed = left.filter((id, i) => id === right[i]).length / left.length;
    const line = `${model.name}, ${dtype}: the same likeliest token at ${(100 * agreed).toFixed(1)} % of ${ids.length} places`;
    if (model.folder === trained && (dtype === "q8_0" || dtype === "f16")) say(agreed >= 0.99, line);
    else console.log(`  ${line}`);
  }
}
fs.rmSync(outputs, { recursive: true });
process.exit(failures > 0 ? 1 : 0);
