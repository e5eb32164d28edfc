// A thread that compiles grammars before the server does: what is malformed, or takes for ever, ends here.
import { parentPort, workerData } from "node:worker_threads";
import { type GrammarSource, type GrammarVocabulary, compileSource, openGrammars } from "./xgrammar.js";

/** What the thread says of a grammar: nothing, or why it cannot be used. */
export interface Verdict {
  error?: string;
  /** Whether the thread is of no more use: after a crash its memory is not to be trusted. */
  isOver?: boolean;
}

const instance = await openGrammars(workerData as GrammarVocabulary);
parentPort!.postMessage({} satisfies Verdict); // ready

parentPort!.on("message", async (source: GrammarSource) => {
  instance.said();
  let isBroken = false;
  const compiled = await compileSource(instance, source).catch(() => {
    isBroken = true;
  });
  if (compiled) compiled.dispose();
  const complaint = instance.said().find((line) => /\[(FATAL|WARNING)\]/.test(line));
  // "[FATAL] /path/file.cc:12: Check failed: (…) is false: The reason"
  const reason = complaint?.replace(/^\[\w+\] \S+:\d+: (Check failed: .* is false: )?/, "");
  const error = reason ?? (isBroken ? "it cannot be compiled" : undefined);
  parentPort!.postMessage({ error, isOver: isBroken } satisfies Verdict);
});
