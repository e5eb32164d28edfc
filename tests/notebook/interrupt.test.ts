import { expect, test } from "vitest";
import { Interrupted, untilInterrupted } from "../../lib/src/notebook/index.js";

const interrupt = () => process.kill(process.pid, "SIGINT");
const turn = () => new Promise((resolve) => setImmediate(resolve));

test.skipIf(process.platform === "win32")(
  "an interrupt stops the work, and what it has comes back",
  async () => {
    let kernels = 0;
    const kernel = () => void kernels++;
    process.on("SIGINT", kernel);
    const before = process.listeners("SIGINT");
    const got = await untilInterrupted(async (signal) => {
      let count = 0;
      for (interrupt(); !signal.aborted; await turn()) count++;
      expect(signal.reason).toBeInstanceOf(Interrupted);
      // The second one is the kernel's own again.
      interrupt();
      while (kernels === 0) await turn();
      return count;
    });
    expect(got).toBeGreaterThan(0);
    expect(process.listeners("SIGINT")).toEqual(before);
    await expect(untilInterrupted(() => Promise.reject(new Error("no")))).rejects.toThrow("no");
    expect(process.listeners("SIGINT")).toEqual(before);
    process.off("SIGINT", kernel);
  },
);
