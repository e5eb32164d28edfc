// Loads @mlc-ai/web-xgrammar, and makes its instances. The package calls itself a module, but its file is a script for browsers and
// CommonJS; so it is compiled as one here, with all that it looks for around it.
import fs from "node:fs";
import { createRequire } from "node:module";
import vm from "node:vm";
import { isRecord } from "../../formats/keys.js";
import type { GrammarCompiler, GrammarMatcher } from "@mlc-ai/web-xgrammar";

type Package = typeof import("@mlc-ai/web-xgrammar");

/** What compiles grammars for one vocabulary, in a memory of its own. */
export interface GrammarInstance {
  compiler: GrammarCompiler;
  Grammar: Package["Grammar"];
  newMatcher: Package["GrammarMatcher"]["createGrammarMatcher"];
  /** The mask of what may come next. */
  maskOf(matcher: GrammarMatcher): Int32Array;
  /** What it has said since this was last asked. */
  said(): string[];
}

/** A vocabulary as xgrammar takes it. */
export interface GrammarVocabulary {
  /** The tokens in the alphabet of byte-level files, a character for each byte; "" where a token is no text. */
  tokens: string[];
  /** Ids up to here, those without a token too. */
  size: number;
  stopIds: number[];
}

/** What the package keeps to itself: memory and classes of its WebAssembly module. */
interface Binding {
  vecIntToView(vector: unknown): Int32Array;
}

let source: string | undefined;

/** The package's script, in which its binding is given out as well: with it a mask is had without waiting. */
function scriptOf(): string {
  if (source !== undefined) return source;
  const file = createRequire(import.meta.url).resolve("@mlc-ai/web-xgrammar");
  const text = fs.readFileSync(file, "utf8");
  source = text.replace("binding = await Module();", "binding = exports.binding = await Module();");
  if (source === text) throw new Error(`${file} is not the version of web-xgrammar that tslm knows.`);
  return source;
}

/** A new instance, whose mistakes no other feels. */
export async function openGrammars({ tokens, size, stopIds }: GrammarVocabulary): Promise<GrammarInstance> {
  const said: string[] = [];
  const hear = (...words: unknown[]) => void said.push(words.join(" "));
  const heard = { ...console, log: hear, warn: hear, error: hear };
  const exports = {} as Package & { binding: Binding };
  const names = ["exports", "module", "process", "location", "console"];
  vm.compileFunction(scriptOf(), names)(exports, {}, undefined, { href: "file:///" }, heard);
  const info = await exports.TokenizerInfo.createTokenizerInfo(tokens, "byte_level", false, size, stopIds);
  return {
    Grammar: exports.Grammar,
    compiler: await exports.GrammarCompiler.createGrammarCompiler(info),
    newMatcher: exports.GrammarMatcher.createGrammarMatcher,
    maskOf(matcher) {
      const { handle } = matcher as unknown as {
        handle: { GetNextTokenBitmask(size: number): { delete(): void } };
      };
      const vector = handle.GetNextTokenBitmask(size);
      const mask = exports.binding.vecIntToView(vector).slice();
      vector.delete();
      return mask;
    },
    said: () => said.splice(0),
  };
}

/** A grammar to compile: a JSON schema, or a form with schemas in it, as xgrammar's structural tags. */
export type GrammarSource = { schema: string; isStrict: boolean } | { form: string };

/**
 * A schema as a grammar. Between the parts of JSON there is one blank, as it is usually written: where any blanks may come, small models
 * write little else.
 */
function schemaGrammar({ Grammar }: GrammarInstance, schema: string, isStrict: boolean) {
  return Grammar.fromJSONSchema(schema, false, -1, undefined, isStrict);
}

/** A format of structural tags in which every schema is a grammar. */
async function withGrammars(instance: GrammarInstance, format: unknown): Promise<unknown> {
  if (Array.isArray(format)) return Promise.all(format.map((inner) => withGrammars(instance, inner)));
  if (!isRecord(format)) return format;
  if (format.type === "json_schema") {
    const grammar = await schemaGrammar(instance, JSON.stringify(format.json_schema), false);
    return { type: "grammar", grammar: grammar.toString() };
  }
  const entries = Object.entries(format).map(async ([key, inner]) => [
    key,
    await withGrammars(instance, inner),
  ]);
  return Object.fromEntries(await Promise.all(entries));
}

/** Compiles a grammar. */
export async function compileSource(instance: GrammarInstance, given: GrammarSource) {
  const { compiler } = instance;
  if ("schema" in given)
    return compiler.compileGrammar(await schemaGrammar(instance, given.schema, given.isStrict));
  const format = await withGrammars(instance, JSON.parse(given.form));
  return compiler.compileStructuralTag(format as object as Record<string, unknown>);
}
