// Stops work that a pattern from somebody's file makes endless: V8 looks for an end of time even within a regular expression.
import vm from "node:vm";
import { timeLimit } from "../tokenizer/files.js";

const context = vm.createContext({ work: () => {} });
const call = new vm.Script("work()");

timeLimit.run = <T>(work: () => T, milliseconds: number): { result: T } | undefined => {
  context.work = () => ({ result: work() });
  try {
    return call.runInContext(context, { timeout: Math.ceil(milliseconds) });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ERR_SCRIPT_EXECUTION_TIMEOUT") return undefined;
    throw error;
  }
};
