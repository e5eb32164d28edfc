// The command line for tests: the real program in a process of its own, or the same commands in this one.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, expect } from "vitest";
import { runCommand } from "../lib/src/cli/main.ts";

/** The program as a person starts it. */
export const binary = path.join(import.meta.dirname, "..", "lib", "bin", "tslm.mjs");

/** What a command printed, and the code that it ended with. */
export interface Ended {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** A folder for the tests of one file, removed when they are done; `at` gives a path in it. */
export function testFolder(name: string) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), `tslm ${name} `));
  afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));
  return { folder, at: (...parts: string[]) => path.join(folder, ...parts) };
}

/** Runs the program in a process of its own: for what belongs to one, such as its environment, threads and standard input. */
export function tslm(
  args: string[],
  { cwd, input = "", env = {} }: { cwd?: string; input?: string | Uint8Array; env?: object } = {},
): Ended & { bytes: Buffer } {
  const options = { cwd, input, env: { ...process.env, ...env } };
  const { status, stdout, stderr } = spawnSync(process.execPath, [binary, ...args], options);
  return { status, stdout: stdout.toString(), stderr: withoutDawn(stderr.toString()), bytes: stdout };
}

/** Dawn's own words on some drivers. */
const withoutDawn = (text: string) => text.replace(/^Warning: .*\n/gm, "");

/**
 * Runs a command in this process, where the GPU device is open and its kernels are compiled already. The same but for what
 * belongs to a process: what native code prints, what stays alive at the end, who listens to signals.
 */
export async function tslmHere(args: string[], cwd = process.cwd()): Promise<Ended> {
  const streams = [process.stdout, process.stderr];
  const writes = streams.map(({ write }) => write);
  const [folder, exitCode] = [process.cwd(), process.exitCode];
  const said = ["", ""];
  for (const [i, stream] of streams.entries())
    stream.write = ((text: string | Uint8Array, done?: () => void) => {
      said[i] += typeof text === "string" ? text : Buffer.from(text).toString();
      done?.();
      return true;
    }) as typeof stream.write;
  process.chdir(cwd);
  process.exitCode = undefined;
  try {
    const status = await runCommand([process.execPath, binary, ...args]);
    return { status, stdout: said[0], stderr: withoutDawn(said[1]) };
  } finally {
    for (const [i, stream] of streams.entries()) stream.write = writes[i];
    process.exitCode = exitCode;
    process.chdir(folder);
  }
}

/** One sentence on stderr that holds these words, no stack trace, and exit code 1, or 2 for bad usage. */
export function expectRefusal({ status, stderr }: Ended, words: string | RegExp, code = 1): void {
  if (typeof words === "string") expect(stderr).toContain(words);
  else expect(stderr).toMatch(words);
  expect(stderr).not.toMatch(/\n\s+at /);
  expect(status).toBe(code);
}
