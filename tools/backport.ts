// npm run backport: carries edits made in the extracted library back into the cells they came from.
import { cellName, type CodeCell, importsOf, isLibrary, withoutExports } from "./cells.js";
import { extractLibrary, filePath, type Library, readBook } from "./library.js";
import { cellEdited, libraryEdits, piecesOf, readFile, strayPieces, writeLibrary } from "./library-files.js";
import { BookError, type Notebook, repository, writeNotebook } from "./notebook.js";
import { runTool } from "./run-tool.js";

/**
 * Carries every edited piece of lib/src and lib/test into its cell, then extracts. Returns a line for each cell
 * changed. Throws a BookError, and changes nothing, where an edit cannot be carried back.
 */
export function backport(root: string): string[] {
  const book = readBook(root);
  const before = extractLibrary(root, book);
  const edits = libraryEdits(root, before);
  const problems = [...edits.keys()].flatMap((file) =>
    strayPieces(file, readFile(root, file)!, before.files.get(file)!),
  );
  const changed = [...edits].flatMap(([file, markers]) =>
    before.cells.filter(
      (cell) => cell.kind !== "narrative" && filePath(cell) === file && markers.includes(cellName(cell)),
    ),
  );
  for (const cell of changed) carryBack(root, cell, book.get(cell.notebook)!, problems);
  if (problems.length > 0) throw new BookError(problems);
  const after = extractLibrary(root, book);
  const lost = [...edits].flatMap(([file, markers]) => lostEdits(root, file, markers, before, after));
  if (lost.length > 0) throw new BookError(lost);
  for (const name of new Set(changed.map(({ notebook }) => notebook)))
    writeNotebook(root, name, book.get(name)!);
  writeLibrary(root, after);
  return changed.map((cell) => `${cellName(cell)} now has the edit of ${filePath(cell)}`);
}

/** Writes a piece's text into its cell, below the marker and the imports that the cell holds. */
function carryBack(root: string, cell: CodeCell, notebook: Notebook, problems: string[]): void {
  const file = filePath(cell);
  if (cellEdited(root, file, { marker: cellName(cell), text: cell.body })) {
    problems.push(`${cellName(cell)}: was edited, and so was its piece in ${file}; make one like the other`);
  }
  const piece = piecesOf(readFile(root, file)!).find(({ marker }) => marker === cellName(cell));
  if (!piece) return; // removed: extraction will miss it
  const marker = cell.source.split("\n", 1)[0];
  const body = isLibrary(cell) ? withoutExports(piece.text) : piece.text;
  const imports = cell.importText.length > 0 ? `${cell.importText.join("\n")}\n\n` : "";
  notebook.cells.find(({ id }) => id === cell.id)!.source = `${marker}\n${imports}${body}`;
}

/** What extraction would now write differently from what was edited. */
function lostEdits(root: string, file: string, markers: string[], before: Library, after: Library): string[] {
  const edited = piecesOf(readFile(root, file)!);
  const wanted = piecesOf(after.files.get(file)!).filter(
    ({ marker }) => marker !== "" && markers.includes(marker),
  );
  const lines = wanted.flatMap(({ marker, text }) => {
    const piece = edited.find((other) => other.marker === marker);
    if (!piece) return [`${file}: lacks the cell ${marker}; remove it in the notebook`];
    const rule = `every declaration of ${marker} is exported; write \`export\` before each`;
    return piece.text === text ? [] : [`${file}: ${rule}`];
  });
  return [...lines, ...lostImports(file, edited[0].text, before, after)];
}

/** Imports written in the library that the notebook does not have. */
function lostImports(file: string, head: string, before: Library, after: Library): string[] {
  const known = [before, after].flatMap(({ files }) => importKeys(piecesOf(files.get(file)!)[0].text));
  const lost = importKeys(head).filter((key) => !known.includes(key));
  const owner = after.cells.find((cell) => cell.kind !== "narrative" && filePath(cell) === file)!.notebook;
  const cells = after.cells.filter(({ notebook, imports }) => notebook === owner && imports.length > 0);
  const where = cells.map(cellName).join(" or ") || `a cell of ${owner}`;
  return lost.map(
    (key) => `${file}: import ${key} is not in the notebook; imports belong to cells: edit ${where}`,
  );
}

function importKeys(head: string): string[] {
  return importsOf(head).map(
    ({ local, imported, from }) => `${imported === local ? local : `${imported} as ${local}`} from "${from}"`,
  );
}

function main(): void {
  const lines = backport(repository);
  console.log(lines.length > 0 ? lines.join("\n") : "the library holds no edit that its cells lack");
}

runTool(import.meta.url, main);
