// Extracted from chapters/01-tokenizer/1-bytes-and-pairs.ipynb: edit it there, or here and run `npm run backport`.

//| 01-tokenizer/1-bytes-and-pairs.ipynb#tokenizer-interface
/** How to encode. */
export interface EncodeOptions {
  /** The names of the special tokens that are found in the text, "all" of them, or (as usual) none: they stay text. */
  allowed?: "all" | readonly string[];
  /** A character that is taken out once special tokens were found: put into a name, it keeps that one text. */
  mark?: string;
  /** The text goes on from one that was encoded before: what a tokenizer puts before a text's first word is left out. */
  continues?: boolean;
}

/** Text that arrives token by token. */
export interface StreamDecoder {
  /** The text that this id completes: "" while a character is still missing bytes. */
  push(id: number): string;
  /** What is left at the end: an unfinished character becomes U+FFFD. */
  end(): string;
}

/**
 * What every tokenizer can do: text in, numbers out, and back again without the loss of a byte, unless its own file says that
 * text is changed.
 */
export interface Tokenizer {
  /** How many ids there are; an id is a whole number from 0 to vocabSize - 1. */
  readonly vocabSize: number;
  /** Tokens that stand for no text, by name (such as `<|endoftext|>`). `encode` makes one only where it is allowed. */
  readonly specials: { readonly [name: string]: number };
  /** The ids of a text. Throws, naming the character, if the text has one that cannot be encoded. */
  encode(text: string, options?: EncodeOptions): Uint32Array;
  /** The ids of any bytes. A tokenizer of characters throws when they are not UTF-8. */
  encodeBytes(bytes: Uint8Array): Uint32Array;
  /** The bytes of a list of ids. Throws, naming the id, if one is outside the vocabulary. */
  decode(ids: ArrayLike<number>): Uint8Array;
  /** The whole tokenizer as the content of a Hugging Face `tokenizer.json`. */
  toJson(): object;
  /** Decodes ids one at a time, where the text of a token depends on those before it. */
  openDecoder?(): StreamDecoder;
  /** The bytes of one token inside a text, where `decode` of it alone gives others; undefined for an id without a token. */
  tokenBytes?(id: number): Uint8Array | undefined;
  /** The ids that its models expect before and after a text, where its file names some. */
  readonly around?: { readonly before: readonly number[]; readonly after: readonly number[] };
  /** What a user of its file should know, a sentence each: settings in it that are not applied. */
  readonly notes?: readonly string[];
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#character-name
/** A character as an error message shows it: `"é" (U+00E9)`. */
export function characterName(character: string): string {
  const hex = character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0");
  return `${JSON.stringify(character)} (U+${hex})`;
}

/** The error for an id that no token has. */
export function unknownId(id: number, vocabSize: number): Error {
  return new Error(`Token id ${id} is outside the vocabulary: ids run from 0 to ${vocabSize - 1}.`);
}

/** The error for a special token that a caller allows and that does not exist. */
export function unknownSpecial(name: string, known: string[]): Error {
  const others = known.length > 0 ? `it has ${known.slice(0, 9).join(", ")}` : "it has none";
  return new Error(`The tokenizer has no special token ${JSON.stringify(name)}: ${others}.`);
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#encode-characters
/** The id of each character (Unicode code point) of a text. Throws, naming the first character without one. */
export function encodeCharacters(text: string, ids: Map<string, number>): Uint32Array {
  const result = new Uint32Array(text.length);
  let count = 0;
  for (const character of text) {
    const id = ids.get(character);
    if (id === undefined) {
      const where = `character ${count + 1} of the text`;
      throw new Error(
        `${characterName(character)}, ${where}, is not among the tokenizer's ${ids.size} characters.`,
      );
    }
    result[count++] = id;
  }
  return result.slice(0, count);
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#join-tokens
/** The bytes of the tokens one after another. Throws, naming the id, if one is outside the vocabulary. */
export function joinTokens(ids: ArrayLike<number>, tokens: (Uint8Array | undefined)[]): Uint8Array {
  let length = 0;
  for (let i = 0; i < ids.length; i++) {
    const token = tokens[ids[i]];
    if (token === undefined) throw unknownId(ids[i], tokens.length);
    length += token.length;
  }
  const bytes = new Uint8Array(length);
  for (let i = 0, at = 0; i < ids.length; at += tokens[ids[i++]]!.length) bytes.set(tokens[ids[i]]!, at);
  return bytes;
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#utf8-length
/** Length in bytes of the UTF-8 character that starts at `at`, 0 if none does (RFC 3629, section 4). */
export function utf8Length(bytes: Uint8Array, at: number): number {
  const first = bytes[at];
  if (first < 0x80) return 1;
  const length =
    first >= 0xc2 && first < 0xe0
      ? 2
      : first >= 0xe0 && first < 0xf0
        ? 3
        : first >= 0xf0 && first < 0xf5
          ? 4
          : 0;
  if (length === 0 || at + length > bytes.length) return 0;
  const second = bytes[at + 1];
  if (first === 0xe0 && second < 0xa0) return 0; // a shorter form exists
  if (first === 0xed && second > 0x9f) return 0; // a surrogate: half of a UTF-16 pair
  if (first === 0xf0 && second < 0x90) return 0; // a shorter form exists
  if (first === 0xf4 && second > 0x8f) return 0; // beyond U+10FFFF
  for (let i = at + 1; i < at + length; i++) if ((bytes[i] & 0xc0) !== 0x80) return 0;
  return length;
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#invalid-utf8-parts
/** Offset of the first byte that is not part of a UTF-8 character, or -1 if all bytes are. */
export function invalidUtf8(bytes: Uint8Array): number {
  let at = 0;
  while (at < bytes.length) {
    const length = utf8Length(bytes, at);
    if (length === 0) return at;
    at += length;
  }
  return -1;
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#invalid-utf8
/** UTF-8 bytes as text, a leading byte-order mark included. Throws, naming the offset, if they are not UTF-8. */
export function textOfBytes(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    const at = invalidUtf8(bytes);
    throw new Error(
      `Not UTF-8 text: byte 0x${bytes[at].toString(16)} at offset ${at} does not belong to a character.`,
    );
  }
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#bpe-model-json
/** The `model` part of a `tokenizer.json`: strings to ids, and merges as `"left right"` in their order. */
export function bpeModelJson(vocab: { [token: string]: number }, merges: string[]): object {
  return {
    type: "BPE",
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    vocab,
    merges,
  };
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#alphabet-json
/**
 * A character tokenizer as a Hugging Face `tokenizer.json`: their BPE model with no merges leaves single
 * characters, and the `Fuse` decoder joins them without spaces.
 */
export function alphabetJson(alphabet: string[]): object {
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: "Split", pattern: { Regex: "[\\s\\S]" }, behavior: "Isolated", invert: false },
    post_processor: null,
    decoder: { type: "Fuse" },
    model: bpeModelJson(Object.fromEntries(alphabet.map((character, id) => [character, id])), []),
  };
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#alphabet-tokenizer
/** A tokenizer with one token a character: the id of a character is its place in `alphabet`. */
export function alphabetTokenizer(alphabet: string[]): Tokenizer {
  const ids = new Map(alphabet.map((character, id) => [character, id]));
  const bytes = alphabet.map((character) => new TextEncoder().encode(character));
  const encode = (text: string, { allowed = [] }: EncodeOptions = {}) => {
    if (allowed !== "all" && allowed.length > 0) throw unknownSpecial(allowed[0], []);
    return encodeCharacters(text, ids);
  };
  return {
    vocabSize: alphabet.length,
    specials: {},
    encode,
    encodeBytes: (input) => encode(textOfBytes(input)),
    decode: (input) => joinTokens(input, bytes),
    toJson: () => alphabetJson(alphabet),
  };
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#character-tokenizer
/**
 * A tokenizer for the distinct characters of a text (or of several), in the order of their code points.
 * For tinyshakespeare that is the usual vocabulary of 65.
 */
export function characterTokenizer(text: Iterable<string>): Tokenizer {
  const alphabet = new Set<string>();
  for (const part of text) for (const character of part) alphabet.add(character);
  if (alphabet.size === 0) throw new Error("A character tokenizer needs a text with at least one character.");
  const lone = [...alphabet].find((character) => /\p{Surrogate}/u.test(character));
  if (lone !== undefined) throw new Error(`The text has half a character in it: ${characterName(lone)}.`);
  return alphabetTokenizer([...alphabet].sort((a, b) => a.codePointAt(0)! - b.codePointAt(0)!));
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#stream-decoder
/**
 * Decodes ids one at a time and never lets half a character out. Bytes that are not UTF-8 become U+FFFD. The text goes on from
 * that of the ids `before`, which is not given again; special tokens among them stand for no text.
 */
export function streamDecoder(tokenizer: Tokenizer, before: ArrayLike<number> = []): StreamDecoder {
  const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  const decoder = tokenizer.openDecoder?.() ?? {
    push: (id: number) => utf8.decode(tokenizer.decode([id]), { stream: true }),
    end: () => utf8.decode(),
  };
  const specials = new Set(Object.values(tokenizer.specials));
  for (let i = 0; i < before.length; i++) if (!specials.has(before[i])) decoder.push(before[i]);
  decoder.end();
  return decoder;
}
