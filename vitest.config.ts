import os from "node:os";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";
import { patience } from "./lib/bin/machine.mjs";

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));

// Dawn's instance and the device made from it live as long as the process, so test files share theirs. There are two, since
// most of the time is one thread that compiles kernels.
export default defineConfig({
  resolve: {
    alias: [
      { find: /^tslm$/, replacement: path("lib/src/index.ts") },
      { find: /^tslm\/notebook$/, replacement: path("lib/src/notebook/index.ts") },
      { find: /^tslm\/(.+)$/, replacement: path("lib/src/$1.ts") },
    ],
  },
  test: {
    include: ["lib/test/**/*.test.ts", "tests/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    isolate: false,
    // Only what is stuck takes so long: the longest test takes half a minute on a machine without a GPU.
    testTimeout: 1000 * patience(1200),
    hookTimeout: 1000 * patience(1200),
    setupFiles: ["tools/seeded.mjs", "tools/count-pipelines.mjs"],
    // Mesa prints an error line where this is not set.
    env: { XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? os.tmpdir() },
  },
});
