// What HTTP adds to the wait for the first token: the bare engine, and the server around the same engine, in turns. Prompts are all
// different, so that none finds what another has computed.
// node bench/first-token.mjs [--rounds N] [--prompt TOKENS] [--model DIR]
import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { parseArgs } from "node:util";

const root = path.join(import.meta.dirname, "..");
const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "60" },
    prompt: { type: "string", default: "128" },
    model: { type: "string", default: path.join(root, "tests/fixtures/stories260k") },
    client: { type: "string" },
  },
});
const length = Number(options.prompt);

/** The client, in a process of its own as clients are: asks for prompts that it is sent, and says how long the first token took. */
async function beClient(url) {
  process.on("message", async (prompt) => {
    const body = JSON.stringify({ prompt, max_tokens: 4, temperature: 0, stream: true });
    const began = performance.now();
    const response = await fetch(`${url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
    });
    let first;
    const decoder = new TextDecoder();
    for await (const piece of response.body)
      if (decoder.decode(piece).includes('"text"')) first ??= performance.now() - began;
    process.send(first);
  });
  process.send("ready");
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

async function measure() {
  const library = (name) => import(path.join(root, "lib/dist", name));
  const { openModelService, startServer } = await library("cli/serve.js");
  const limits = { maxBody: 1e6, maxSequences: 32, maxQueue: 256, maxSeconds: 600 };
  const settings = { model: options.model, host: "127.0.0.1", port: 0, dtype: "auto", ...limits };
  const service = await openModelService(settings);
  const server = await startServer(service, { ...settings, log: () => {} });
  const client = spawn(process.execPath, [import.meta.filename, "--client", server.url], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  await once(client, "message");
  const { vocabSize } = service.tokenizer;
  let state = 1;
  const draw = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return 300 + ((state >>> 8) % (vocabSize - 300)); // no special tokens, no single bytes
  };
  const prompt = () => Array.from({ length }, draw);
  const bare = async () => {
    const request = { prompt: prompt(), maxTokens: 4, seed: 0, stopIds: [] };
    const sampling = { temperature: 0, topK: 0, topP: 1, minP: 0 };
    const engine = await service.host.engine();
    const began = performance.now();
    const [choice] = engine.submit({ ...request, sampling, vocabSize });
    let first;
    for await (const _ of choice.tokens) first ??= performance.now() - began;
    return first;
  };
  const overHttp = async () => {
    client.send(prompt());
    return (await once(client, "message"))[0];
  };
  const times = { bare: [], http: [] };
  for (let round = -3; round < Number(options.rounds); round++) {
    const [first, second] = round % 2 === 0 ? [bare, overHttp] : [overHttp, bare];
    const both = new Map([
      [first, await first()],
      [second, await second()],
    ]);
    if (round < 0) continue; // kernels are compiled
    times.bare.push(both.get(bare));
    times.http.push(both.get(overHttp));
  }
  client.kill();
  const [engine, http] = [median(times.bare), median(times.http)];
  const best = ([key]) => Math.min(...times[key]);
  console.log(
    `${length} tokens of prompt, ${times.bare.length} rounds: first token after ${engine.toFixed(1)} ms bare and ${http.toFixed(1)} ms over HTTP (medians), ` +
      `${(http / engine).toFixed(2)} times; at best ${best(["bare"]).toFixed(1)} and ${best(["http"]).toFixed(1)} ms`,
  );
  await server.close();
  process.exit(0);
}

if (options.client) await beClient(options.client);
else await measure();
