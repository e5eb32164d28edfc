// Extracted from chapters/05-inference/a-files-of-gguf.ipynb: edit it there, or here and run `npm run backport`.
import type { GgufScalar, GgufValue } from "../formats/gguf.js";
import { isRecord, shown } from "../formats/keys.js";
import { bpeModelJson } from "../tokenizer/characters.js";
import { PATTERNS, type PatternName } from "../tokenizer/pretokenize.js";

//| 05-inference/a-files-of-gguf.ipynb#pre-names
/** Names of `tokenizer.ggml.pre`, the pattern that each stands for, and whether a piece that is a token stays whole. */
export const preNames: Record<string, { pattern: PatternName; isWhole: boolean }> = {
  "gpt-2": { pattern: "gpt2", isWhole: false },
  qwen2: { pattern: "qwen2", isWhole: false },
  "llama-bpe": { pattern: "llama3", isWhole: true },
  dbrx: { pattern: "llama3", isWhole: false },
  "gpt-4o": { pattern: "o200k", isWhole: false },
};

/** Kinds of tokens: an ordinary one, the one for unknown text, a control token, one that a user added, one that is not used, a byte. */
export const tokenKinds = { normal: 1, unknown: 2, control: 3, added: 4, unused: 5, byte: 6 };

/** The parts of a tokenizer.json that are looked at here. */
export interface TokenizerJson {
  added_tokens?: { id: number; content: string; special: boolean }[];
  normalizer?: object | null;
  pre_tokenizer?: object | null;
  post_processor?: object | null;
  model: { type?: string; vocab: Record<string, number>; merges: (string | [string, string])[] } & Record<
    string,
    unknown
  >;
}

//| 05-inference/a-files-of-gguf.ipynb#steps
/** The steps of a part of a tokenizer.json, those of sequences one after the other. */
export function stepsOf(part: unknown): Record<string, unknown>[] {
  if (!isRecord(part)) return [];
  const inner = part.pretokenizers ?? part.normalizers ?? part.processors;
  return Array.isArray(inner) ? inner.flatMap(stepsOf) : [part];
}

/** The name in GGUF of the pattern by which a byte-level tokenizer cuts text. Throws where it has none. */
export function preName({ pre_tokenizer, normalizer, model }: TokenizerJson): string {
  const steps = stepsOf(pre_tokenizer);
  const patterns = steps
    .filter(({ type }) => type === "Split")
    .map(({ pattern }) => (pattern as { Regex?: string }).Regex);
  if (steps.some(({ type, use_regex }) => type === "ByteLevel" && use_regex !== false))
    patterns.push(PATTERNS.gpt2);
  const strange = stepsOf(normalizer).find(({ type }) => type !== "NFC");
  if (strange)
    throw new Error(`The tokenizer has the normalizer ${shown(strange.type)}, which GGUF does not have.`);
  const isWhole = model.ignore_merges === true;
  const fitting = Object.entries(preNames).filter(
    ([, { pattern }]) => patterns.length === 1 && PATTERNS[pattern] === patterns[0],
  );
  const found = fitting.find(([, entry]) => entry.isWhole === isWhole) ?? fitting[0];
  if (found) return found[0];
  throw new Error(
    `The tokenizer cuts text by a pattern for which GGUF has no name (those of ${Object.keys(preNames).join(", ")} have one).`,
  );
}

//| 05-inference/a-files-of-gguf.ipynb#token-lists
/** The texts and kinds of the tokens, by id, for a model with `vocabSize` rows. */
export function tokenLists({ added_tokens, model }: TokenizerJson, vocabSize: number) {
  const texts = Array.from({ length: vocabSize }, (_, id) => `[PAD${id}]`);
  const kinds = new Array<number>(vocabSize).fill(tokenKinds.unused);
  const place = (id: number, name: string, kind: number) => {
    if (id >= vocabSize) throw new Error(`The tokenizer has a token ${id}, but the model only ${vocabSize}.`);
    texts[id] = name;
    kinds[id] = kind;
  };
  const isByte = (name: string) => model.byte_fallback === true && /^<0x[\dA-F]{2}>$/.test(name);
  for (const [name, id] of Object.entries(model.vocab))
    place(id, name, isByte(name) ? tokenKinds.byte : tokenKinds.normal);
  for (const { id, content, special } of added_tokens ?? [])
    place(id, content, special ? tokenKinds.control : tokenKinds.added);
  const unknown = model.vocab[String(model.unk_token)];
  if (unknown !== undefined) kinds[unknown] = tokenKinds.unknown;
  return { texts, kinds };
}

