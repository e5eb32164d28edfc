// The book as a reader goes through it: what a notebook says of the others.
import fs from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { isAppendix, notebookNames, readNotebook, repository, sourceText } from "../tools/notebook.js";

const everything = notebookNames(repository).map((name) => {
  const cells = readNotebook(repository, name).cells.map(({ source }) => sourceText(source));
  return { name, title: /^# (.+)/.exec(cells[0])?.[1] ?? name, cells };
});
const notebooks = everything.filter(({ name }) => !isAppendix(name));
const titles = new Set(notebooks.map(({ title }) => title));

/** The titles of notebooks that a text names: set in italics or bold, or as links. */
const titlesIn = (text: string): string[] =>
  [...text.matchAll(/(?<!\*)\*{1,2}([A-Z][^*\n]*?)\*{1,2}(?!\*)|\[([A-Z][^\]\n]*)\]\(/g)]
    .map(([, title, linked]) => title ?? linked)
    .filter((title) => titles.has(title));

/** The notebooks that are read one after the other. */
const story = notebooks.filter(({ name }) => !isAppendix(name));

test("the last title that the end of a notebook names is that of the next notebook", () => {
  const next = story.slice(0, -1).map(({ cells }) => titlesIn(cells.at(-1) ?? "").at(-1));
  expect(next).toEqual(story.slice(1).map(({ title }) => title));
});

test("the last notebook speaks of none that comes later", () => {
  const promises = story
    .at(-1)
    ?.cells.filter((text) => /\blater notebook|\bnotebooks that follow/i.test(text));
  expect(promises).toEqual([]);
});

/** Where the links of a text lead that name a file, and not an address or a heading. */
const linkedFiles = (text: string): string[] =>
  [...text.matchAll(/\]\(([^)\s#]+)(?:#[^)\s]*)?\)/g)]
    .map(([, target]) => decodeURI(target))
    .filter((target) => !/^[a-z]+:/.test(target));

test("every link to a file leads to one", () => {
  const chapters = path.join(repository, "chapters");
  const pages = notebookNames(repository).map((name) => ({
    name,
    text: readNotebook(repository, name)
      .cells.filter(({ cell_type }) => cell_type === "markdown")
      .map(({ source }) => sourceText(source))
      .join("\n"),
  }));
  pages.push({ name: "glossary.md", text: fs.readFileSync(path.join(chapters, "glossary.md"), "utf8") });
  const links = pages.flatMap(({ name, text }) =>
    linkedFiles(text).map((target) => ({ name, target, file: path.join(chapters, name, "..", target) })),
  );
  expect(links.length).toBeGreaterThan(200);
  const broken = links.filter(({ file }) => !fs.existsSync(file));
  expect(broken.map(({ name, target }) => `${name}: ${target}`)).toEqual([]);
});

test("the glossary is in alphabetical order", () => {
  const glossary = fs.readFileSync(path.join(repository, "chapters/glossary.md"), "utf8");
  const words = [...glossary.matchAll(/^- \*\*(.+?)\*\*:/gm)].map(([, word]) => word.toLowerCase());
  expect(words.length).toBeGreaterThan(80);
  expect(words).toEqual([...words].sort());
});
