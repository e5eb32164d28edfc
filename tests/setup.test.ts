// Set-up and doctor on machines described by files: what they would install, and what they would tell a person to do.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, describe, expect, test, vi } from "vitest";
import * as machine from "../lib/bin/machine.mjs";
import { kernelEnvironment, kernelSpecIsCurrent, writeKernelSpec } from "../tools/kernelspec.mjs";
import { consent, missingPackages, readChoice, separateEnvironment } from "../tools/setup.mjs";
import { jupyterArguments } from "../tools/start.mjs";
import { asOne, fromLastLine, fromVitest } from "../tools/test.mjs";
import { trainArguments } from "../tools/train.mjs";

const repository = path.dirname(import.meta.dirname);
const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) fs.rmSync(folder, { recursive: true });
});

/** A folder, with a space in its name, that holds `files`. */
function folderWith(files: Record<string, string>): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "a machine "));
  folders.push(folder);
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.join(folder, path.dirname(name)), { recursive: true });
    fs.writeFileSync(path.join(folder, name), text);
  }
  return folder;
}

const debian12 =
  'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n';
const stanzas = `Types: deb deb-src
# where the snapshot came from
URIs: https://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEY865UxYJKwYBBAHaRw8BAQdAd7Z0srwuhlB6JKFkcf4HU4SSS/xcRfwEQWzr

Types: deb
URIs: https://mirror.example/debian-security
Suites: bookworm-security
Components: main
`;

/** What set-up does for the adapter on a Linux described by its files. */
function linux(files: Record<string, string>, sudo = false) {
  return machine.adapterMend({ platform: "linux", root: folderWith(files), sudo });
}

describe("Node", () => {
  test.each([
    ["18.20.0", false],
    ["20.18.3", false],
    ["20.19.0", true],
    ["21.7.0", false],
    ["22.11.0", false],
    ["22.12.0", true],
    ["24.0.0", true],
  ])("%s is enough: %s", (version, enough) => expect(machine.nodeIsEnough(version)).toBe(enough));
});