/** The two names of a merge. */
export function mergeNames(merge: string | [string, string]): [string, string] {
  return typeof merge === "string" ? (merge.split(" ") as [string, string]) : merge;
}

//| 05-inference/a-files-of-gguf.ipynb#scores
/** Merges by what they make, in the order in which a token is made first. */
export function madeTokens(merges: TokenizerJson["model"]["merges"]): Map<string, Set<string>> {
  const waysTo = new Map<string, Set<string>>();
  for (const merge of merges) {
    const [left, right] = mergeNames(merge);
    const ways = waysTo.get(left + right);
    if (ways) ways.add(left);
    else waysTo.set(left + right, new Set([left]));
  }
  return waysTo;
}

/** All merges that scores amount to: every way to cut a token in two tokens, the highest score first. */
export function mergesOfScores(texts: string[], kinds: number[], scores: number[]): [string, string][] {
  const isText = (id: number) => kinds[id] === tokenKinds.normal || kinds[id] === tokenKinds.added;
  const ids = new Map(texts.map((name, id): [string, number] => [name, id]).filter(([, id]) => isText(id)));
  const ways: { left: string; right: string; score: number }[] = [];
  for (const [name, id] of ids) {
    const letters = [...name];
    for (let cut = 1; cut < letters.length; cut++) {
      const [left, right] = [letters.slice(0, cut).join(""), letters.slice(cut).join("")];
      if (ids.has(left) && ids.has(right)) ways.push({ left, right, score: scores[id] });
    }
  }
  ways.sort((a, b) => b.score - a.score || b.left.length - a.left.length || b.right.length - a.right.length);
  return ways.map(({ left, right }) => [left, right]);
}

/** The scores of a SentencePiece-form tokenizer.json's tokens. Throws where its merges are not what scores amount to. */
export function scoresOf({ model }: TokenizerJson, texts: string[], kinds: number[]): number[] {
  const waysTo = madeTokens(model.merges);
  const order = new Map([...waysTo.keys()].map((name, i) => [name, -i]));
  const scores = texts.map((name, id) => (kinds[id] === tokenKinds.normal ? (order.get(name) ?? -1e6) : 0));
  const again = madeTokens(mergesOfScores(texts, kinds, scores));
  const isSame = [...waysTo].every(([name, ways]) => again.get(name)?.size === ways.size);
  if (isSame && again.size === waysTo.size) return scores;
  throw new Error(
    "The tokenizer's merges are not those of a SentencePiece model, so GGUF cannot say them as scores.",
  );
}

//| 05-inference/a-files-of-gguf.ipynb#end-keys
/** The names of the keys of tokens that end a text. */
export const endNames = ["eos", "eot", "eom"];

/** What a tokenizer.json does not know: the special tokens of the model. */
export function endKeys({
  bos,
  eos = [],
  pad,
}: {
  bos?: number;
  eos?: number[];
  pad?: number;
}): [string, GgufValue | undefined][] {
  const ids: [string, number | undefined][] = [
    ["bos", bos],
    ...endNames.map((name, i): [string, number | undefined] => [name, eos[i]]),
    ["padding", pad],
  ];
  return ids.map(([name, value]) => [
    `${name}_token_id`,
    value === undefined ? undefined : { type: "u32", value },
  ]);
}

