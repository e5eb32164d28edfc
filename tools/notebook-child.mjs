// The process in which one notebook runs: tslab's kernel without Jupyter. Plain JavaScript, so that no loader of the
// tools reaches the notebook. The parent sends the cells and hears {ready}, {running} at every cell, {alive} now and then while
// there is output, {failed} and at the end {outputs}.
import { createKernel } from "./kernel-parts.mjs";
import "./seeded.mjs";

// A cell may listen to interrupts. This process ends with its parent all the same.
process.on("SIGINT", () => process.exit(130));
process.on("disconnect", () => process.exit(1));

process.once("message", async ({ cells }) => {
  const { handler } = createKernel((count) => `cell ${cells[count - 1].id}`);
  process.send({ ready: true });
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
    if (reply.status !== "ok") return finish({ failed: id, outputs });
  }
  // Work that the last cell left behind may still speak in the next turns of the loop.
  await new Promise((resolve) => setTimeout(resolve, 20));
  finish({ outputs });
});

/** Adds a display to a cell's outputs, or replaces what an earlier one of the same id shows. */
function display(list, displays, { data, metadata, transient }, update) {
  const id = transient?.display_id;
  const shown = id === undefined ? undefined : displays.get(id);
  if (update && shown) return Object.assign(shown, { data, metadata });
  const output = { output_type: "display_data", data, metadata };
  list.push(output);
  if (id !== undefined) displays.set(id, output);
}

/** Reports and ends the process, which an open GPU device would keep alive. */
function finish(message) {
  process.send(message, () => process.exit(0));
}