describe("a Linux without an adapter", () => {
  test("Debian 12 gets Mesa from backports, from its own mirror and with its own key", () => {
    const { commands, automatic } = linux({
      "etc/os-release": debian12,
      "etc/apt/sources.list.d/debian.sources": stanzas,
    });
    expect(automatic).toBe(true);
    expect(commands).toHaveLength(3);
    expect(commands[0]).toContain("> /dev/null");
    expect(commands[0]).toContain("tee /etc/apt/sources.list.d/bookworm-backports.sources");
    expect(commands[1]).toBe("apt-get update -qq");
    expect(commands[2]).toBe("apt-get install -y -qq -t bookworm-backports mesa-vulkan-drivers libvulkan1");
  });

  test("the source that is added holds what the system's own holds, and the shell writes it unchanged", () => {
    const source = machine.backportsSource(machine.parseSourceStanzas(stanzas), "bookworm");
    expect(source?.text).toBe(`Types: deb
URIs: https://mirror.example/debian
Suites: bookworm-backports
Components: main
Signed-By: 
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEY865UxYJKwYBBAHaRw8BAQdAd7Z0srwuhlB6JKFkcf4HU4SSS/xcRfwEQWzr
`);
    const added = path.join(folderWith({}), "added.sources");
    const root = folderWith({ "etc/os-release": debian12, "etc/apt/sources.list.d/x.sources": stanzas });
    const [command] = machine.aptCommands(["x"], { root, backports: true, sudo: false }) ?? [];
    spawnSync("/bin/sh", ["-c", command.replace(/tee \S+/, `tee '${added}'`)]);
    expect(fs.readFileSync(added, "utf8")).toBe(source?.text);
  });

  test("the one-line form keeps its options and its mirror", () => {
    const lines = `# deb https://old.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/own.gpg] http://mirror.example/debian/ bookworm main contrib # ours
deb http://mirror.example/debian-security bookworm-security main`;
    expect(machine.backportsSource(machine.parseSourceLines(lines), "bookworm")).toEqual({
      path: "/etc/apt/sources.list.d/bookworm-backports.list",
      text: "deb [arch=amd64 signed-by=/usr/share/keyrings/own.gpg] http://mirror.example/debian/ bookworm-backports main\n",
    });
  });

  test("backports that are named already are not added again; disabled ones do not count", () => {
    const named = `${stanzas}\nTypes: deb\nURIs: https://mirror.example/debian\nSuites: bookworm-backports\nComponents: main\n`;
    expect(machine.backportsSource(machine.parseSourceStanzas(named), "bookworm")).toBeUndefined();
    const disabled = named.replace(/Suites: bookworm-backports/, "Enabled: no\n$&");
    expect(machine.backportsSource(machine.parseSourceStanzas(disabled), "bookworm")).toBeTruthy();
  });

  test("without a mirror to copy, a person is told", () => {
    const { commands, automatic, reason } = linux({ "etc/os-release": debian12 });
    expect({ commands, automatic }).toEqual({ commands: [], automatic: false });
    expect(reason).toContain("bookworm-backports");
  });

  test.each([
    ["Debian 13", "ID=debian\nVERSION_ID=13\nVERSION_CODENAME=trixie\n"],
    ["Ubuntu", 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n'],
    ["Linux Mint", 'ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\n'],
  ])("%s gets its own Mesa", (_, release) => {
    const { commands, automatic } = linux({ "etc/os-release": release }, true);
    expect(automatic).toBe(true);
    expect(commands.at(-1)).toBe("sudo apt-get install -y -qq mesa-vulkan-drivers libvulkan1");
  });

  test.each([
    ["Fedora", "ID=fedora\nVERSION_ID=42\n", "sudo dnf install -y mesa-vulkan-drivers vulkan-loader"],
    ["Arch", "ID=arch\n", "sudo pacman -S --needed vulkan-swrast vulkan-icd-loader"],
    [
      "openSUSE",
      'ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n',
      "sudo zypper install -y libvulkan_lvp libvulkan1",
    ],
  ])("on %s a person gets the exact command", (_, release, command) => {
    expect(linux({ "etc/os-release": release }, true)).toMatchObject({
      commands: [command],
      automatic: false,
    });
  });
});

test("on macOS and Windows the mend is a command too", () => {
  const [command] = machine.adapterMend({ platform: "darwin" }).commands;
  expect(command).toMatch(/^xattr -d com\.apple\.quarantine .*darwin-universal\/dawn\.node'?$/);
  expect(machine.adapterMend({ platform: "win32" }).commands).toHaveLength(1);
});

describe("asking before the system is changed", () => {
  test.each([
    [{ yes: false, interactive: true }, "ask"],
    [{ yes: false, interactive: false }, "refuse"],
    [{ yes: true, interactive: false }, "run"],
  ])("%j: %s", (choice, decision) => expect(consent(choice)).toBe(decision));

  test("--yes is set-up's own and is not passed on; nothing else is a yes", () => {
    const { choice, rest } = readChoice(["--yes", "--no-browser"]);
    expect(choice.yes).toBe(true);
    expect(rest).toEqual(["--no-browser"]);
    vi.stubEnv("CI", "1");
    expect(consent({ ...readChoice([]).choice, interactive: false })).toBe("refuse");
    vi.unstubAllEnvs();
    expect(fs.readFileSync(path.join(repository, ".ci/run"), "utf8")).toMatch(/^exec npm test -- --yes$/m);
  });
});

describe("Node packages", () => {
  const lock = JSON.stringify({
    packages: {
      "": {},
      "node_modules/here": { version: "1.0.0" },
      "node_modules/old": { version: "2.0.0" },
      "node_modules/@scope/gone": { version: "1.0.0" },
      "node_modules/for-another-system": { version: "1.0.0", optional: true },
    },
  });
  test("what is missing or of another version is named; what is for another system is not", () => {
    const folder = folderWith({
      "package-lock.json": lock,
      "node_modules/here/package.json": '{"version":"1.0.0"}',
      "node_modules/old/package.json": '{"version":"1.9.0"}',
      "node_modules/.bin/tslm": "",
    });
    expect(missingPackages(folder)).toEqual(["old", "@scope/gone"]);
  });

  test("the committed lock file names the optional packages of every system", () => {
    const { packages } = JSON.parse(fs.readFileSync(path.join(repository, "package-lock.json"), "utf8"));
    const names = new Set(Object.keys(packages).map((key) => key.split("node_modules/").at(-1)));
    for (const [name, { optionalDependencies = {} }] of Object.entries<{ optionalDependencies?: object }>(
      packages,
    ))
      for (const wanted of Object.keys(optionalDependencies))
        expect(names.has(wanted), `${name} wants ${wanted}`).toBe(true);
  });
});

test("the kernel spec names this clone and this Node, and is written again where they changed", () => {
  const folder = folderWith({});
  expect(kernelSpecIsCurrent(folder)).toBe(false);
  const found = writeKernelSpec(folder);
  expect(kernelSpecIsCurrent(folder)).toBe(true);
  expect(kernelSpecIsCurrent(folder, "/another/node")).toBe(false);
  const spec = JSON.parse(fs.readFileSync(path.join(found, "kernels/tslab/kernel.json"), "utf8"));
  expect(spec.argv[0]).toBe(process.execPath);
  expect(spec.argv[1]).toBe(path.join(folder, "tools/kernel.mjs"));
  expect(kernelEnvironment(folder, { JUPYTER_PATH: "/theirs" }).JUPYTER_PATH).toBe(
    `${found}${path.delimiter}/theirs`,
  );
});

test("the library is missing, current, then stale when a source changes or goes", () => {
  const library = folderWith({ "src/a.ts": "", "src/b.ts": "", "tsconfig.json": "" });
  expect(machine.libraryState(library)).toBe("missing");
  fs.mkdirSync(path.join(library, "dist"));
  fs.writeFileSync(path.join(library, "dist/index.js"), "");
  fs.writeFileSync(path.join(library, "dist/.tsbuildinfo"), "");
  const later = new Date(Date.now() + 5000);
  fs.utimesSync(path.join(library, "dist/.tsbuildinfo"), later, later);
  expect(machine.libraryState(library)).toBe("current");
  const latest = new Date(Date.now() + 10_000);
  fs.utimesSync(path.join(library, "src/a.ts"), latest, latest);
  expect(machine.libraryState(library)).toBe("stale");
});

describe("Jupyter", () => {
  /** A folder with empty programs of these names. */
  function programs(...names: string[]): string {
    const folder = folderWith(Object.fromEntries(names.map((name) => [name, ""])));
    for (const name of names) fs.chmodSync(path.join(folder, name), 0o755);
    return folder;
  }

  test("JupyterLab goes before Notebook, wherever it is; then the PATH before the clone's own", () => {
    const clone = programs(".venv/bin/jupyter-lab");
    const own = path.join(clone, ".venv/bin/jupyter-lab");
    expect(machine.findJupyter(clone, [])?.program).toBe(own);
    const notebook = programs("jupyter-notebook");
    expect(machine.findJupyter(undefined, [notebook])?.kind).toBe("notebook");
    expect(machine.findJupyter(clone, [notebook])).toEqual({ kind: "lab", program: own });
    const both = programs("jupyter-notebook", "jupyter-lab");
    expect(machine.findJupyter(clone, [both])?.program).toBe(path.join(both, "jupyter-lab"));
    expect(machine.findJupyter(undefined, [])).toBeUndefined();
  });

  test("JavaScript in the clone's environment is of the usual kind, whatever the clone's own is", () => {
    const program = ".venv/share/program.js";
    const clone = folderWith({
      "package.json": '{ "type": "module" }',
      [program]: 'console.log(typeof require("os"));',
    });
    const run = () => spawnSync(process.execPath, [path.join(clone, program)], { encoding: "utf8" }).stdout;
    expect(run()).toBe("");
    separateEnvironment(clone);
    expect(run()).toBe("object\n");
    const without = folderWith({});
    separateEnvironment(without);
    expect(fs.readdirSync(without)).toEqual([]);
  });

  test("its root is the clone, and what a person adds is passed on", () => {
    expect(jupyterArguments({ kind: "lab" }, ["--no-browser"], "/a clone")).toEqual(
      expect.arrayContaining([
        "--notebook-dir=/a clone",
        "--LabApp.default_url=/lab/tree/chapters",
        "--no-browser",
      ]),
    );
    expect(jupyterArguments({ kind: "notebook" }, [], "/a clone")).toContain("--notebook-dir=/a clone");
  });
});

test("npm run train has defaults, which its own arguments replace", () => {
  expect(trainArguments(["--resume"])).toEqual([
    "train",
    "--config",
    "configs/default.json",
    "--out",
    path.join("runs", "default"),
    "--resume",
  ]);
  expect(trainArguments(["--config=mine.json", "--out", "x"])).toEqual([
    "train",
    "--config=mine.json",
    "--out",
    "x",
  ]);
});

describe("counting", () => {
  test("a phase that is one test", () => {
    expect(asOne({ code: 0 })).toEqual({ passed: 1, failed: 0 });
    expect(asOne({ code: 2 })).toEqual({ passed: 0, failed: 1 });
  });

  test("a program's last line; one that ends badly or runs nothing has failed", () => {
    const output = "1 passed, 0 failed\n✗ a#b\n    why\n    where\n✓ c\n12 passed, 3 failed\n";
    expect(fromLastLine({ code: 1, output })).toEqual({
      passed: 12,
      failed: 3,
      failures: ["✗ a#b\n    why\n    where"],
    });
    expect(fromLastLine({ code: 1, output: "12 passed, 0 failed\n" }).failed).toBe(1);
    expect(fromLastLine({ code: 0, output: "" }).failed).toBe(1);
  });

  test("vitest's report; a file that does not load is a failure", () => {
    const broken = { name: `${repository}/a.ts`, status: "failed", message: "no b", assertionResults: [] };
    const wrong = { status: "failed", fullName: "adds", failureMessages: ["3 is not 4\n  at c.ts"] };
    const file = { name: `${repository}/c.ts`, status: "failed", message: "", assertionResults: [wrong] };
    const counts = { numPassedTests: 5, numFailedTests: 1, numPendingTests: 2 };
    const result = fromVitest({ code: 1, report: { ...counts, testResults: [broken, file] } });
    expect(result).toEqual({
      passed: 5,
      failed: 2,
      skipped: 2,
      failures: ["✗ a.ts\n    no b", "✗ c.ts: adds\n    3 is not 4"],
    });
    expect(fromVitest({ code: 1, report: undefined }).failed).toBe(1);
  });
});
