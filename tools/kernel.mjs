// The kernel of the book as Jupyter starts it: `node tools/kernel.mjs CONNECTION_FILE`, in the notebook's folder.
import { quietAdapters } from "../lib/bin/quiet.mjs";
import { createKernel } from "./kernel-parts.mjs";

await quietAdapters();
const { handler, executor, jupyter } = createKernel();
process.on("SIGINT", () => executor.interrupt());
process.on("uncaughtException", (error) => console.error("Uncaught:", error));
process.on("unhandledRejection", (error) => console.error("A promise that nobody awaited failed:", error));
new jupyter.ZmqServer(handler, process.argv[2]).init();
