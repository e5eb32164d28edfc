// The book as a reader goes through it: what a notebook says of the others.
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
