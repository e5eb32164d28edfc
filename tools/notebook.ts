// Notebooks as files: finding, reading and writing them in the one normal form in which they are committed.
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** The repository: tools work on it unless a test gives them another folder. */
export const repository = fileURLToPath(new URL("..", import.meta.url));

export type Json = string | number | boolean | null | Json[] | { [key: string]: Json };
export type MimeBundle = Record<string, Json>;

/** A cell's output as nbformat 4 knows it. tslab sends streams and displays; failures stop the run. */
export type Output =
  | { output_type: "stream"; name: "stdout" | "stderr"; text: string | string[] }
  | { output_type: "display_data"; data: MimeBundle; metadata: MimeBundle };

export interface NotebookCell {
  cell_type: "code" | "markdown" | "raw";
  id: string;
  metadata: MimeBundle;
  source: string | string[];
  execution_count?: number | null;
  outputs?: Output[];
}

export interface Notebook {
  cells: NotebookCell[];
  metadata: MimeBundle;
  nbformat: number;
  nbformat_minor: number;
}

/** A problem that its reader can mend: a tool prints the message alone, one line for each problem. */
export class BookError extends Error {
  constructor(readonly problems: string[]) {
    super(problems.join("\n"));
  }
}

/** Whether a notebook is an appendix, such as `02-attention/a-the-engine-room.ipynb`: earlier ones may use what it defines. */
export const isAppendix = (name: string): boolean => path.basename(name).startsWith("a-");

/**
 * The names of the book's notebooks, such as `01-tokenizer/1-bytes-and-pairs.ipynb`, in reading order, with the appendices
 * of a chapter at its end. `root` is the folder that holds `chapters/`.
 */
