// What the tools that work on the book share when they run as programs.
import { BookError } from "./notebook.js";
import { isScript, SetUpError } from "./setup.mjs";

/** Runs `main` when its module is the one that was started. A problem that can be mended is printed without a stack. */
export async function runTool(module: string, main: (args: string[]) => void | Promise<void>): Promise<void> {
  if (!isScript(module)) return;
  try {
    await main(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof BookError || error instanceof SetUpError)) throw error;
    console.error(error.message);
    process.exitCode = 1;
  }
}
