import { spawnSync } from "node:child_process";
import path from "node:path";
import { expect, test } from "vitest";
import { JupyterHandlerImpl } from "tslab/dist/jupyter.js";
import { findPython } from "../../lib/bin/machine.mjs";
import { formProblems, normalizeNotebooks } from "../../tools/extract.js";
import { type Notebook, notebookText, repository } from "../../tools/notebook.js";
import { makeBook, notebookOf, ONE, read, write } from "./small-book.js";

const messy = {
  nbformat_minor: 5,
  nbformat: 4,
  metadata: {
    language_info: { name: "typescript", version: "3.7.2", codemirror_mode: {} },
    kernelspec: { name: "tslab", display_name: "Another name", language: "typescript" },
    widgets: {},
    tslm: { level: 1 },
  },
  cells: [
    { source: "# Title\ntext", metadata: {}, id: "title", cell_type: "markdown" },
    {
      cell_type: "code",
      source: ["a\n", "b"],
      id: "code",
      execution_count: 7,
      metadata: { execution: { "iopub.execute_input": "2026-01-01" }, collapsed: false, tags: ["kept"] },
      outputs: [
        { output_type: "stream", name: "stdout", text: "one" },
        { output_type: "stream", name: "stdout", text: [" two\n", "three"] },
        {
          output_type: "display_data",
          metadata: {},
          data: {
            "text/plain": "figure",
            "text/html": "<script>draw()</script>",
            "image/svg+xml": "<svg>\n</svg>",
            "application/vnd.plotly.v1+json": { layout: {}, data: [{ y: [1], x: [0] }] },
          },
        },
        { output_type: "display_data", metadata: {}, data: { "text/html": "<b>table</b>" } },
      ],
    },
  ],
} as unknown as Notebook;

test("a notebook has one text, whatever wrote it", () => {
  const text = notebookText(messy);
  expect(JSON.parse(text)).toEqual({
    cells: [
      { cell_type: "markdown", id: "title", metadata: {}, source: ["# Title\n", "text"] },
      {
        cell_type: "code",
        execution_count: null,
        id: "code",
        metadata: { tags: ["kept"] },
        outputs: [
          { name: "stdout", output_type: "stream", text: ["one two\n", "three"] },
          {
            data: {
              "application/vnd.plotly.v1+json": { data: [{ x: [0], y: [1] }], layout: {} },
              "image/svg+xml": ["<svg>\n", "</svg>"],
              "text/plain": ["figure"],
            },
            metadata: {},
            output_type: "display_data",
          },
          { data: { "text/html": ["<b>table</b>"] }, metadata: {}, output_type: "display_data" },
        ],
        source: ["a\n", "b"],
      },
    ],
    metadata: {
      kernelspec: { display_name: "TypeScript", language: "typescript", name: "tslab" },
      language_info: {
        codemirror_mode: { mode: "typescript", name: "javascript", typescript: true },
        file_extension: ".ts",
        mimetype: "text/typescript",
        name: "typescript",
        version: "3.7.2",
      },
      tslm: { level: 1 },
    },
    nbformat: 4,
    nbformat_minor: 5,
  });
  expect(text.startsWith('{\n "cells": [\n  {\n   "cell_type": "markdown",\n   "id": "title",')).toBe(true);
  expect(text.endsWith("}\n")).toBe(true);
  expect(notebookText(JSON.parse(text))).toBe(text);
});

/** What a notebook's server makes of a file: Python's nbformat reads it and writes it again. */
const SAVE = `
import sys, nbformat
nbformat.write(nbformat.read(sys.argv[1], 4), sys.argv[1])
`;

const kernel = () => new JupyterHandlerImpl({} as never, false).handleKernel();

test("Jupyter saves it as it is: what the kernel says of itself, numbers and line ends", ({ skip }) => {
  const data = {
    z: [0, 0.0001, 0.00001, -2.5e-7, 1e-10, 0.5, 3, 1e15, 123456789012345680000, 1e21, 1.5e300],
  };
  const output = { output_type: "display_data" as const, metadata: {}, data: { "application/json": data } };
  const source = "a\nb\r\nc\rd\u2028e\x0bf\x85g \x7f ☃ \n\n";
  const notebook = notebookOf([["one", source]]);
  notebook.cells[0].outputs = [output];
  notebook.cells.push({ cell_type: "markdown", id: "empty", metadata: {}, source: "" });
  const root = makeBook({ [ONE]: [] });
  write(root, `chapters/${ONE}`, notebookText(notebook));
  const saved = JSON.parse(notebookText(notebook));
  expect(saved.metadata.language_info).toEqual(kernel().language_info);
  const python = findPython("nbformat", repository);
  if (!python) return skip("no Python with nbformat was found");
  spawnSync(python, ["-c", SAVE, path.join(root, "chapters", ONE)]);
  expect(read(root, `chapters/${ONE}`)).toBe(notebookText(notebook));
});

test("the check names a notebook in another form, and extraction mends it", () => {
  const root = makeBook({ [ONE]: [["a", "1"]] });
  expect(formProblems(root)).toEqual([]);
  write(root, `chapters/${ONE}`, JSON.stringify(notebookOf([["a", "1"]])));
  expect(formProblems(root)).toEqual([`${ONE}: is not in normal form; \`npm run extract\` puts it so`]);
  expect(normalizeNotebooks(root)).toEqual([`wrote chapters/${ONE} in normal form`]);
  expect(read(root, `chapters/${ONE}`)).toBe(notebookText(notebookOf([["a", "1"]])));
});
