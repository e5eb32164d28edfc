// The kernel's parts, tslab's, put together so that an error in a cell names the cell's own line: Jupyter's kernel and the
// process in which a notebook is checked are both made of them. Plain JavaScript, so that no loader reaches the cells.
import { createRequire, SourceMap } from "node:module";
import path from "node:path";
import { withCellCompiler } from "./kernel-compiler.mjs";

const require = createRequire(import.meta.url);
const requireAsTslab = createRequire(require.resolve("tslab/dist/converter"));

/** From a text that the compiler gave to the source map of each of its two steps. */
const mapsOf = new Map();

let mapsAreKept = false;

/** What the compiler wrote at a text's end about its source map, when that is inside of it. */
const INLINE_MAP = /\n?\/\/# sourceMappingURL=data:[^,]*;base64,(\S+)\s*$/;

/**
 * Makes tslab's compiler keep source maps, which it has no option for. It compiles in two steps, types away and then modules
 * to `require`; the second is given the result of the first, with its map inside.
 */
function keepSourceMaps() {
  if (mapsAreKept) return;
  mapsAreKept = true;
  const file = requireAsTslab.resolve("@tslab/typescript-for-tslab");
  const ts = withCellCompiler(requireAsTslab(file));
  const createWatchCompilerHost = (roots, options, ...rest) =>
    ts.createWatchCompilerHost(roots, { ...options, inlineSourceMap: true }, ...rest);
  const transpileModule = (input, { compilerOptions, ...options }) => {
    const inline = INLINE_MAP.exec(input);
    const code = input.replace(INLINE_MAP, "\n");
    const mapped = { ...options, compilerOptions: { ...compilerOptions, sourceMap: true } };
    const { outputText, sourceMapText, ...result } = ts.transpileModule(code, mapped);
    const text = outputText.replace(/\/\/# sourceMappingURL=\S+\s*$/, "");
    const first = inline && Buffer.from(inline[1], "base64").toString("utf8");
    if (first) mapsOf.set(text, [sourceMapText, first]);
    return { ...result, outputText: text };
  };
  require.cache[file].exports = { ...ts, createWatchCompilerHost, transpileModule };
}

/** What runs, by the name that a stack trace gives it: what the reader calls it, its source's lines, its source maps. */
const scripts = new Map();

let compiled = 0;

/** tslab puts a line before what it compiles, which makes a module of it. */
const LINES_BEFORE = 1;

/** The reader's line, counted from 1, and its text, of a place in compiled code; undefined where nothing corresponds. */
function sourceLine({ maps, lines, end }, line, column) {
  if (line > end) return undefined; // the call that tslab wraps around a cell
  let place = { originalLine: line - 1, originalColumn: column - 1 };
  for (const map of maps) {
    place = map.findEntry(place.originalLine, place.originalColumn);
    if (place?.originalLine === undefined) return undefined;
  }
  const at = place.originalLine - LINES_BEFORE;
  return { line: at + 1, text: lines?.[at]?.trim() ?? "" };
}

const shortened = (text) => (text.length > 90 ? `${text.slice(0, 89)}…` : text);

/** A frame in the reader's own code, said with their line; undefined for any other. */
function ownFrame(site) {
  const name = site.getScriptNameOrSourceURL();
  const script = scripts.get(name);
  const [line, column] = [site.getLineNumber(), site.getColumnNumber()];
  const found = script && sourceLine(script, line, column);
  if (!found) return undefined;
  const place = `${script.title}, line ${found.line}`;
  // A function of an earlier cell is called as a method of what tslab keeps them in.
  const called = site.toString().replace(/^(async )?Proxy\./, "$1");
  const frame = `    at ${called.replace(`${name}:${line}:${column}`, place)}`;
  return found.text ? `${frame}:  ${shortened(found.text)}` : frame;
}

/** Frames of Node, of the compiler and of the kernel say nothing to a reader. */
const isKernels = (site) =>
  /^node:|^evalmachine|[\\/]tslab[\\/]|[\\/]tools[\\/]\S*kernel|[\\/]notebook-child/.test(
    site.getScriptNameOrSourceURL() ?? "node:",
  );

/** An error's stack: the frames in cells, with their own lines; where there are none, those outside of the kernel. */
function readableStack(error, sites) {
  const own = sites.map(ownFrame).filter(Boolean);
  const others = sites.filter((site) => !isKernels(site)).map((site) => `    at ${site}`);
  return [Error.prototype.toString.call(error), ...(own.length ? own : others)].join("\n");
}

/** A converter that names what it compiles: `title()` is what the reader calls the cell at hand. */
function naming(converter, title) {
  const remember = (name, text, about) => {
    const maps = mapsOf.get(text);
    mapsOf.delete(text);
    if (maps) scripts.set(name, { ...about, maps: maps.map((map) => new SourceMap(JSON.parse(map))) });
  };
  const convert = (declarations, source) => {
    const result = converter.convert(declarations, source);
    for (const { path: file, data } of result.sideOutputs ?? [])
      remember(file, data, { title: path.basename(file).replace(/\.js$/, ".ts") });
    if (!result.output) return result;
    const name = `tslm-cell-${++compiled}`;
    const lines = source.split("\n");
    remember(name, result.output, { title: title(), lines, end: result.output.split("\n").length });
    return { ...result, output: `${result.output}\n//# sourceURL=${name}` };
  };
  return { ...converter, convert };
}

/** An interrupted cell needs no stack. */
const isInterrupt = (error) =>
  error?.code === "ERR_SCRIPT_EXECUTION_INTERRUPTED" || error?.message === "Interrupted asynchronously";

/**
 * A kernel in the folder where the process runs: `{ handler, executor }` of tslab, and its module `jupyter`. `title` says
 * what the reader calls the cell that is about to run, given its number.
 */
export function createKernel(title = (count) => `cell [${count}]`) {
  keepSourceMaps();
  const { createConverter } = require("tslab/dist/converter");
  const { createExecutor } = require("tslab/dist/executor");
  const jupyter = require("tslab/dist/jupyter");
  Error.prepareStackTrace = readableStack;
  const converter = createConverter({ isJS: false, isBrowser: false });
  const converters = {
    node: naming(converter, () => title(handler.execCount)),
    close: () => converter.close(),
  };
  const output = {
    log: console.log,
    error: (error, ...more) => console.error(isInterrupt(error) ? "Interrupted." : error, ...more),
  };
  const executor = createExecutor(process.cwd(), converters, output);
  const handler = new jupyter.JupyterHandlerImpl(executor, false);
  return { handler, executor, jupyter };
}
