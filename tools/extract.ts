// npm run extract [-- --check | --force]: writes the library that the notebooks define, or says where the two differ.
import { extractLibrary } from "./library.js";
import { libraryDifferences, readFile, refuseToOverwrite, writeLibrary } from "./library-files.js";
import {
  BookError,
  notebookNames,
  notebookText,
  readNotebook,
  repository,
  writeNotebook,
} from "./notebook.js";
import { runTool } from "./run-tool.js";

/** Notebooks that are not in normal form. */
const unnormalized = (root: string): string[] =>
  notebookNames(root).filter(
    (name) => readFile(root, `chapters/${name}`) !== notebookText(readNotebook(root, name)),
  );

/** A line for each notebook that is not in normal form. */
export const formProblems = (root: string): string[] =>
  unnormalized(root).map((name) => `${name}: is not in normal form; \`npm run extract\` puts it so`);

/** Puts notebooks in normal form. Returns a line for each that was not. */
export const normalizeNotebooks = (root: string): string[] =>
  unnormalized(root).map((name) => {
    writeNotebook(root, name, readNotebook(root, name));
    return `wrote chapters/${name} in normal form`;
  });

function main(args: string[]): void {
  const library = extractLibrary(repository);
  const strays = library.handWritten.map(
    (module) => `lib/src/${module}.ts: is in no notebook; each module of these rooms comes from one`,
  );
  if (args.includes("--check")) {
    const differences = [...libraryDifferences(repository, library), ...formProblems(repository), ...strays];
    if (differences.length > 0)
      throw new BookError([...differences, "run `npm run extract` or `npm run backport`"]);
    console.log("the library is what the notebooks define");
  } else {
    if (!args.includes("--force")) refuseToOverwrite(repository, library);
    const lines = [...normalizeNotebooks(repository), ...writeLibrary(repository, library), ...strays];
    console.log(lines.length > 0 ? lines.join("\n") : "the library was up to date");
  }
}

runTool(import.meta.url, main);
