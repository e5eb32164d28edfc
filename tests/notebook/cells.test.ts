// What cells say, as a front end hears it: the kernel's own messages, in a process of its own.
import fs from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { type MimeBundle, type Output, repository as root } from "../../tools/notebook.js";
import { type RunResult, runCells } from "../../tools/run-notebook.js";
import { buildLibrary } from "../../tools/setup.mjs";

const IMPORTS = `import { check, expect, hint, liveFigure, markdown, progress, show, table, test, todo } from "tslm/notebook";`;

const CHECKS = `
import type { Check } from "tslm/notebook";
export const double: Check<[number]> = {
  exercise: "00-test/1-double",
  id: "double",
  title: "Twice",
  hints: ["A first nudge.", "Nearly the answer."],
  names: ["x"],
  inputs: (random, round) => [random.integer(round, 1000)],
  expected: (x) => 2 * x,
  mistakes: [{ says: "You square it.", makes: (x) => x * x }],
};
`;

/** The cells of one notebook, by id, in the order in which they run. */
const CELLS: Record<string, string> = {
  imports: IMPORTS,
  checks: 'import * as checks from "./checks";',
  table: `table([{ name: "a|b", value: 1234567.5 }, { name: "c", value: 0.00012351 }], { caption: "Two" });`,
  markdown: 'markdown("**" + (1 + 1) + "** sheep");',
  figure: `show({ data: [{ x: [1, 2, 3], y: new Float32Array([1, 4, 9]) }], layout: { title: "Squares" } });`,
  progress: `const bar = progress("work", 40);
    for (let i = 1; i <= 40; i++) { await new Promise((done) => setTimeout(done, 10)); bar.update(i, \`loss \${i}\`); }
    bar.done("loss 1.5");`,
  live: `const curve = liveFigure({ data: [{ y: [1] }] });
    for (let i = 2; i < 30; i++) { await new Promise((done) => setTimeout(done, 10)); curve.update({ data: [{ y: Array(i).fill(i) }] }); }
    curve.done({ data: [{ y: [7, 8] }] });`,
  tick: `await test("sums", async () => { expect(1 + 1).toBe(2); await expect(Promise.reject(new Error("no"))).rejects.toThrow("no"); });`,
  caught: `let said = ""; try { await test("fails", () => expect([1, 2]).toEqual([1, 3])); } catch (error) { said = error.message; }\nsaid;`,
  half: "await check(checks.double, (x: number) => todo());",
  wrong: "await check(checks.double, (x: number) => x * x);",
  hint1: "await hint(checks.double);",
  hint2: "await hint(checks.double);",
  hint3: "await hint(checks.double);",
  right: "await check(checks.double, (x: number) => x + x);",
};

describe("cells", () => {
  let clone: string;
  let run: RunResult;
  const record = () => JSON.parse(fs.readFileSync(path.join(clone, ".progress.json"), "utf8"));

  beforeAll(async () => {
    buildLibrary();
    // A clone in small, inside the real one so that "tslm" is found.
    clone = path.join(root, "runs", `cells-${process.pid}`);
    const folder = path.join(clone, "exercises", "00-test");
    fs.mkdirSync(folder, { recursive: true });
    fs.writeFileSync(path.join(clone, "package.json"), '{ "name": "tslm-book" }');
    fs.writeFileSync(path.join(folder, "checks.ts"), CHECKS);
    run = await runCells(
      folder,
      Object.entries(CELLS).map(([id, source]) => ({ id, source })),
    );
  });

  afterAll(() => fs.rmSync(clone, { recursive: true, force: true }));

  const outputs = (id: string): Output[] => run.outputs.get(id) ?? [];
  const shown = (id: string): MimeBundle => {
    const [output, ...more] = outputs(id);
    expect(more).toEqual([]);
    return output.output_type === "display_data" ? output.data : {};
  };
  const plain = (id: string) => String(shown(id)["text/plain"]);
  const printed = (id: string) =>
    outputs(id)
      .map((output) => (output.output_type === "stream" ? output.text : ""))
      .join("");

  test("all of them run", () => {
    expect(run.failure).toBeUndefined();
  });

  test("a table is HTML, Markdown and text, its numbers short and to the right", () => {
    const { "text/html": html, "text/markdown": md } = shown("table");
    expect(html).toContain("<caption");
    expect(String(html)).toMatch(/text-align:right[^>]*>1\s?234\s?568</u);
    expect(md).toContain("| a\\|b |");
    expect(plain("table")).toContain("0.0001235");
  });

  test("Markdown is rendered and kept", () => {
    expect(shown("markdown")).toMatchObject({
      "text/markdown": "**2** sheep",
      "text/html": "<p><strong>2</strong> sheep</p>\n",
    });
  });

  test("a figure is one output in four forms", () => {
    expect(plain("figure")).toBe("[figure] Squares");
    expect(String(shown("figure")["image/svg+xml"])).toContain("Squares");
    expect(shown("figure")["application/vnd.plotly.v1+json"]).toMatchObject({
      data: [{ x: [1, 2, 3], y: [1, 4, 9] }],
    });
  });

  test("a progress bar is one output, ending in its final state without a time", () => {
    expect(plain("progress")).toBe("work: 100 % · 40 of 40 · loss 1.5");
  });

  test("a live figure is one output, ending in the last figure, interactive", () => {
    expect(shown("live")["application/vnd.plotly.v1+json"]).toMatchObject({ data: [{ y: [7, 8] }] });
    expect(String(shown("live")["text/html"])).toContain("<script");
  });

  test("a test prints a tick, and throws its name and reason", () => {
    expect(printed("tick")).toBe("✓ sums\n");
    expect(printed("caught")).toContain("✗ fails\n  expected [ 1, 2 ] to deeply equal [ 1, 3 ]");
  });

  test("a test that is left to vitest says so and runs nothing", async () => {
    const { test: cellTest } = await import("../../lib/src/notebook/index.js");
    const lines = vi.spyOn(console, "log").mockImplementation(() => {});
    vi.stubEnv("TSLM_TEST_BODIES", "skip");
    await cellTest("never", () => {
      throw new Error("ran");
    });
    expect(lines.mock.calls).toEqual([["- never (left to vitest)"]]);
    vi.unstubAllEnvs();
    lines.mockRestore();
  });

  test("a check says what is missing, what is wrong, and that the solution may be opened", () => {
    expect(plain("half")).toContain("Not yet: Twice\n  Nothing is written yet");
    expect(plain("half")).toContain("There is a hint");
    expect(plain("wrong")).toContain("You square it.");
    expect(plain("right")).toBe(
      "✓ Twice\n  Right on 24 fresh inputs.\n  You may now compare with solutions/00-test/1-double.ipynb.",
    );
  });

  test("hints come one more at a time, and the last one says so", () => {
    expect(plain("hint1")).toContain("Hint 1 of 2");
    expect(plain("hint1")).not.toContain("Nearly the answer.");
    expect(plain("hint2")).toContain("2. Nearly the answer.");
    expect(plain("hint3")).toContain("That was the last one.");
  });

  test("what a learner did is remembered in one file", () => {
    expect(record()).toEqual({ "00-test/1-double#double": { hints: 2, passed: true } });
  });
});
