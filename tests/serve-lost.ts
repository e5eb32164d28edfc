// Serves in a process of its own, since all tests share theirs, and loses the device while it does. Prints a line for each thing that held.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { currentGpu, memory } from "../lib/src/index.ts";
import { serveHere } from "./serve-parts.ts";

const { url, service, lines, close } = await serveHere(process.argv[2]);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const ask = { model: "stories", prompt: "Once upon a time", temperature: 0, max_tokens: 12 };
const long = { ...ask, temperature: 1, seed: 3, max_tokens: 400 };
const told = await client.completions.create(ask);
const held = memory.held;

async function check(what: string, work: () => Promise<unknown>): Promise<void> {
  await work();
  console.log(what);
}

/** Waits until so many answers are being written. */
async function untilRunning(count: number): Promise<void> {
  while ((service.host.state()?.running ?? 0) < count) await new Promise((resolve) => setTimeout(resolve, 2));
}

await check("requests that run get one clear error", async () => {
  const whole = client.completions.create(long);
  const stream = await client.completions.create({ ...long, seed: 4, stream: true });
  const pieces = (async () => {
    for await (const _ of stream);
  })();
  const outcomes = Promise.allSettled([whole, pieces]);
  await untilRunning(2);
  currentGpu().device.destroy();
  const [first, second] = await outcomes;
  assert(first.status === "rejected" && second.status === "rejected");
  assert.equal(first.reason.status, 503);
  assert.equal(first.reason.code, "device_lost");
  for (const { reason } of [first, second])
    assert.match(
      reason.message,
      /The GPU device was lost while the answer was written; the model is being opened again/,
    );
});

await check("the model is opened again, and answers as before", async () => {
  const [again, other] = await Promise.all([client.completions.create(ask), client.completions.create(ask)]);
  assert.equal(again.choices[0].text, told.choices[0].text);
  assert.equal(other.choices[0].text, told.choices[0].text);
  assert.equal((await fetch(`${url}/health`)).status, 200);
});

await check("nothing of the lost device is kept", async () => {
  // Steps for two at once have been recorded since; a model or a cache that stayed would weigh more.
  assert(memory.held < 1.2 * held, `${memory.held} bytes are held, and ${held} were`);
  const { blocks, freeBlocks, running } = service.host.state()!;
  assert.deepEqual({ freeBlocks, running }, { freeBlocks: blocks, running: 0 });
});

await check("a device that is lost while nothing runs is noticed by the next request", async () => {
  currentGpu().device.destroy();
  await currentGpu().device.lost.catch(() => {});
  const again = await client.completions.create(ask);
  assert.equal(again.choices[0].text, told.choices[0].text);
});

await check("the log has the errors", async () => {
  const errors = lines.map((line) => JSON.parse(line).error).filter((error) => error !== undefined);
  assert.deepEqual(errors, ["device_lost", "device_lost"]);
});

await close();
process.exit(0); // closing a device may take its time
