// `tslm serve` as a process: how it begins and ends, what it writes, what it does when its device is lost.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { expect, test } from "vitest";
import { writeServed } from "./serve-parts.ts";
import { startServer } from "./serving.ts";
import { binary, expectRefusal, testFolder, tslmHere } from "./tslm.ts";

const { folder, at } = testFolder("serving");
const model = writeServed(at("model"));

test("what cannot be served is one sentence", async () => {
  const serve = (...args: string[]) => tslmHere(["serve", ...args], folder);
  expectRefusal(await serve("--model", "nothing"), "there is no such file or folder");
  expectRefusal(await serve(), "required option '--model <dir>' not specified", 2);
  expectRefusal(await serve("--model", "model", "--port", "x"), "It must be a whole number", 2);
  expectRefusal(await serve("--model", "model", "--port", "70000"), "--port", 2);
  expectRefusal(await serve("--model", "model", "--max-seconds", "0"), "between 0.1 and", 2);
  expectRefusal(await serve("--model", "model", "--chat-template", "none.jinja"), "none.jinja");
  const taken = net.createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => taken.once("listening", resolve));
  const { port } = taken.address() as net.AddressInfo;
  const refused = await serve("--model", "model", "--port", String(port));
  taken.close();
  expectRefusal(refused, `tslm: Port ${port} is taken: choose another with --port.\n`);
});

test("a server that a program forked ends with that program, however that ends", async () => {
  const program = `
    import { fork } from "node:child_process";
    const server = fork(${JSON.stringify(binary)}, ["serve", "--port", "0", "--model", ${JSON.stringify(model)}], { silent: true });
    server.stdout.on("data", (text) => /http:/.test(text) && process.stdout.write(String(server.pid)));`;
  fs.writeFileSync(at("parent.mjs"), program);
  const parent = spawn(process.execPath, [at("parent.mjs")]);
  const [said] = await once(parent.stdout, "data");
  parent.kill("SIGKILL");
  const isThere = () => {
    try {
      return process.kill(Number(said), 0);
    } catch {
      return false;
    }
  };
  expect(isThere()).toBe(true);
  await expect.poll(isThere, { timeout: 60_000 }).toBe(false);
});

test("a key, a log file, and an end that lets the running finish", async () => {
  const server = await startServer(
    "--model",
    model,
    "--api-key",
    "sesame",
    "--log",
    at("log.jsonl"),
    "--max-tokens",
    "150",
  );
  const withKey = { headers: { "content-type": "application/json", authorization: "Bearer sesame" } };
  const body = { prompt: "Once upon a time", max_tokens: 10_000, seed: 1 };
  expect((await server.ask("/v1/models")).status).toBe(401);
  expect((await server.ask("/v1/completions", body)).status).toBe(401);
  expect((await server.ask("/v1/models", undefined, withKey)).status).toBe(200);
  expect((await server.ask("/health")).status).toBe(200);
  const stream = await server.ask("/v1/completions", { ...body, stream: true }, withKey);
  const text = stream.text();
  const code = server.end(); // Ctrl-C, while it writes
  await expect.poll(server.said).toContain("Finishing the answers that are being written");
  const late = await server.ask("/v1/completions", body, withKey).then(
    ({ status }) => status,
    () => "refused",
  );
  expect([503, "refused"]).toContain(late);
  expect(await text).toMatch(/"finish_reason":"(length|stop)".*\n\ndata: \[DONE\]\n\n$/);
  expect(await code).toBe(0);
  const lines = fs
    .readFileSync(at("log.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(lines.filter(({ status }) => status === 401).length).toBe(2);
  expect(lines.find(({ stream: isStream }) => isStream)).toMatchObject({
    status: 200,
    finish_reasons: [expect.any(String)],
  });
});

test("a second signal ends it at once", async () => {
  const server = await startServer(
    "--model",
    path.join(import.meta.dirname, "fixtures/gguf/stories260k-q8_0.gguf"),
    "--cache",
    "int8",
  );
  const gone = server
    .ask("/v1/completions", { prompt: "Once", max_tokens: 10_000, n: 32, temperature: 1 })
    .catch(() => {});
  await expect.poll(() => server.metric("num_requests_running")).toBeGreaterThan(0);
  const code = server.end();
  await expect.poll(server.said).toContain("once more ends at once");
  process.kill(server.pid, "SIGINT");
  expect(await code).toBe(130);
  await gone;
});

test("a lost device: one clear error for what runs, then the model is opened again and goes on", () => {
  const script = path.join(import.meta.dirname, "serve-lost.ts");
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--import", "tsx", script, model], {
    encoding: "utf8",
  });
  const said = stderr.replace(/^Warning: .*\n/gm, "").replaceAll(model, "model");
  expect(said.split("\n").filter((line) => !/The model is being opened again\.$/.test(line))).toEqual([""]);
  expect(stdout.trim().split("\n")).toEqual([
    "requests that run get one clear error",
    "the model is opened again, and answers as before",
    "nothing of the lost device is kept",
    "a device that is lost while nothing runs is noticed by the next request",
    "the log has the errors",
  ]);
  expect(status).toBe(0);
});
