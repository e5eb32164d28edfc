// Extracted from chapters/01-tokenizer/4-tokenizers-of-the-world.ipynb: edit it there, or here and run `npm run backport`.
import { z } from "zod";
import { END_OF_TEXT, MAX_VOCAB, bpeJson, byteCharacters, visibleBytes } from "./bpe.js";
import { type Tokenizer, alphabetTokenizer, bpeModelJson } from "./characters.js";
import {
  type AddedToken,
  type Merges,
  PairMap,
  type TokenRow,
  TokenTable,
  type Vocabulary,
  byteLevelTokenizer,
  tokensInARow,
} from "./merges.js";
import {
  PATTERNS,
  type PatternName,
  type Splitter,
  type TextPlace,
  patternMatcher,
  patternSplitter,
} from "./pretokenize.js";
import {
  type DecoderStep,
  type FilePattern,
  type MetaspaceStep,
  type Spelling,
  WORD_MARK,
  metaspaceSplitter,
  regexOf,
  replacer,
  textTokenizer,
  unitsBeforeMarks,
} from "./sentencepiece.js";

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#read-tiktoken
/** The tokens of a `.tiktoken` file by their ids. Throws, naming the line, where it is none. */
export function readTiktoken(file: Uint8Array): Uint8Array[] {
  const tokens: Uint8Array[] = [];
  const lines = new TextDecoder().decode(file).split(/\r?\n/);
  const form = /^((?:[A-Za-z\d+/]{4})*(?:[A-Za-z\d+/]{2}==|[A-Za-z\d+/]{3}=)?) (\d+)$/; // base64 comes in fours
  lines.forEach((line, i) => {
    if (line === "") return;
    const [, base64, digits] = form.exec(line) ?? [];
    const id = Number(digits);
    if (!base64 || tokens[id] || !(id <= lines.length))
      throw new Error(
        `Line ${i + 1} of the .tiktoken file is not a token in base64 and a new id: ${JSON.stringify(line.slice(0, 40))}.`,
      );
    const bytes = atob(base64);
    tokens[id] = new Uint8Array(bytes.length);
    for (let at = 0; at < bytes.length; at++) tokens[id][at] = bytes.charCodeAt(at);
  });
  return tokens;
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#tiktoken-vocabulary
/** The two parts of each token, in all ways in which both are tokens, as `onParts(left, right, joined)`; ids in order. */
export function tokenParts(
  tokens: (Uint8Array | undefined)[],
  table: TokenTable,
  onParts: (left: number, right: number, joined: number) => void,
): void {
  tokens.forEach((token, joined) => {
    for (let cut = 1; token && cut < token.length; cut++) {
      const left = table.find(token, 0, cut);
      const right = left < 0 ? left : table.find(token, cut, token.length);
      if (right >= 0) onParts(left, right, joined);
    }
  });
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#list-vocabulary
/** The vocabulary of a list of tokens: of the pairs that together are a token, the one of the smallest id merges first. */
export function listVocabulary(tokens: Uint8Array[]): Vocabulary {
  const ranks = new PairMap(2 * tokens.length);
  const whole = new TokenTable(tokensInARow(tokens));
  tokenParts(tokens, whole, (left, right, joined) => ranks.set(left, right, joined));
  const made = Int32Array.from(tokens, (_, id) => id); // the rank of a merge is the id that it makes
  return { tokens, byteIds: byteIdsOf(tokens), ranks, made, whole };
}

/** The ids of the 256 bytes. Throws, naming the first byte without one. */
export function byteIdsOf(tokens: (Uint8Array | undefined)[]): number[] {
  const ids: number[] = [];
  tokens.forEach((token, id) => {
    if (token?.length === 1) ids[token[0]] ??= id;
  });
  for (let byte = 0; byte < 256; byte++)
    if (ids[byte] === undefined)
      throw new Error(
        `The vocabulary has no token for the byte 0x${byte.toString(16).padStart(2, "0")}: ` +
          "a byte-level vocabulary needs all 256, and so has at least 256 tokens.",
      );
  return ids;
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#tiktoken-specials
/** The special tokens of published vocabularies, by pattern and the number of ids in the list; `<|endoftext|>` first. */
export const TIKTOKEN_SPECIALS: {
  [name: string]: { pattern: PatternName; size: number; ids: { [name: string]: number } };
} = {
  r50k: { pattern: "gpt2", size: 50256, ids: { "<|endoftext|>": 50256 } },
  p50k: { pattern: "gpt2", size: 50281, ids: { "<|endoftext|>": 50256 } }, // in a place that its list leaves free
  p50k_edit: {
    pattern: "p50k_edit",
    size: 50281,
    ids: {
      "<|endoftext|>": 50256,
      "<|fim_prefix|>": 50281,
      "<|fim_middle|>": 50282,
      "<|fim_suffix|>": 50283,
    },
  },
  cl100k: {
    pattern: "cl100k",
    size: 100256,
    ids: {
      "<|endoftext|>": 100257,
      "<|fim_prefix|>": 100258,
      "<|fim_middle|>": 100259,
      "<|fim_suffix|>": 100260,
      "<|endofprompt|>": 100276,
    },
  },
  o200k: {
    pattern: "o200k",
    size: 199998,
    ids: {
      "<|endoftext|>": 199999,
      "<|startoftext|>": 199998,
      "<|return|>": 200002,
      "<|constrain|>": 200003,
      "<|channel|>": 200005,
      "<|start|>": 200006,
      "<|end|>": 200007,
      "<|message|>": 200008,
      "<|call|>": 200012,
      "<|endofprompt|>": 200018,
    },
  },
  qwen2: {
    pattern: "qwen2",
    size: 151643,
    ids: { "<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645 },
  },
  llama3: {
    pattern: "llama3",
    size: 128000,
    ids: {
      "<|begin_of_text|>": 128000,
      "<|end_of_text|>": 128001,
      "<|start_header_id|>": 128006,
      "<|end_header_id|>": 128007,
      "<|eot_id|>": 128009,
    },
  },
};

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#specials-of-size
/**
 * The special tokens of a list of tokens: those of the published vocabulary, if it is one, else `<|endoftext|>` at the end.
 * Throws where the list is a published one that goes with another pattern, or leaves places free that no special token takes.
 */
export function tiktokenSpecials(pattern: PatternName, tokens: (Uint8Array | undefined)[]): AddedToken[] {
  const published = Object.values(TIKTOKEN_SPECIALS).filter(({ size }) => size === tokens.length);
  const fitting = published.find((encoding) => encoding.pattern === pattern);
  if (!fitting && published.length > 0)
    throw new Error(
      `A list of ${tokens.length} tokens goes with the pattern ${published[0].pattern}, not ${pattern}.`,
    );
  const ids = fitting?.ids ?? { [END_OF_TEXT]: tokens.length };
  const free = tokens.findIndex((token, id) => !token && !Object.values(ids).includes(id));
  if (free >= 0) throw new Error(`The .tiktoken file has no token of the id ${free}: it is damaged.`);
  return Object.entries(ids).map(([content, id]) => ({ id, content, special: true }));
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#list-json
/** A list of tokens as a `tokenizer.json`: all the ways to cut a token in two are its merges. */
export function listJson(
  tokens: (Uint8Array | undefined)[],
  pattern: PatternName,
  added: AddedToken[],
): object {
  const characters = byteCharacters();
  const names = tokens.map((token) => token && visibleBytes(token, characters));
  const merges: [number, number, number][] = [];
  const table = new TokenTable(tokensInARow(tokens));
  tokenParts(tokens, table, (left, right, joined) => merges.push([joined, left, right]));
  merges.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]);
  const ids = names.flatMap((name, id): [string, number][] => (name === undefined ? [] : [[name, id]]));
  // The special tokens are listed too: their places may leave holes, which Hugging Face's library would close.
  const vocab = Object.fromEntries([
    ...ids,
    ...added.map(({ content, id }): [string, number] => [content, id]),
  ]);
  const file = bpeJson([]) as { pre_tokenizer: { pretokenizers: object[] } };
  const [split, byteLevel] = file.pre_tokenizer.pretokenizers;
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  return {
    ...file,
    added_tokens: added.map((token) => ({ ...token, ...flags })),
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [{ ...split, pattern: { Regex: PATTERNS[pattern] } }, byteLevel],
    },
    model: {
      ...bpeModelJson(
        vocab,
        merges.map(([, left, right]) => `${names[left]} ${names[right]}`),
      ),
      ignore_merges: true,
    },
  };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#load-tiktoken
/** A tokenizer from the content of a `.tiktoken` file and the name of the pattern by which it cuts text. */
export function loadTiktoken(file: Uint8Array, pattern: PatternName): Tokenizer {
  const vocabulary = listVocabulary(readTiktoken(file));
  const added = tiktokenSpecials(pattern, vocabulary.tokens);
  const toJson = () => listJson(vocabulary.tokens, pattern, added);
  return byteLevelTokenizer({ vocabulary, splitter: patternSplitter(PATTERNS[pattern]), added, toJson });
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#tokenizer-file
/** Whether something can be the id of a token. */
export const TOKEN_ID = z
  .int()
  .min(0)
  .max(MAX_VOCAB - 1);
export const FLAG = z.boolean();
export const SETTING = z.boolean().nullish();

/** `ByteLevel` in any part of the file. */
export const BYTE_LEVEL = z.strictObject({
  type: z.string(),
  add_prefix_space: FLAG,
  trim_offsets: FLAG,
  use_regex: FLAG.default(true),
});

/** A template of the text with ids before and after it. The form for pairs of texts is not used here. */
export const TEMPLATE = z.strictObject({
  type: z.string(),
  single: z.array(
    z.strictObject({
      SpecialToken: z.strictObject({ id: z.string(), type_id: z.int() }).optional(),
      Sequence: z.strictObject({ id: z.literal("A"), type_id: z.int() }).optional(),
    }),
  ),
  pair: z.array(z.unknown()),
  special_tokens: z.record(
    z.string(),
    z.strictObject({ id: z.string(), ids: z.array(TOKEN_ID), tokens: z.array(z.string()) }),
  ),
});

/** A pattern: a regular expression, or a text as it stands. */
export const PATTERN = z.union([
  z.strictObject({ Regex: z.string() }),
  z.strictObject({ String: z.string() }),
]);

/** `Split`: a pattern, and what becomes of its matches. */
export const SPLIT = z.strictObject({
  type: z.string(),
  pattern: PATTERN,
  behavior: z.enum(["Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"]),
  invert: FLAG,
});

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#sentencepiece-forms
/** A text of one character. */
export const CHARACTER = z.string().refine((text) => [...text].length === 1, "one character is expected");

/** `Replace`: what is put in the place of every match. */
export const REPLACE = z.strictObject({ type: z.string(), pattern: PATTERN, content: z.string() });

/** `Metaspace`. Of the two settings that say whether a mark comes first, older files have `add_prefix_space` alone. */
export const METASPACE = z
  .strictObject({
    type: z.string(),
    replacement: CHARACTER,
    add_prefix_space: SETTING,
    prepend_scheme: z.enum(["always", "first", "never"]).default("always"),
    split: SETTING.transform((split) => split ?? true),
    str_rep: z.string().optional(),
  })
  .refine(
    ({ add_prefix_space, prepend_scheme }) => add_prefix_space !== false || prepend_scheme === "never",
    "add_prefix_space and prepend_scheme contradict each other",
  );

/** `Strip`: how many of a character go from the start and from the end. */
export const STRIP = z.strictObject({
  type: z.string(),
  content: CHARACTER,
  start: z.int().min(0),
  stop: z.int().min(0),
});

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#tokenizer-file-parts
/** The parts of a file that are made of steps: under which name a sequence lists them, and the form of each step that we run. */
export const STEP_FORMS = {
  normalizer: [
    "normalizers",
    {
      NFC: 0,
      NFD: 0,
      NFKC: 0,
      NFKD: 0,
      Prepend: z.strictObject({ type: z.string(), prepend: z.string() }),
      Replace: REPLACE,
    },
  ],
  pre_tokenizer: [
    "pretokenizers",
    {
      ByteLevel: BYTE_LEVEL,
      Split: SPLIT,
      Digits: z.strictObject({ type: z.string(), individual_digits: FLAG }),
      Metaspace: METASPACE,
    },
  ],
  post_processor: ["processors", { ByteLevel: BYTE_LEVEL, TemplateProcessing: TEMPLATE }],
  decoder: [
    "decoders",
    {
      ByteLevel: BYTE_LEVEL,
      Fuse: 0,
      ByteFallback: 0,
      Replace: REPLACE,
      Strip: STRIP,
      Metaspace: METASPACE,
    },
  ],
} as const;

/** A token of the list `added_tokens`. */
export const ADDED_TOKEN = z.strictObject({
  id: TOKEN_ID,
  content: z.string(),
  single_word: FLAG,
  lstrip: FLAG,
  rstrip: FLAG,
  normalized: FLAG,
  special: FLAG,
});

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#tokenizer-file-parts-2
/** The model; its type, which the oldest files lack, is looked at first. */
export const BPE_MODEL = z.strictObject({
  type: z.string().optional(),
  dropout: z.number().min(0).max(1).nullish(),
  unk_token: z.string().nullish(),
  continuing_subword_prefix: z.string().nullish(),
  end_of_word_suffix: z.string().nullish(),
  fuse_unk: SETTING,
  byte_fallback: SETTING,
  ignore_merges: SETTING,
  vocab: z.unknown().optional(),
  merges: z.unknown().optional(),
});

/** A `tokenizer.json`. */
export const TOKENIZER_FILE = z.strictObject({
  version: z.literal("1.0").optional(),
  truncation: z
    .looseObject({ max_length: z.int().min(0), strategy: z.string(), stride: z.int().min(0) })
    .nullish(),
  padding: z
    .looseObject({ strategy: z.union([z.string(), z.object({ Fixed: z.int().min(0) })]), pad_id: TOKEN_ID })
    .nullish(),
  added_tokens: z.array(ADDED_TOKEN).default([]),
  normalizer: z.unknown().optional(),
  pre_tokenizer: z.unknown().optional(),
  post_processor: z.unknown().optional(),
  decoder: z.unknown().optional(),
  model: z.unknown().optional(),
});

/** The content of a file, its steps and its model still as they stand there. */
export type TokenizerFile = z.infer<typeof TOKENIZER_FILE>;

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#checked-part
/** A value as an error shows it: no more than its beginning. */
export function shownValue(value: unknown): string {
  const text = JSON.stringify(value) ?? "none";
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

/** The error for a step that we do not run. */
export function unknownStep(part: string, what: string): Error {
  return new Error(
    `Its ${part} ${what.length > 100 ? `${what.slice(0, 100)}…` : what}, which tslm does not run; loading it without would give wrong ids.`,
  );
}

/** A part of a file, once its form is checked. Throws one sentence that names what is missing, unknown or of the wrong kind. */
export function checkedPart<T>(part: string, form: z.ZodType<T>, value: unknown): T {
  const { data, error } = form.safeParse(value);
  if (!error) return data;
  const { path, message } = error.issues[0];
  const where = ["", part, ...path].join(".").replace(/^\.+/, "").slice(0, 100);
  throw new Error(
    `${where === "" ? "The file" : `Its ${where}`} is damaged, or newer than tslm: ${message.slice(0, 150)}.`,
  );
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#split-steps
/** A step of a part, checked. */
export type StepPart = keyof typeof STEP_FORMS;
export type FileStep = { type: string; [setting: string]: unknown };

/** The steps of a part: of a sequence, a single one, or none. Throws for a step that we do not run, or that is damaged. */
export function fileSteps(part: StepPart, step: unknown, depth = 0): FileStep[] {
  if (step === null || step === undefined) return [];
  const [list, forms] = STEP_FORMS[part];
  const { type } = checkedPart(part, z.looseObject({ type: z.string() }), step);
  if (type === "Sequence") {
    const sequence = z.strictObject({ type: z.string(), [list]: z.array(z.unknown()) });
    const inner = checkedPart(part, sequence, step)[list] as unknown[];
    if (depth > 10) throw unknownStep(part, "has sequences within sequences within sequences");
    const steps = inner.flatMap((step) => fileSteps(part, step ?? {}, depth + 1));
    if (steps.length > 100) throw unknownStep(part, "has more than a hundred steps");
    return steps;
  }
  const form = Object.hasOwn(forms, type) ? (forms as { [type: string]: z.ZodType | 0 })[type] : undefined;
  if (form === undefined) throw unknownStep(part, `has a step of type ${type}`);
  return [checkedPart(part, form || z.strictObject({ type: z.string() }), step) as FileStep];
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#behaviors
/** A stretch of a text, and whether it is a match. */
export interface MatchStretch {
  from: number;
  to: number;
  isMatch: boolean;
}

/** What becomes of the matches: pieces of their own, nothing, or parts of what stands beside them. */
export function splitStretches(stretches: MatchStretch[], behavior: string): MatchStretch[] {
  if (behavior === "Isolated") return stretches;
  if (behavior === "Removed") return stretches.filter(({ isMatch }) => !isMatch);
  const joins = (match: boolean, before: boolean) =>
    behavior === "Contiguous" ? match === before : match && !before;
  const backwards = behavior === "MergedWithNext";
  const pieces: MatchStretch[] = [];
  let before = false;
  for (const stretch of backwards ? [...stretches].reverse() : stretches) {
    const last = pieces.at(-1);
    if (!last || !joins(stretch.isMatch, before)) pieces.push({ ...stretch });
    else if (backwards) last.from = stretch.from;
    else last.to = stretch.to;
    before = stretch.isMatch;
  }
  return backwards ? pieces.reverse() : pieces;
}

/** The splitter of a pattern with a behavior. */
export function behaviorSplitter(pattern: string, behavior: string, invert: boolean): Splitter {
  if (behavior === "Isolated") return patternSplitter(pattern);
  const matcher = patternMatcher(pattern);
  return (text, visit) => {
    const stretches: MatchStretch[] = [];
    matcher(text, (from, to, isMatch) => stretches.push({ from, to, isMatch: isMatch !== invert }));
    for (const { from, to } of splitStretches(stretches, behavior)) if (to > from) visit(text, from, to);
  };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#step-splitter
/** The splitter of one step of a pre-tokenizer; nothing where it does not cut. */
export function stepSplitter(step: FileStep): Splitter | undefined {
  if (step.type === "Digits") return patternSplitter(step.individual_digits ? "\\p{N}" : "\\p{N}+");
  if (step.type === "ByteLevel") {
    if (step.add_prefix_space)
      throw unknownStep("pre_tokenizer", "puts a space before the text (add_prefix_space)");
    return step.use_regex ? patternSplitter(PATTERNS.gpt2) : undefined;
  }
  if (step.type === "Metaspace") return metaspaceSplitter(step as unknown as MetaspaceStep);
  const { pattern, behavior, invert } = step as z.infer<typeof SPLIT>;
  return behaviorSplitter(regexOf(pattern as FilePattern), behavior, invert);
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#file-splitter
/** The splitter of a pre-tokenizer: each step cuts the pieces of the one before. */
export function fileSplitter(preTokenizer: unknown): {
  splitter: Splitter;
  bytesOf?: (piece: string) => Uint8Array;
} {
  const steps = fileSteps("pre_tokenizer", preTokenizer);
  const lastBytes = steps.map(({ type }) => type).lastIndexOf("ByteLevel");
  const characters = byteCharacters();
  const encoder = new TextEncoder();
  const spell: Splitter = (text, visit) => {
    const spelled = visibleBytes(encoder.encode(text), characters);
    visit(spelled, 0, spelled.length);
  };
  const splitters = steps.flatMap((step, i) => {
    const splitter = stepSplitter(step);
    const isSpelled = step.type === "ByteLevel" && i < steps.length - 1;
    return [...(splitter ? [splitter] : []), ...(isSpelled ? [spell] : [])];
  });
  const whole: Splitter = (text, visit) => visit(text, 0, text.length);
  const splitter = splitters.reduceRight(
    (rest, first) => (text, visit, place) =>
      first(
        text,
        (from, start, end) => rest(from.slice(start, end), visit, start === 0 ? place : "inside"),
        place,
      ),
    whole,
  );
  if (lastBytes < 0 || lastBytes === steps.length - 1) return { splitter };
  const bytes = new Map(characters.map((character, byte) => [character, byte]));
  return { splitter, bytesOf: (piece) => Uint8Array.from(piece, (character) => bytes.get(character)!) };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#file-vocabulary
/** Settings of a BPE model that change ids and that we do not run, unless they are off. */
export const UNKNOWN_MODEL_SETTINGS = ["dropout", "continuing_subword_prefix", "end_of_word_suffix"] as const;

/** What a model says. */
export interface FileModel {
  names: string[];
  /** The ids of the names, as they stand in the file. */
  vocab: { readonly [name: string]: unknown };
  /** Two names each, in older files as one text. */
  merges: unknown[];
  /** Whether a piece that is a token stays whole. */
  wholePieces: boolean;
  /** Whether the bytes of a character without a token take its place. */
  bytesInstead: boolean;
  /** The token for what has none, and whether several in a row become one. */
  unknown?: string;
  fusesUnknown: boolean;
}

/** The ids of the tokens `<0x00>` to `<0xFF>`, -1 for those that are missing. */
export function idsOfBytes(model: FileModel): Int32Array {
  const hex = (byte: number) => byte.toString(16).toUpperCase().padStart(2, "0");
  return Int32Array.from({ length: 256 }, (_, byte) => idOfName(model, `<0x${hex(byte)}>`) ?? -1);
}

/** The id of a name; none for a name that the model has not. */
export function idOfName({ vocab }: FileModel, name: string): number | undefined {
  const id = vocab[name];
  return typeof id === "number" ? id : undefined; // what an object inherits is no number
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#file-model
/** The model of a file. Throws, naming it, for a type or a setting that we do not run. */
export function fileModel({ model }: TokenizerFile): FileModel {
  const { type = "BPE" } = checkedPart("model", z.looseObject({ type: z.string().optional() }), model);
  if (type !== "BPE") throw unknownStep("model", `is of type ${type}`);
  const bpe = checkedPart("model", BPE_MODEL, model);
  const setting = UNKNOWN_MODEL_SETTINGS.find((name) => bpe[name]);
  if (setting) throw unknownStep("model", `uses ${setting}`);
  if (typeof bpe.vocab !== "object" || bpe.vocab === null || !Array.isArray(bpe.merges))
    throw new Error("Its model lacks vocab or merges: the file is damaged.");
  return {
    names: Object.keys(bpe.vocab),
    vocab: bpe.vocab as FileModel["vocab"],
    merges: bpe.merges,
    wholePieces: bpe.ignore_merges === true,
    bytesInstead: bpe.byte_fallback === true,
    unknown: bpe.unk_token ?? undefined,
    fusesUnknown: bpe.fuse_unk === true,
  };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#bytes-of-name
/** Gives a name its id. Throws where that is none, or is taken. `names` are those seen so far, by their ids. */
export function claimId(name: string, id: unknown, names: string[]): number {
  const isId = typeof id === "number" && Number.isInteger(id) && id >= 0 && id < MAX_VOCAB;
  if (!isId || (names[id] ?? name) !== name)
    throw new Error(`The token ${shownValue(name)} has the id ${shownValue(id)}, which is taken or is none.`);
  names[id] = name;
  return id;
}

/**
 * Spells the bytes that a name (`text` from `from` to `to`) stands for into `bytes` from `at` on, and says where they end; -1: it
 * stands for none. A UTF-16 unit becomes three bytes at most.
 */
export type Spell = (text: string, from: number, to: number, bytes: Uint8Array, at: number) => number;

/** The speller of byte-level names. */
export function byteSpeller(): Spell {
  const byteOf = new Int16Array(512).fill(-1); // by the code of the character
  byteCharacters().forEach((character, byte) => {
    byteOf[character.charCodeAt(0)] = byte;
  });
  return (text, from, to, bytes, start) => {
    let at = start;
    for (let i = from; i < to; i++) {
      const code = text.charCodeAt(i);
      const byte = code < 512 ? byteOf[code] : -1;
      if (byte < 0) return -1;
      bytes[at++] = byte;
    }
    return at;
  };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#named-tokens
/** The tokens of a model by id: their names, and the bytes that these spell; none where a name spells none. */
export interface NamedTokens {
  byId: string[];
  row: TokenRow;
}

/** The tokens of a model. Throws where a name has no id of its own. */
export function namedTokens({ names, vocab }: FileModel, spell: Spell): NamedTokens {
  const byId: string[] = [];
  let units = 0;
  for (const name of names) {
    claimId(name, vocab[name], byId);
    units += name.length;
  }
  const bytes = new Uint8Array(3 * units);
  const ends = new Int32Array(byId.length + 1);
  for (let id = 0; id < byId.length; id++) {
    const name = byId[id] ?? "";
    ends[id + 1] = Math.max(ends[id], spell(name, 0, name.length, bytes, ends[id]));
  }
  return { byId, row: { bytes: bytes.subarray(0, ends[byId.length]), ends } };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#file-merges
/** Where the space stands between the two names of a merge; -1 where it is a list of them. Throws where it is no merge. */
export function spaceInMerge(merge: unknown): number {
  if (typeof merge === "string") {
    const space = merge.indexOf(" ");
    if (space >= 0 && merge.indexOf(" ", space + 1) < 0) return space;
  } else if (Array.isArray(merge) && merge.length === 2)
    if (typeof merge[0] === "string" && typeof merge[1] === "string") return -1;
  throw new Error("Its merges are not pairs of tokens: the file is damaged.");
}

/** The id of a token that a merge needs: its left one, its right one, or what they are together. */
export function idInMerge(
  model: FileModel,
  merge: string | string[],
  which: "left" | "right" | "joined",
): number {
  const [left, right] = typeof merge === "string" ? merge.split(" ") : merge;
  const name = { left, right, joined: left + right }[which];
  const id = idOfName(model, name);
  if (id === undefined) throw new Error(`A merge needs the token ${shownValue(name)}, which has no id.`);
  return id;
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#all-merges
/** What the merges of a model make: the rank of each pair, and by rank the id of what it makes. */
export function fileMerges(model: FileModel, spell: Spell, table: TokenTable): Merges {
  const ranks = new PairMap(model.merges.length);
  const made = new Int32Array(model.merges.length);
  let [bytes, joined, rank] = [new Uint8Array(256), 0, 0];
  // Text takes longer to look up than bytes, and joining it longer still: only a name that spells none needs it.
  const find = (from: number, to: number) => (to < 0 ? -1 : table.find(bytes, from, to));
  for (const merge of model.merges as string[]) {
    if (typeof merge === "string" && merge.startsWith("#version")) continue; // a comment of the oldest files
    const space = spaceInMerge(merge);
    const [left, right] = [space < 0 ? merge[0] : merge, space < 0 ? merge[1] : merge];
    const leftEnd = space < 0 ? left.length : space;
    if (3 * (leftEnd + right.length) > bytes.length) bytes = new Uint8Array(6 * (leftEnd + right.length));
    const middle = spell(left, 0, leftEnd, bytes, 0);
    const end = middle < 0 ? -1 : spell(right, space + 1, right.length, bytes, middle);
    let [leftId, rightId] = [find(0, middle), find(middle, end)];
    if (leftId < 0) leftId = idInMerge(model, merge, "left");
    if (rightId < 0) rightId = idInMerge(model, merge, "right");
    // Most files list merges in the order of what they make: looking at the last token and the next saves a search.
    if (end > 0 && table.has(joined + 1, bytes, 0, end)) joined++;
    else if (end <= 0 || !table.has(joined, bytes, 0, end)) joined = find(0, end);
    if (joined < 0) joined = idInMerge(model, merge, "joined");
    ranks.set(leftId, rightId, rank);
    made[rank++] = joined;
  }
  return { ranks, made };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#vocabulary-of-file
/**
 * The vocabulary of a byte-level file. Throws where it contradicts itself. A name that does not spell bytes stands for its
 * own text, and is found in no text.
 */
export function fileVocabulary(model: FileModel, { byId, row }: NamedTokens, spell: Spell): Vocabulary {
  const table = new TokenTable(row);
  const spelled = Array.from(byId, (_, id) => row.bytes.subarray(row.ends[id], row.ends[id + 1]));
  return {
    tokens: spelled.map((bytes, id) => {
      if (byId[id] === undefined) return undefined;
      return bytes.length > 0 ? bytes : new TextEncoder().encode(byId[id]);
    }),
    byteIds: byteIdsOf(spelled),
    ...fileMerges(model, spell, table),
    whole: model.wholePieces ? table : undefined,
  };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#around-text
/** What one step of a normalizer does to a text. */
export function stepNormalizer(step: FileStep): (text: string, place: TextPlace) => string {
  if (step.type === "Prepend")
    return (text, place) => (text === "" || place === "continued" ? text : step.prepend + text);
  if (step.type !== "Replace") return (text) => text.normalize(step.type);
  const { pattern, content } = step as z.infer<typeof REPLACE>;
  return replacer(pattern as FilePattern, content);
}

/** What a normalizer does to a text. */
export function fileNormalizer(normalizer: unknown): (text: string, place?: TextPlace) => string {
  const steps = fileSteps("normalizer", normalizer).map(stepNormalizer);
  return (text, place = "inside") => steps.reduce((before, change) => change(before, place), text);
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#file-around
/** The ids that a post-processor puts before and after a text. */
export function fileAround(processor: unknown): Tokenizer["around"] {
  let around = { before: [] as number[], after: [] as number[] };
  for (const step of fileSteps("post_processor", processor)) {
    if (step.type === "ByteLevel") continue; // it moves offsets only
    const { single, special_tokens } = step as z.infer<typeof TEMPLATE>;
    const ids = single.map(({ SpecialToken, Sequence }) => {
      if (!SpecialToken) return Sequence ? undefined : [];
      if (Object.hasOwn(special_tokens, SpecialToken.id)) return special_tokens[SpecialToken.id].ids;
      throw new Error(`Its post_processor names ${shownValue(SpecialToken.id)}, of which it gives no ids.`);
    });
    const text = ids.indexOf(undefined);
    if (text < 0 || text !== ids.lastIndexOf(undefined))
      throw unknownStep("post_processor", "does not have the text once in its template");
    around = {
      before: [...ids.slice(0, text).flatMap((own) => own!), ...around.before],
      after: [...around.after, ...ids.slice(text + 1).flatMap((own) => own!)],
    };
  }
  return around.before.length + around.after.length > 0 ? around : undefined;
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#load-alphabet
/** What makes a tokenizer of characters, to be compared; merges and added tokens it has none. */
export function alphabetRules(file: TokenizerFile, { vocab, merges, ...settings }: FileModel): string {
  const steps = (part: StepPart) => fileSteps(part, file[part]);
  return JSON.stringify([
    vocab,
    merges,
    file.added_tokens,
    steps("normalizer"),
    steps("pre_tokenizer"),
    steps("decoder"),
    steps("post_processor"),
    settings,
  ]);
}

/** The same model with its names in the order of their ids: as keys of an object, digits come before all others. */
export function inOrderOfIds(model: FileModel): FileModel {
  const names = [...model.names].sort((a, b) => Number(model.vocab[a]) - Number(model.vocab[b]));
  return { ...model, names, vocab: Object.fromEntries(names.map((name) => [name, model.vocab[name]])) };
}

/** A tokenizer of characters from its file; undefined if the file is of another kind. */
export function loadAlphabet(file: TokenizerFile, model: FileModel): Tokenizer | undefined {
  if (model.merges.length > 0 || file.added_tokens.length > 0) return undefined;
  const ordered = inOrderOfIds(model);
  const tokenizer = alphabetTokenizer(ordered.names);
  const own = checkedPart("", TOKENIZER_FILE, tokenizer.toJson());
  const rules = alphabetRules(own, inOrderOfIds(fileModel(own)));
  return rules === alphabetRules(file, ordered) ? tokenizer : undefined;
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#file-added
/** The added tokens of a file. Throws where one takes the place of another token. One without a content is found nowhere. */
export function fileAdded(
  file: TokenizerFile,
  model: FileModel,
  byId: string[],
  normalize: (text: string) => string,
): AddedToken[] {
  const seen = new Set<string>();
  const added = file.added_tokens.filter(({ content }) => content !== "");
  for (const { id, content, normalized } of added) {
    const own = idOfName(model, content) ?? id;
    if (own !== id)
      throw new Error(
        `Its added_tokens give ${shownValue(content)} the id ${id}, its model.vocab ${shownValue(own)}: it is damaged.`,
      );
    claimId(content, id, byId);
    const found = JSON.stringify([normalized, normalized ? normalize(content) : content]);
    if (seen.has(found)) throw new Error(`Its added_tokens list ${shownValue(content)} twice.`);
    seen.add(found);
  }
  const count = model.names.length + added.length;
  if (byId.length > 2 * count)
    throw new Error(`Its ids go up to ${byId.length - 1}, for ${count} tokens: it is damaged.`);
  return added;
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#file-notes
/** Whether a character may have neither a token, nor bytes, nor the token for the unknown. */
export function dropsCharacters({ pre_tokenizer }: TokenizerFile, model: FileModel): boolean {
  if (model.unknown !== undefined) return false;
  const isOfBytes = fileSteps("pre_tokenizer", pre_tokenizer).some(({ type }) => type === "ByteLevel");
  return !isOfBytes && !(model.bytesInstead && idsOfBytes(model).every((id) => id >= 0));
}

/** What a reader of a file should know: settings that are not applied, and ids about which programs disagree. */
export function fileNotes(file: TokenizerFile, model: FileModel): string[] {
  const notes = (["truncation", "padding"] as const)
    .filter((name) => file[name])
    .map((name) => `The file asks for ${name}, which tslm does not apply: every text is encoded as it is.`);
  if (dropsCharacters(file, model))
    notes.push("The file has no token for unknown characters: encoding leaves out those that have no token.");
  const size = model.names.length;
  const unlisted = file.added_tokens.filter(
    ({ content }) => content !== "" && idOfName(model, content) === undefined,
  );
  const moved = unlisted.find(({ id }, i) => id !== size + i);
  if (moved)
    notes.push(
      `The file gives ${moved.content} the id ${moved.id}; Hugging Face's tokenizers counts on from ${size} and gives it another.`,
    );
  return notes;
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#time-limit
/**
 * Runs work that something in a file may make endless, and gives what it gives, or nothing where it took longer than so many
 * milliseconds. Here it cannot be stopped; a program that can, as Node with `node:vm`, puts its own way here.
 */
export const timeLimit: { run: <T>(work: () => T, milliseconds: number) => { result: T } | undefined } = {
  run: (work) => ({ result: work() }),
};

/** Whether a file has a regular expression that is not one of those we know. */
export function hasForeignPattern(file: TokenizerFile): boolean {
  const published: string[] = Object.values(PATTERNS);
  return (["normalizer", "pre_tokenizer", "decoder"] as const)
    .flatMap((part) => fileSteps(part, file[part]))
    .map((step) => Object(step.pattern).Regex)
    .some((pattern) => pattern !== undefined && !published.includes(pattern));
}

/** A tokenizer that gives up on a text for which its patterns take a thousand times what is usual. */
export function withTimeLimit(tokenizer: Tokenizer): Tokenizer {
  let isStopped = false; // its memory for pieces may be half written then
  const within = <T>(work: () => T, length: number): T => {
    const done = isStopped ? undefined : timeLimit.run(work, 10_000 + length / 10);
    isStopped = !done;
    if (done) return done.result;
    throw new Error(
      "The pattern by which this tokenizer cuts text takes for ever on some text: it cannot be used.",
    );
  };
  return {
    ...tokenizer,
    encode: (text, options) => within(() => tokenizer.encode(text, options), text.length),
    encodeBytes: (bytes) => within(() => tokenizer.encodeBytes(bytes), bytes.length),
    decode: (ids) => within(() => tokenizer.decode(ids), ids.length),
  };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#utf8-speller
/** The speller of names that are text: their bytes in UTF-8. */
export function spellUtf8(text: string, from: number, to: number, bytes: Uint8Array, start: number): number {
  let at = start;
  for (let i = from; i < to; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x80) bytes[at++] = code;
    else if (code < 0x800) {
      bytes[at++] = 0xc0 | (code >> 6);
      bytes[at++] = 0x80 | (code & 63);
    } else if ((code & 0xf800) !== 0xd800) {
      bytes[at++] = 0xe0 | (code >> 12);
      bytes[at++] = 0x80 | ((code >> 6) & 63);
      bytes[at++] = 0x80 | (code & 63);
    } else at += new TextEncoder().encodeInto(text.slice(i, ++i + 1), bytes.subarray(at)).written;
  }
  return at;
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#file-spelling
/** How a model spells characters. Throws if its token for unknown ones does not exist. */
export function fileSpelling(model: FileModel): Spelling {
  const characters = new Int32Array(0x110000).fill(-1);
  for (const name of model.names) {
    const code = name.length > 2 || name === "" ? 0 : name.codePointAt(0)!;
    if (name.length === (code > 0xffff ? 2 : 1)) characters[code] = idOfName(model, name)!;
  }
  const unknown = model.unknown === undefined ? undefined : idOfName(model, model.unknown);
  if (model.unknown !== undefined && unknown === undefined)
    throw new Error(
      `Its unk_token ${shownValue(model.unknown)} is not in its vocabulary: the file is damaged.`,
    );
  const bytes = model.bytesInstead ? idsOfBytes(model) : undefined;
  return { characters, bytes, unknown, fuses: model.fusesUnknown };
}

/**
 * Where merges may cross the beginning of a word; undefined if that cannot be told from the tokens' names: where characters
 * are dropped, so that others become neighbours, or where a token is made of bytes or of the unknown token.
 */
export function fileCrossed(model: FileModel, spelling: Spelling): Set<number> | undefined {
  const { bytes } = spelling;
  const isDropped = spelling.unknown === undefined && (!bytes || bytes.includes(-1));
  const hasMark = spelling.characters[WORD_MARK.charCodeAt(0)] >= 0;
  const isMadeOf = (name: string, part: string) => name.length > part.length && name.includes(part);
  const isOther = (name: string) =>
    (name.length > 6 && name.includes("<0x")) ||
    (model.unknown !== undefined && isMadeOf(name, model.unknown));
  return isDropped || !hasMark || model.names.some(isOther) ? undefined : unitsBeforeMarks(model.names);
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#load-text
/** The steps of a decoder for tokens that are text; undefined where there is none. Throws for one that is for bytes. */
export function fileDecoder({ decoder }: TokenizerFile): DecoderStep[] | undefined {
  if (decoder === null || decoder === undefined) return undefined;
  const steps = fileSteps("decoder", decoder);
  if (steps.some(({ type }) => type === "ByteLevel"))
    throw unknownStep("decoder", "has a step of type ByteLevel, and its pre_tokenizer has none");
  return steps as unknown as DecoderStep[];
}

/**
 * Throws where it takes more than the changed text to know whether a word is the first of all: the reference looks where its
 * first character stood in the text as it was given.
 */
export function checkFirstWord({ normalizer, pre_tokenizer }: TokenizerFile): void {
  const steps = fileSteps("pre_tokenizer", pre_tokenizer);
  const first = steps.map(({ prepend_scheme }) => prepend_scheme).lastIndexOf("first");
  const changes = fileSteps("normalizer", normalizer);
  const isBehind = steps.slice(0, first).some(({ type }) => changes.length > 0 || type === "Metaspace");
  const moves = ({ type, pattern, content }: FileStep) =>
    type === "Replace" && (content === "" || Object(pattern).String?.length !== 1);
  if (first >= 0 && (isBehind || changes.some(moves)))
    throw unknownStep(
      "pre_tokenizer",
      "has Metaspace with prepend_scheme first behind steps that change the text",
    );
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#load-text-2
/** A tokenizer whose tokens are text, from its file. */
export function loadText(file: TokenizerFile, model: FileModel, toJson: () => object): Tokenizer {
  checkFirstWord(file);
  const { byId, row } = namedTokens(model, spellUtf8);
  const table = new TokenTable(row);
  const normalize = fileNormalizer(file.normalizer);
  const added = fileAdded(file, model, byId, normalize);
  const merges = fileMerges(model, spellUtf8, table);
  for (const { id, special } of added) if (special) table.remove(id); // in a text they stay text
  for (const { id, content, normalized } of added) if (normalized) byId[id] = normalize(content);
  const spelling = fileSpelling(model);
  const encoder = new TextEncoder();
  const wholeId = (piece: string) => {
    const bytes = encoder.encode(piece);
    return table.find(bytes, 0, bytes.length);
  };
  return textTokenizer({
    names: byId,
    spelling,
    merges,
    crossed: fileCrossed(model, spelling),
    wholeId: model.wholePieces ? wholeId : undefined,
    ...fileSplitter(file.pre_tokenizer),
    added,
    normalize,
    decoder: fileDecoder(file),
    toJson,
  });
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#load-bytes
/** A byte-level tokenizer from its file. */
export function loadByteLevel(file: TokenizerFile, model: FileModel, toJson: () => object): Tokenizer {
  const other = fileSteps("decoder", file.decoder).find(({ type }) => type !== "ByteLevel");
  if (other) throw unknownStep("decoder", `has a step of type ${other.type} for a pre_tokenizer of bytes`);
  const spell = byteSpeller();
  const tokens = namedTokens(model, spell);
  const vocabulary = fileVocabulary(model, tokens, spell);
  const normalize = fileNormalizer(file.normalizer);
  const added = fileAdded(file, model, tokens.byId, normalize);
  for (const { id, special } of added) if (special) vocabulary.whole?.remove(id); // in a text they stay text
  return byteLevelTokenizer({ vocabulary, ...fileSplitter(file.pre_tokenizer), added, normalize, toJson });
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#load-tokenizer
/**
 * A tokenizer from the content of a `tokenizer.json` with a BPE model: of bytes, of text as SentencePiece writes it, or of
 * characters as `characterTokenizer` does. Throws one sentence that names what it is if the file has a part that we do not
 * run, or contradicts itself.
 */
export function loadTokenizer(json: object): Tokenizer {
  const file = checkedPart("", TOKENIZER_FILE, json);
  const model = fileModel(file);
  const alphabet = loadAlphabet(file, model);
  if (alphabet) return alphabet;
  const isOfBytes = fileSteps("pre_tokenizer", file.pre_tokenizer).some(({ type }) => type === "ByteLevel");
  const load = isOfBytes ? loadByteLevel : loadText;
  const tokenizer = {
    ...load(file, model, () => structuredClone(json)),
    around: fileAround(file.post_processor),
    notes: fileNotes(file, model),
  };
  return hasForeignPattern(file) ? withTimeLimit(tokenizer) : tokenizer;
}
