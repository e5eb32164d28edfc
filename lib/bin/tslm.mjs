#!/usr/bin/env node
// The command `tslm`. Doctor alone works without the built library, since it is there to say what is missing.
import { doctor } from "./doctor.mjs";
import { gpuEnvironment, libraryState, nodeIsEnough, nodeMend } from "./machine.mjs";

process.env.XDG_RUNTIME_DIR = gpuEnvironment().XDG_RUNTIME_DIR ?? "";
if (!process.env.XDG_RUNTIME_DIR) delete process.env.XDG_RUNTIME_DIR;

const given = process.argv.slice(2);
const state = libraryState();
if (given[0] === "doctor" && !given.includes("--help") && state === "missing") {
  process.exitCode = await doctor({ json: given.includes("--json") });
} else if (!nodeIsEnough()) {
  console.error(`tslm: Node ${process.versions.node} is too old: ${nodeMend()}`);
  process.exitCode = 1;
} else if (state === "missing") {
  console.error("tslm: the library is not built: run npm run setup");
  process.exitCode = 1;
} else {
  const { main } = await import("../dist/cli/main.js");
  await main(process.argv);
}
