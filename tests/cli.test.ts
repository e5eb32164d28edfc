// The command line as a person meets it: the real program, its help, its exit codes, its sentences; and the parts that
// its commands share.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { probeAdapter } from "../lib/bin/machine.mjs";
import { decodeText, readJson } from "../lib/src/cli/files.ts";
import { buildProgram, withSubcommands } from "../lib/src/cli/main.ts";
import { numberBetween, wholeNumber } from "../lib/src/cli/options.ts";
import { drawBar, startProgress } from "../lib/src/cli/progress.ts";
import { ending, UsageError } from "../lib/src/cli/run.ts";
import { suggestion } from "../lib/src/cli/suggest.ts";
import { tslmHere } from "./tslm.ts";

const library = path.join(import.meta.dirname, "..", "lib");
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm cli "));
afterAll(() => fs.rmSync(folder, { recursive: true }));

/** Runs the program at `bin` with arguments, and an environment that adds `env` to ours. */
function run(args: string[], env: Record<string, string> = {}, bin = path.join(library, "bin", "tslm.mjs")) {
  const options = { encoding: "utf8", env: { ...process.env, ...env } } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, [bin, ...args], options);
  return { status, stdout, stderr };
}

describe("help", async () => {
  const commands = withSubcommands(await buildProgram());
  const nameOf = (command: (typeof commands)[number]): string[] =>
    command.parent ? [...nameOf(command.parent), command.name()] : [];

  test.each(commands.map((command) => ({ words: nameOf(command) })))(
    "tslm $words --help",
    async ({ words }) => {
      const { status, stdout, stderr } = await tslmHere([...words, "--help"]);
      expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
      expect(stdout).toMatch(/^Usage: tslm/);
      expect(stdout).toMatch(/\nExamples?:\n {2}\$ /);
    },
  );

  test("an example calls a command that exists, with options that it has", async () => {
    for (const command of commands.slice(1)) {
      const { stdout } = await tslmHere([...nameOf(command), "--help"]);
      for (const [, line] of stdout.matchAll(/\$ .*?tslm (.*)/g)) {
        const owner = commands.find((other) => other.parent && line.startsWith(nameOf(other).join(" ")));
        expect(owner, line).toBeDefined();
        for (const [option] of line.matchAll(/(?<=\s)--[a-z-]+/g)) expect(stdout).toContain(option);
      }
    }
  });

  test("the program says the same in a process of its own", async () => {
    for (const args of [["--help"], ["train", "--help"], ["doctro"]])
      expect(run(args)).toEqual(await tslmHere(args));
  });

  test("the version is the package's", () => {
    const { version } = JSON.parse(fs.readFileSync(path.join(library, "package.json"), "utf8"));
    expect(run(["--version"]).stdout).toBe(`${version}\n`);
  });
});

describe("bad usage ends with exit code 2 and one sentence", () => {
  test.each([
    [["doctor", "--jsn"], "tslm: unknown option '--jsn' (did you mean --json?)\n"],
    [["doctro"], "tslm: unknown command 'doctro' (did you mean doctor?)\n"],
    [["doctor", "extra"], /^tslm: too many arguments.*\n$/],
  ])("tslm %j", async (args, sentence) => {
    const { status, stdout, stderr } = await tslmHere(args);
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
    expect(stderr).toMatch(sentence);
  });

  test("no command at all prints help", async () => {
    const { status, stderr } = await tslmHere([]);
    expect(status).toBe(2);
    expect(stderr).toContain("Commands:");
  });
});

describe("doctor", () => {
  test("--json reports every thing that the book needs", () => {
    const { status, stdout } = run(["doctor", "--json"]);
    const report = JSON.parse(stdout);
    expect(status).toBe(0);
    expect(report).toMatchObject({
      ok: true,
      node: { ok: true, version: process.versions.node },
      packages: { ok: true },
      library: { ok: true },
      adapter: { ok: true, name: expect.any(String), driver: expect.any(String) },
      kernel_spec: { ok: expect.any(Boolean) },
      jupyter: { ok: expect.any(Boolean) },
    });
    expect(["cpu", "integrated", "discrete", "unknown"]).toContain(report.adapter.kind);
    expect(report.adapter.features).toContain("core-features-and-limits");
    expect(report.adapter.limits.maxStorageBufferBindingSize).toBeGreaterThanOrEqual(2 ** 27);
  });

  test("without --json it is a list for people", () => {
    const { status, stdout } = run(["doctor"]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/✓ Node/);
    expect(stdout).toMatch(/✓ adapter/);
  });

  test.runIf(process.platform === "linux")(
    "no adapter: exit code 1, the reason and the command that mends it",
    () => {
      const { status, stdout } = run(["doctor", "--json"], { VK_DRIVER_FILES: "/nonexistent" });
      const { ok, adapter } = JSON.parse(stdout);
      expect({ status, ok }).toEqual({ status: 1, ok: false });
      expect(adapter).toMatchObject({ ok: false, reason: expect.any(String) });
      expect(adapter.mend).toContain("VK_DRIVER_FILES");
    },
  );

  test.runIf(process.platform !== "win32")(
    "a driver that kills the process is reported, not suffered",
    () => {
      const env = {
        ...process.env,
        NODE_OPTIONS: "--import=data:text/javascript,process.kill(process.pid,'SIGSEGV')",
      };
      const { ok, reason } = probeAdapter({ env });
      expect(ok).toBe(false);
      expect(reason).toContain("SIGSEGV");
    },
  );

  test("a driver that gives no answer is reported after a while", () => {
    const env = { ...process.env, NODE_OPTIONS: "--import=data:text/javascript,for(;;){}" };
    expect(probeAdapter({ env, timeoutSeconds: 1 })).toMatchObject({ ok: false, reason: /no answer in 1 s/ });
  });
});

