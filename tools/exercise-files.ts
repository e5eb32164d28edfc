// Exercises from solutions: the marked parts taken out, a learner's work never overwritten.
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { BookError, type Json, type Notebook, notebookText, parseNotebook, sourceText } from "./notebook.js";

/** A file of exercises/ as generation gives it. `name` is as in `01-tokenizer/1-one-merge.ipynb`. */
export interface Generated {
  name: string;
  text: string;
  /** Of a notebook: the cells of the solution and of the exercise. */
  solution?: Notebook;
  exercise?: Notebook;
}

/** What stands in for a solved part: nothing, or the starter lines, indented as the marker is. */
function unsolved(block: string[], indent: string): string[] {
  const starters = block.flatMap((line) => /^\s*\/\/\| starter:[ ]?(.*)$/.exec(line)?.[1] ?? []);
  return starters.map((line) => (line === "" ? "" : indent + line));
}

const OPENING = /^(\s*)(?:\/\/\||<!--\|) solution(?: -->)?\s*$/;
const CLOSING = /^\s*(?:\/\/\||<!--\|) end(?: -->)?\s*$/;

/**
 * A cell's source without its solved parts. They stand between the lines `//| solution` and `//| end`; the lines
 * `//| starter: code` between them become code. In Markdown: `<!--| solution -->` and `<!--| end -->`.
 */
export function exerciseSource(source: string, at: string): string {
  const result: string[] = [];
  let block: string[] | undefined;
  let indent = "";
  for (const line of source.split("\n")) {
    const opening = OPENING.exec(line);
    if (opening && block) throw new BookError([`${at}: a solution begins inside another one`]);
    if (opening) [block, indent] = [[], opening[1]];
    else if (CLOSING.test(line)) {
      if (!block) throw new BookError([`${at}: \`end\` without a solution before it`]);
      result.push(...unsolved(block, indent));
      block = undefined;
    } else if (block) block.push(line);
    else if (/^\s*\/\/\|/.test(line))
      throw new BookError([`${at}: "${line.trim()}" is no mark of an exercise`]);
    else result.push(line);
  }
  if (block) throw new BookError([`${at}: a solution that does not end: \`//| end\` is missing`]);
  return result
    .join("\n")
    .replace(/\n{3,}/g, "\n\n")
    .trim();
}

/** A cell as a reader of the solution runs it: the marks stay, they are comments. */
function exerciseOf(solution: Notebook, name: string): Notebook {
  const cells = solution.cells.map((cell) => {
    const source = exerciseSource(sourceText(cell.source), `solutions/${name}#${cell.id}`);
    return cell.cell_type === "code" ? { ...cell, source, outputs: [] } : { ...cell, source };
  });
  const kept = cells.filter(({ source }) => source !== "");
  const notebook = { ...solution, cells: kept, metadata: { ...solution.metadata } };
  notebook.metadata.tslm = { exercise: { from: `solutions/${name}`, hash: notebookHash(notebook) } };
  return notebook;
}

const hashOf = (text: string) => createHash("sha256").update(text).digest("hex").slice(0, 16);

/** What a notebook says: kinds and sources of its cells. Outputs and counts do not matter, nor space at line ends. */
export function notebookHash(notebook: Notebook): string {
  const cells = notebook.cells
    .map(({ cell_type, source }) => [
      cell_type,
      sourceText(source)
        .replace(/[ \t]+$/gm, "")
        .trim(),
    ])
    .filter(([, source]) => source !== "");
  return hashOf(JSON.stringify(cells));
}

const CHECKS_HEAD = /^\/\/ Made from (solutions\/\S+) by `npm run exercises`, as ([0-9a-f]{16})\n/;

function checksText(name: string, text: string): string {
  return `// Made from solutions/${name} by \`npm run exercises\`, as ${hashOf(text)}\n${text}`;
}

const visible = (folder: string): string[] =>
  fs.existsSync(folder)
    ? fs
        .readdirSync(folder)
        .filter((name) => !name.startsWith("."))
        .sort()
    : [];

