// The library as files: comparing it with the notebooks, writing it, and knowing which side was edited.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { onlyImports } from "./cells.js";
import { HEADER, isWhole, type Library, typeScriptFiles } from "./library.js";
import { BookError } from "./notebook.js";

/** A cell's place in an extracted file: the cell's name, and its text without the marker line. */
export interface Piece {
  marker: string;
  text: string;
}

/** Splits an extracted file at its markers. What stands before the first has the marker "". */
export function piecesOf(file: string): Piece[] {
  const [head, ...rest] = file.split(/^\/\/\| ?/m);
  const pieces = rest.map((piece) => {
    const end = `${piece}\n`.indexOf("\n");
    return { marker: piece.slice(0, end).trim(), text: piece.slice(end + 1).trimEnd() };
  });
  return [{ marker: "", text: head.trimEnd() }, ...pieces];
}

const byMarker = (file: string): Map<string, string> =>
  new Map(piecesOf(file).map(({ marker, text }) => [marker, text]));

export const readFile = (root: string, file: string): string | undefined =>
  fs.existsSync(path.join(root, file)) ? fs.readFileSync(path.join(root, file), "utf8") : undefined;

/** How the files under `root` differ from the notebooks: one line a difference, naming file and cell. */
export function libraryDifferences(root: string, library: Library): string[] {
  const stale = staleFiles(root, library).map((file) => `${file}: no notebook defines it`);
  const lines = [...library.files].flatMap(([file, text]) => {
    const found = readFile(root, file);
    return found === text
      ? []
      : found === undefined
        ? [`${file}: is missing`]
        : isWhole(file)
          ? [`${file}: does not list the names that the notebooks define`]
          : differences(file, found, text);
  });
  return [...lines, ...stale];
}

function differences(file: string, found: string, expected: string): string[] {
  const present = byMarker(found);
  const lines = strayPieces(file, found, expected);
  for (const [marker, text] of byMarker(expected)) {
    if (!present.has(marker)) lines.push(`${file}: lacks the cell ${marker}`);
    else if (present.get(marker) !== text)
      lines.push(`${file}: differs in ${marker || "its header and imports"}`);
  }
  return lines.length > 0 ? lines : [`${file}: its pieces are not in the order of the cells`];
}

/** What stands in an extracted file and leads to no cell. */
export function strayPieces(file: string, found: string, expected: string): string[] {
  const known = byMarker(expected);
  const [head, ...pieces] = piecesOf(found);
  const lines = onlyImports(head.text)
    ? []
    : [`${file}: code before the first marker belongs to no cell; put it below the marker of a cell`];
  const markers = pieces.map(({ marker }) => marker);
  for (const marker of new Set(markers)) {
    if (!known.has(marker)) lines.push(`${file}: the marker ${marker} leads to no cell`);
    if (markers.indexOf(marker) !== markers.lastIndexOf(marker))
      lines.push(`${file}: ${marker} stands there twice`);
  }
  return lines;
}

/** Extracted files that extraction would not write now. */
const staleFiles = (root: string, { files }: Library): string[] =>
  [...typeScriptFiles(root, "lib/src"), ...typeScriptFiles(root, "lib/test")].filter(
    (file) => !files.has(file) && readFile(root, file)?.startsWith(HEADER),
  );

/** Writes what changed and removes modules that no notebook defines any more. Returns a line for each file. */
export function writeLibrary(root: string, library: Library): string[] {
  const stale = staleFiles(root, library);
  for (const file of stale) fs.rmSync(path.join(root, file));
  const written = [...library.files].filter(([file, text]) => readFile(root, file) !== text);
  for (const [file, text] of written) writeFile(root, file, text);
  rememberPieces(root, library);
  return [...written.map(([file]) => `wrote ${file}`), ...stale.map((file) => `removed ${file}`)];
}

function writeFile(root: string, file: string, text: string): void {
  fs.mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
  fs.writeFileSync(path.join(root, file), text);
}

/** Throws when extraction would overwrite what exists nowhere else: an edit of the library, or a file not committed. */
export function refuseToOverwrite(root: string, library: Library): void {
  const lines = [...libraryEdits(root, library)].map(([file, markers]) => {
    const where = markers.filter((marker) => marker !== "").join(", ") || "its header or imports";
    return `${file}: was edited since it was extracted (${where})`;
  });
  const ways = "`npm run backport` carries edits into the notebooks; `npm run extract -- --force` drops them";
  if (lines.length > 0) throw new BookError([...lines, ways]);
}

// What extraction wrote last, as digests by file and marker. It tells an edit of the library from an edit of a cell.
const MEMORY = "lib/dist/.extracted.json";
type Memory = Record<string, Record<string, string>>;

const digest = (text: string): string => createHash("sha256").update(text).digest("base64").slice(0, 12);

function rememberPieces(root: string, { files }: Library): void {
  const digests = [...files].map(([file, text]) => {
    const pieces = piecesOf(text).map((piece) => [piece.marker, digest(piece.text)]);
    return [file, Object.fromEntries(pieces)];
  });
  writeFile(root, MEMORY, JSON.stringify(Object.fromEntries(digests), null, 1));
}

/**
 * The pieces edited in the library: those that differ from their cell, from what extraction wrote last, and from
 * what is committed. File to markers; the header's marker is "".
 */
export function libraryEdits(root: string, library: Library): Map<string, string[]> {
  const memory: Memory = JSON.parse(readFile(root, MEMORY) ?? "{}");
  const edits = new Map<string, string[]>();
  for (const [file, expected] of library.files) {
    const found = isWhole(file) ? undefined : readFile(root, file);
    const markers = found === undefined ? [] : editedMarkers(found, expected, memory[file] ?? {});
    if (markers.length > 0) edits.set(file, markers);
  }
  const changed = edits.size > 0 ? uncommitted(root, [...edits.keys()]) : undefined;
  return changed ? new Map([...edits].filter(([file]) => changed.has(file))) : edits;
}

function editedMarkers(found: string, expected: string, written: Record<string, string>): string[] {
  const [present, wanted] = [byMarker(found), byMarker(expected)];
  const changed = [...present].filter(
    ([marker, text]) => wanted.get(marker) !== text && written[marker] !== digest(text),
  );
  const removed = [...wanted.keys()].filter((marker) => marker in written && !present.has(marker));
  return [...changed.map(([marker]) => marker), ...removed];
}

/** Whether a cell was edited too since it was extracted, as far as is known. */
export function cellEdited(root: string, file: string, { marker, text }: Piece): boolean {
  const memory: Memory = JSON.parse(readFile(root, MEMORY) ?? "{}");
  const known = memory[file]?.[marker];
  return known !== undefined && known !== digest(text);
}

/** Which of the files differ from the last commit; undefined where there is no git to ask. */
function uncommitted(root: string, files: string[]): Set<string> | undefined {
  const args = ["status", "--porcelain", "-z", "--no-renames", "-uall", "--", ...files];
  const { status, stdout } = spawnSync("git", args, { cwd: root, encoding: "utf8" });
  return status === 0 ? new Set(stdout.split("\0").map((line) => line.slice(3))) : undefined;
}
