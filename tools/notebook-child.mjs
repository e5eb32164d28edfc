// The process in which one notebook runs: tslab's kernel without Jupyter. Plain JavaScript, so that no loader of the
// tools reaches the notebook. The parent sends the cells and hears {running}, {failed} and at the end {outputs}.
import { createRequire } from "node:module";
import "./seeded.mjs";

const require = createRequire(import.meta.url);
const { createConverter } = require("tslab/dist/converter");
const { createExecutor } = require("tslab/dist/executor");
const { JupyterHandlerImpl } = require("tslab/dist/jupyter");

process.once("message", async ({ cells }) => {
  const converters = { node: createConverter({ isJS: false, isBrowser: false }), close() {} };
  const executor = createExecutor(process.cwd(), converters, console);
  const handler = new JupyterHandlerImpl(executor, false);
  const outputs = cells.map(() => []);
  const displays = new Map();
  for (const [i, { id, source }] of cells.entries()) {
    await new Promise((sent) => process.send({ running: id }, sent));
    const list = outputs[i];
    const reply = await handler.handleExecute(
      { code: source },
      (name, text) => list.push({ output_type: "stream", name, text }),
      (message, update) => display(list, displays, message, update),
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
