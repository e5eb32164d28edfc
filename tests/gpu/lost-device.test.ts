import { spawnSync } from "node:child_process";
import path from "node:path";
import { expect, test } from "vitest";

test("a lost device ends every wait with a sentence, and the process opens a new one", () => {
  const script = path.join(import.meta.dirname, "lost-device.ts");
  const program = ["--expose-gc", "--import", "tsx", script];
  const { status, stdout, stderr } = spawnSync(process.execPath, program, { encoding: "utf8" });
  expect(stderr.replace(/^Warning: .*\n/gm, "")).toBe(""); // Dawn's own words on some drivers
  expect(stdout.trim().split("\n")).toEqual([
    "every pending wait names the loss and the kernel",
    "every later call says so too",
    "a new device opens, once for all who ask, and computes",
    "what belonged to the lost device is refused in words, and never handed out again",
    "work that was not handed over yet is dropped with its device",
    "errors of the lost device do not reach the new one",
    "tensors of a lost device can be collected, with no device open and with a new one",
  ]);
  expect(status).toBe(0);
});
