// All that answers are made with: a model's tokenizer, its chat template and what follows from them, its engine, limits.
import type { ModelConfig } from "../../formats/config.js";
import type { GenerationConfig } from "../../formats/generation.js";
import { endOfText } from "../../infer/generate.js";
import type { Tokenizer } from "../../tokenizer/characters.js";
import { type Grammars, grammarVocabulary, openGrammarService } from "./constraint.js";
import { type ChatTemplate, answerEnds, chatTemplate } from "./conversation.js";
import type { Host } from "./host.js";
import { type Metrics, openMetrics } from "./metrics.js";
import { type ToolForm, formTokens, learnToolForm, specialNames } from "./tool-form.js";

/** What requests may ask for at most. */
export interface Limits {
  /** Bytes of a body. */
  body: number;
  /** Answers that are written at once, and that wait. */
  running: number;
  queue: number;
  /** Tokens of an answer. */
  tokens: number;
  /** Seconds of a request. */
  seconds: number;
}

/** What a service is made of. */
export interface ServiceParts {
  /** What the model is called in requests. */
  name: string;
  config: ModelConfig;
  tokenizer: Tokenizer;
  /** The chat template's text. */
  template?: string;
  /** How the model's own file says to choose tokens. */
  generation?: GenerationConfig;
  host: Host;
  limits: Limits;
}

/** All that answers are made with. */
export interface Service extends Omit<ServiceParts, "config" | "template"> {
  /** Seconds since 1970 when it began. */
  created: number;
  template?: ChatTemplate;
  /** How the model writes calls of tools, and the special tokens that belong to that. */
  form?: ToolForm;
  kept: ReadonlySet<number>;
  contextLength: number;
  /** Tokens that end an answer. */
  ends: number[];
  grammars: Grammars;
  metrics: Metrics;
}

/** A service from its parts. */
export function openService({ config, template: text, ...parts }: ServiceParts): Service {
  const { tokenizer, name, host } = parts;
  const template = text === undefined ? undefined : chatTemplate(text, config, tokenizer);
  const ends = answerEnds(endOfText(config, tokenizer), tokenizer, template);
  const form = template && learnToolForm(template, tokenizer, specialNames(tokenizer, ends));
  const kept = form ? formTokens(form, tokenizer) : new Set<number>();
  const vocabulary = () => grammarVocabulary(tokenizer, { size: config.vocabSize, stopIds: ends, kept });
  return {
    ...parts,
    created: Math.floor(Date.now() / 1000),
    template,
    form,
    kept,
    contextLength: config.contextLength,
    ends,
    grammars: openGrammarService(vocabulary),
    metrics: openMetrics(name, host.state),
  };
}