/** The chapters' files in `solutions` or `exercises`, as `01-tokenizer/checks.ts`, in reading order. */
function filesOf(root: string, place: "solutions" | "exercises"): string[] {
  const top = path.join(root, place);
  const chapters = visible(top).filter((name) => fs.statSync(path.join(top, name)).isDirectory());
  return chapters
    .flatMap((chapter) => visible(path.join(top, chapter)).map((file) => `${chapter}/${file}`))
    .filter((name) => /\.(ipynb|ts)$/.test(name))
    .sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
}

/** Everything that exercises/ should hold, from the solutions under `root`. Throws a BookError on a wrong mark. */
export function buildExercises(root: string): Generated[] {
  return filesOf(root, "solutions").map((name) => {
    const text = fs.readFileSync(path.join(root, "solutions", name), "utf8");
    if (name.endsWith(".ts")) return { name, text: checksText(name, text) };
    const solution = parseNotebook(text, `solutions/${name}`);
    const exercise = exerciseOf(solution, name);
    return { name, text: notebookText(exercise), solution, exercise };
  });
}

/** How a file in exercises/ stands to what generation gives. */
type State = "missing" | "current" | "stale" | "edited";

function recordedHash(notebook: Notebook): string | undefined {
  const mark = (notebook.metadata.tslm as { [key: string]: Json } | undefined)?.exercise;
  return (mark as { hash?: string } | undefined)?.hash;
}

/** The state of one exercise. It was edited when it is not what its own mark says it was made as. */
function stateOf(root: string, { name, text, exercise }: Generated): State {
  const file = path.join(root, "exercises", name);
  if (!fs.existsSync(file)) return "missing";
  const found = fs.readFileSync(file, "utf8");
  if (found === text) return "current";
  if (!exercise) return untouchedChecks(found) ? "stale" : "edited";
  try {
    const notebook = parseNotebook(found, name);
    const hash = notebookHash(notebook);
    if (hash === notebookHash(exercise)) return "current";
    return hash === recordedHash(notebook) ? "stale" : "edited";
  } catch {
    return "edited"; // whatever it is, it is not ours to throw away
  }
}

/** True when a file of checks is as it was made, whatever the solutions say now. */
function untouchedChecks(text: string): boolean {
  const head = CHECKS_HEAD.exec(text);
  return Boolean(head && hashOf(text.slice(head[0].length)) === head[2]);
}

function untouched(root: string, name: string): boolean {
  const text = fs.readFileSync(path.join(root, "exercises", name), "utf8");
  if (name.endsWith(".ts")) return untouchedChecks(text);
  try {
    const notebook = parseNotebook(text, name);
    return notebookHash(notebook) === recordedHash(notebook);
  } catch {
    return false;
  }
}

/** Files in exercises/ whose solution is gone. */
function orphans(root: string, exercises: Generated[]): string[] {
  const known = new Set(exercises.map(({ name }) => name));
  return filesOf(root, "exercises").filter((name) => !known.has(name) && untouched(root, name));
}

/** What is not as generation gives it: stale files count against the repository, edited ones never do. */
export function staleExercises(root: string, exercises: Generated[]): { stale: string[]; edited: string[] } {
  const states = exercises.map((exercise) => ({ name: exercise.name, state: stateOf(root, exercise) }));
  const where = (wanted: State) =>
    states.filter(({ state }) => state === wanted).map(({ name }) => `exercises/${name}`);
  const stale = [
    ...where("missing").map((file) => `${file} is missing`),
    ...where("stale").map((file) => `${file} is older than its solution`),
    ...orphans(root, exercises).map((name) => `exercises/${name} has no solution`),
  ];
  return { stale, edited: where("edited") };
}

/** Writes what is missing or stale and removes what has no solution; an edited file stays as it is. */
export function writeExercises(root: string, exercises: Generated[]) {
  const [written, edited]: [string[], string[]] = [[], []];
  for (const exercise of exercises) {
    const state = stateOf(root, exercise);
    const file = path.join("exercises", exercise.name);
    if (state === "edited") edited.push(file);
    if (state !== "missing" && state !== "stale") continue;
    fs.mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
    fs.writeFileSync(path.join(root, file), exercise.text);
    written.push(file);
  }
  const removed = orphans(root, exercises).map((name) => path.join("exercises", name));
  for (const file of removed) fs.rmSync(path.join(root, file));
  return { written, edited, removed };
}
