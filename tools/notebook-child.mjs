// The process in which notebooks run, one after the other: tslab's kernel without Jupyter. Plain JavaScript, so that no loader
// of the tools reaches the notebooks. Each has a kernel of its own; the library, its GPU device and what was compiled for it stay. The
// parent sends the cells and their folder, and hears {ready}, {running} at every cell, {alive} now and then while there is output,
// {failed} and at the end {outputs}, with {fit} when the next notebook finds all as if this one had never been.
import { createKernel } from "./kernel-parts.mjs";
import { seedRandom } from "./seeded.mjs";

// A cell may listen to interrupts. This process ends with its parent all the same.
process.on("SIGINT", () => process.exit(130));
process.on("disconnect", () => process.exit(1));

process.on("message", async ({ folder, cells }) => {
  process.chdir(folder);
  seedRandom();
  const restore = processState();
  const { handler, executor } = createKernel((count) => `cell ${cells[count - 1].id}`);
  process.send({ ready: true });
  const { failed, outputs } = await runCells(handler, cells);
  if (failed !== undefined) return process.send({ failed, outputs }, () => process.exit(0));
  // Work that the last cell left behind may still speak in the next turns of the loop.
  await new Promise((resolve) => setTimeout(resolve, 20));
  executor.close();
  const fit = !["Timeout", "TCPServerWrap", "ProcessWrap", "MessagePort"].some(isAtWork) && restore();
  process.send({ outputs, fit });
});

/** Runs cells up to the first that fails. */
async function runCells(handler, cells) {
  const outputs = cells.map(() => []);
  const displays = new Map();
  let heard = performance.now();
  const alive = () => {
    if (performance.now() - heard < 1000) return;
    heard = performance.now();
    process.send({ alive: true });
  };
  for (const [i, { id, source }] of cells.entries()) {
    await new Promise((sent) => process.send({ running: id }, sent));
    const list = outputs[i];
    const reply = await handler.handleExecute(
      { code: source },
      (name, text) => {
        list.push({ output_type: "stream", name, text });
        alive();
      },
      (message, update) => {
        display(list, displays, message, update);
        alive();
      },
    );
    if (reply.status !== "ok") return { failed: id, outputs };
  }
  return { outputs };
}

/** Adds a display to a cell's outputs, or replaces what an earlier one of the same id shows. */
function display(list, displays, { data, metadata, transient }, update) {
  const id = transient?.display_id;
  const shown = id === undefined ? undefined : displays.get(id);
  if (update && shown) return Object.assign(shown, { data, metadata });
  const output = { output_type: "display_data", data, metadata };
  list.push(output);
  if (id !== undefined) displays.set(id, output);
}

/** Whether something of a kind keeps this process busy. */
const isAtWork = (kind) => process.getActiveResourcesInfo().includes(kind);

/** What outlives a notebook on purpose: the GPU device, and what tslab gives the next one anew. */
const shared = ["tslmGpu", "__tslab__"];

/** What a notebook may listen to. */
const heardEvents = ["SIGINT", "SIGTERM", "SIGHUP", "uncaughtException", "unhandledRejection"];

/** Notes globals, the environment and listeners; returns what brings them back, and says whether it could. */
function processState() {
  const globals = Object.getOwnPropertyDescriptors(globalThis);
  const environment = { ...process.env };
  const listeners = heardEvents.map((event) => process.rawListeners(event));
  return () => {
    for (const key of Object.keys(process.env)) if (!(key in environment)) delete process.env[key];
    Object.assign(process.env, environment);
    for (const [i, event] of heardEvents.entries())
      for (const listener of process.rawListeners(event))
        if (!listeners[i].includes(listener)) process.off(event, listener);
    return Reflect.ownKeys(globalThis).every(
      (key) => shared.includes(key) || restoreGlobal(key, globals[key]),
    );
  };
}

function restoreGlobal(key, before) {
  if (!before) return Reflect.deleteProperty(globalThis, key);
  const { value, get } = Object.getOwnPropertyDescriptor(globalThis, key);
  return (value === before.value && get === before.get) || Reflect.defineProperty(globalThis, key, before);
}
