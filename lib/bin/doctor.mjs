// `tslm doctor`: what is there, what is missing, and the exact command that mends each thing on this platform.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import * as machine from "./machine.mjs";

/** How to say "run this in the clone" in one command that works from any folder. */
function inBook(book, command) {
  return book && path.resolve(book) !== process.cwd() ? `cd ${JSON.stringify(book)} && ${command}` : command;
}

function checkNode() {
  const { node: version } = process.versions;
  return machine.nodeIsEnough() ? { ok: true, version } : { ok: false, version, mend: machine.nodeMend() };
}

function checkPackages(book) {
  const { dependencies } = JSON.parse(
    fs.readFileSync(path.join(machine.libraryFolder, "package.json"), "utf8"),
  );
  const missing = Object.keys(dependencies).filter((name) => !machine.findPackage(name));
  const mend = inBook(book, book ? "npm ci" : "npm install tslm");
  return missing.length === 0 ? { ok: true } : { ok: false, missing, mend };
}

function checkLibrary(book) {
  const state = machine.libraryState();
  const facts = {
    ok: state !== "missing",
    state,
    version: machine.libraryVersion(),
    folder: machine.libraryFolder,
  };
  return state === "current" ? facts : { ...facts, mend: inBook(book, "npm run build") };
}

function checkAdapter(packages) {
  if (packages.missing?.includes("webgpu"))
    return { ok: false, reason: "the Node package webgpu is not installed", mend: packages.mend };
  const adapter = machine.probeAdapter();
  const drivers = process.env.VK_DRIVER_FILES ?? process.env.VK_ICD_FILENAMES;
  if (adapter.ok) return { ...adapter, ...unusedCard(adapter) };
  if (drivers) return { ...adapter, mend: "unset VK_DRIVER_FILES VK_ICD_FILENAMES" };
  const { commands, reason } = machine.adapterMend();
  return { ...adapter, mend: commands.join("; ") || reason };
}

/** Computing on the processor beside an idle graphics card is worth a word. */
function unusedCard({ kind }) {
  const cards = kind === "cpu" && process.platform === "linux" ? machine.graphicsCards() : [];
  if (cards.length === 0) return {};
  return {
    note: `this machine has a card by ${cards.join(" and ")}, but no Vulkan driver for it that Dawn can use`,
  };
}

async function checkKernel(book) {
  if (!book) return { ok: true, note: "only a clone of the book has one" };
  const kernelspec = await import(pathToFileURL(path.join(book, "tools", "kernelspec.mjs")).href);
  const folder = path.join(kernelspec.kernelFolder(book), "kernels", "tslab");
  if (kernelspec.kernelSpecIsCurrent(book)) return { ok: true, folder };
  return { ok: false, folder, mend: inBook(book, "npm run setup") };
}

function checkJupyter(book) {
  const found = machine.findJupyter(book);
  if (found) return { ok: true, ...found };
  return { ok: false, mend: machine.jupyterMend(), note: "npm start installs it by itself" };
}

/** Looks at everything. `ok` is whether the library can run: the kernel spec and Jupyter are for reading the book. */
export async function examine() {
  const book = machine.findBook();
  const node = checkNode();
  const packages = checkPackages(book);
  const library = checkLibrary(book);
  const adapter = checkAdapter(packages);
  const kernel_spec = await checkKernel(book);
  const jupyter = checkJupyter(book);
  const system = process.platform === "linux" ? machine.readDistribution().name : os.version();
  return {
    ok: node.ok && packages.ok && library.ok && adapter.ok,
    platform: { os: process.platform, architecture: process.arch, name: system },
    node,
    packages,
    library,
    adapter,
    kernel_spec,
    jupyter,
  };
}

const mebibytes = (bytes) => `${Math.round(bytes / 2 ** 20).toLocaleString("en")} MiB`;

function adapterLines({ kind, driver, name, features, limits }) {
  const known = ["shader-f16", "subgroups", "timestamp-query", "chromium-experimental-subgroup-matrix"];
  const has =
    known.filter((feature) => features.includes(feature)).join(", ") || "none of those tslm can use";
  return [
    `${name} (${kind})`,
    `driver: ${driver || "unknown"}`,
    `features: ${has} (${features.length} in all; --json lists them)`,
    `limits: buffer ${mebibytes(limits.maxBufferSize)}, binding ${mebibytes(limits.maxStorageBufferBindingSize)}, ` +
      `workgroup ${limits.maxComputeInvocationsPerWorkgroup} threads with ` +
      `${limits.maxComputeWorkgroupStorageSize / 1024} KiB, ${limits.maxStorageBuffersPerShaderStage} storage buffers`,
  ];
}

/** One line or more for each finding: what it is, what is the matter, what mends it. */
function describe(report) {
  const { node, packages, library, adapter, kernel_spec, jupyter } = report;
  const built = {
    current: "built",
    stale: "built, but its sources have changed since",
    missing: "not built",
  };
  return [
    ["Node", node, [node.version]],
    ["packages", packages, [packages.ok ? "installed" : `missing: ${packages.missing.join(", ")}`]],
    ["library", library, [`tslm ${library.version}, ${built[library.state]}`]],
    ["adapter", adapter, adapter.ok ? adapterLines(adapter) : [adapter.reason]],
    ["kernel", kernel_spec, [kernel_spec.folder ?? "none"]],
    ["Jupyter", jupyter, [jupyter.ok ? jupyter.program : "not found"]],
  ];
}

function print(report) {
  console.log(`${report.platform.name}, ${report.platform.os} ${report.platform.architecture}`);
  for (const [name, finding, lines] of describe(report)) {
    const extra = [
      ...(finding.note ? [`note: ${finding.note}`] : []),
      ...(finding.mend ? [`run: ${finding.mend}`] : []),
    ];
    const [first, ...others] = [...lines, ...extra];
    console.log(`${finding.ok ? "✓" : "✗"} ${name.padEnd(9)} ${first}`);
    for (const line of others) console.log(`${" ".repeat(12)}${line}`);
  }
  console.log(report.ok ? "The library can run." : "The library cannot run: see what is marked ✗.");
}

/** Prints the findings and returns the exit code: 1 if the library cannot run. */
export async function doctor({ json = false } = {}) {
  const report = await examine();
  if (json) console.log(JSON.stringify(report, null, 2));
  else print(report);
  return report.ok ? 0 : 1;
}
