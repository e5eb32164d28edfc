// The engine on a Qwen3 shape of 124 million parameters (or a small one): what of a decode step the host takes, by batch; and how
// many tokens a second it writes and how long the first token is waited for, by how many requests come at a time.
// node bench/engine.mjs [--small] [--steps N] [--batches 1,8] [--loads 1,2,4,8,16]      after the library is built
import { engineParts, engineStep, enqueue, freeEngine, openEngine } from "../lib/dist/infer/engine.js";
import { openGpu, parseModelConfig, plainSampling, randomModel } from "../lib/dist/index.js";

const sizes = process.argv.includes("--small")
  ? {
      vocab_size: 512,
      hidden_size: 96,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      head_dim: 24,
      intermediate_size: 256,
    }
  : {
      vocab_size: 50_304,
      hidden_size: 768,
      num_hidden_layers: 12,
      num_attention_heads: 12,
      head_dim: 64,
      intermediate_size: 2048,
    };
const config = parseModelConfig({
  ...{ model_type: "qwen3", num_key_value_heads: sizes.num_attention_heads, max_position_embeddings: 1024 },
  ...{ rms_norm_eps: 1e-6, rope_theta: 10_000, tie_word_embeddings: true, ...sizes },
});

const option = (name, usual) =>
  process.argv.includes(name) ? process.argv[process.argv.indexOf(name) + 1] : usual;
const numbers = (text) => text.split(",").filter(Boolean).map(Number);
const quantile = (values, q) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(q * values.length))];
const requestOf = (length, seed, maxTokens) => ({
  prompt: Array.from({ length }, (_, i) => (i * 7919 + seed * 31) % config.vocabSize),
  ...{ maxTokens, seed, stopIds: [], sampling: { ...plainSampling, temperature: 0.8, topP: 0.95 } },
});

/** Watches a device: from the first work that it is given to the end of the wait for it. The rest of a step is the host's alone. */
function watch(device) {
  const seen = { from: 0, to: 0 };
  const { queue } = device;
  const [submit, createBuffer] = [queue.submit.bind(queue), device.createBuffer.bind(device)];
  queue.submit = (work) => {
    seen.from ||= performance.now();
    return submit(work);
  };
  device.createBuffer = (descriptor) => {
    const buffer = createBuffer(descriptor);
    if (descriptor.usage & 1) {
      const map = buffer.mapAsync.bind(buffer);
      buffer.mapAsync = (mode) =>
        map(mode).then(() => {
          seen.to = performance.now();
        });
    }
    return buffer;
  };
  return seen;
}

/** The medians of a decode step of so many texts: milliseconds in all, and of these, when the device had nothing to do. */
async function decodeStep(model, seen, batch, steps) {
  const parts = engineParts(model, { maxSequences: batch, blocks: batch * 20 });
  for (let i = 0; i < batch; i++) enqueue(parts, requestOf(64, i, steps + 8));
  while (parts.running.length < batch || parts.running.some(({ tokens }) => tokens.length < 67))
    await engineStep(parts);
  const [walls, idles] = [[], []];
  for (let i = 0; i < steps; i++) {
    seen.from = 0;
    const start = performance.now();
    await engineStep(parts);
    const wall = performance.now() - start;
    walls.push(wall);
    idles.push(wall - (seen.to - seen.from));
  }
  for (const { choice } of [...parts.running]) choice.abort();
  freeEngine(parts);
  return { wall: quantile(walls, 0.5), idle: quantile(idles, 0.5) };
}

/** Requests that so many clients send, each after the answer to its last: tokens a second of all, and waits for the first token. */
async function load(model, clients, requests) {
  const engine = openEngine(model, { maxSequences: Math.min(32, clients), blocks: 32 * 20 });
  const waits = [];
  const one = async (seed) => {
    const start = performance.now();
    let isFirst = true;
    for await (const _ of engine.submit(requestOf(32 + ((seed * 37) % 96), seed, 32))[0].tokens) {
      if (isFirst) waits.push(performance.now() - start);
      isFirst = false;
    }
  };
  const all = async (first) => {
    let next = first;
    const client = async () => {
      while (next < first + requests) await one(next++);
    };
    await Promise.all(Array.from({ length: clients }, client));
  };
  await all(1000); // records and compiles
  waits.length = 0;
  const start = performance.now();
  await all(0);
  const seconds = (performance.now() - start) / 1000;
  await engine.close();
  return { rate: (32 * requests) / seconds, p50: quantile(waits, 0.5), p95: quantile(waits, 0.95) };
}

const gpu = await openGpu({ robust: false });
const seen = watch(gpu.device);
const model = randomModel(config, 1);
console.log(gpu.facts.name);
for (const batch of numbers(option("--batches", "1,8"))) {
  const { wall, idle } = await decodeStep(model, seen, batch, Number(option("--steps", "20")));
  const share = `${((100 * idle) / wall).toFixed(1)} % of it without work for the device`;
  console.log(
    `batch ${batch}: ${wall.toFixed(1)} ms a step, ${idle.toFixed(2)} ms or ${share}; ${((1000 * batch) / wall).toFixed(1)} tokens/s`,
  );
}
for (const clients of numbers(option("--loads", "1,2,4,8,16"))) {
  const { rate, p50, p95 } = await load(model, clients, Math.max(8, 2 * clients));
  console.log(
    `${clients} clients: ${rate.toFixed(1)} tokens/s, first token after ${p50.toFixed(0)} ms (p50), ${p95.toFixed(0)} ms (p95)`,
  );
}
