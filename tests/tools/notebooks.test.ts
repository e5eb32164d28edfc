import { spawnSync } from "node:child_process";
import path from "node:path";
import { expect, test } from "vitest";
import { findPython, gpuEnvironment, patience } from "../../lib/bin/machine.mjs";
import { kernelEnvironment, writeKernelSpec } from "../../tools/kernelspec.mjs";
import { notebookNames, readNotebook, repository } from "../../tools/notebook.js";
import { checkOptions, runInJupyter, runNotebooks, selectNotebooks } from "../../tools/notebooks.js";
import { runCells } from "../../tools/run-notebook.js";
import { buildLibrary } from "../../tools/setup.mjs";
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

/** Runs cells with Jupyter's client, interrupts some where they first speak, and tells their replies. */
const INTERRUPT = `
import json, sys, time
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="tslab", cwd=sys.argv[1], startup_timeout=int(sys.argv[3]))
limit = int(sys.argv[3])
extra = 0 # signals sent again, which a later cell may get

def run(source, interrupt):
    global extra
    texts, sent = [], float("-inf")
    asked = client.execute(source)
    while True:
        message = client.get_iopub_msg(timeout=limit)
        if message["parent_header"].get("msg_id") != asked: continue
        content = message["content"]
        if content.get("execution_state") == "idle": break
        if message["msg_type"] == "stream": texts.append(content["text"])
        if "data" in content: texts.append(content["data"]["text/plain"])
        if texts and interrupt and time.monotonic() - sent > 10: # a signal may come before anybody listens: again, then
            extra += sent > 0
            sent = time.monotonic()
            manager.interrupt_kernel()
    while True:
        reply = client.get_shell_msg(timeout=limit)
        if reply["parent_header"].get("msg_id") == asked: break
    status = reply["content"]["status"]
    if status == "error" and not interrupt and extra > 0: extra -= 1
    elif status != "abort": return [status, texts]
    time.sleep(0.1) # for a moment after a failure the kernel takes nothing
    return run(source, interrupt)

try:
    told = [run(*cell) for cell in json.loads(sys.argv[2])]
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
print(json.dumps(told))
`;

/** Cells of one notebook, each with whether it is interrupted. */
const INTERRUPTED: [source: string, interrupt: boolean][] = [
  [
    'import { check, progress, untilInterrupted } from "tslm/notebook";\nconst seen: number[] = [];\nconst turn = () => new Promise((done) => setTimeout(done, 2));\nconst double = { exercise: "0/0", id: "x", title: "x", hints: [], mistakes: [], patience: 1e6, inputs: () => [1], expected: () => 2 };',
    false,
  ],
  [
    'const got = await untilInterrupted(async (signal) => {\n  let count = 0;\n  for (console.log("begun"); !signal.aborted; await turn()) count++;\n  return count;\n});',
    true,
  ],
  ["got > 0", false],
  [
    'const bar = progress("loop", 1e9);\nfor (let i = 0; ; i++) {\n  seen.push(i);\n  bar.update(i);\n  await turn();\n}',
    true,
  ],
  [
    "await new Promise((done) => setTimeout(done, 300));\nconst soon = seen.length;\nawait new Promise((done) => setTimeout(done, 100));\nsoon === seen.length",
    false,
  ],
  [
    // The client hears nothing of a cell that never waits: this one interrupts itself.
    'await check(double as never, () => {\n  process.kill(process.pid, "SIGINT");\n  for (;;);\n});',
    false,
  ],
  ['console.log("still here");', false],
];

test("an interrupt from Jupyter stops what runs, keeps what it has, and leaves the kernel alive", async ({
  skip,
}) => {
  const python = findPython("jupyter_client", repository);
  if (!python || process.platform === "win32") return skip("no Python with jupyter_client was found");
  buildLibrary();
  writeKernelSpec(repository);
  const env = kernelEnvironment(repository, gpuEnvironment());
  const args = ["-c", INTERRUPT, here, JSON.stringify(INTERRUPTED), String(Math.ceil(patience(300)))];
  const { stdout, stderr } = spawnSync(python, args, { env, encoding: "utf8" });
  expect(stdout, stderr).toMatch(/^\[/);
  const [, graceful, kept, loop, ended, answer, alive] = JSON.parse(stdout) as [string, string[]][];
  expect(graceful).toEqual(["ok", ["begun\n"]]);
  expect(kept).toEqual(["ok", ["true\n"]]);
  expect(loop[0]).toBe("error");
  expect(loop[1]).toContain("Interrupted.\n");
  expect(ended).toEqual(["ok", ["true\n"]]);
  expect(answer[0]).toBe("ok");
  expect(answer[1].join("")).toContain("It was interrupted before it returned.");
  expect(alive).toEqual(["ok", ["still here\n"]]);
});

const first = notebookNames(repository)[0];
test.skipIf(!first)("the first notebook runs through Jupyter's own protocol", ({ skip }) => {
  const { skipped, failure } = runInJupyter(path.join(repository, "chapters", first));
  if (skipped) skip(skipped);
  expect(failure).toBeUndefined();
});
