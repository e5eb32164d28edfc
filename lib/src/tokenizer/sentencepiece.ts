// Extracted from chapters/01-tokenizer/4-tokenizers-of-the-world.ipynb: edit it there, or here and run `npm run backport`.
import { utf8Runs } from "./bpe.js";
import { type StreamDecoder, type Tokenizer, invalidUtf8, textOfBytes, unknownId } from "./characters.js";
import {
  type EncoderParts,
  type Merges,
  type PieceEncoder,
  mergeIds,
  rememberingEncoder,
  runEncoder,
  wellFormedText,
} from "./merges.js";
import { type Splitter, compilePattern, nextCharacter, nextMatch } from "./pretokenize.js";

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#replace-step
/** A pattern as a file writes it: a regular expression, or a text that is looked for as it stands. */
export type FilePattern = { Regex: string } | { String: string };

/** The regular expression of a pattern. */
export function regexOf(pattern: FilePattern): string {
  return "Regex" in pattern ? pattern.Regex : pattern.String.replace(/[\\.+*?()|[\]{}^$#&\-~]/g, "\\$&");
}

/** A function that puts `content` in the place of every match; of an empty one too, unless it touches the match before it. */
export function replacer(pattern: FilePattern, content: string): (text: string) => string {
  if ("String" in pattern && pattern.String !== "")
    return (text) => text.replaceAll(pattern.String, () => content);
  const regex = compilePattern(regexOf(pattern), "gu");
  return (text) => {
    let [replaced, done, end] = ["", 0, -1]; // end: of the match before
    for (let at = 0; at <= text.length && text !== ""; ) {
      const match = nextMatch(regex, text, at);
      if (!match) break;
      const to = match.index + match[0].length;
      const touches = match[0] === "" && to === end;
      if (!touches) replaced += text.slice(done, match.index) + content;
      if (!touches) done = end = to;
      at = touches ? nextCharacter(text, at) : to;
    }
    return replaced + text.slice(done);
  };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#metaspace
/** How `Metaspace` marks words: by which character, and whether the first word of a text, of every stretch, or none gets one. */
export interface MetaspaceStep {
  replacement: string;
  prepend_scheme: "always" | "first" | "never";
  split: boolean;
}

/** The splitter of `Metaspace`: each space becomes the mark, and with `split` a piece begins at every mark. */
export function metaspaceSplitter({ replacement, prepend_scheme, split }: MetaspaceStep): Splitter {
  return (text, visit, place = "start") => {
    const marked = text.replaceAll(" ", () => replacement);
    const isFirst = prepend_scheme === "always" ? place !== "continued" : place === "start";
    const prepends = prepend_scheme !== "never" && isFirst && !marked.startsWith(replacement);
    const whole = prepends ? replacement + marked : marked;
    let from = 0;
    for (let at = whole.indexOf(replacement, 1); split && at > 0; at = whole.indexOf(replacement, at + 1)) {
      visit(whole, from, at);
      from = at;
    }
    if (from < whole.length) visit(whole, from, whole.length);
  };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#spelling
/** What the characters of a piece are before the first merge. */
export interface Spelling {
  /** The id of each character by its code point, -1 for those without. */
  characters: Int32Array;
  /** The ids of the tokens `<0x00>` to `<0xFF>`, -1 for those that are missing; left out without `byte_fallback`. */
  bytes?: Int32Array;
  /** The token of a character that cannot be spelled; left out, such a character is dropped. */
  unknown?: number;
  /** Whether several such characters in a row become one token. */
  fuses: boolean;
}

/** The ids of the bytes of a character; undefined if one of them has none. */
export function fallbackIds(character: string, { bytes }: Spelling): number[] | undefined {
  if (!bytes) return undefined;
  const ids = Array.from(new TextEncoder().encode(character), (byte) => bytes[byte]);
  return ids.includes(-1) ? undefined : ids;
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#spell-piece
/** The ids of the characters of a piece. */
export function spellPiece(piece: string, spelling: Spelling): number[] {
  const { characters, unknown, fuses } = spelling;
  const ids: number[] = [];
  let waits = false; // an unknown character waits for others that it may be fused with
  for (const character of piece) {
    const id = characters[character.codePointAt(0)!];
    if (id >= 0) {
      if (waits) ids.push(unknown!);
      waits = false;
      ids.push(id);
      continue;
    }
    const fallback = fallbackIds(character, spelling);
    if (fallback) ids.push(...fallback); // it goes on waiting: so does the reference, whose ids we must give
    if (fallback || unknown === undefined) continue;
    if (waits && !fuses) ids.push(unknown);
    waits = true;
  }
  if (waits) ids.push(unknown!);
  return ids;
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#word-cuts
/** The mark of SentencePiece for the beginning of a word. */
export const WORD_MARK = "\u2581";

/** What stands before a mark inside of some token, as UTF-16 units: only there may a merge cross the beginning of a word. */
export function unitsBeforeMarks(names: Iterable<string>): Set<number> {
  const units = new Set<number>();
  for (const name of names)
    for (let at = name.indexOf(WORD_MARK, 1); at > 0; at = name.indexOf(WORD_MARK, at + 1))
      units.add(name.charCodeAt(at - 1));
  return units;
}

/** An encoder of pieces that cuts before every mark that no merge can cross: the ids are those of the whole piece. */
export function wordEncoder(encodeWord: PieceEncoder, crossed: ReadonlySet<number>): PieceEncoder {
  return (text, from, to, ids) => {
    let start = from;
    for (
      let at = text.indexOf(WORD_MARK, from + 1);
      at > 0 && at < to;
      at = text.indexOf(WORD_MARK, at + 1)
    ) {
      if (crossed.has(text.charCodeAt(at - 1))) continue;
      encodeWord(text, start, at, ids);
      start = at;
    }
    encodeWord(text, start, to, ids);
  };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#decoder-stages
/** A step of a decoder at work. It passes on what it makes of the tokens, and at the end what it held back. */
export interface DecoderStage {
  push(token: string): void;
  end(): void;
}

/** A step that makes something of each token alone. */
export function eachToken(change: (token: string) => string, emit: (token: string) => void): DecoderStage {
  return { push: (token) => emit(change(token)), end: () => {} };
}

/** Holds all tokens back and gives them to a step as one. */
export function heldTogether(stage: DecoderStage): DecoderStage {
  let held: string[] = [];
  const end = () => {
    stage.push(held.join(""));
    stage.end();
    held = [];
  };
  return { push: (token) => held.push(token), end };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#byte-fallback
/** The byte that a token such as `<0x0A>` stands for; undefined for other tokens. */
export function byteOfName(name: string): number | undefined {
  const [, digits] = name.length === 6 ? (/^<0x([\da-f]{2}|\+[\da-f])>$/i.exec(name) ?? []) : [];
  return digits === undefined ? undefined : Number.parseInt(digits, 16);
}

/** `ByteFallback`: rows of bytes become text; in a row that is not UTF-8 each byte becomes U+FFFD. So a row is held until it ends. */
export function byteFallback(emit: (token: string) => void): DecoderStage {
  let row: number[] = [];
  const end = () => {
    if (row.length === 0) return;
    const bytes = Uint8Array.from(row);
    row = [];
    if (invalidUtf8(bytes) < 0) emit(textOfBytes(bytes));
    else for (const _ of bytes) emit("\ufffd");
  };
  const push = (token: string) => {
    const byte = byteOfName(token);
    if (byte !== undefined) return row.push(byte);
    end();
    emit(token);
  };
  return { push, end };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#strip-stages
/** How many of a character go from the start and from the end of a token. */
export interface StripStep {
  content: string;
  start: number;
  stop: number;
}

/** A token without them. */
export function stripped(token: string, { content, start, stop }: StripStep): string {
  const characters = [...token];
  let [from, to] = [0, characters.length];
  while (from < Math.min(start, to) && characters[from] === content) from++;
  while (to > from && to > characters.length - stop && characters[to - 1] === content) to--;
  return characters.slice(from, to).join("");
}

/** `Strip` at the start of a text that comes in parts. */
export function stripStart({ content, start }: StripStep, emit: (text: string) => void): DecoderStage {
  let left = start; // so many may still go
  const change = (part: string) => {
    if (left === 0 || part === "") return part;
    const rest = stripped(part, { content, start: left, stop: 0 });
    left = rest === "" ? left - part.length / content.length : 0;
    return rest;
  };
  return eachToken(change, emit);
}

/** `Metaspace`: marks become spaces; those of the first token, which stands for the beginning of the text, go. */
export function metaspaceDecoder(
  { replacement, prepend_scheme }: MetaspaceStep,
  isFused: boolean,
  emit: (token: string) => void,
): DecoderStage {
  let isFirst = prepend_scheme !== "never";
  const change = (token: string) => {
    const text = token.replaceAll(replacement, isFirst ? "" : " ");
    isFirst &&= isFused;
    return text;
  };
  return eachToken(change, emit);
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#decoder-chain
/** The steps of a decoder, as a file has them. */
export type DecoderStep =
  | { type: "Replace"; pattern: FilePattern; content: string }
  | { type: "ByteFallback" }
  | { type: "Fuse" }
  | ({ type: "Strip" } & StripStep)
  | ({ type: "Metaspace" } & MetaspaceStep);

/** A step at work. Behind `Fuse` (`isFused`) what it gets are parts of one token; where it must see all of that, it waits for it. */
export function decoderStage(
  step: DecoderStep,
  isFused: boolean,
  emit: (token: string) => void,
): DecoderStage {
  const whole = (stage: DecoderStage) => (isFused ? heldTogether(stage) : stage);
  if (step.type === "ByteFallback") return whole(byteFallback(emit));
  if (step.type === "Metaspace") return metaspaceDecoder(step, isFused, emit);
  if (step.type === "Strip" && isFused && step.stop === 0) return stripStart(step, emit);
  if (step.type === "Strip") return whole(eachToken((token) => stripped(token, step), emit));
  if (step.type === "Fuse") return eachToken((token) => token, emit);
  const stage = eachToken(replacer(step.pattern, step.content), emit);
  const isCharacter = "String" in step.pattern && [...step.pattern.String].length === 1;
  return isCharacter ? stage : whole(stage);
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#decoder-chain-2
/** All steps one after the other. Without a decoder there is a space between any two tokens. */
export function decoderChain(steps: DecoderStep[] | undefined, emit: (text: string) => void): DecoderStage {
  if (!steps) {
    let space = "";
    const spaced = (token: string) => {
      const text = space + token;
      space = " ";
      return text;
    };
    return eachToken(spaced, emit);
  }
  const fuse = steps.findIndex(({ type }) => type === "Fuse");
  return steps.reduceRight<DecoderStage>(
    (next, step, i) => {
      const stage = decoderStage(step, fuse >= 0 && i > fuse, (token) => next.push(token));
      const end = () => {
        stage.end();
        next.end();
      };
      return { push: stage.push, end };
    },
    { push: emit, end: () => {} },
  );
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#text-decoder
/** A decoder of ids one at a time. */
export function textDecoder(
  names: readonly (string | undefined)[],
  steps: DecoderStep[] | undefined,
): StreamDecoder {
  let text = "";
  const chain = decoderChain(steps, (part) => {
    text += part;
  });
  const take = () => {
    const taken = text;
    text = "";
    return taken;
  };
  const push = (id: number) => {
    const name = names[id];
    if (name === undefined) throw unknownId(id, names.length);
    chain.push(name);
    return take();
  };
  const end = () => {
    chain.end();
    return take();
  };
  return { push, end };
}

/** The text of a list of tokens. */
export function decodedText(
  ids: ArrayLike<number>,
  names: readonly (string | undefined)[],
  steps: DecoderStep[] | undefined,
): string {
  const decoder = textDecoder(names, steps);
  const parts: string[] = [];
  for (let i = 0; i < ids.length; i++) parts.push(decoder.push(ids[i]));
  return parts.join("") + decoder.end();
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#inner-bytes
/** The bytes of one token where another stands before it. */
export function innerBytes(name: string, steps: DecoderStep[] | undefined): Uint8Array {
  const byte = steps?.some(({ type }) => type === "ByteFallback") ? byteOfName(name) : undefined;
  if (byte !== undefined) return Uint8Array.of(byte);
  const before = decodedText([0], ["a"], steps ?? []);
  return new TextEncoder().encode(decodedText([0, 1], ["a", name], steps ?? []).slice(before.length));
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#text-tokenizer
/** The parts of a tokenizer of pairs whose tokens are text. */
export interface TextParts extends Omit<EncoderParts, "encodePiece" | "idOfByte"> {
  /** The tokens by their ids, added ones included. */
  names: (string | undefined)[];
  spelling: Spelling;
  merges: Merges;
  /** What stands before a word mark inside of some token; left out where a piece must be merged as a whole. */
  crossed?: ReadonlySet<number>;
  /** The id of a piece that is a token and stays whole (`ignore_merges`), -1 for none. */
  wholeId?: (piece: string) => number;
  decoder?: DecoderStep[];
  toJson: () => object;
}

/** The encoder of its pieces. */
export function textEncoder({ spelling, merges, crossed, wholeId }: TextParts): PieceEncoder {
  const encodeWord = rememberingEncoder((piece) => mergeIds(spellPiece(piece, spelling), merges));
  const encodePiece = crossed ? wordEncoder(encodeWord, crossed) : encodeWord;
  if (!wholeId) return encodePiece;
  return (text, from, to, ids) => {
    const id = wholeId(text.slice(from, to));
    if (id < 0) encodePiece(text, from, to, ids);
    else ids.push(id);
  };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#assemble-text
/** A tokenizer from its parts. */
export function textTokenizer(parts: TextParts): Tokenizer {
  const { names, spelling, added, decoder, toJson } = parts;
  const idOfByte = (byte: number) => {
    const fallback = spelling.bytes?.[byte] ?? -1;
    const id = fallback < 0 ? spelling.unknown : fallback;
    if (id !== undefined) return id;
    throw new Error(
      `The byte 0x${byte.toString(16).padStart(2, "0")} belongs to no character, and the tokenizer has no token for it.`,
    );
  };
  const encodeRuns = runEncoder({ ...parts, encodePiece: textEncoder(parts), idOfByte });
  const special = added.filter((token) => token.special);
  return {
    vocabSize: names.length,
    specials: Object.fromEntries(special.map(({ content, id }) => [content, id])),
    encode: (text, options) => encodeRuns([{ text: wellFormedText(text) }], options),
    encodeBytes: (bytes) => encodeRuns(utf8Runs(bytes)),
    decode: (ids) => new TextEncoder().encode(decodedText(ids, names, decoder)),
    openDecoder: () => textDecoder(names, decoder),
    tokenBytes: (id) => (names[id] === undefined ? undefined : innerBytes(names[id], decoder)),
    toJson,
  };
}
