import type { Command } from "commander";
import { doctor } from "../../bin/doctor.mjs";
import { examples } from "./run.js";

/** `tslm doctor`: what is there, what is missing, and what mends it. */
export function configure(command: Command): void {
  command
    .option("--json", "print the findings as one JSON object")
    .action(async ({ json = false }: { json?: boolean }) => {
      process.exitCode = await doctor({ json });
    });
  examples(command, "npx tslm doctor", "npx tslm doctor --json");
}
