import path from "node:path";
import { expect, test } from "vitest";
import { notebookNames, readNotebook, repository } from "../../tools/notebook.js";
import { checkOptions, runInJupyter, runNotebooks, selectNotebooks } from "../../tools/notebooks.js";
import { runCells } from "../../tools/run-notebook.js";
import { type Cell, makeBook, ONE, read, TWO } from "./small-book.js";

const here = path.join(repository, "tests");
const run = (cells: Cell[], silence?: number) =>
  runCells(
    here,
    cells.map(([id, source]) => ({ id, source })),
    silence,
  );

test("cells run in order in the notebook's folder, and their outputs are kept", async () => {
  const { failure, outputs } = await run([
    ["folder", "const folder: string = process.cwd();\nfolder === await Promise.resolve(folder)"],
    ["streams", 'console.log("out", folder.length > 0);\nconsole.error("err");'],
    [
      "html",
      'import { display, newDisplay } from "tslab";\ndisplay.html("<b>1</b>");\nconst shown = newDisplay();\nshown.text("0 %");',
    ],
    ["update", 'shown.text("100 %");\nprocess.cwd()'],
  ]);
  expect(failure).toBeUndefined();
  const stream = (name: string, text: string) => ({ output_type: "stream", name, text });
  const display = (data: object) => ({ output_type: "display_data", data, metadata: {} });
  expect(Object.fromEntries(outputs)).toEqual({
    folder: [stream("stdout", "true\n")],
    streams: [stream("stdout", "out true\n"), stream("stderr", "err\n")],
    html: [display({ "text/html": "<b>1</b>" }), display({ "text/plain": "100 %" })],
    update: [stream("stdout", `${here}\n`)],
  });
});

const failures: [title: string, cell: string, message: string | RegExp][] = [
  ["an error", 'throw new Error("boom");', "Error: boom"],
  ["a rejection", 'await Promise.reject(new Error("boom"));', "Error: boom"],
  ["a type error", "const text: string = 1;", "1:7 - Type 'number' is not assignable to type 'string'"],
  [
    "a process that dies",
    'process.kill(process.pid, "SIGSEGV");\nawait new Promise(() => {});',
    "its process died (SIGSEGV)",
  ],
  [
    "an error that nobody awaits",
    'Promise.reject(new Error("lost"));\nawait new Promise((done) => setTimeout(done, 1000));',
    /its process died \(1\)[\s\S]*lost/,
  ],
];

test.each(failures)("a run stops at %s and says where", async (_title, source, message) => {
  const { failure, outputs } = await run([
    ["good", "1"],
    ["bad", source],
    ["after", 'console.log("not reached")'],
  ]);
  expect(failure?.cell).toBe("bad");
  expect(failure?.message).toMatch(message);
  expect(outputs.get("after")).toEqual([]);
});

test("an error names the cells' own lines, and no frame of the kernel", async () => {
  const { failure, outputs } = await run([
    ["types", "interface Box {\n  size: number;\n}\nconst limit: number = 3;"],
    [
      "function",
      "\nfunction open(box: Box): number {\n  if (box.size > limit)\n    throw new Error('full');\n  return 1;\n}",
    ],
    ["caught", "try {\n  open({ size: 4 });\n} catch (error) {\n  console.log(error.stack);\n}"],
    [
      "later",
      "type Late = Box;\n\nasync function late(box: Late) {\n  await null;\n  return open(box);\n}\nawait late({ size: 5 });",
    ],
  ]);
  const thrown = "Error: full\n    at open (cell function, line 4):  throw new Error('full');\n";
  expect(outputs.get("caught")).toEqual([
    {
      output_type: "stream",
      name: "stdout",
      text: `${thrown}    at cell caught, line 2:  open({ size: 4 });\n`,
    },
  ]);
  expect(failure?.message).toBe(
    `${thrown}    at late (cell later, line 5):  return open(box);\n    at async cell later, line 7:  await late({ size: 5 });`,
  );
});

test("a run that is silent for too long is ended, also in a loop that never waits; one that speaks is not", async () => {
  const wait = "await new Promise((done) => setTimeout(done, 1100));";
  const { failure } = await run(
    [
      ["speaks", `const began = performance.now();\nfor (let i = 0; i < 3; i++) { ${wait} console.log(i); }`],
      ["loop", "for (;;);"],
    ],
    4,
  );
  expect(failure?.cell).toBe("loop");
  expect(failure?.message).toMatch(/^was silent for \d+ s, and was ended$/);
});

test("what keeps a process alive does not keep a notebook alive", async () => {
  const { failure } = await run([["timer", "setInterval(() => {}, 1000);"]]);
  expect(failure).toBeUndefined();
});

test("runs report a line each; outputs are saved in normal form and only when all cells passed", async () => {
  const root = makeBook({
    [ONE]: [["say", 'console.log("a");\nconsole.log("b");\nconsole.error("c");']],
    [TWO]: [["fail", 'console.log("before");\nthrow new Error("boom");']],
  });
  const before = read(root, `chapters/${TWO}`);
  const lines: string[] = [];
  const results = await runNotebooks(root, [ONE, TWO], { save: true, log: (line) => lines.push(line) });
  expect([...results.values()].map(({ failure }) => failure?.cell)).toEqual([undefined, "fail"]);
  expect(lines[0]).toMatch(/^✓ +\d+\.\d s {2}01-tokenizer\/1-one\.ipynb$/);
  expect(lines[1]).toMatch(/^✗ +\d+\.\d s {2}02-attention\/1-two\.ipynb#fail\n[\s\S]*Error: boom/);
  expect(read(root, `chapters/${TWO}`)).toBe(before);
  expect(readNotebook(root, ONE).cells[0].outputs).toEqual([
    { output_type: "stream", name: "stdout", text: ["a\n", "b\n"] },
    { output_type: "stream", name: "stderr", text: ["c\n"] },
  ]);
  const saved = read(root, `chapters/${ONE}`);
  await runNotebooks(root, [ONE], { save: true, log: () => {} });
  expect(read(root, `chapters/${ONE}`)).toBe(saved);
});

test("words choose notebooks; a word that fits none is an error", () => {
  const names = [ONE, TWO];
  expect(selectNotebooks(names, [])).toEqual(names);
  expect(selectNotebooks(names, ["two"])).toEqual([TWO]);
  expect(selectNotebooks(names, ["01-", "attention/1"])).toEqual(names);
  expect(() => selectNotebooks(names, ["three"])).toThrow(
    `no notebook is called three; there are:\n  ${ONE}\n  ${TWO}`,
  );
});

test("an option that there is none of is an error", () => {
  expect(() => checkOptions(["bytes", "--save", "--jupyter"])).not.toThrow();
  expect(() => checkOptions(["--help"])).toThrow("no option --help: npm run notebooks");
  expect(() => checkOptions(["--without-tests"])).not.toThrow();
  expect(() => checkOptions(["--save", "--without-tests"])).toThrow("leave out --save");
});

test("Jupyter's own protocol sees a cell that fails", ({ skip }) => {
  const root = makeBook({ [ONE]: [["fail", 'throw new Error("boom");']] });
  const { skipped, failure } = runInJupyter(path.join(root, "chapters", ONE));
  if (skipped) skip(skipped);
  expect(failure).toContain('throw new Error("boom");');
});

const first = notebookNames(repository)[0];
test.skipIf(!first)("the first notebook runs through Jupyter's own protocol", ({ skip }) => {
  const { skipped, failure } = runInJupyter(path.join(repository, "chapters", first));
  if (skipped) skip(skipped);
  expect(failure).toBeUndefined();
});
