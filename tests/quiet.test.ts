// What native code prints while an adapter opens: two known lines less, and nothing else is lost or out of order.
import { execFileSync } from "node:child_process";
import path from "node:path";
import { expect, test } from "vitest";

const quiet = path.join(import.meta.dirname, "..", "lib", "bin", "quiet.mjs");
const lines = ["Uniform", "Storage"].map(
  (kind) =>
    `Warning: maxDynamic${kind}BuffersPerPipelineLayout artificially reduced from 1000000 to 16 to fit dynamic offset allocation limit.`,
);

/** A program whose call prints as native code does, past `process.stderr`; and what it says around that. */
const program = `
  import fs from "node:fs";
  import { withoutKnownLines } from ${JSON.stringify(quiet)};
  console.error("before");
  const result = withoutKnownLines(() => {
    fs.writeSync(2, ${JSON.stringify(`${lines[0]}\nWarning: another\n${lines[1]}\n`)});
    return 5;
  });
  console.error("after", result);
  try { withoutKnownLines(() => { fs.writeSync(2, "last words\\n"); throw new Error("no adapter"); }); }
  catch (error) { console.error(error.message); }
`;

const said = (shell: string, env = {}) =>
  execFileSync("sh", ["-c", shell, process.execPath, program], {
    encoding: "utf8",
    env: { ...process.env, ...env },
  });
const piped = '"$0" --input-type=module -e "$1" 2>&1 | cat';

test.runIf(process.platform === "linux")(
  "known lines are left out, all others are printed in their order",
  () => {
    expect(said(piped)).toBe("before\nWarning: another\nafter 5\nlast words\nno adapter\n");
  },
);

test.skipIf(process.platform === "win32")("all lines are printed where somebody looks for faults", () => {
  expect(said(piped, { TSLM_DEBUG: "1" })).toContain(`${lines[0]}\nWarning: another\n${lines[1]}\n`);
});