//| 05-inference/a-files-of-gguf.ipynb#flag-keys
/** Whether a text begins with its special token, and (in SentencePiece's form) with a space. */
export function flagKeys({
  post_processor,
  normalizer,
  pre_tokenizer,
  model,
}: TokenizerJson): [string, GgufValue | undefined][] {
  const flag = (value: boolean): GgufValue => ({ type: "bool", value });
  const template = stepsOf(post_processor).find(({ type }) => type === "TemplateProcessing");
  const [first] = (template?.single ?? []) as Record<string, unknown>[];
  const spaced = [...stepsOf(normalizer), ...stepsOf(pre_tokenizer)].some(
    ({ type, prepend_scheme }) => type === "Prepend" || (type === "Metaspace" && prepend_scheme !== "never"),
  );
  const unknown = model.vocab[String(model.unk_token)];
  return [
    ["add_bos_token", flag(first?.SpecialToken !== undefined)],
    ["unknown_token_id", unknown === undefined ? undefined : { type: "u32", value: unknown }],
    ["add_space_prefix", model.byte_fallback === true ? flag(spaced) : undefined],
  ];
}

//| 05-inference/a-files-of-gguf.ipynb#tokenizer-keys
/** What a file says of a tokenizer besides its tokens. */
export interface GgufTextEnds {
  vocabSize: number;
  bos?: number;
  /** The ids that end a text, the usual one first. */
  eos?: number[];
  pad?: number;
  chatTemplate?: string;
}

/** The keys of a tokenizer, given as a tokenizer.json. Throws one sentence for one that GGUF cannot say. */
export function ggufTokenizerKeys(tokenizer: object, ends: GgufTextEnds): Map<string, GgufValue> {
  const json = tokenizer as TokenizerJson;
  const { texts, kinds } = tokenLists(json, ends.vocabSize);
  const strings = (value: string[]): GgufValue => ({ type: "string", isArray: true, value });
  const isBytes = json.model.byte_fallback !== true;
  const keys: [string, GgufValue | undefined][] = [
    ["model", { type: "string", value: isBytes ? "gpt2" : "llama" }],
    ["pre", { type: "string", value: isBytes ? preName(json) : "default" }],
    ["tokens", strings(texts)],
    ["token_type", { type: "i32", isArray: true, value: kinds }],
    isBytes
      ? ["merges", strings(json.model.merges.map((merge) => mergeNames(merge).join(" ")))]
      : ["scores", { type: "f32", isArray: true, value: scoresOf(json, texts, kinds) }],
    ...endKeys(ends),
    ...flagKeys(json),
  ];
  const given = keys.flatMap(([key, value]): [string, GgufValue][] =>
    value ? [[`tokenizer.ggml.${key}`, value]] : [],
  );
  if (ends.chatTemplate !== undefined)
    given.push(["tokenizer.chat_template", { type: "string", value: ends.chatTemplate }]);
  return new Map(given);
}

//| 05-inference/a-files-of-gguf.ipynb#tokenizer-back
/** The list under a key of the tokenizer. Throws where it is missing, or of another type or length. */
export function listOf<T extends GgufScalar>(
  keys: Map<string, GgufValue>,
  key: string,
  type: string,
  length?: number,
): T[] {
  const found = keys.get(`tokenizer.ggml.${key}`);
  const isFitting = found?.isArray && found.type === type;
  if (!isFitting || (length !== undefined && (found.value as T[]).length !== length))
    throw new Error(
      `tokenizer.ggml.${key} must be a list of ${type}${length === undefined ? "" : `, one for each of ${length} tokens`}.`,
    );
  return found.value as T[];
}

/** The tokens of a file: the ordinary ones as a vocabulary, and those that are added to it. */
export function vocabularyOf(texts: string[], kinds: number[]) {
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  const entries = texts.map((name, id): [string, number] => [name, id]);
  const inVocab = [tokenKinds.normal, tokenKinds.byte, tokenKinds.unknown];
  const isAdded = ([, id]: [string, number]) =>
    [tokenKinds.control, tokenKinds.added, tokenKinds.unknown].includes(kinds[id]);
  return {
    vocab: Object.fromEntries(entries.filter(([, id]) => inVocab.includes(kinds[id]))),
    added: entries
      .filter(isAdded)
      .map(([content, id]) => ({ id, content, ...flags, special: kinds[id] !== tokenKinds.added })),
  };
}

