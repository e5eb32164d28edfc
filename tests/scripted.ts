// An engine for tests that says what it is told to: for what a small model cannot be brought to do, and for what must not take its time.
import type { Choice, Engine, EngineRequest, EngineState, GeneratedToken } from "../lib/src/infer/engine.ts";
import type { Host } from "../lib/src/cli/serve/host.ts";
import type { Tokenizer } from "../lib/src/tokenizer/characters.ts";
import { byteTokenizer } from "../lib/src/tokenizer/merges.ts";
import { loadTokenizer } from "../lib/src/tokenizer/files.ts";

/** A tokenizer with a token a byte, and these special tokens behind them. */
export function byteTokens(...specials: string[]): Tokenizer {
  const file = JSON.parse(JSON.stringify(byteTokenizer().toJson()));
  const [first] = file.added_tokens;
  for (const [i, content] of specials.entries())
    file.added_tokens.push({ ...first, id: first.id + 1 + i, content });
  return loadTokenizer(file);
}

/** One answer that consists of these tokens. */
export function scriptedChoice(
  ids: number[],
  { maxTokens, stopIds, constraint, alternatives }: EngineRequest,
): Choice {
  const held = constraint?.();
  const choice: Choice = {
    tokens: write(),
    finishReason: undefined,
    cachedTokens: 0,
    abort() {
      choice.finishReason ??= "aborted";
    },
  };
  async function* write(): AsyncGenerator<GeneratedToken> {
    for (const [i, id] of ids.entries()) {
      await Promise.resolve();
      if (choice.finishReason) return;
      const mask = held?.mask();
      if (mask && !((mask[id >> 5] >>> (id & 31)) & 1))
        throw new Error(`Token ${id}, number ${i}, may not come.`);
      if (stopIds.includes(id)) break;
      held?.accept(id);
      yield alternatives === undefined ? { id } : { id, logProbability: -1, alternatives: [] };
      if (i + 1 === maxTokens) choice.finishReason = "length";
    }
    choice.finishReason ??= "stop";
  }
  return choice;
}

const idle: EngineState = {
  ...{ running: 0, waiting: 0, blocks: 1, freeBlocks: 1, prefixQueries: 0, prefixHits: 0, preemptions: 0 },
  ...{ promptTokens: 0, generatedTokens: 0, steps: 0 },
};

/** A host of an engine whose answers `script` gives. */
export function scriptedHost(script: (request: EngineRequest) => number[]): Host {
  const engine: Engine = {
    submit: (request) =>
      Array.from({ length: request.choices ?? 1 }, () => scriptedChoice(script(request), request)),
    state: () => idle,
    close: async () => {},
  };
  return { engine: async () => engine, isReady: () => true, state: () => idle, close: async () => {} };
}
