// Answers in OpenAI's harmony format: messages in channels, of which `final` is the answer, `analysis` the reasoning, and one to
// `functions.NAME` a call.
import { type StreamDecoder, type Tokenizer, streamDecoder } from "../../tokenizer/characters.js";

/** Where a piece of text belongs. */
export interface Channel {
  kind: "content" | "reasoning" | "call";
  /** The tool that is called. */
  tool?: string;
  /** Counts the messages. */
  message: number;
}

/** Where each token belongs, in turn; undefined for those that only give the text its form. */
export interface ChannelReader {
  push(id: number): { channel: Channel; text: string } | undefined;
}

const names = ["start", "end", "message", "channel", "constrain", "call", "return"] as const;

/** The special tokens of the format. */
export const harmonyMarks = names.map((name) => `<|${name}|>`);

/** Whether a tokenizer has all that harmony needs. */
export function speaksHarmony({ specials }: Tokenizer): boolean {
  return harmonyMarks.every((mark) => mark in specials);
}

/** What a message's head says: `commentary to=functions.weather`. */
function channelOf(head: string, message: number): Channel {
  const tool = /to=functions\.(\S+)/.exec(head)?.[1];
  if (tool !== undefined) return { kind: "call", tool, message };
  return { kind: /\banalysis\b/.test(head) ? "reasoning" : "content", message };
}

/** Reads an answer that begins after `<|start|>assistant`. */
export function channelReader(tokenizer: Tokenizer): ChannelReader {
  const nameOf = new Map(names.map((name) => [tokenizer.specials[`<|${name}|>`], name]));
  const specials = new Set(Object.values(tokenizer.specials));
  let [head, message] = [streamDecoder(tokenizer), 0];
  let headText = "";
  let body: { channel: Channel; decoder: StreamDecoder } | undefined;
  return {
    push(id) {
      const name = nameOf.get(id);
      if (name === "message") {
        body = { channel: channelOf(headText, message++), decoder: streamDecoder(tokenizer) };
        return undefined;
      }
      if (name !== undefined) {
        if (body || name === "start") [body, head, headText] = [undefined, streamDecoder(tokenizer), ""];
        headText += " "; // "assistant<|channel|>analysis"
        return undefined;
      }
      if (specials.has(id)) return undefined;
      if (body) return { channel: body.channel, text: body.decoder.push(id) };
      headText += head.push(id);
      return undefined;
    },
  };
}
