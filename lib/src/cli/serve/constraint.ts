// Answers held to a grammar: masks of the tokens that may come next.
import { Worker } from "node:worker_threads";
import type { CompiledGrammar, GrammarMatcher } from "@mlc-ai/web-xgrammar";
import type { TokenConstraint } from "../../infer/engine.js";
import type { Tokenizer } from "../../tokenizer/characters.js";
import { byteCharacters } from "../../tokenizer/bpe.js";
import { bytesOfToken } from "./answer.js";
import { badRequest } from "./errors.js";
import type { Verdict } from "./grammar-worker.js";
import {
  type GrammarInstance,
  type GrammarSource,
  type GrammarVocabulary,
  compileSource,
  openGrammars,
} from "./xgrammar.js";

/** Seconds that a grammar may take to compile. */
const patience = 3;

/** Compiled grammars that are kept. */
const keptGrammars = 64;

/** A constraint of one answer. */
export interface GrammarConstraint extends TokenConstraint {
  /** Whether nothing can follow. */
  readonly isComplete: boolean;
  /** What went wrong within the grammar. */
  readonly error?: Error;
  free(): void;
}

/** Makes constraints for one vocabulary. */
export interface Grammars {
  /** Constraints of `count` answers. Throws an error about `param` for a grammar that cannot be compiled. */
  constraints(source: GrammarSource, count: number, param: string): Promise<GrammarConstraint[]>;
}

/** The vocabulary of a model for grammars. Special tokens are no text, but for those in `kept`. */
export function grammarVocabulary(
  tokenizer: Tokenizer,
  { size, stopIds, kept }: { size: number; stopIds: number[]; kept: ReadonlySet<number> },
): GrammarVocabulary {
  const characters = byteCharacters();
  const hidden = new Set([...Object.values(tokenizer.specials).filter((id) => !kept.has(id)), ...stopIds]);
  const tokens = Array.from({ length: tokenizer.vocabSize }, (_, id) => {
    if (hidden.has(id)) return "";
    let text = "";
    for (const byte of bytesOfToken(tokenizer, id)) text += characters[byte];
    return text;
  });
  // One stop that no model writes: where it may come, the grammar can end, also for a model without such a token.
  return { tokens, size: size + 1, stopIds: [...stopIds, size] };
}

/** A thread that tries grammars, begun anew when one was too much for it. */
function grammarTrial(vocabulary: GrammarVocabulary) {
  let thread: { worker: Worker; ready: Promise<Verdict> } | undefined;
  let turn: Promise<unknown> = Promise.resolve();
  const answerOf = (worker: Worker) =>
    new Promise<Verdict>((resolve) => {
      const take = (verdict: Verdict) => {
        worker.off("message", take).off("error", failed).off("exit", left);
        resolve(verdict);
      };
      const failed = ({ message }: Error) => take({ error: message, isOver: true });
      const left = () => take({ error: "it needs more than there is", isOver: true });
      worker.on("message", take).on("error", failed).on("exit", left);
    });
  const start = () => {
    // Threads run no TypeScript: where this is the source, in tests, theirs is the built file.
    const here = import.meta.url.endsWith(".ts") ? "../../../dist/cli/serve/" : "./";
    const file = new URL(`${here}grammar-worker.js`, import.meta.url);
    const worker = new Worker(file, { workerData: vocabulary });
    worker.unref();
    return { worker, ready: answerOf(worker) };
  };
  const end = (worker: Worker) => {
    thread = undefined;
    void worker.terminate();
  };
  const attempt = async (source: GrammarSource): Promise<Verdict> => {
    thread ??= start();
    const { worker, ready } = thread;
    const begun = await ready;
    if (begun.error === undefined) worker.postMessage(source);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<Verdict>((resolve) => {
      const error = `it takes longer than ${patience} s: bounds such as maxLength and maxItems cost most`;
      timer = setTimeout(() => resolve({ error, isOver: true }), patience * 1000);
    });
    const verdict = begun.error === undefined ? await Promise.race([answerOf(worker), late]) : begun;
    clearTimeout(timer);
    if (verdict.isOver) end(worker);
    return verdict;
  };
  /** What is wrong with a grammar; one is tried after the other. */
  return (source: GrammarSource): Promise<Verdict> => {
    const result = turn.then(() => attempt(source));
    turn = result.catch(() => {});
    return result;
  };
}

/** A constraint by a matcher. An error inside of it is kept: the engine serves others too. */
function matcherConstraint(
  { maskOf }: GrammarInstance,
  matcher: GrammarMatcher,
  { size, stopIds }: GrammarVocabulary,
): GrammarConstraint {
  const words = Math.ceil((size - 1) / 32);
  const stops = new Int32Array(Math.ceil(size / 32));
  for (const id of stopIds) stops[id >> 5] |= 1 << (id & 31);
  let [mask, isComplete, error] = [
    undefined as Uint32Array | undefined,
    false,
    undefined as Error | undefined,
  ];
  const look = (accept: () => boolean) => {
    if (isComplete) return;
    try {
      const isTaken = accept();
      const allowed = maskOf(matcher);
      isComplete = !isTaken || allowed.every((word, i) => (word & ~stops[i]) === 0);
      mask = isComplete ? undefined : Uint32Array.from(allowed.subarray(0, words));
    } catch (reason) {
      error = new Error(`The grammar failed: ${(reason as Error).message}`);
      [mask, isComplete] = [undefined, true];
    }
  };
  look(() => true);
  return {
    mask: () => mask,
    accept: (id) => look(() => matcher.acceptToken(id)),
    get isComplete() {
      return isComplete;
    },
    get error() {
      return error;
    },
    free: () => matcher.dispose(),
  };
}

/** Compiles grammars and keeps those that were used last. */
export function openGrammarService(vocabularyOf: () => GrammarVocabulary): Grammars {
  let opened: Promise<{ vocabulary: GrammarVocabulary; instance: GrammarInstance }> | undefined;
  let trial: ReturnType<typeof grammarTrial> | undefined;
  const compiled = new Map<string, Promise<CompiledGrammar>>();

  async function compile(source: GrammarSource, param: string): Promise<CompiledGrammar> {
    const { vocabulary, instance } = await opened!;
    trial ??= grammarTrial(vocabulary);
    const { error } = await trial(source);
    if (error !== undefined)
      throw badRequest(`${param} cannot be used: ${error.replace(/[.\s]*$/, "")}.`, param);
    return compileSource(instance, source);
  }

  /** The grammar of a source: one of those that are kept, or a new one. */
  function grammarOf(source: GrammarSource, param: string): Promise<CompiledGrammar> {
    const key = JSON.stringify(source);
    const grammar = compiled.get(key) ?? compile(source, param);
    compiled.delete(key);
    compiled.set(key, grammar); // the last that was used
    grammar.catch(() => compiled.delete(key));
    const [oldest] = compiled.keys();
    if (compiled.size > keptGrammars) {
      void compiled.get(oldest)!.then((old) => old.dispose());
      compiled.delete(oldest);
    }
    return grammar;
  }

  return {
    async constraints(source, count, param) {
      opened ??= (async () => {
        const vocabulary = vocabularyOf();
        return { vocabulary, instance: await openGrammars(vocabulary) };
      })();
      const { vocabulary, instance } = await opened;
      const grammar = await grammarOf(source, param);
      const matchers = await Promise.all(Array.from({ length: count }, () => instance.newMatcher(grammar)));
      return matchers.map((matcher) => matcherConstraint(instance, matcher, vocabulary));
    },
  };
}
