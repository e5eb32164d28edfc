// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect, test } from "vitest";
import { readExactly, realPlace, replaceFile, writeWhole } from "../../src/data/files.js";

//| 01-tokenizer/a-the-pipeline.ipynb#files-test
await test("a file is replaced whole, also behind a link; a failing write leaves the old one and nothing beside it", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  const [file, link] = [path.join(folder, "new", "a.txt"), path.join(folder, "link")];
  replaceFile(file, "one");
  fs.symlinkSync(file, link);
  replaceFile(link, "two");
  expect(fs.readFileSync(file, "utf8")).toBe("two");
  expect(fs.lstatSync(link).isSymbolicLink()).toBe(true);
  expect(() => replaceFile(path.dirname(file), "three")).toThrow();
  const full = () =>
    writeWhole(file, (write) => {
      write("begun");
      throw Object.assign(new Error("no space"), { code: "ENOSPC", syscall: "write" });
    });
  expect(full).toThrow(expect.objectContaining({ code: "ENOSPC", path: file }));
  expect(fs.readFileSync(file, "utf8")).toBe("two");
  expect(fs.readdirSync(path.dirname(file))).toEqual(["a.txt"]);
  expect(realPlace(path.join(link, "..", "link"))).toBe(fs.realpathSync(file));
  fs.rmSync(folder, { recursive: true });
});

await test("a stretch of a file is read to its last byte, or the file is named", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  const file = path.join(folder, "a.bin");
  fs.writeFileSync(
    file,
    Uint8Array.from({ length: 100 }, (_, i) => i),
  );
  const handle = fs.openSync(file, "r");
  const bytes = new Uint8Array(20);
  readExactly(file, handle, bytes, 70);
  expect([...bytes]).toEqual(Array.from({ length: 20 }, (_, i) => 70 + i));
  expect(() => readExactly(file, handle, bytes, 90)).toThrow(
    `${file} is cut short: it ends at byte 100, before byte 110`,
  );
  fs.closeSync(handle);
  fs.rmSync(folder, { recursive: true });
});
