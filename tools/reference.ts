// docs/library.md: every public name with a line on what it is, and where in the book it stands.
import type { CodeCell } from "./cells.js";
import { bookRooms } from "./rooms.js";

const rooms: Record<string, string> = {
  gpu: "The device, its memory and its commands.",
  tokenizer: "Text to ids and back.",
  formats: "Bytes of files to plain data and back.",
  kernels: "WGSL, an operation at a time.",
  data: "Corpora, shards and batches.",
  tensor: "Tensors, operations on them and their gradients.",
  model: "What a decoder is made of.",
  train: "Optimizers, steps, checkpoints and the loop.",
  infer: "From logits to text.",
};

/** The reference of the public surface as Markdown: a heading a room, a table a module. */
export function referenceText(cells: CodeCell[]): string {
  const exported = cells.filter(({ kind }) => kind === "export");
  const count = exported.reduce((sum, { declares }) => sum + declares.length, 0);
  return [
    "# The library's public names",
    "",
    `Written by \`npm run extract\` from the cells that define them: ${count} names, all of which \`import { … } from "tslm"\` gives.`,
    'What a module keeps for its neighbours and its tests comes from `"tslm/<room>/<module>"`, and may change at any time.',
    "",
    ...bookRooms.flatMap((room) => roomText(room, exported)),
  ].join("\n");
}

function roomText(room: string, exported: CodeCell[]): string[] {
  const cells = exported.filter(({ module }) => module.startsWith(`${room}/`));
  const modules = [...new Set(cells.map(({ module }) => module))].sort();
  if (modules.length === 0) return [];
  const tables = modules.map((module) => moduleTable(module, cells));
  return [`## ${room}`, "", rooms[room], "", ...tables.flat()];
}

function moduleTable(module: string, cells: CodeCell[]): string[] {
  const own = cells.filter((cell) => cell.module === module);
  const rows = own.flatMap((cell) =>
    cell.summaries.map(({ name, text }) => ({ name, line: row(name, text, cell) })),
  );
  rows.sort((a, b) => (a.name < b.name ? -1 : 1));
  return [
    `### ${module}`,
    "",
    "| name | what it is | cell |",
    "|---|---|---|",
    ...rows.map(({ line }) => line),
    "",
  ];
}

const row = (name: string, text: string, { notebook, id }: CodeCell): string =>
  `| \`${name}\` | ${text.replace(/\|/g, "\\|")} | [${id}](../chapters/${notebook}) |`;
