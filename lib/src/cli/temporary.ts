// A folder for what a command needs only while it reads. It is gone when the process ends, also by a signal.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { stopSignals } from "./run.js";

const signals = Object.keys(stopSignals) as (keyof typeof stopSignals)[];
let folder: string | undefined;

/** The folder, made at the first call. */
export function temporaryFolder(): string {
  if (folder !== undefined) return folder;
  process.on("exit", removeTemporaryFolder);
  for (const signal of signals) process.prependListener(signal, onSignal); // before others, who may listen but once
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  return folder;
}

/** Removes the folder with all that is in it, if there is one. */
export function removeTemporaryFolder(): void {
  if (folder !== undefined) fs.rmSync(folder, { recursive: true, force: true });
  folder = undefined;
  process.off("exit", removeTemporaryFolder);
  for (const signal of signals) process.off(signal, onSignal);
}

function onSignal(signal: NodeJS.Signals): void {
  if (process.listenerCount(signal) > 1) return; // a command that ends in its own way, and removes the folder then
  process.exit(stopSignals[signal as keyof typeof stopSignals]); // which removes the folder, and gives locks back
}
