// What this machine has, and the exact commands that mend what it lacks. Doctor and set-up both ask here. Plain
// JavaScript without dependencies, because both must work before any package is installed and the library is built.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));

/** The folder of the npm package `tslm`. */
export const libraryFolder = path.dirname(here);

/** The top of the clone when `library` lies in a clone of the book, otherwise undefined. */
export function findBook(library = libraryFolder) {
  try {
    const root = path.dirname(library);
    const { name } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"));
    return name === "tslm-book" ? root : undefined;
  } catch {
    return undefined;
  }
}

// ---------------------------------------------------------------------------------------------------- Node

/** Whether a Node of this version can run the book: it must let tslab `require` an ESM-only package. */
export function nodeIsEnough(version = process.versions.node) {
  const [major, minor] = version.split(".").map(Number);
  return (major === 20 && minor >= 19) || (major === 22 && minor >= 12) || major > 22;
}

/** How to get a Node that is enough. */
export function nodeMend(platform = process.platform) {
  if (platform === "win32") return "winget install OpenJS.NodeJS.LTS";
  if (platform === "darwin") return "brew install node@22";
  return "install Node 20.19, 22.12 or later from https://nodejs.org/en/download";
}

// ------------------------------------------------------------------------------------------------- its speed

let slowness;

/**
 * How many seconds to wait, on this machine, before something that takes `seconds` on a slow day of a usual one counts as
 * stuck: more where a fixed piece of work takes more than the 15 ms that it takes there.
 */
export function patience(seconds) {
  if (slowness === undefined) {
    const began = performance.now();
    let state = 1;
    for (let i = 0; i < 1e7; i++) state = (Math.imul(state, 1664525) + 1013904223 + (i % 7)) | 0;
    slowness = Math.max(1, (performance.now() - began) / (state === 0 ? 1 : 15));
  }
  return seconds * slowness;
}

// ------------------------------------------------------------------------------------------ the Linux at hand

