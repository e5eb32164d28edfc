// From the tokens that an engine gives to the pieces of text that a client gets, with each token's log-probabilities.
import { stopFilter } from "../../infer/sampling.js";
import { type Tokenizer, streamDecoder } from "../../tokenizer/characters.js";
import type { Choice, GeneratedToken } from "../../infer/engine.js";
import type { Channel, ChannelReader } from "./harmony.js";

/** A token as clients are told of it. */
export interface TokenReport {
  token: string;
  bytes: number[];
  logprob: number;
  alternatives: Omit<TokenReport, "alternatives">[];
}

/** A piece of an answer; at the end, why it ended. */
export type AnswerEvent =
  | { text: string; tokens: TokenReport[]; channel?: Channel; finish?: undefined }
  | { finish: "stop" | "length" };

/** What the pieces of an answer depend on. */
export interface AnswerSettings {
  tokenizer: Tokenizer;
  /** The ids that the text goes on from. */
  before: ArrayLike<number>;
  stop: string[];
  /** Special tokens that are part of the text: what tells a call of a tool from a text. The others are not. */
  kept?: ReadonlySet<number>;
  /** Says where each token belongs, for answers in channels. */
  channels?: ChannelReader;
  /** Whether nothing can follow, since a grammar is complete. */
  isComplete?: () => boolean;
}

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
const encoder = new TextEncoder();

/** The bytes of a token inside a text. */
export function bytesOfToken(tokenizer: Tokenizer, id: number): Uint8Array {
  return tokenizer.tokenBytes?.(id) ?? tokenizer.decode([id]);
}

/** A token with its log-probabilities; `isText` is false for a special token, which adds nothing to the text. */
function report(tokenizer: Tokenizer, token: GeneratedToken, isText: boolean): TokenReport {
  const named = (id: number, logprob: number, isPart = true) => {
    const bytes = bytesOfToken(tokenizer, id);
    return { token: utf8.decode(bytes), bytes: isPart ? [...bytes] : [], logprob };
  };
  const alternatives = token.alternatives?.map(({ id, logProbability }) => named(id, logProbability)) ?? [];
  return { ...named(token.id, token.logProbability ?? 0, isText), alternatives };
}

/** Whether bytes end within a UTF-8 character. */
export function endsInCharacter(bytes: ArrayLike<number>): boolean {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back];
    if (byte >= 0xc0) return back < (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2);
    if (byte < 0x80) return false;
  }
  return false;
}

/**
 * Tokens wait here until the text that they belong to is passed on, so that a chunk's tokens are those of its text. A token with a part of
 * a character goes with the token that completes it.
 */
function tokenQueue() {
  const waiting: { report: TokenReport; end: number }[] = [];
  let [tail, text, begin, passed] = [[] as number[], "", 0, 0]; // the text of those that wait, and where it begins
  return {
    /** Adds a token that completes some text. */
    push(token: TokenReport, piece: string) {
      text += piece;
      tail = [...tail, ...token.bytes].slice(-3);
      waiting.push({ report: token, end: Number.POSITIVE_INFINITY });
      if (endsInCharacter(tail)) return;
      for (const entry of waiting) entry.end = Math.min(entry.end, begin + text.length);
    },
    /** The tokens of a text that is passed on. */
    release(piece: string): TokenReport[] {
      passed += piece.length;
      const first = waiting.findIndex(({ end }) => end > passed);
      const released = waiting.splice(0, first < 0 ? waiting.length : first);
      const end = released.at(-1)?.end ?? begin;
      text = text.slice(end - begin);
      begin = end;
      return released.map((entry) => entry.report);
    },
    /** The tokens of the last text; the last of them is cut where the text is. */
    cut(piece: string): TokenReport[] {
      let left = encoder.encode(text.slice(0, passed + piece.length - begin)).length;
      const tokens: TokenReport[] = [];
      for (const { report: token } of waiting.splice(0)) {
        if (left <= 0) break;
        tokens.push({ ...token, bytes: token.bytes.slice(0, left) });
        left -= token.bytes.length;
      }
      return tokens;
    },
    /** The tokens that are left at the end. */
    rest: (): TokenReport[] => waiting.splice(0).map((entry) => entry.report),
  };
}

/** The pieces of an answer: whole characters, up to the first stop text, of which no beginning ever gets out. */
export async function* answer(
  choice: Choice,
  arriving: AsyncIterable<GeneratedToken>,
  { tokenizer, before, stop, kept, channels, isComplete }: AnswerSettings,
): AsyncGenerator<AnswerEvent> {
  const decoder = streamDecoder(tokenizer, before);
  const filter = stopFilter(stop);
  const queue = tokenQueue();
  const specials = new Set(Object.values(tokenizer.specials));
  /** The text that a token completes, and where it belongs. */
  const read = (id: number): { text: string; channel?: Channel } => {
    if (channels) return channels.push(id) ?? { text: "" };
    return { text: specials.has(id) && !kept?.has(id) ? "" : decoder.push(id) };
  };
  for await (const token of arriving) {
    const { text: piece, channel } = read(token.id);
    if (channel && channel.kind !== "content") {
      if (piece !== "") yield { text: piece, tokens: [], channel };
      continue;
    }
    const isText = channels ? channel !== undefined : !specials.has(token.id) || kept?.has(token.id) === true;
    const isReported = token.logProbability !== undefined;
    if (isReported) queue.push(report(tokenizer, token, isText), piece);
    const { text, stopped } = filter.push(piece);
    if (stopped || isComplete?.()) choice.abort();
    if (stopped) {
      yield { text, tokens: queue.cut(text) };
      yield { finish: "stop" };
      return;
    }
    const tokens = isReported ? queue.release(text) : [];
    if (text !== "" || tokens.length > 0) yield { text, tokens };
    if (isComplete?.()) break;
  }
  const { text, stopped } = filter.push(decoder.end());
  const last = stopped ? text : text + filter.end();
  const tokens = stopped ? queue.cut(last) : queue.rest();
  if (last !== "" || tokens.length > 0) yield { text: last, tokens };
  if (stopped || isComplete?.()) yield { finish: "stop" };
  else if (choice.finishReason === "stop" || choice.finishReason === "length")
    yield { finish: choice.finishReason };
}
