// A server under load for a while: clients that ask for texts of random lengths, whole, as streams and in JSON, and often leave in the
// middle. At the end nothing may have failed, every block of the cache must be free, and memory must be as flat as it was halfway.
// node bench/soak.mjs [--minutes N] [--clients N] [--model DIR]
import { fork } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

const root = path.join(import.meta.dirname, "..");
const { values: options } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    clients: { type: "string", default: "16" },
    model: { type: "string", default: path.join(root, "tests/fixtures/stories260k") },
  },
});
const minutes = Number(options.minutes);

/** Starts the server, and gives its process and address. */
async function startServer(template) {
  const args = ["serve", "--port", "0", "--model", options.model, "--chat-template", template];
  const log = path.join(path.dirname(template), "log");
  const child = fork(path.join(root, "lib/bin/tslm.mjs"), [...args, "--log", log], {
    silent: true,
    execArgv: [],
  });
  child.stderr.pipe(process.stderr);
  child.once("exit", (code) => {
    if (!isEnding) fail(`the server ended with code ${code}`);
  });
  let said = "";
  for await (const text of child.stdout) {
    said += text;
    const [url] = /http:\S+/.exec(said) ?? [];
    if (url) return { child, url, log };
  }
  throw new Error("The server did not start.");
}

const failures = [];
let isEnding = false;

function fail(what) {
  failures.push(what);
  console.log(`FAILED: ${what}`);
}

/** Random numbers from a seed (mulberry32). */
function randomFrom(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const words = "once upon a time there was little girl who loved to play in the park with her dog and".split(
  " ",
);
const schema = {
  type: "object",
  properties: { name: { enum: ["Lily", "Tom"] }, age: { type: "integer", minimum: 1, maximum: 99 } },
  required: ["name", "age"],
  additionalProperties: false,
};

/** A request of a random kind and length. */
function draw(random) {
  const whole = (least, most) => least + Math.floor(random() * (most - least + 1));
  const text = Array.from({ length: whole(1, 120) }, () => words[whole(0, words.length - 1)]).join(" ");
  const isChat = random() < 0.5;
  const shared = {
    max_tokens: whole(1, 160),
    temperature: random() < 0.3 ? 0 : 1,
    seed: whole(0, 1e6),
    stream: random() < 0.7,
    ...(random() < 0.1 && { n: 2 }),
    ...(random() < 0.1 && { stop: [" the", "."] }),
  };
  if (!isChat)
    return {
      path: "/v1/completions",
      body: { ...shared, prompt: text, ...(random() < 0.2 && { logprobs: 3 }) },
    };
  const format = random() < 0.15 && {
    response_format: { type: "json_schema", json_schema: { name: "a", schema } },
    max_tokens: 160,
  };
  return {
    path: "/v1/chat/completions",
    body: { ...shared, ...format, messages: [{ role: "user", content: text }] },
  };
}

const counts = { answers: 0, left: 0, tokens: 0 };
const waits = [];

/** Sends one request, reads its answer, or leaves it after a while. */
async function askOnce(url, random) {
  const { path: where, body } = draw(random);
  const leaving = new AbortController();
  const leaves = random() < 0.25 ? setTimeout(() => leaving.abort(), random() * 1500) : undefined;
  const began = performance.now();
  try {
    const response = await fetch(url + where, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: leaving.signal,
    });
    if (response.status !== 200) return fail(`${response.status}: ${await response.text()}`);
    let text = "";
    const decoder = new TextDecoder();
    for await (const piece of response.body) {
      if (body.stream && text === "") waits.push(performance.now() - began);
      text += decoder.decode(piece, { stream: true });
    }
    if (text.includes('"error"') || (body.stream && !text.endsWith("data: [DONE]\n\n")))
      fail(text.slice(-300));
    counts.answers++;
  } catch (error) {
    if (leaving.signal.aborted) counts.left++;
    else fail(`${error.message}: ${error.cause?.message}`);
  } finally {
    clearTimeout(leaves);
  }
}

/** One of the server's metrics. */
async function metric(url, name) {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(
    text
      .split("\n")
      .find((line) => line.startsWith(`tslm:${name}{`))
      ?.split(" ")
      .at(-1),
  );
}

/** Megabytes of memory that a process holds, where the system says so. */
function residentMegabytes(pid) {
  try {
    return Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, "utf8"))[1]) / 1024;
  } catch {
    return Number.NaN;
  }
}