export function notebookNames(root: string): string[] {
  const chapters = path.join(root, "chapters");
  if (!fs.existsSync(chapters)) return [];
  const folders = fs.readdirSync(chapters, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return folders
    .flatMap(({ name }) => fs.readdirSync(path.join(chapters, name)).map((file) => `${name}/${file}`))
    .filter((name) => name.endsWith(".ipynb") && !path.basename(name).startsWith("."))
    .sort(
      (a, b) =>
        a.slice(0, a.indexOf("/")).localeCompare(b.slice(0, b.indexOf("/")), "en", { numeric: true }) ||
        Number(isAppendix(a)) - Number(isAppendix(b)) ||
        a.localeCompare(b, "en", { numeric: true }),
    );
}

/** Reads a notebook of the book; `name` is as in `notebookNames`. */
export const readNotebook = (root: string, name: string): Notebook =>
  parseNotebook(fs.readFileSync(path.join(root, "chapters", name), "utf8"), name);

/** The notebook in a file's text; `name` is what an error calls it. */
export function parseNotebook(text: string, name: string): Notebook {
  try {
    const notebook = JSON.parse(text) as Notebook;
    if (notebook.nbformat !== 4 || !Array.isArray(notebook.cells)) throw new Error("it is not nbformat 4");
    return notebook;
  } catch (error) {
    throw new BookError([`${name}: is not a notebook: ${(error as Error).message}`]);
  }
}

/** Writes a notebook in normal form. */
export function writeNotebook(root: string, name: string, notebook: Notebook): void {
  fs.writeFileSync(path.join(root, "chapters", name), notebookText(notebook));
}

/** A cell's source as one string; a file may hold it as a list of lines. */
export const sourceText = (text: string | string[]): string => (Array.isArray(text) ? text.join("") : text);

/** The lines of a text, each with its end, as Jupyter splits them when it saves: at every line end that Python knows. */
const sourceLines = (text: string | string[]): string[] =>
  sourceText(text)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the line ends
    .split(/(?<=\r\n|\r(?!\n)|[\n\v\f\x1c-\x1e\x85\u2028\u2029])/)
    .filter((line) => line !== "");

/** What the kernel says of its language: Jupyter writes it into every notebook that it saves. */
const languageInfo = {
  codemirror_mode: { mode: "typescript", name: "javascript", typescript: true },
  file_extension: ".ts",
  mimetype: "text/typescript",
  name: "typescript",
  version: "3.7.2",
};

/**
 * The one text of a notebook's content, such that Jupyter saves it unchanged: sorted keys, an indent of one, sources as
 * lines, numbers as Python writes them; and beyond that no execution counts, no timings, the kernel named the same
 * everywhere, and figures without scripts.
 */
export function notebookText(notebook: Notebook): string {
  const metadata: MimeBundle = {
    kernelspec: { display_name: "TypeScript", language: "typescript", name: "tslab" },
    language_info: languageInfo,
  };
  if (notebook.metadata.tslm !== undefined) metadata.tslm = notebook.metadata.tslm;
  const cells = notebook.cells.map(normalCell) as unknown as Json;
  return `${jsonText({ cells, metadata, nbformat: 4, nbformat_minor: 5 })}\n`;
}

/** JSON as Python's `json` writes it, with sorted keys and an indent of one. */
function jsonText(value: Json, indent = "\n"): string {
  if (typeof value === "number") return numberText(value);
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent} `;
  const items = Array.isArray(value)
    ? value.map((item) => jsonText(item, inner))
    : Object.keys(value)
        .sort()
        .map((key) => `${JSON.stringify(key)}: ${jsonText(value[key], inner)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return items.length ? `${open}${inner}${items.join(`,${inner}`)}${indent}${close}` : open + close;
}

/** A number as Python writes it: with an exponent below 0.0001, of two digits at least. */
function numberText(value: number): string {
  const size = Math.abs(value);
  const text = size > 0 && size < 1e-4 ? value.toExponential() : JSON.stringify(value);
  return text.replace(/e([+-])(\d)$/, "e$10$2");
}

/** Nothing but imports and comments. */
const ONLY_IMPORTS = /^(\s*(\/\/.*|import\b[^;]*;))*\s*import\b[^;]*;(\s*(\/\/.*|import\b[^;]*;))*\s*$/;

/** Whether a cell is folded for whoever reads the story: the text around tests and lists of imports reads whole without them. */
const isFolded = (source: string): boolean => source.startsWith("//| test ") || ONLY_IMPORTS.test(source);

function normalCell({ cell_type, id, metadata, source, outputs }: NotebookCell): NotebookCell {
  const { execution: _times, ExecuteTime: _time, collapsed: _collapsed, ...kept } = metadata;
  if (cell_type === "code" && isFolded(sourceText(source)))
    kept.jupyter = { ...(kept.jupyter as MimeBundle | undefined), source_hidden: true };
  const cell: NotebookCell = { cell_type, id, metadata: kept, source: sourceLines(source) };
  if (cell_type === "code")
    Object.assign(cell, { execution_count: null, outputs: normalOutputs(outputs ?? []) });
  return cell;
}

function normalOutputs(outputs: Output[]): Output[] {
  const joined: Output[] = [];
  for (const output of outputs) {
    const last = joined.at(-1);
    if (output.output_type !== "stream") {
      joined.push({ ...output, data: normalBundle(output.data), metadata: output.metadata });
    } else if (last?.output_type === "stream" && last.name === output.name) {
      last.text = sourceLines(sourceText(last.text) + sourceText(output.text));
    } else {
      joined.push({ output_type: "stream", name: output.name, text: sourceLines(output.text) });
    }
  }
  return joined;
}

const PLOTLY = "application/vnd.plotly.v1+json";

/** A figure is its plotly JSON and a static picture: the page with scripts is for a live reader only. */
function normalBundle(data: MimeBundle): MimeBundle {
  const kept = PLOTLY in data ? [PLOTLY, "image/svg+xml", "image/png", "text/plain"] : Object.keys(data);
  return Object.fromEntries(
    kept.filter((mime) => mime in data).map((mime) => [mime, mimeValue(mime, data[mime])]),
  );
}

function mimeValue(mime: string, value: Json): Json {
  if (/[/+]json$/.test(mime)) return typeof value === "string" ? JSON.parse(value) : value;
  return mime.startsWith("text/") || mime.endsWith("+xml") ? sourceLines(value as string | string[]) : value;
}