//| 05-inference/a-files-of-gguf.ipynb#byte-json
/** The steps and the model of a byte-level tokenizer. */
export function byteLevelParts(keys: Map<string, GgufValue>, vocab: Record<string, number>) {
  const pre = String(keys.get("tokenizer.ggml.pre")?.value ?? "");
  const names = Object.keys(preNames).join(", ");
  if (!Object.hasOwn(preNames, pre))
    throw new Error(
      `tokenizer.ggml.pre is ${shown(pre)}, a way to cut text that is not run; these are: ${names}.`,
    );
  const { pattern, isWhole } = preNames[pre];
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  const split = { type: "Split", pattern: { Regex: PATTERNS[pattern] }, behavior: "Isolated", invert: false };
  return {
    normalizer: pre === "qwen2" ? { type: "NFC" } : null,
    pre_tokenizer: { type: "Sequence", pretokenizers: [split, byteLevel] },
    decoder: byteLevel,
    model: { ...bpeModelJson(vocab, listOf<string>(keys, "merges", "string")), ignore_merges: isWhole },
  };
}

//| 05-inference/a-files-of-gguf.ipynb#piece-json
/** The steps and the model of a tokenizer in SentencePiece's form. */
export function sentencePieceParts(
  keys: Map<string, GgufValue>,
  vocab: Record<string, number>,
  texts: string[],
  kinds: number[],
) {
  const isSpaced = keys.get("tokenizer.ggml.add_space_prefix")?.value ?? true;
  const scores = listOf<number>(keys, "scores", "f32", texts.length);
  const replaced = (from: string, to: string) => ({
    type: "Replace",
    pattern: { String: from },
    content: to,
  });
  const toMarks = [...(isSpaced ? [{ type: "Prepend", prepend: "▁" }] : []), replaced(" ", "▁")];
  const strip = isSpaced ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : [];
  const unknown = kinds.indexOf(tokenKinds.unknown);
  return {
    normalizer: { type: "Sequence", normalizers: toMarks },
    pre_tokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: [replaced("▁", " "), { type: "ByteFallback" }, { type: "Fuse" }, ...strip],
    },
    model: {
      ...bpeModelJson(vocab, mergesOfScores(texts, kinds, scores) as never),
      unk_token: unknown < 0 ? null : texts[unknown],
      fuse_unk: true,
      byte_fallback: true,
    },
  };
}

//| 05-inference/a-files-of-gguf.ipynb#tokenizer-json
/** The tokenizer of a file as a tokenizer.json; nothing where it has none. Throws one sentence for one that is not run. */
export function ggufTokenizerJson(keys: Map<string, GgufValue>): object | undefined {
  const model = keys.get("tokenizer.ggml.model")?.value ?? "no_vocab";
  if (model === "no_vocab" || model === "none") return undefined;
  if (model !== "gpt2" && model !== "llama")
    throw new Error(`tokenizer.ggml.model is ${shown(model)}, but only gpt2 and llama are run.`);
  const texts = listOf<string>(keys, "tokens", "string");
  const kinds = listOf<number>(keys, "token_type", "i32", texts.length);
  const { vocab, added } = vocabularyOf(texts, kinds);
  const parts =
    model === "gpt2" ? byteLevelParts(keys, vocab) : sentencePieceParts(keys, vocab, texts, kinds);
  const bos = keys.get("tokenizer.ggml.bos_token_id")?.value;
  const begins = keys.get("tokenizer.ggml.add_bos_token")?.value ?? model === "llama";
  const name = begins && typeof bos === "number" ? texts[bos] : undefined;
  const template = name !== undefined && {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: name, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [],
    special_tokens: { [name]: { id: name, ids: [bos], tokens: [name] } },
  };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added,
    ...parts,
    post_processor: template || null,
  };
}
