// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import {
  claimFolder,
  describeFiles,
  lockFolder,
  machineMark,
  processStart,
  writeLedger,
  writeWholeFolder,
} from "../../src/data/folders.js";

//| 01-tokenizer/a-the-pipeline.ipynb#folders-tools
/** A fresh folder, and all that lies in it: names, where links lead, and bytes. */
function playground() {
  const place = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  const at = (name: string) => path.join(place, name);
  const look = (folder = place): [string, string][] =>
    fs.readdirSync(folder, { withFileTypes: true }).flatMap((entry): [string, string][] => {
      const each = path.join(folder, entry.name);
      if (entry.isDirectory()) return [[each, ""], ...look(each)];
      return [[each, entry.isSymbolicLink() ? fs.readlinkSync(each) : fs.readFileSync(each, "latin1")]];
    });
  return { place, at, look };
}

/** Writes a folder of two files as the command `by`. */
function writeTwo(
  folder: string,
  content: string,
  by = "data prepare",
  inputs: string[] = [],
): Promise<void> {
  return writeWholeFolder(folder, { by, last: "z.json", inputs }, (partial) => {
    for (const name of ["a.bin", "z.json"]) fs.writeFileSync(path.join(partial, name), content);
  });
}

//| 01-tokenizer/a-the-pipeline.ipynb#owned-test
await test("only what tslm wrote, unchanged, is replaced; anything else is refused and keeps every byte", async () => {
  const { place, at, look } = playground();
  const refuse = async (words: string, work: () => Promise<void>) => {
    const before = look();
    await expect(work()).rejects.toThrow(words);
    expect(look()).toEqual(before);
  };
  await writeTwo(at("out"), "one");
  await writeTwo(at("out"), "two"); // one's own may be made again
  expect(fs.readFileSync(at("out/a.bin"), "utf8")).toBe("two");
  await refuse('what "tslm data prepare" wrote', () => writeTwo(at("out"), "three", "init"));
  fs.writeFileSync(at("out/notes.txt"), "mine");
  await refuse("holds other files (notes.txt)", () => writeTwo(at("out"), "three"));
  fs.renameSync(at("out/notes.txt"), at("out/.DS_Store")); // of a file manager: it may stay, and does
  await writeTwo(at("out"), "three");
  expect(fs.readFileSync(at("out/.DS_Store"), "utf8")).toBe("mine");
  fs.writeFileSync(at("out/a.bin"), "four!"); // as long as before
  await refuse("a.bin was changed since tslm wrote it", () => writeTwo(at("out"), "five"));
  fs.mkdirSync(at("old"));
  fs.writeFileSync(at("old/z.json"), '{"format": "tslm shards"}'); // a name like ours is no proof
  await refuse("holds other files (z.json)", () => writeTwo(at("old"), "x"));
  fs.writeFileSync(at("file"), "mine");
  await refuse("is a file; name a folder", () => writeTwo(at("file"), "x"));
  await refuse("file is read and lies in", () => writeTwo(place, "x", "data prepare", [at("file")]));
  await refuse("is written and lies in", () => writeTwo(at("old/in"), "x", "data prepare", [at("old")]));
  await refuse("no good", () =>
    writeWholeFolder(at("new/deep"), { by: "init", last: "a" }, () => {
      throw new Error("no good");
    }),
  );
  fs.writeFileSync(at("new.partial"), "mine");
  await writeTwo(at("new"), "x");
  expect(fs.readFileSync(at("new.partial"), "utf8")).toBe("mine");
  fs.symlinkSync(at("far/away"), at("link"));
  await writeTwo(at("link"), "behind");
  expect([fs.readlinkSync(at("link")), fs.readFileSync(at("far/away/a.bin"), "utf8")]).toEqual([
    at("far/away"),
    "behind",
  ]);
  fs.rmSync(place, { recursive: true });
});

//| 01-tokenizer/a-the-pipeline.ipynb#install-test
await test("a kill while the new takes the place of the old leaves one of them whole, and the next run ends it", async () => {
  const { place, at } = playground();
  const out = at("out");
  for (let moves = 0; moves <= 3; moves++) {
    fs.rmSync(out, { recursive: true, force: true });
    await writeTwo(out, "old");
    fs.writeFileSync(path.join(out, ".DS_Store"), "theirs");
    // As far as `install` came: the whole is there, the old is going, and so many of the new ones are in place.
    const claim = claimFolder(out, "data prepare");
    fs.mkdirSync(claim.partial);
    for (const name of ["a.bin", "z.json"]) fs.writeFileSync(path.join(claim.partial, name), "new");
    writeLedger(claim.partial, "data prepare", describeFiles(claim.partial, "z.json", new Map()));
    fs.renameSync(claim.partial, path.join(out, ".tslm-whole"));
    claim.release();
    if (moves > 0) fs.rmSync(path.join(out, "z.json"));
    for (const name of ["a.bin", "z.json", ".tslm.json"].slice(0, Math.max(0, moves)))
      fs.renameSync(path.join(out, ".tslm-whole", name), path.join(out, name));
    claimFolder(out, "data prepare").release();
    expect(fs.readdirSync(out).sort()).toEqual([".DS_Store", ".tslm.json", "a.bin", "z.json"]);
    expect(fs.readFileSync(path.join(out, "a.bin"), "utf8")).toBe("new");
    await writeTwo(out, "newer");
  }
  fs.rmSync(place, { recursive: true });
});

//| 01-tokenizer/a-the-pipeline.ipynb#lock-test
await test("a lock is told of, given back, and not held by the dead, a process of the same number, or a machine that is silent", async () => {
  const { place, at } = playground();
  const lock = lockFolder(at("a/b"), "tslm train");
  expect(() => lockFolder(at("a/b"), "x")).toThrow(
    new RegExp(`in use: process ${process.pid} on .* \\(tslm train, since 2`),
  );
  lock.release();
  expect(fs.existsSync(at("a"))).toBe(false); // it was made for the lock, and is empty
  fs.mkdirSync(at("out"));
  const name = (machine: string, pid: number, began: number) =>
    at(`out/.tslm-lock-${machine}-${pid}-${began}-00000000`);
  const began = processStart(process.pid)!;
  const dead = [name(machineMark(), 2 ** 30, began), name(machineMark(), process.pid, began - 100)];
  for (const file of dead) fs.writeFileSync(file, "");
  lockFolder(at("out"), "x").release();
  expect(fs.readdirSync(at("out"))).toEqual([]);
  const abroad = name("0123456789ab", 1, 1);
  fs.writeFileSync(abroad, '{"host": "far away"}');
  const thread = new Worker(
    `const fs = require("node:fs");
    setInterval(() => { const now = new Date(); fs.utimesSync(${JSON.stringify(abroad)}, now, now); }, 100);`,
    { eval: true },
  );
  await new Promise((resolve) => thread.once("online", resolve));
  expect(() => lockFolder(at("out"), "x")).toThrow("process 1 on far away");
  await thread.terminate();
  fs.rmSync(place, { recursive: true });
});
