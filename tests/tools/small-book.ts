// Books of a few cells in a temporary folder, for the tests of the tools.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { onTestFinished } from "vitest";
import { extractLibrary } from "../../tools/library.js";
import { writeLibrary } from "../../tools/library-files.js";
import { type Notebook, readNotebook, writeNotebook } from "../../tools/notebook.js";

/** A cell's id and source. */
export type Cell = [id: string, source: string];

export const ONE = "01-tokenizer/1-one.ipynb";
export const TWO = "02-attention/1-two.ipynb";

export const notebookOf = (cells: Cell[]): Notebook => ({
  cells: cells.map(([id, source]) => ({ cell_type: "code", id, metadata: {}, source })),
  metadata: {},
  nbformat: 4,
  nbformat_minor: 5,
});

/** Writes notebooks, named as in the book, and returns the folder that holds `chapters/`. */
export function makeBook(notebooks: Record<string, Cell[]>): string {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-book-"));
  onTestFinished(() => fs.rmSync(root, { recursive: true }));
  for (const [name, cells] of Object.entries(notebooks)) {
    fs.mkdirSync(path.join(root, "chapters", path.dirname(name)), { recursive: true });
    writeNotebook(root, name, notebookOf(cells));
  }
  return root;
}

export const write = (root: string, file: string, text: string): void => {
  fs.mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
  fs.writeFileSync(path.join(root, file), text);
};

export const read = (root: string, file: string): string => fs.readFileSync(path.join(root, file), "utf8");

/** Replaces a part of a file that must be there. */
export function edit(root: string, file: string, from: string, to: string): void {
  const text = read(root, file);
  if (!text.includes(from)) throw new Error(`${file} does not hold ${from}`);
  write(root, file, text.replace(from, to));
}

/** Replaces a part of a cell. */
export function editCell(root: string, name: string, id: string, from: string, to: string): void {
  const notebook = readNotebook(root, name);
  const cell = notebook.cells.find((candidate) => candidate.id === id)!;
  cell.source = [cell.source].flat().join("").replace(from, to);
  writeNotebook(root, name, notebook);
}

/** Extracts and writes the library; returns what was done. */
export const extract = (root: string): string[] => writeLibrary(root, extractLibrary(root));

/** The text of one file extracted from notebooks, without its header line. */
export function extracted(notebooks: Record<string, Cell[]>, file: string): string {
  const text = extractLibrary(makeBook(notebooks)).files.get(file)!;
  return text.slice(text.indexOf("\n") + 1);
}

/** The message of the error that extraction of one notebook of these cells ends with. */
export function extractionError(...cells: Cell[]): string {
  return errorOf(() => extractLibrary(makeBook({ [ONE]: cells })));
}

export function errorOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error("expected an error");
}
