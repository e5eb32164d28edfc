// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";

//| 01-tokenizer/a-the-pipeline.ipynb#beside-name
/**
 * A name beside a file for what is not whole yet: hidden, in the same folder (there renaming is one step), and so long and
 * random that it is nobody else's.
 */
export function besideName(file: string): string {
  const name = path.basename(file).slice(0, 60); // a name has 255 bytes at most
  return path.join(path.dirname(file), `.${name}.tslm-${crypto.randomBytes(8).toString("hex")}`);
}

/** Whether a name is such a one. */
export function isLeftover(name: string): boolean {
  return /^\..+\.tslm-[0-9a-f]{16}$/.test(name);
}

/** Removes what was being written into a folder when its writer was killed. Only for who holds the folder's lock. */
export function removeLeftovers(folder: string): void {
  const names = fs.existsSync(folder) ? fs.readdirSync(folder) : [];
  for (const name of names) if (isLeftover(name)) fs.rmSync(path.join(folder, name), { force: true });
}

//| 01-tokenizer/a-the-pipeline.ipynb#real-place
/** Where a file or folder really lies, links followed; it need not exist. */
export function realPlace(place: string): string {
  const whole = path.resolve(place);
  try {
    return fs.realpathSync.native(whole);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  const isLink = fs.lstatSync(whole, { throwIfNoEntry: false })?.isSymbolicLink();
  if (isLink) return realPlace(path.resolve(path.dirname(whole), fs.readlinkSync(whole)));
  return path.join(realPlace(path.dirname(whole)), path.basename(whole));
}

//| 01-tokenizer/a-the-pipeline.ipynb#naming-file
/** Does some work on a file; an error of the system that does not say which file it is about is told. */
export function naming<T>(file: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    const { code, path: named } = error as NodeJS.ErrnoException;
    if (error instanceof Error && code && named === undefined) Object.assign(error, { path: file });
    throw error;
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#open-file
/** Opens a file to read, or says in one sentence why that cannot be. A pipe gives its bytes only once, so it is no file. */
export function openToRead(file: string): number {
  try {
    const found = fs.statSync(file);
    if (found.isDirectory()) throw new Error(`${file} is a folder; name the text files in it.`);
    if (!found.isFile())
      throw new Error(`${file} is a pipe or a device; save what comes out of it to a file first.`);
    return fs.openSync(file, "r");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") throw new Error(`There is no file ${file}.`);
    if (code === "EACCES") throw new Error(`The file ${file} may not be read.`);
    throw error;
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#sync
/** Makes sure that what was written under an open file or folder is on the disk, and closes it. */
export function syncAndClose(handle: number): void {
  try {
    fs.fsyncSync(handle);
  } catch (error) {
    // Windows cannot do this with a folder, and writes names through by itself.
    if (!["EPERM", "EISDIR", "EINVAL"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
  } finally {
    fs.closeSync(handle);
  }
}

/** Makes sure that the names in a folder are on the disk. */
export function syncFolder(folder: string): void {
  if (process.platform === "win32") return;
  naming(folder, () => syncAndClose(fs.openSync(folder, "r")));
}

/** Makes sure that what was written to a file is on the disk. */
export function syncFile(file: string): void {
  naming(file, () => syncAndClose(fs.openSync(file, "r+")));
}

//| 01-tokenizer/a-the-pipeline.ipynb#write-synced
/** What `fill` writes goes into a file, which is on the disk when this returns. */
export function fillSynced(file: string, fill: (write: (data: string | Uint8Array) => void) => void): void {
  const handle = fs.openSync(file, "w");
  try {
    // Writes all of it, at the handle's position.
    fill((data) => naming(file, () => fs.writeFileSync(handle, data)));
  } catch (error) {
    fs.closeSync(handle);
    throw error;
  }
  naming(file, () => syncAndClose(handle));
}

/** Writes a file and waits until it is on the disk. */
export function writeSynced(file: string, bytes: Uint8Array | string): void {
  fillSynced(file, (write) => write(bytes));
}

//| 01-tokenizer/a-the-pipeline.ipynb#write-whole
/** Writes what is given to it to a file. */
export type Write = (data: string | Uint8Array) => void;

/**
 * Writes a file wholly or not at all: whoever looks finds the old one or the new one, whole, even after the machine stopped.
 * Where `file` is a link, the file that it leads to is written. `onWhole` is called when all is on the disk, before it has its name.
 */
export function writeWhole(file: string, fill: (write: Write) => void, onWhole: () => void = () => {}): void {
  const place = realPlace(file);
  const beside = besideName(place);
  fs.mkdirSync(path.dirname(place), { recursive: true });
  try {
    naming(file, () => fillSynced(beside, fill));
    onWhole();
    fs.renameSync(beside, place);
  } catch (error) {
    fs.rmSync(beside, { force: true });
    if ((error as NodeJS.ErrnoException).path === beside) Object.assign(error as object, { path: file });
    throw error;
  }
  syncFolder(path.dirname(place));
}

/** Replaces a file in one step, as `writeWhole` does. */
export function replaceFile(file: string, bytes: Uint8Array | string): void {
  writeWhole(file, (write) => write(bytes));
}

//| 01-tokenizer/a-the-pipeline.ipynb#checked-json
/** The sha256 of a value's JSON, in hexadecimal. */
export function jsonSha256(value: object): string {
  return crypto.createHash("sha256").update(JSON.stringify(value)).digest("hex");
}

/** An object as JSON that ends with the sha256 of what stands before it. */
export function checkedJson(content: object): string {
  return `${JSON.stringify({ ...content, sha256: jsonSha256(content) }, null, 2)}\n`;
}

/**
 * What such JSON holds, without the checksum. Throws an error that says, in a few words and without the file's name, what is
 * wrong with it. With `unsigned`, the text may lack a checksum, as older files do.
 */
export function parseChecked(text: string, { unsigned = false } = {}): Record<string, unknown> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new Error("it is not JSON");
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) throw new Error("it holds no object");
  const { sha256, ...content } = json as Record<string, unknown>;
  const intact = sha256 === jsonSha256(content) || (unsigned && sha256 === undefined);
  if (!intact) throw new Error("its checksum is not the one it states");
  return content;
}

//| 01-tokenizer/a-the-pipeline.ipynb#read-exactly
/** Fills `bytes` from an open file, from `position` on. Throws one sentence that names the file if it has not that many. */
export function readExactly(file: string, handle: number, bytes: Uint8Array, position: number): void {
  for (let filled = 0; filled < bytes.length; ) {
    const got = naming(file, () =>
      fs.readSync(handle, bytes, filled, bytes.length - filled, position + filled),
    );
    if (got === 0)
      throw new Error(
        `${file} is cut short: it ends at byte ${position + filled}, before byte ${position + bytes.length}.`,
      );
    filled += got;
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#checksum-of
/** The SHA-256 of what is in a file, in hex. */
export function fileChecksum(file: string): string {
  const hash = crypto.createHash("sha256");
  const chunk = new Uint8Array(2 ** 20);
  const handle = openToRead(file);
  try {
    for (let got = -1; got !== 0; ) {
      got = naming(file, () => fs.readSync(handle, chunk, 0, chunk.length, null));
      hash.update(chunk.subarray(0, got));
    }
  } finally {
    fs.closeSync(handle);
  }
  return hash.digest("hex");
}
