// tslm's o200k and other people's on one text in one run: they take turns, so that a machine's moods meet all alike; medians.
// In a built clone: node bench/tokenizers.mjs [FILE]. Without a file: 5 MB of English and code from the installed packages.
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { loadTiktoken } from "../lib/dist/index.js";

const rounds = 7;
const require = createRequire(import.meta.url);
const packages = path.join(import.meta.dirname, "..", "node_modules");
const vocabulary = path.join(packages, "gpt-tokenizer", "data", "o200k_base.tiktoken");

/** The files below a folder that a pattern fits, in a fixed order. */
function* filesBelow(folder, pattern) {
  const entries = fs.readdirSync(folder, { withFileTypes: true });
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) yield* filesBelow(file, pattern);
    else if (entry.isFile() && pattern.test(entry.name)) yield file;
  }
}

/** The beginnings of such files, so many characters. No file gives more than a twentieth, so that none is all of it. */
function textOf(pattern, length) {
  let text = "";
  for (const file of filesBelow(packages, pattern)) {
    if (text.length >= length) break;
    text += fs.readFileSync(file, "utf8").slice(0, length / 20);
  }
  return text.slice(0, length);
}

/** Peers by name: what loads one, and gives its encoder. */
const peers = {
  tslm: () => {
    const tokenizer = loadTiktoken(fs.readFileSync(vocabulary), "o200k");
    return (text) => tokenizer.encode(text);
  },
  "gpt-tokenizer": () => {
    const { encode } = require("gpt-tokenizer/encoding/o200k_base");
    return (text) => encode(text, { disallowedSpecial: new Set() });
  },
  tiktoken: () => {
    const encoding = require("tiktoken").get_encoding("o200k_base");
    return (text) => encoding.encode_ordinary(text);
  },
  "@huggingface/tokenizers": () => {
    const { Tokenizer } = require("@huggingface/tokenizers");
    const tokenizer = new Tokenizer(loadTiktoken(fs.readFileSync(vocabulary), "o200k").toJson(), {});
    return (text) => tokenizer.encode(text).ids;
  },
};

function seconds(work) {
  const start = performance.now();
  const result = work();
  return { result, seconds: (performance.now() - start) / 1000 };
}

const median = (times) => [...times].sort((x, y) => x - y)[times.length >> 1];

const [file] = process.argv.slice(2);
const english = textOf(/\.md$/, 2.5e6);
const text = (file ? fs.readFileSync(file, "utf8") : english + textOf(/\.(ts|mjs)$/, 5e6 - english.length))
  .replaceAll("<|", "< |") // no special tokens: peers differ in what they do with them
  .toWellFormed();
const bytes = Buffer.byteLength(text);

const entrants = Object.entries(peers).map(([name, load]) => {
  const loaded = seconds(load);
  const first = seconds(() => loaded.result(text));
  return {
    name,
    encode: loaded.result,
    load: loaded.seconds,
    first: first.seconds,
    ids: first.result,
    times: [],
  };
});
for (let round = 0; round < rounds; round++)
  for (const each of entrants) each.times.push(seconds(() => each.encode(text)).seconds);

const [tslm] = entrants;
const isSame = ({ ids }) => ids.length === tslm.ids.length && tslm.ids.every((id, i) => id === ids[i]);
console.log(`${bytes} bytes, ${tslm.ids.length} tokens of o200k, ${rounds} rounds`);
console.table(
  entrants.map((each) => ({
    tokenizer: each.name,
    "MB/s": Number((bytes / 1e6 / median(each.times)).toFixed(1)),
    "times tslm's": Number((median(each.times) / median(tslm.times)).toFixed(2)),
    "first time, times tslm's": Number((each.first / tslm.first).toFixed(2)),
    "loading, s": Number(each.load.toFixed(2)),
    ids: isSame(each) ? "the same" : "others",
  })),
);
