// Extracted from chapters/01-tokenizer/4-tokenizers-of-the-world.ipynb: edit it there, or here and run `npm run backport`.
import { END_OF_TEXT, MAX_VOCAB, bpeJson, byteCharacters, visibleBytes } from "./bpe.js";
import { type Tokenizer, alphabetTokenizer, bpeModelJson } from "./characters.js";
import { type AddedToken, PairMap, TokenTable, type Vocabulary, byteLevelTokenizer } from "./merges.js";
import { PATTERNS, type PatternName, type Splitter, patternSplitter } from "./pretokenize.js";

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
/** The two parts of each token, in all ways in which both are tokens, as `each(left, right, whole)`; ids in order. */
export function tokenParts(
  tokens: (Uint8Array | undefined)[],
  each: (left: number, right: number, whole: number) => void,
): void {
  const table = new TokenTable(tokens);
  tokens.forEach((token, whole) => {
    for (let cut = 1; token && cut < token.length; cut++) {
      const left = table.find(token, 0, cut);
      const right = left < 0 ? left : table.find(token, cut, token.length);
      if (right >= 0) each(left, right, whole);
    }
  });
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#list-vocabulary
/** The vocabulary of a list of tokens: of the pairs that together are a token, the one of the smallest id merges first. */
export function listVocabulary(tokens: Uint8Array[]): Vocabulary {
  const ranks = new PairMap();
  tokenParts(tokens, (left, right, whole) => ranks.set(left, right, whole));
  const made = Int32Array.from(tokens, (_, id) => id); // the rank of a merge is the id that it makes
  return { tokens, byteIds: byteIdsOf(tokens), ranks, made, wholePieces: true };
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
/** The special tokens of published vocabularies, by pattern and the number of their ordinary tokens; `<|endoftext|>` first. */
export const TIKTOKEN_SPECIALS: { [pattern: string]: { size: number; ids: { [name: string]: number } } } = {
  gpt2: { size: 50256, ids: { "<|endoftext|>": 50256 } },
  cl100k: {
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
  qwen2: { size: 151643, ids: { "<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645 } },
  llama3: {
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
/** The special tokens of a list of tokens: those of the published vocabulary, if it is one, else `<|endoftext|>` at the end. */
export function tiktokenSpecials(pattern: PatternName, size: number): AddedToken[] {
  const published = TIKTOKEN_SPECIALS[pattern];
  const ids = published?.size === size ? published.ids : { [END_OF_TEXT]: size };
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
  tokenParts(tokens, (left, right, whole) => merges.push([whole, left, right]));
  merges.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]);
  const vocab = Object.fromEntries(names.flatMap((name, id) => (name === undefined ? [] : [[name, id]])));
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
  const added = tiktokenSpecials(pattern, vocabulary.tokens.length);
  const toJson = () => listJson(vocabulary.tokens, pattern, added);
  return byteLevelTokenizer({ vocabulary, splitter: patternSplitter(PATTERNS[pattern]), added, toJson });
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#tokenizer-file
/** A step of a pipeline in a `tokenizer.json`: its type and what else it says. */
export interface FileStep {
  type?: string;
  pretokenizers?: FileStep[];
  normalizers?: FileStep[];
  processors?: FileStep[];
  decoders?: FileStep[];
  pattern?: { Regex?: string; String?: string };
  behavior?: string;
  invert?: boolean;
  individual_digits?: boolean;
  add_prefix_space?: boolean;
  use_regex?: boolean;
  single?: { SpecialToken?: { id: string }; Sequence?: object }[];
  special_tokens?: { [name: string]: { ids: number[] } };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#tokenizer-file-parts
/** The parts of a `tokenizer.json` that we read. */
export interface TokenizerFile {
  model?: {
    type?: string;
    vocab?: { [token: string]: number };
    merges?: (string | [string, string])[];
    ignore_merges?: boolean;
    [setting: string]: unknown;
  };
  added_tokens?: AddedToken[];
  normalizer?: FileStep | null;
  pre_tokenizer?: FileStep | null;
  post_processor?: FileStep | null;
  decoder?: FileStep | null;
}

/** The error for a step that we do not run. */
export function unknownStep(part: string, what: string): Error {
  return new Error(`Its ${part} ${what}, which tslm does not run; loading it without would give wrong ids.`);
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#split-steps
/** The steps of a sequence, of a single step, or none. */
export function fileSteps(step: FileStep | null | undefined): FileStep[] {
  if (!step) return [];
  const inner = step.pretokenizers ?? step.normalizers ?? step.processors ?? step.decoders;
  return inner ? inner.flatMap(fileSteps) : [step];
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#step-splitter
/** The splitter of one step of a pre-tokenizer; nothing where it does not cut. */
export function stepSplitter(step: FileStep): Splitter | undefined {
  if (step.type === "Digits") return patternSplitter(step.individual_digits ? "\\p{N}" : "\\p{N}+");
  if (step.type === "ByteLevel") {
    if (step.add_prefix_space)
      throw unknownStep("pre_tokenizer", "puts a space before the text (add_prefix_space)");
    return step.use_regex === false ? undefined : patternSplitter(PATTERNS.gpt2);
  }
  if (step.type !== "Split") throw unknownStep("pre_tokenizer", `has a step of type ${step.type}`);
  // Both leave each match a piece; they differ in what no match covers, and there we keep the text.
  const keepsMatches = step.behavior === "Isolated" || (step.behavior === "Removed" && step.invert);
  if (!keepsMatches) throw unknownStep("pre_tokenizer", `splits with the behavior ${step.behavior}`);
  const pattern = step.pattern?.Regex ?? step.pattern?.String?.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
  if (pattern === undefined) throw unknownStep("pre_tokenizer", "splits without a pattern");
  return patternSplitter(pattern);
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#file-splitter
/** The splitter of a pre-tokenizer: each step cuts the pieces of the one before. */
export function fileSplitter(preTokenizer: FileStep | null | undefined): Splitter {
  const steps = fileSteps(preTokenizer);
  if (!steps.some(({ type }) => type === "ByteLevel"))
    throw unknownStep("pre_tokenizer", "has no step of type ByteLevel");
  const splitters = steps
    .map(stepSplitter)
    .filter((splitter): splitter is Splitter => splitter !== undefined);
  const whole: Splitter = (text, each) => each(text, 0, text.length);
  return splitters.reduceRight(
    (rest, first) => (text, each) => first(text, (_, from, to) => rest(text.slice(from, to), each)),
    whole,
  );
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#file-vocabulary
/** Settings of a BPE model that change ids and that we do not run, unless they are off. */
export const UNKNOWN_MODEL_SETTINGS = [
  "dropout",
  "continuing_subword_prefix",
  "end_of_word_suffix",
  "byte_fallback",
];

/** The model of a file. Throws, naming it, for a type or a setting that we do not run. */
export function fileModel({ model }: TokenizerFile): {
  vocab: Map<string, number>;
  merges: [string, string][];
  wholePieces: boolean;
} {
  if (model?.type !== "BPE")
    throw unknownStep("model", model?.type ? `is of type ${model.type}` : "has no type");
  const setting = UNKNOWN_MODEL_SETTINGS.find((name) => model[name]);
  if (setting) throw unknownStep("model", `uses ${setting}`);
  if (!model.vocab || !Array.isArray(model.merges))
    throw new Error("Its model lacks vocab or merges: the file is damaged.");
  const merges = model.merges.map((merge) => (typeof merge === "string" ? merge.split(" ") : merge));
  if (!merges.every((pair): pair is [string, string] => Array.isArray(pair) && pair.length === 2))
    throw new Error("Its merges are not pairs of tokens: the file is damaged.");
  return { vocab: new Map(Object.entries(model.vocab)), merges, wholePieces: model.ignore_merges === true };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#bytes-of-name
/** Whether something can be the id of a token. */
export function isId(id: unknown): id is number {
  return Number.isInteger(id) && (id as number) >= 0 && (id as number) < MAX_VOCAB;
}

/** The bytes of a token's name, each byte spelled by its character; a name in other characters stands for itself. */
export function bytesOfTokenName(name: string, bytes: Map<string, number>): Uint8Array {
  const spelled = [...name].map((character) => bytes.get(character));
  return spelled.includes(undefined) ? new TextEncoder().encode(name) : Uint8Array.from(spelled as number[]);
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#vocabulary-of-file
/** The vocabulary of a byte-level file. Throws where it contradicts itself. */
export function fileVocabulary(file: TokenizerFile): Vocabulary {
  const { vocab, merges, wholePieces } = fileModel(file);
  const bytes = new Map(byteCharacters().map((character, byte) => [character, byte]));
  const tokens: (Uint8Array | undefined)[] = [];
  for (const [name, id] of vocab) {
    if (!isId(id) || tokens[id])
      throw new Error(`The token ${JSON.stringify(name)} has the id ${id}, which is taken or is none.`);
    tokens[id] = bytesOfTokenName(name, bytes);
  }
  const idOf = (name: string) => {
    const id = vocab.get(name);
    if (id === undefined)
      throw new Error(`A merge needs the token ${JSON.stringify(name)}, which has no id.`);
    return id;
  };
  const ranks = new PairMap();
  merges.forEach(([left, right], rank) => ranks.set(idOf(left), idOf(right), rank));
  return {
    tokens,
    byteIds: byteIdsOf(tokens),
    ranks,
    made: merges.map(([left, right]) => idOf(left + right)),
    wholePieces,
  };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#around-text
export const NORMALIZER_FORMS = ["NFC", "NFD", "NFKC", "NFKD"];

/** What a normalizer does to a text. */
export function fileNormalizer(normalizer: FileStep | null | undefined): (text: string) => string {
  const forms = fileSteps(normalizer).map(({ type }) => type!);
  const unknown = forms.find((form) => !NORMALIZER_FORMS.includes(form));
  if (unknown) throw unknownStep("normalizer", `has a step of type ${unknown}`);
  return (text) => forms.reduce((before, form) => before.normalize(form), text);
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#file-around
/** The ids that a post-processor puts before and after a text. */
export function fileAround(processor: FileStep | null | undefined): Tokenizer["around"] {
  const around = { before: [] as number[], after: [] as number[] };
  for (const step of fileSteps(processor)) {
    if (step.type === "ByteLevel") continue; // it moves offsets only
    if (step.type !== "TemplateProcessing")
      throw unknownStep("post_processor", `has a step of type ${step.type}`);
    let side = around.before;
    for (const { SpecialToken } of step.single ?? []) {
      if (SpecialToken) side.push(...(step.special_tokens?.[SpecialToken.id]?.ids ?? []));
      else side = around.after; // the text itself
    }
  }
  return around.before.length + around.after.length > 0 ? around : undefined;
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#load-alphabet
/** A tokenizer of characters from its file. */
export function loadAlphabet(file: TokenizerFile): Tokenizer {
  const { vocab } = fileModel(file);
  const alphabet = [...vocab.keys()].sort((a, b) => vocab.get(a)! - vocab.get(b)!);
  const tokenizer = alphabetTokenizer(alphabet);
  const rules = ({ model, normalizer = null, pre_tokenizer, added_tokens }: TokenizerFile) =>
    JSON.stringify([
      normalizer,
      pre_tokenizer?.pattern,
      added_tokens,
      model!.merges,
      alphabet.map((each) => model!.vocab![each]),
    ]);
  if (rules(tokenizer.toJson() as TokenizerFile) === rules(file)) return tokenizer;
  throw new Error(
    "It looks like a tokenizer of characters, but has other rules than tslm knows, or is damaged.",
  );
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#load-tokenizer
/** The added tokens of a file; one without a content can be found nowhere. */
export function fileAdded({ added_tokens = [] }: TokenizerFile): AddedToken[] {
  const isToken = ({ id, content }: AddedToken) => isId(id) && typeof content === "string";
  if (!Array.isArray(added_tokens) || !added_tokens.every(isToken))
    throw new Error(
      "Its added_tokens are not a list of tokens with an id and a content: the file is damaged.",
    );
  return added_tokens.filter(({ content }) => content !== "");
}

/**
 * A tokenizer from the content of a `tokenizer.json`: any byte-level BPE model, or characters as `characterTokenizer` writes
 * them. Throws one sentence that names what it is if the file has a part that we do not run, or contradicts itself.
 */
export function loadTokenizer(json: object): Tokenizer {
  const file = json as TokenizerFile;
  if (fileSteps(file.decoder).some(({ type }) => type === "Fuse")) return loadAlphabet(file);
  const vocabulary = fileVocabulary(file);
  for (const { type } of fileSteps(file.decoder))
    if (type !== "ByteLevel") throw unknownStep("decoder", `has a step of type ${type}`);
  const tokenizer = byteLevelTokenizer({
    vocabulary,
    splitter: fileSplitter(file.pre_tokenizer),
    added: fileAdded(file),
    normalize: fileNormalizer(file.normalizer),
    toJson: () => structuredClone(file),
  });
  return { ...tokenizer, around: fileAround(file.post_processor) };
}
