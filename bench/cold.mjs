// What a user waits for whose driver has compiled nothing yet: a Qwen3 shape of 114 million parameters reads a prompt of 64
// tokens and writes two, with an empty shader cache and again with a filled one. Several libraries take turns.
// node bench/cold.mjs [--rounds N] [--kernels] [LIBRARY…]      a library is a path to a built lib/dist/index.js
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";

const config = {
  model_type: "qwen3",
  vocab_size: 50_304,
  hidden_size: 768,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  num_key_value_heads: 12,
  head_dim: 64,
  intermediate_size: 2048,
  max_position_embeddings: 1024,
  rms_norm_eps: 1e-6,
  rope_theta: 10_000,
  tie_word_embeddings: true,
};

/** The shapes of the model's weights, by their names in a file. */
function shapes() {
  const { vocab_size, hidden_size: width, num_attention_heads: heads, head_dim, intermediate_size } = config;
  const layer = {
    "input_layernorm.weight": [width],
    "post_attention_layernorm.weight": [width],
    "self_attn.q_proj.weight": [heads * head_dim, width],
    "self_attn.k_proj.weight": [heads * head_dim, width],
    "self_attn.v_proj.weight": [heads * head_dim, width],
    "self_attn.o_proj.weight": [width, heads * head_dim],
    "self_attn.q_norm.weight": [head_dim],
    "self_attn.k_norm.weight": [head_dim],
    "mlp.gate_proj.weight": [intermediate_size, width],
    "mlp.up_proj.weight": [intermediate_size, width],
    "mlp.down_proj.weight": [width, intermediate_size],
  };
  const layers = Array.from({ length: config.num_hidden_layers }, (_, i) =>
    Object.entries(layer).map(([name, shape]) => [`model.layers.${i}.${name}`, shape]),
  );
  return [
    ["model.embed_tokens.weight", [vocab_size, width]],
    ...layers.flat(),
    ["model.norm.weight", [width]],
  ];
}

/** A safetensors file of the model, its numbers small and different from each other. */
function weights() {
  let end = 0;
  const header = {};
  for (const [name, shape] of shapes()) {
    const bytes = 4 * shape.reduce((product, length) => product * length, 1);
    header[name] = { dtype: "F32", shape, data_offsets: [end, end + bytes] };
    end += bytes;
  }
  let text = JSON.stringify(header);
  text = text.padEnd(Math.ceil(text.length / 8) * 8);
  const file = new Uint8Array(8 + text.length + end);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(new TextEncoder().encode(text), 8);
  const numbers = new Float32Array(file.buffer, 8 + text.length);
  for (let i = 0, state = 1; i < numbers.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    numbers[i] = (state / 2 ** 32 - 0.5) * 0.1;
  }
  return file;
}

/** Waits for the GPU between reads, and says what each took. */
async function measure(library, seen) {
  const tslm = await import(pathToFileURL(library).href);
  const gpu = await tslm.openGpu({ robust: false });
  const { device } = gpu;
  const codes = new Map();
  const [makeModule, makePipeline] = [device.createShaderModule, device.createComputePipeline];
  device.createShaderModule = (descriptor) => {
    const module = makeModule.call(device, descriptor);
    codes.set(module, descriptor.code);
    return module;
  };
  device.createComputePipeline = (descriptor) => {
    seen.push({ name: descriptor.label, code: codes.get(descriptor.compute.module) });
    return makePipeline.call(device, descriptor);
  };
  const model = tslm.loadModel(config, weights());
  await tslm.finish();
  const session = tslm.openSession(model, 128);
  const times = {};
  const timed = async (name, ids) => {
    const start = performance.now();
    const scores = await session.read(ids);
    times[name] = (performance.now() - start) / 1000;
    return scores;
  };
  const prompt = Array.from({ length: 64 }, (_, i) => (i * 7919) % config.vocab_size);
  let scores = await timed("prompt", prompt);
  const best = () => scores.reduce((top, score, id) => (score > scores[top] ? id : top), 0);
  scores = await timed("first token", [best()]);
  scores = await timed("second token", [best()]);
  return { times, pipelines: seen.length, scores: Array.from(scores.subarray(0, 4)) };
}

