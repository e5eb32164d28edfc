// `npm run train`: sets up what is missing and trains the default small model on the synthetic corpus. What follows `--`
// goes to `tslm train`, as in `npm run train -- --resume` or `npm run train -- --set steps=100`.
import { spawn } from "node:child_process";
import path from "node:path";
import { gpuEnvironment } from "../lib/bin/machine.mjs";
import { isScript, readChoice, root, runScript, setUp } from "./setup.mjs";

/** The arguments for `tslm train`: the default configuration and run folder, unless others are given. */
export function trainArguments(given) {
  const names = (option) =>
    given.some((argument) => argument === option || argument.startsWith(`${option}=`));
  const config = names("--config") ? [] : ["--config", "configs/default.json"];
  const out = names("--out") ? [] : ["--out", path.join("runs", "default")];
  return ["train", ...config, ...out, ...given];
}

async function main() {
  const { choice, rest } = readChoice(process.argv.slice(2));
  await setUp("train", choice);
  const program = path.join(root, "lib", "bin", "tslm.mjs");
  const options = { cwd: root, env: gpuEnvironment(), stdio: "inherit" };
  const child = spawn(process.execPath, [program, ...trainArguments(rest)], options);
  // Ctrl-C reaches the run too, which saves and says how to go on; we wait for it.
  process.on("SIGINT", () => {});
  for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", (code) => resolve(code ?? 1));
  });
}

if (isScript(import.meta.url)) await runScript(main);
