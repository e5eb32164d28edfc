// The Jupyter kernel of the book, described in a folder of the project. Jupyter finds it through JUPYTER_PATH, so
// nothing is installed outside the clone and two clones do not disturb each other. No dependencies: set-up uses it too.
import fs from "node:fs";
import path from "node:path";

/** The folder to name in JUPYTER_PATH. `root` is the top of the clone. */
export function kernelFolder(root) {
  return path.join(root, ".jupyter");
}

/**
 * The kernel spec as it must be for this clone: its kernel, started by the Node that runs now. Paths are absolute because
 * Jupyter starts kernels in the notebook's folder.
 */
export function kernelSpec(root, node = process.execPath) {
  const kernel = path.join(root, "tools", "kernel.mjs");
  return {
    argv: [node, kernel, "{connection_file}"],
    display_name: "TypeScript",
    language: "typescript",
  };
}

const specFile = (root) => path.join(kernelFolder(root), "kernels", "tslab", "kernel.json");

/** Whether the spec on disk is the one this clone and this Node need. */
export function kernelSpecIsCurrent(root, node = process.execPath) {
  try {
    const found = JSON.parse(fs.readFileSync(specFile(root), "utf8"));
    return JSON.stringify(found) === JSON.stringify(kernelSpec(root, node));
  } catch {
    return false; // missing or damaged: both are mended by writing it
  }
}

/** Writes the spec where it is missing or differs; returns the folder for JUPYTER_PATH. */
export function writeKernelSpec(root, node = process.execPath) {
  if (!kernelSpecIsCurrent(root, node)) {
    fs.mkdirSync(path.dirname(specFile(root)), { recursive: true });
    fs.writeFileSync(specFile(root), `${JSON.stringify(kernelSpec(root, node), null, 2)}\n`);
  }
  return kernelFolder(root);
}

/** The environment in which Jupyter and nbclient find the kernel: `env` with the folder put first in JUPYTER_PATH. */
export function kernelEnvironment(root, env = process.env) {
  const others = env.JUPYTER_PATH ? [env.JUPYTER_PATH] : [];
  return { ...env, JUPYTER_PATH: [kernelFolder(root), ...others].join(path.delimiter) };
}