/** Runs every pipeline once, on next to nothing, and says how long each took: nearly all of it is compiling. */
async function compileTimes(library, seen) {
  const tslm = await import(pathToFileURL(library).href);
  const { device } = await tslm.openGpu({ robust: false });
  const buffer = (usage, size) => device.createBuffer({ size, usage });
  const [storage, uniform] = [Array.from({ length: 20 }, () => buffer(0x80, 2 ** 20)), buffer(0x40, 256)];
  const texture = device.createTexture({ size: [64, 64], format: "rgba32float", usage: 0x08 });
  const times = [];
  for (const { name, code } of seen) {
    const start = performance.now();
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ code });
    const pipeline = device.createComputePipeline({
      layout: "auto",
      compute: { module, entryPoint: "main" },
    });
    const entries = [...code.matchAll(/@binding\((\d+)\) var(<[^>]*>)? \w+: (\w+)/g)].map(
      ([, at, space, type]) => {
        const binding = Number(at);
        if (type.startsWith("texture")) return { binding, resource: texture.createView() };
        return { binding, resource: { buffer: space === "<uniform>" ? uniform : storage[binding] } };
      },
    );
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
    pass.dispatchWorkgroups(1);
    pass.end();
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
    const error = await device.popErrorScope();
    if (error) throw new Error(`${name}: ${error.message}`);
    times.push({ name, seconds: (performance.now() - start) / 1000 });
  }
  return times;
}

/** Runs a task of this file in a process of its own, with a shader cache in a folder. */
function inChild(task, library, cache, list) {
  const env = {
    ...process.env,
    XDG_CACHE_HOME: cache,
    MESA_SHADER_CACHE_DIR: cache,
    XDG_RUNTIME_DIR: os.tmpdir(),
  };
  const stdio = ["ignore", "pipe", "ignore"];
  const text = execFileSync(process.execPath, [import.meta.filename, task, library, list], { env, stdio });
  return JSON.parse(text);
}

function freshFolder() {
  return fs.mkdtempSync(path.join(os.tmpdir(), "tslm-cold-"));
}

function median(values) {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

function main(args) {
  const rounds = args.includes("--rounds") ? Number(args.splice(args.indexOf("--rounds"), 2)[1]) : 3;
  const kernels = args.includes("--kernels") && args.splice(args.indexOf("--kernels"), 1);
  const libraries = args.length > 0 ? args : [path.join(import.meta.dirname, "../lib/dist/index.js")];
  const found = new Map(libraries.map((library) => [library, []]));
  const lists = freshFolder();
  for (let round = 0; round < rounds; round++)
    for (const [at, library] of libraries.entries()) {
      const cache = freshFolder();
      const list = path.join(lists, `${at}.json`);
      const [cold, warm] = [0, 1].map(() => inChild("measure", library, cache, list));
      found.get(library).push({ cold, warm });
      const seconds = ({ times }) =>
        Object.values(times)
          .map((time) => time.toFixed(2))
          .join(" + ");
      console.log(
        `${library}: cold ${seconds(cold)} s, warm ${seconds(warm)} s, ${cold.pipelines} pipelines`,
      );
      fs.rmSync(cache, { recursive: true });
    }
  for (const [library, results] of found) {
    const wait = ({ times }) => times.prompt + times["first token"];
    const [cold, warm] = ["cold", "warm"].map((kind) => median(results.map((result) => wait(result[kind]))));
    console.log(
      `${library}: prompt and first token, median: ${cold.toFixed(2)} s cold, ${warm.toFixed(2)} s warm`,
    );
  }
  for (const [at, library] of libraries.entries()) {
    if (!kernels) continue;
    const cache = freshFolder();
    const times = inChild("compile", library, cache, path.join(lists, `${at}.json`));
    console.log(`\n${library}: seconds to compile, kernel by kernel`);
    for (const { name, seconds } of times.sort((a, b) => b.seconds - a.seconds))
      console.log(`${seconds.toFixed(2).padStart(7)}  ${name}`);
    console.log(
      `${times
        .reduce((sum, { seconds }) => sum + seconds, 0)
        .toFixed(2)
        .padStart(7)}  together`,
    );
    fs.rmSync(cache, { recursive: true });
  }
  fs.rmSync(lists, { recursive: true });
}

const [task, library, list] = process.argv.slice(2);
if (task === "measure") {
  const seen = [];
  const result = await measure(library, seen);
  fs.writeFileSync(list, JSON.stringify(seen));
  process.stdout.write(JSON.stringify(result), () => process.exit(0));
} else if (task === "compile") {
  const times = await compileTimes(library, JSON.parse(fs.readFileSync(list, "utf8")));
  process.stdout.write(JSON.stringify(times), () => process.exit(0));
} else main(process.argv.slice(2));
