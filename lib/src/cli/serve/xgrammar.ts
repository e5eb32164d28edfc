// Loads @mlc-ai/web-xgrammar, and makes its instances. The package calls itself a module, but its file is a script for browsers and
// CommonJS; so it is compiled as one here, with all that it looks for around it.
import fs from "node:fs";
import { createRequire } from "node:module";
import vm from "node:vm";
import type { GrammarCompiler, GrammarMatcher } from "@mlc-ai/web-xgrammar";

type Package = typeof import("@mlc-ai/web-xgrammar");

/** What compiles grammars for one vocabulary, in a memory of its own. */
export interface GrammarInstance {
  compiler: GrammarCompiler;
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

/** Blanks between the parts of JSON: enough for deep indentation, and an end to a model that likes nothing else. */
const blanks = 40;

/** Compiles a grammar. */
export function compileSource(compiler: GrammarCompiler, given: GrammarSource) {
  if ("form" in given) return compiler.compileStructuralTag(given.form);
  return compiler.compileJSONSchema(given.schema, true, undefined, undefined, given.isStrict, blanks);
}