const quantile = (values, share) => values.toSorted((a, b) => a - b)[Math.floor(share * (values.length - 1))];
const median = (values) => quantile(values, 0.5);
const shown = (milliseconds) => `${Math.round(milliseconds)} ms`;

/** A text that has to come out the same before and after. */
async function reference(url) {
  const body = JSON.stringify({ prompt: "Once upon a time", max_tokens: 60, temperature: 0 });
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body,
  });
  return (await response.json()).choices[0].text;
}

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-soak-"));
const template = path.join(folder, "chat.jinja");
fs.writeFileSync(template, "{{ bos_token }}{% for message in messages %}{{ message.content }} {% endfor %}");
const { child, url, log } = await startServer(template);
const told = await reference(url);
const began = performance.now();
const end = began + minutes * 60_000;
const memory = [];

/** Notes memory, and says how things stand. */
async function look(isShown = true) {
  const host = residentMegabytes(child.pid);
  const gpu = (await metric(url, "gpu_memory_bytes")) / 2 ** 20;
  memory.push({ host, gpu });
  if (!isShown) return;
  const [running, waiting, use] = await Promise.all(
    ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"].map((name) => metric(url, name)),
  );
  const at = ((performance.now() - began) / 60_000).toFixed(1).padStart(5);
  console.log(
    `${at} min  ${counts.answers} answers, ${counts.left} left, ${failures.length} failed; host ${host.toFixed(0)} MB, GPU ${gpu.toFixed(1)} MB; ` +
      `${running} running, ${waiting} waiting, cache ${(100 * use).toFixed(1)} %; first bytes p50 ${shown(quantile(waits, 0.5))}, p95 ${shown(quantile(waits, 0.95))}`,
  );
}

const clients = Array.from({ length: Number(options.clients) }, async (_, i) => {
  const random = randomFrom(i + 1);
  while (performance.now() < end && failures.length < 20) {
    await askOnce(url, random);
    if (random() < 0.2) await new Promise((resolve) => setTimeout(resolve, random() * 500));
  }
});
const watch = (async () => {
  for (let i = 0; performance.now() < end && failures.length < 20; i++) {
    await new Promise((resolve) =>
      setTimeout(resolve, Math.min(10_000, Math.max(0, end - performance.now()))),
    );
    await look(i % 6 === 5);
  }
})();
await Promise.all([...clients, watch]);
for (let tries = 0; tries < 100 && (await metric(url, "num_requests_running")) > 0; tries++)
  await new Promise((resolve) => setTimeout(resolve, 100));
await look();
for (const name of ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"])
  if ((await metric(url, name)) !== 0) fail(`${name} is ${await metric(url, name)} at the end, not 0`);
if ((await reference(url)) !== told) fail("the same request gives another text than before");
const thirds = [0, 1, 2].map((third) =>
  memory.slice(Math.floor((third * memory.length) / 3), Math.ceil(((third + 1) * memory.length) / 3)),
);
for (const kind of ["host", "gpu"]) {
  const [first, middle, last] = thirds.map((part) => median(part.map((at) => at[kind])));
  console.log(
    `${kind} memory, medians of the thirds: ${[first, middle, last].map((value) => value.toFixed(1)).join(", ")} MB`,
  );
  if (last > 1.05 * middle + 8) fail(`${kind} memory grows`);
}
isEnding = true;
child.kill("SIGINT");
const [code] = await once(child, "exit");
if (code !== 0) fail(`the server ended with code ${code}`);
const lines = fs
  .readFileSync(log, "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line));
for (const line of lines) if (line.status >= 500) fail(JSON.stringify(line));
const first = lines.flatMap((line) => line.first_token_ms ?? []);
const tokens = lines.reduce((sum, line) => sum + (line.completion_tokens ?? 0), 0);
console.log(
  `${lines.length} requests, ${tokens} tokens (${((1000 * tokens) / (end - began)).toFixed(0)} a second); ` +
    `waiting for the first token, by the server: p50 ${shown(quantile(first, 0.5))}, p95 ${shown(quantile(first, 0.95))}`,
);
console.log(failures.length === 0 ? "All is well." : `${failures.length} failures.`);
fs.rmSync(folder, { recursive: true });
process.exit(failures.length === 0 ? 0 : 1);