/** Reads /etc/os-release. `root` stands for `/`, so that tests can describe other machines. */
export function readDistribution(root = "/") {
  const values = {};
  for (const line of readIfThere(path.join(root, "etc/os-release")).split("\n")) {
    const [, key, value] = /^([A-Z_]+)=(.*)$/.exec(line) ?? [];
    if (key) values[key] = value.replace(/^(["'])(.*)\1$/, "$2");
  }
  return {
    id: values.ID ?? "unknown",
    like: [values.ID, ...(values.ID_LIKE ?? "").split(" ")].filter(Boolean),
    version: Number.parseFloat(values.VERSION_ID ?? "0"),
    codename: values.VERSION_CODENAME ?? "",
    name: values.PRETTY_NAME ?? "Linux",
  };
}

function readIfThere(file) {
  try {
    return fs.readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

/** The apt sources of a machine: one object for each enabled deb822 stanza or one-line entry. */
export function readAptSources(root = "/") {
  const folder = path.join(root, "etc/apt/sources.list.d");
  const names = fs.existsSync(folder) ? fs.readdirSync(folder).sort() : [];
  const files = [path.join(root, "etc/apt/sources.list"), ...names.map((name) => path.join(folder, name))];
  return files.flatMap((file) => {
    if (file.endsWith(".list")) return parseSourceLines(readIfThere(file));
    return file.endsWith(".sources") ? parseSourceStanzas(readIfThere(file)) : [];
  });
}

/** One-line format: `deb [options] URI suite component…`. */
export function parseSourceLines(text) {
  const entries = [];
  for (const line of text.split("\n")) {
    const [, options, uri, suite, components] =
      /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]*)/.exec(line) ?? [];
    if (!uri) continue;
    entries.push({ suites: [suite], components: components.split(/\s+/).filter(Boolean), uri, options });
  }
  return entries;
}

/** deb822 format: stanzas of `Field: value`, in which a line that begins with a space continues the field. */
export function parseSourceStanzas(text) {
  const entries = [];
  for (const stanza of text.split(/\n\s*\n/)) {
    const fields = {};
    let field;
    for (const line of stanza.split("\n")) {
      if (line.startsWith("#")) continue;
      const [, name, value] = /^([\w-]+):\s*(.*)$/.exec(line) ?? [];
      if (name) {
        field = name.toLowerCase();
        fields[field] = { name, value };
      } else if (field && /^\s/.test(line)) fields[field].value += `\n${line}`;
    }
    const words = (name) => (fields[name]?.value ?? "").split(/\s+/).filter(Boolean);
    if (!words("types").includes("deb") || /^(no|false|0)$/i.test(fields.enabled?.value ?? "")) continue;
    entries.push({ suites: words("suites"), components: words("components"), fields });
  }
  return entries;
}

/**
 * The file that adds a Debian release's backports from the same mirror, with the same key, as the system's own
 * packages: `{ path, text }`; undefined when the sources already name the backports, null when they name no mirror.
 */
export function backportsSource(entries, codename) {
  const suite = `${codename}-backports`;
  if (entries.some((entry) => entry.suites.includes(suite))) return undefined;
  const own = [codename, "stable", "oldstable"];
  const entry = entries.find(
    (candidate) =>
      candidate.suites.some((name) => own.includes(name)) && candidate.components.includes("main"),
  );
  if (!entry) return null;
  const folder = "/etc/apt/sources.list.d";
  if (!entry.fields) {
    const options = entry.options ? `[${entry.options}] ` : "";
    return { path: `${folder}/${suite}.list`, text: `deb ${options}${entry.uri} ${suite} main\n` };
  }
  const changed = { types: "deb", suites: suite, components: "main" };
  const lines = Object.entries(entry.fields).map(
    ([key, { name, value }]) => `${name}: ${changed[key] ?? value}`,
  );
  return { path: `${folder}/${suite}.sources`, text: `${lines.join("\n")}\n` };
}

// ------------------------------------------------------------------------------------------ system packages

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Text as printf's format, on one line. */
const oneLine = (text) => text.replaceAll("\\", "\\\\").replaceAll("%", "%%").replaceAll("\n", "\\n");

/** Whether commands that change the system need `sudo` before them. */
export function needsSudo() {
  return process.getuid?.() !== 0;
}

/**
 * Shell commands that install Debian packages, in order. With `backports`, the packages come from the release's
 * backports, whose source is added first where it is missing.
 */
export function aptCommands(packages, { root = "/", backports = false, sudo = needsSudo() } = {}) {
  const prefix = sudo ? "sudo " : "";
  const { codename } = readDistribution(root);
  const commands = [];
  const source = backports ? backportsSource(readAptSources(root), codename) : undefined;
  if (source === null) return undefined;
  if (source)
    commands.push(`printf ${quote(oneLine(source.text))} | ${prefix}tee ${source.path} > /dev/null`);
  commands.push(`${prefix}apt-get update -qq`);
  const target = backports ? ` -t ${codename}-backports` : "";
  commands.push(`${prefix}apt-get install -y -qq${target} ${packages.join(" ")}`);
  return commands;
}

/**
 * What gives a machine without a usable WebGPU adapter one: `{ commands, automatic, reason }`. Set-up runs the commands
 * itself where `automatic` is true; otherwise they are for a person.
 */
export function adapterMend({ platform = process.platform, root = "/", sudo = needsSudo() } = {}) {
  if (platform === "darwin")
    return forAPerson(quarantineCommand(), "macOS keeps files that a browser brought apart");
  if (platform === "win32")
    return forAPerson(
      "start ms-settings:windowsupdate-optionalupdates",
      "install the graphics driver found there",
    );
  const found = readDistribution(root);
  const mesa = ["mesa-vulkan-drivers", "libvulkan1"];
  const prefix = sudo ? "sudo " : "";
  if (found.id === "debian" && found.version && found.version < 12)
    return forAPerson("", `${found.name} is too old for Dawn: use Debian 12 or later`);
  if (found.id === "debian" && found.version === 12) {
    const commands = aptCommands(mesa, { root, backports: true, sudo });
    if (commands)
      return { commands, automatic: true, reason: "Debian 12's own Mesa (22.3) is too old for Dawn" };
    return forAPerson("", "apt's sources name no mirror of Debian 12: add bookworm-backports to them");
  }
  if (found.like.includes("debian") || found.like.includes("ubuntu"))
    return { commands: aptCommands(mesa, { root, sudo }), automatic: true, reason: "Mesa's Vulkan drivers" };
  if (found.like.includes("fedora") || found.like.includes("rhel"))
    return forAPerson(`${prefix}dnf install -y mesa-vulkan-drivers vulkan-loader`, "Mesa's Vulkan drivers");
  if (found.like.includes("arch"))
    return forAPerson(`${prefix}pacman -S --needed vulkan-swrast vulkan-icd-loader`, "Mesa's Vulkan drivers");
  if (found.like.includes("suse") || found.like.includes("opensuse"))
    return forAPerson(`${prefix}zypper install -y libvulkan_lvp libvulkan1`, "Mesa's Vulkan drivers");
  if (found.id === "alpine")
    return forAPerson("", "Dawn's binary needs glibc, which Alpine has not: use another Linux");
  return forAPerson("", "install Mesa's Vulkan drivers (lavapipe, Mesa 23 or later) and the Vulkan loader");
}

function forAPerson(command, reason) {
  return { commands: command ? [command] : [], automatic: false, reason };
}

function quarantineCommand() {
  const dawn = path.join(findPackage("webgpu") ?? "node_modules/webgpu", "dist/darwin-universal/dawn.node");
  return `xattr -d com.apple.quarantine ${/\s/.test(dawn) ? quote(dawn) : dawn}`;
}

/** The folder of an installed package as the library sees it, or undefined. */
export function findPackage(name, from = libraryFolder) {
  for (let folder = from; ; folder = path.dirname(folder)) {
    const candidate = path.join(folder, "node_modules", name);
    if (fs.existsSync(path.join(candidate, "package.json"))) return candidate;
    if (folder === path.dirname(folder)) return undefined;
  }
}

// ---------------------------------------------------------------------------------------------- the adapter

/**
 * The environment for a process that opens Dawn. Mesa prints an error line where XDG_RUNTIME_DIR is not set, so it gets
 * a private folder of its own there.
 */
export function gpuEnvironment(env = process.env) {
  if (process.platform !== "linux" || env.XDG_RUNTIME_DIR) return { ...env };
  const folder = path.join(os.tmpdir(), `tslm-runtime-${process.getuid()}`);
  fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
  return { ...env, XDG_RUNTIME_DIR: folder };
}

/**
 * Opens the adapter, lets it add two numbers, and tells what it is. In a process of its own, because a broken driver
 * may end the process: `{ ok: true, name, kind, driver, features, limits, … }` or `{ ok: false, reason }`.
 */
export function probeAdapter({ env = process.env, timeoutSeconds = Math.round(patience(120)) } = {}) {
  const run = spawnSync(process.execPath, [path.join(here, "adapter-probe.mjs")], {
    env: gpuEnvironment(env),
    encoding: "utf8",
    timeout: timeoutSeconds * 1000,
    killSignal: "SIGKILL",
  });
  const answer = /^ADAPTER (.*)$/m.exec(run.stdout ?? "");
  if (answer) return JSON.parse(answer[1]);
  if (run.error?.code === "ETIMEDOUT")
    return { ok: false, reason: `the graphics driver gave no answer in ${timeoutSeconds} s` };
  const end = run.signal ? `signal ${run.signal}` : `exit code ${run.status}`;
  return { ok: false, reason: `the graphics driver ended the process that opened it (${end})` };
}

/** Names the cards that a Linux machine has, by their PCI vendor, so that doctor can say when none of them is used. */
export function graphicsCards(root = "/") {
  const vendors = { "0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel" };
  const folder = path.join(root, "sys/class/drm");
  const names = fs.existsSync(folder) ? fs.readdirSync(folder).filter((name) => /^card\d+$/.test(name)) : [];
  const found = names.map((name) => vendors[readIfThere(path.join(folder, name, "device/vendor")).trim()]);
  if (fs.existsSync(path.join(root, "proc/driver/nvidia/version"))) found.push("NVIDIA");
  return [...new Set(found.filter(Boolean))];
}

// --------------------------------------------------------------------------------------- programs and Jupyter

/** The full path of a program in `folders` (by default those of PATH), or undefined. */
export function findProgram(name, folders = (process.env.PATH ?? "").split(path.delimiter)) {
  const suffixes = process.platform === "win32" ? [".exe", ".cmd", ".bat"] : [""];
  for (const folder of folders.filter(Boolean))
    for (const suffix of suffixes) {
      const file = path.join(folder, name + suffix);
      try {
        fs.accessSync(file, fs.constants.X_OK);
        if (fs.statSync(file).isFile()) return file;
      } catch {
        // not in this folder
      }
    }
  return undefined;
}

/** Where programs of the clone's own Python environment lie. */
export function environmentFolder(book) {
  return path.join(book, ".venv", process.platform === "win32" ? "Scripts" : "bin");
}

/** The Jupyter to use, `{ kind: "lab" | "notebook", program }`: JupyterLab before Notebook, on the PATH before the clone's. */
export function findJupyter(book, searched = (process.env.PATH ?? "").split(path.delimiter)) {
  for (const kind of ["lab", "notebook"])
    for (const folders of [searched, book ? [environmentFolder(book)] : []]) {
      const program = findProgram(`jupyter-${kind}`, folders);
      if (program) return { kind, program };
    }
  return undefined;
}

/** A Python that has `module` (the one on the PATH, the clone's own, the system's), or undefined. */
export function findPython(module, book) {
  const folders = [
    ...(process.env.PATH ?? "").split(path.delimiter),
    ...(book ? [environmentFolder(book)] : []),
  ];
  for (const folder of [...folders, "/usr/bin"])
    for (const name of ["python3", "python"]) {
      const program = findProgram(name, [folder]);
      if (program && spawnSync(program, ["-c", `import ${module}`]).status === 0) return program;
    }
  return undefined;
}

/** Chromium or Chrome, for the test that opens a notebook in a browser, or undefined. */
export function findBrowser() {
  const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];
  return names.map((name) => findProgram(name)).find(Boolean);
}

/** The command by which a person installs Jupyter on this machine when set-up cannot. */
export function jupyterMend({ platform = process.platform, root = "/", sudo = needsSudo() } = {}) {
  if (platform === "win32") return "py -m pip install jupyterlab";
  if (platform === "darwin") return "brew install jupyterlab";
  const { like } = readDistribution(root);
  const prefix = sudo ? "sudo " : "";
  if (like.includes("debian") || like.includes("ubuntu"))
    return aptCommands(["jupyter-notebook"], { root, sudo }).join("; ");
  if (like.includes("fedora")) return `${prefix}dnf install -y jupyterlab`;
  if (like.includes("arch")) return `${prefix}pacman -S --needed jupyterlab`;
  return "python3 -m pip install jupyterlab";
}

// -------------------------------------------------------------------------------------------- the built library

/** The newest change (ms since 1970) of a file or, in a folder, of anything in it; folders count, for what was removed. */
export function newestChange(file) {
  const stat = fs.statSync(file, { throwIfNoEntry: false });
  if (!stat) return 0;
  if (!stat.isDirectory()) return stat.mtimeMs;
  const inside = fs.readdirSync(file).map((name) => newestChange(path.join(file, name)));
  return Math.max(stat.mtimeMs, ...inside);
}

/** Whether the built library is there: "current", "stale" (a source changed since) or "missing". */
export function libraryState(library = libraryFolder) {
  const built = path.join(library, "dist", ".tsbuildinfo");
  if (!fs.existsSync(path.join(library, "dist", "index.js"))) return "missing";
  if (!fs.existsSync(path.join(library, "src"))) return "current"; // the published package has no sources
  const changed = Math.max(...["src", "tsconfig.json"].map((name) => newestChange(path.join(library, name))));
  return changed > newestChange(built) ? "stale" : "current";
}

/** The version of the npm package `tslm`. */
export function libraryVersion(library = libraryFolder) {
  return JSON.parse(fs.readFileSync(path.join(library, "package.json"), "utf8")).version;
}
