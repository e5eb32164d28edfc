// The book as a reader goes through it: what a notebook says of the others.
import { expect, test } from "vitest";
import { notebookNames, readNotebook, repository, sourceText } from "../tools/notebook.js";

/** Appendices, named `a-…`, stand beside the way: nobody is sent to them next. */
const isAppendix = (name: string): boolean => /\/a-/.test(name);

const everything = notebookNames(repository).map((name) => {
  const cells = readNotebook(repository, name).cells.map(({ source }) => sourceText(source));
  return { name, title: /^# (.+)/.exec(cells[0])?.[1] ?? name, cells };
});
const notebooks = everything.filter(({ name }) => !isAppendix(name));
const titles = new Set(notebooks.map(({ title }) => title));

/** The titles of notebooks that a text names, set in italics or bold. */
const titlesIn = (text: string): string[] =>
  [...text.matchAll(/(?<!\*)\*{1,2}([A-Z][^*\n]*?)\*{1,2}(?!\*)/g)]
    .map(([, title]) => title)
    .filter((title) => titles.has(title));

/** The notebooks in reading order; appendices stand beside it. */
const story = notebooks.filter(({ name }) => !name.includes("/a-"));

test("the last title that the end of a notebook names is that of the next notebook", () => {
  const next = story.slice(0, -1).map(({ cells }) => titlesIn(cells.at(-1) ?? "").at(-1));
  expect(next).toEqual(story.slice(1).map(({ title }) => title));
});

test("the last notebook speaks of none that comes later", () => {
  const promises = notebooks
    .at(-1)
    ?.cells.filter((text) => /\blater notebook|\bnotebooks that follow/i.test(text));
  expect(promises).toEqual([]);
});