test("before the library is built: doctor works and says so, every other command is one sentence", () => {
  const copy = path.join(folder, "unbuilt");
  fs.cpSync(path.join(library, "bin"), path.join(copy, "bin"), { recursive: true });
  fs.copyFileSync(path.join(library, "package.json"), path.join(copy, "package.json"));
  const bin = path.join(copy, "bin", "tslm.mjs");
  const other = run(["tokenizer", "train"], {}, bin);
  expect(other).toEqual({
    status: 1,
    stdout: "",
    stderr: "tslm: the library is not built: run npm run setup\n",
  });
  const { status, stdout } = run(["doctor", "--json"], {}, bin);
  expect(status).toBe(1);
  expect(JSON.parse(stdout)).toMatchObject({
    ok: false,
    library: { ok: false, state: "missing", mend: "npm run build" },
  });
});

describe("errors", () => {
  test("a person's error is its sentence, a fault of ours says so, none shows a stack", () => {
    expect(ending(new Error("The file is damaged."))).toEqual({
      code: 1,
      message: "tslm: The file is damaged.",
    });
    expect(ending(new UsageError("Choose one."))).toEqual({ code: 2, message: "tslm: Choose one." });
    const { code, message } = ending(new TypeError("x is undefined"));
    expect(code).toBe(1);
    expect(message).toBe("tslm: x is undefined (a fault in tslm; TSLM_DEBUG=1 shows where)");
  });

  test("the system's errors name the file", () => {
    const error = Object.assign(new Error("ENOENT: no such file, open 'x'"), { code: "ENOENT", path: "x" });
    expect(ending(error).message).toBe("tslm: x: there is no such file or folder");
  });

  test("a name nearly right is recognised, another is not", () => {
    expect(suggestion("batchsize", ["batch_size", "seed"])).toBe(' (did you mean "batch_size"?)');
    expect(suggestion("colour", ["batch_size", "seed"])).toBe("");
  });
});

describe("files", () => {
  test("text that is not UTF-8 is refused with the byte where it stops being so", () => {
    const bytes = (text: string, ...more: number[]) => Uint8Array.from([...Buffer.from(text), ...more]);
    expect(decodeText(bytes("né", 0xe2, 0x82, 0xac), "a.txt")).toBe("né€");
    expect(decodeText(bytes("\uFEFFa"), "a.txt")).toBe("\uFEFFa");
    expect(() => decodeText(bytes("abc", 0xff, 0x41), "a.txt")).toThrow(
      "a.txt is not UTF-8 text: see byte 3",
    );
    expect(() => decodeText(bytes("né", 0xc3, 0x28), "a.txt")).toThrow("see byte 3");
    expect(() => decodeText(bytes("cut", 0xe2, 0x82), "a.txt")).toThrow("see byte 3");
  });

  test("JSON that does not parse is refused with the file's name", () => {
    const file = path.join(folder, "broken.json");
    fs.writeFileSync(file, "{");
    expect(() => readJson(file)).toThrow(`${file} is not JSON`);
  });

  test.skipIf(process.platform === "win32")("a pipe is refused at once, though nobody writes to it", () => {
    const pipe = path.join(folder, "pipe.json");
    expect(spawnSync("mkfifo", [pipe]).status).toBe(0);
    expect(() => readJson(pipe)).toThrow(`${pipe} is not a file.`);
  });
});

describe("options", () => {
  test("numbers that are none are refused", () => {
    expect(wholeNumber()("1_000")).toBe(1000);
    for (const bad of ["", "x", "1.5", "-1", "1e30"])
      expect(() => wholeNumber()(bad)).toThrow("whole number");
    expect(numberBetween(0, 1)("0.25")).toBe(0.25);
    for (const bad of ["", "NaN", "1.01", "-0.1"])
      expect(() => numberBetween(0, 1)(bad)).toThrow("between 0 and 1");
  });
});

describe("progress", () => {
  test("the bar is as full as the work is done", () => {
    expect(drawBar(0.5, 4)).toBe("██░░");
    expect(drawBar(7, 4)).toBe("████");
  });

  test("without a terminal there are few whole lines", () => {
    let printed = "";
    const stream = { write: (text: string) => (printed += text) };
    const quiet = startProgress("training", 100, { stream, seconds: 1000 });
    for (let step = 1; step <= 100; step++) quiet.update(step, `step ${step}`);
    quiet.say("a note");
    quiet.done();
    expect(printed).toBe("a note\ntraining: step 100\n");
    const chatty = startProgress("reading", 4, { stream, seconds: 0 });
    printed = "";
    chatty.update(1);
    expect(printed).toBe("reading: 25 %\n");
  });
});
