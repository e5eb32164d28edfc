// Dawn prints two lines about limits whenever it opens an adapter of some Vulkan drivers; they are true and say nothing to a
// person. Dawn has no switch for them, and Node none for what native code prints. While an adapter opens, which blocks this
// thread, standard error is therefore a file; then what is in it is printed, those lines left out.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import tty from "node:tty";

const known =
  /^Warning: maxDynamic(Uniform|Storage)BuffersPerPipelineLayout artificially reduced from \d+ to \d+ to fit dynamic offset allocation limit\.\n/gm;

/** Lets adapters be opened in this process without Dawn's known lines. */
export async function quietAdapters() {
  const webgpu = await import("webgpu").catch(() => undefined); // whoever needs it says that it is missing
  const prototype = webgpu?.globals.GPU.prototype;
  if (!prototype || prototype.requestAdapter.quiet) return;
  const { requestAdapter } = prototype;
  prototype.requestAdapter = function (...args) {
    return withoutKnownLines(() => requestAdapter.apply(this, args));
  };
  prototype.requestAdapter.quiet = true;
}

/**
 * Makes a call, and prints what it said on standard error when it returns. Only on Linux, where a terminal or a pipe can be
 * opened once more through its number; elsewhere, and where standard error is a file, all lines are printed.
 */
export function withoutKnownLines(call) {
  const giveBack = canBeTurned() ? turnStandardError() : undefined;
  if (!giveBack) return call();
  try {
    return call();
  } finally {
    const said = giveBack().replace(known, "");
    if (said) fs.writeSync(2, said);
  }
}

/** Whether descriptor 2 can be turned: another thread that opens a file meanwhile might be given its number. */
function canBeTurned() {
  const alone = !process.getActiveResourcesInfo().some((kind) => /^FS|^MessagePort/.test(kind));
  const isStream = tty.isatty(2) || fs.fstatSync(2).isFIFO();
  return process.platform === "linux" && process.env.TSLM_DEBUG !== "1" && alone && isStream;
}

/**
 * Turns descriptor 2 into a file; returns what turns it back and tells what is in the file, or nothing where it stays as it is.
 * A file that is opened gets the lowest number that is free: 2, once that is closed.
 */
function turnStandardError() {
  const writing = fs.constants.O_WRONLY | fs.constants.O_NOCTTY;
  const file = path.join(os.tmpdir(), `tslm-stderr-${process.pid}`);
  let kept;
  try {
    kept = fs.openSync("/proc/self/fd/2", writing);
    fs.closeSync(fs.openSync(file, "wx", 0o600));
  } catch {
    if (kept !== undefined) fs.closeSync(kept);
    return undefined;
  }
  fs.closeSync(2);
  fs.openSync(file, "a");
  return () => {
    fs.closeSync(2);
    fs.openSync(`/proc/self/fd/${kept}`, writing);
    fs.closeSync(kept);
    const said = fs.readFileSync(file, "utf8");
    fs.rmSync(file);
    return said;
  };
}
