import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  buildExercises,
  exerciseSource,
  notebookHash,
  staleExercises,
  writeExercises,
} from "../../tools/exercise-files.js";
import { type Notebook, notebookText, parseNotebook } from "../../tools/notebook.js";

let root: string;
beforeEach(() => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), "tslm exercises-"));
});
afterEach(() => fs.rmSync(root, { recursive: true }));

const at = (...parts: string[]) => path.join(root, ...parts);

function notebook(cells: [id: string, source: string][]): Notebook {
  const code = cells.map(([id, source]) => ({
    cell_type: "code" as const,
    id,
    metadata: {},
    source,
    outputs: [{ output_type: "stream" as const, name: "stdout" as const, text: "old" }],
  }));
  return { cells: code, metadata: {}, nbformat: 4, nbformat_minor: 5 };
}

const SOLVED = "function f() {\n  //| solution\n  //| starter: return todo();\n  return 1;\n  //| end\n}";

/** Writes a solution of one chapter, with its checks. */
function solve(source = SOLVED, checks = "export const one = 1;\n"): void {
  fs.mkdirSync(at("solutions", "01-a"), { recursive: true });
  fs.writeFileSync(at("solutions", "01-a", "1-f.ipynb"), notebookText(notebook([["f", source]])));
  fs.writeFileSync(at("solutions", "01-a", "checks.ts"), checks);
}

const make = () => writeExercises(root, buildExercises(root));
const stale = () => staleExercises(root, buildExercises(root));
const FILE = "exercises/01-a/1-f.ipynb";
const read = (file: string) => fs.readFileSync(at(file), "utf8");

/** What a learner's front end does to a file. */
function change(file: string, edit: (notebook: Notebook) => void): string {
  const found = parseNotebook(read(file), file);
  edit(found);
  const text = JSON.stringify(found);
  fs.writeFileSync(at(file), text);
  return text;
}

describe("the source of an exercise", () => {
  test("solved parts go, starters become code at the mark's indent, the rest stays", () => {
    expect(exerciseSource(SOLVED, "x")).toBe("function f() {\n  return todo();\n}");
    expect(exerciseSource("a\n//| solution\nb\n//| end\nc", "x")).toBe("a\nc");
    expect(exerciseSource("a\n<!--| solution -->\nwhy\n<!--| end -->\nb", "x")).toBe("a\nb");
    expect(
      exerciseSource(
        "//| solution\n//| starter: if (x) {\n//| starter:   y();\n//| starter: }\n//| end",
        "x",
      ),
    ).toBe("if (x) {\n  y();\n}");
  });

  test("a wrong mark is named with its place", () => {
    expect(() => exerciseSource("//| solution\na", "s/1#c")).toThrow("s/1#c: a solution that does not end");
    expect(() => exerciseSource("//| end", "s/1#c")).toThrow("s/1#c: `end` without a solution");
    expect(() => exerciseSource("//| solution\n//| solution\n//| end", "s/1#c")).toThrow("inside another");
    expect(() => exerciseSource("//| soluton", "s/1#c")).toThrow('"//| soluton" is no mark');
  });
});

describe("making exercises", () => {
  test("they are written once, without solution or outputs, and are current then", () => {
    solve();
    expect(stale().stale).toEqual([`${FILE} is missing`, "exercises/01-a/checks.ts is missing"]);
    expect(make().written).toEqual([FILE, "exercises/01-a/checks.ts"].map((file) => path.normalize(file)));
    expect(read(FILE)).not.toContain("return 1");
    expect(read(FILE)).not.toContain("old");
    expect(read("exercises/01-a/checks.ts")).toContain("export const one = 1;");
    expect(make().written).toEqual([]);
    expect(stale()).toEqual({ stale: [], edited: [] });
  });

  test("an untouched exercise follows its solution, also when it was run and saved", () => {
    solve();
    make();
    change(FILE, (found) => {
      found.cells[0].outputs = [{ output_type: "stream", name: "stdout", text: "mine" }];
      found.cells[0].execution_count = 3;
    });
    expect(stale().stale).toEqual([]);
    solve(SOLVED.replace("f()", "g()"), "export const two = 2;\n");
    expect(stale().stale).toEqual([
      `${FILE} is older than its solution`,
      "exercises/01-a/checks.ts is older than its solution",
    ]);
    make();
    expect(read(FILE)).toContain("function g()");
    expect(read("exercises/01-a/checks.ts")).toContain("two");
  });

  test("a learner's edit is never overwritten and never counts as stale", () => {
    solve();
    make();
    const mine = change(FILE, (found) => {
      found.cells[0].source = "function f() { return 42; }";
    });
    fs.appendFileSync(at("exercises/01-a/checks.ts"), "// mine\n");
    solve(SOLVED.replace("f()", "g()"), "export const two = 2;\n");
    expect(stale()).toEqual({ stale: [], edited: [FILE, "exercises/01-a/checks.ts"] });
    expect(make()).toMatchObject({ written: [], removed: [] });
    expect(read(FILE)).toBe(mine);
    fs.rmSync(at(FILE)); // how a learner starts anew
    make();
    expect(read(FILE)).toContain("function g()");
  });

  test("a file that is no notebook any more is left alone", () => {
    solve();
    make();
    fs.writeFileSync(at(FILE), "{ half");
    expect(make().edited).toEqual([path.normalize(FILE)]);
    expect(read(FILE)).toBe("{ half");
  });

  test("an exercise without a solution goes, unless it was edited", () => {
    solve();
    make();
    fs.rmSync(at("solutions/01-a/1-f.ipynb"));
    expect(stale().stale).toEqual([`${FILE} has no solution`]);
    expect(make().removed).toEqual([path.normalize(FILE)]);
    solve();
    make();
    change(FILE, (found) => {
      found.cells[0].source = "mine";
    });
    fs.rmSync(at("solutions/01-a/1-f.ipynb"));
    expect(make().removed).toEqual([]);
    expect(fs.existsSync(at(FILE))).toBe(true);
  });

  test("what a notebook says does not depend on outputs, counts or space at line ends", () => {
    const one = notebook([["a", "x  \ny"]]);
    const two = notebook([["b", "x\ny\n"]]);
    two.cells[0].outputs = [];
    expect(notebookHash(one)).toBe(notebookHash(two));
    expect(notebookHash(one)).not.toBe(notebookHash(notebook([["a", "x\nz"]])));
  });
});
