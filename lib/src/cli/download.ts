// Fetches a file over HTTP: cut connections are taken up where they broke, and the file gets its name when all is there.
import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { naming, realPlace, replaceFile } from "../data/files.js";
import { lockFile } from "../data/folders.js";
import { readableSize } from "./progress.js";

/** What `download` may be told. */
export interface DownloadOptions {
  /** What the bytes must hash to, in hex. Without it the server's word on the length is all that is checked. */
  sha256?: string;
  /** The most bytes that are taken, whatever the server says or sends; any number unless told. */
  maxBytes?: number;
  /** Called as bytes arrive: how many there are, of how many (unknown where the server does not say). */
  onBytes?: (done: number, total: number | undefined) => void;
  /** Called before another try, with what went wrong and the seconds until then. */
  onRetry?: (reason: string, seconds: number) => void;
  /** Tries in a row that may bring no new byte. 5 unless told. */
  tries?: number;
  /** Seconds without a byte after which a connection counts as broken. 60 unless told. */
  patience?: number;
  /** Waits; for tests that do not want to. */
  wait?: (seconds: number) => Promise<void>;
}

/** A file that is not all there yet, `.FILE.tslm-partial`, and what it is the beginning of, `.FILE.tslm-partial.json`. */
export interface Partial {
  file: string;
  note: string;
}

/** Which file the bytes of a partial one belong to: `validator` is its ETag, or when it was last changed; `total` its length. */
interface PartialNote {
  url: string;
  validator?: string;
  total?: number;
}

/** The partial file of a file. */
export function partialOf(file: string): Partial {
  const place = realPlace(file);
  const partial = path.join(path.dirname(place), `.${path.basename(place).slice(0, 60)}.tslm-partial`);
  return { file: partial, note: `${partial}.json` };
}

/** An answer that another try would not change. */
class Refusal extends Error {}

/**
 * Downloads `url` to `file`. What has arrived lies beside it under a hidden name and is gone on with, also by a later call, if the
 * server says that its file is still the same. `file` is there only when the checksum holds, and nothing that was there before is
 * written over. Throws one sentence that names the URL.
 */
export async function download(
  url: string,
  file: string,
  options: DownloadOptions = {},
): Promise<{ bytes: number; sha256: string }> {
  const lock = lockFile(file, "tslm data get");
  try {
    return await fetchChecked(url, file, options);
  } finally {
    lock.release();
  }
}

async function fetchChecked(
  url: string,
  file: string,
  options: DownloadOptions,
): Promise<{ bytes: number; sha256: string }> {
  const partial = partialOf(file);
  let stitched = await fetchAll(url, partial, options);
  let sha256 = await hashFile(partial.file);
  if (stitched && options.sha256 && sha256 !== options.sha256) {
    // Its parts may be of two versions, where the server gives its files no version: from the start, once.
    discard(partial);
    stitched = await fetchAll(url, partial, options);
    sha256 = await hashFile(partial.file);
  }
  const bytes = fs.statSync(partial.file).size;
  if (options.sha256 && sha256 !== options.sha256) {
    discard(partial);
    throw new Error(
      `${url} is not what it should be: its sha256 is ${sha256}, not ${options.sha256}. Nothing was kept.`,
    );
  }
  if (fs.existsSync(file)) throw new Error(`${file} was put there meanwhile: move it away and run it again.`);
  fs.renameSync(partial.file, realPlace(file));
  fs.rmSync(partial.note, { force: true });
  return { bytes, sha256 };
}

/** The SHA-256 of a file, in hex. */
export async function hashFile(file: string): Promise<string> {
  const hash = crypto.createHash("sha256");
  for await (const chunk of fs.createReadStream(file, { highWaterMark: 2 ** 20 })) hash.update(chunk);
  return hash.digest("hex");
}

function discard({ file, note }: Partial): void {
  fs.rmSync(file, { force: true });
  fs.rmSync(note, { force: true });
}

const sizeOf = (file: string): number => fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0;

/** Tries until all bytes are there. Says whether they came in more than one piece. */
async function fetchAll(url: string, partial: Partial, options: DownloadOptions): Promise<boolean> {
  const { tries = 5, wait = sleep, onRetry } = options;
  let [stitched, restarts] = [false, 0];
  for (let failed = 0; ; ) {
    const before = sizeOf(partial.file);
    try {
      const { from, whole } = await fetchOnce(url, partial, options);
      stitched ||= from > 0;
      if (whole) return stitched;
      throw new Error("the connection ended too early");
    } catch (error) {
      if (error instanceof Refusal || "path" in Object(error)) throw error; // of the server, or of our disk
      if (sizeOf(partial.file) < before) restarts++; // a file that changes all the time never comes
      failed = sizeOf(partial.file) > before ? 1 : failed + 1;
      const reason = reasonOf(error);
      if (failed >= tries || restarts >= tries)
        throw new Error(`${url} could not be downloaded: ${reason}. Run it again to go on.`);
      const seconds = Math.max(2 ** (failed - 1), error instanceof Busy ? error.seconds : 0);
      onRetry?.(reason, seconds);
      await wait(seconds);
    }
  }
}

const sleep = (seconds: number) => new Promise<void>((resolve) => setTimeout(resolve, 1000 * seconds));

/** What an error of `fetch` says: the reason lies in its cause. */
function reasonOf(error: unknown): string {
  const { cause, message } = error as Error;
  const inner = cause as (Error & { code?: string }) | undefined;
  return inner?.message || inner?.code || message;
}

/** A server that cannot serve now, and how long it asks us to wait. */
class Busy extends Error {
  constructor(
    message: string,
    readonly seconds: number,
  ) {
    super(message);
  }
}

/** One request for what is missing. Gives the offset it began at, and whether the file is complete now. */
async function fetchOnce(
  url: string,
  partial: Partial,
  options: DownloadOptions,
): Promise<{ from: number; whole: boolean }> {
  const patience = alarm(options.patience ?? 60);
  try {
    const asked = askedOffset(url, partial, options.sha256 !== undefined);
    const response = await fetch(url, { headers: asked.headers, signal: patience.signal });
    if (!response.ok) await response.body?.cancel();
    if (response.status === 416) return emptyRange(response, partial, asked.from);
    checkStatus(url, response);
    const { from, total, end } = givenRange(response, asked, partial);
    checkSize(url, total, from, partial, options.maxBytes);
    const note: PartialNote = { url, validator: validatorOf(response) ?? asked.note.validator, total };
    replaceFile(partial.note, JSON.stringify(note));
    const most = Math.min(
      end ?? total ?? Number.POSITIVE_INFINITY,
      options.maxBytes ?? Number.POSITIVE_INFINITY,
    );
    const done = await appendBody(response, partial.file, from, (bytes) => {
      if (bytes > most) refuseMore(url, partial, bytes, options.maxBytes);
      patience.renew();
      options.onBytes?.(bytes, total);
    });
    return { from, whole: total === undefined || done === total };
  } finally {
    patience.end();
  }
}

/** A signal that aborts when `renew` is not called for so many seconds. */
function alarm(seconds: number) {
  const controller = new AbortController();
  const ring = () => controller.abort(new Error(`no byte came for ${seconds} seconds`));
  const timer = setTimeout(ring, 1000 * seconds);
  return { signal: controller.signal, renew: () => void timer.refresh(), end: () => clearTimeout(timer) };
}

/** What a request asked for: the bytes from an offset on, of the file that the note tells of. */
interface Asked {
  from: number;
  headers: Record<string, string>;
  note: Omit<PartialNote, "url">;
}

/** Where to go on, and the headers that say so. From the start unless what is there can be told to belong to the file. */
function askedOffset(url: string, partial: Partial, checked: boolean): Asked {
  // Compressed on the way, lengths and ranges would not be those of the file.
  const headers: Record<string, string> = { "accept-encoding": "identity" };
  const from = sizeOf(partial.file);
  const { url: begun, ...note } = readNote(partial.note);
  if (from === 0 || begun !== url || !(note.validator || checked)) return { from: 0, headers, note: {} };
  if (note.validator) headers["if-range"] = note.validator;
  return { from, headers: { ...headers, range: `bytes=${from}-` }, note };
}

function readNote(file: string): globalThis.Partial<PartialNote> {
  try {
    return JSON.parse(fs.readFileSync(file, "utf8"));
  } catch {
    return {}; // there is none, or it was cut by a kill
  }
}

/** What names the version of a file: a strong ETag, or else when it was last changed (RFC 9110, section 13.1.5). */
function validatorOf({ headers }: Response): string | undefined {
  const etag = headers.get("etag");
  return etag && !etag.startsWith("W/") ? etag : (headers.get("last-modified") ?? undefined);
}

/** The answer to a range that begins where the file ends, or beyond: it is whole, or it has become another one. */
function emptyRange({ headers }: Response, partial: Partial, from: number): { from: number; whole: boolean } {
  const total = /\/(\d+)$/.exec(headers.get("content-range") ?? "")?.[1];
  if (Number(total) === from) return { from, whole: true };
  discard(partial);
  throw new Error("the file has changed since the download was begun");
}

function checkStatus(url: string, { ok, status, statusText, headers }: Response): void {
  if (ok) return;
  const said = `the server answered ${status} ${statusText}`.trim();
  if (status === 408 || status === 429 || status >= 500)
    throw new Busy(said, Math.min(60, Number(headers.get("retry-after")) || 0));
  const hint = status === 404 || status === 410 ? ": there is no such file" : "";
  throw new Refusal(`${url} cannot be downloaded: ${said}${hint}.`);
}

/** Where the bytes of an answer belong and end, and how long the whole file is. */
function givenRange(
  response: Response,
  asked: Asked,
  partial: Partial,
): { from: number; total?: number; end?: number } {
  const { status, headers } = response;
  const length = headers.get("content-length");
  // Packed against our wish, it is unpacked as it comes: the length is not that of the file.
  const packed = !["", "identity"].includes(headers.get("content-encoding") ?? "");
  if (status === 200) return { from: 0, total: length === null || packed ? undefined : Number(length) };
  if (status !== 206 || packed || asked.from === 0)
    throw new Refusal(`The server sent something else than the file that was asked for (status ${status}).`);
  const [, from, last, of] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(headers.get("content-range") ?? "") ?? [];
  const total = of === "*" ? asked.note.total : Number(of);
  const end = Number(last) + 1;
  if (Number(from) !== asked.from || end <= asked.from || end > (total ?? end))
    throw new Refusal("The server sent another part of the file than was asked for.");
  if (total === undefined || isOther(headers, asked.note, total)) {
    discard(partial);
    throw new Error("the file has changed since the download was begun");
  }
  return { from: asked.from, total, end };
}

/** Whether a part is of another version than what is there: an ETag has to be the same, a date may be left out (RFC 9110, 15.3.7). */
function isOther(headers: Headers, { validator, total }: Asked["note"], nowTotal: number): boolean {
  if (total !== undefined && total !== nowTotal) return true;
  if (validator === undefined) return false;
  const now = headers.get(validator.startsWith('"') ? "etag" : "last-modified");
  return validator.startsWith('"') ? now !== validator : now !== null && now !== validator;
}

/** Refuses a file that is larger than it may be, or than the disk has room for. */
function checkSize(
  url: string,
  total: number | undefined,
  from: number,
  partial: Partial,
  max = Number.POSITIVE_INFINITY,
) {
  if (total === undefined) return;
  if (total > max) refuseMore(url, partial, total, max);
  const { bavail, bsize } = fs.statfsSync(path.dirname(partial.file));
  if (total - from > bavail * bsize)
    throw new Refusal(
      `${url} has ${readableSize(total)}, and the disk has room for ${readableSize(bavail * bsize)}: make room and run it again.`,
    );
}

/** Ends a download that brings more than it may. */
function refuseMore(url: string, partial: Partial, bytes: number, max = Number.POSITIVE_INFINITY): never {
  discard(partial);
  if (bytes <= max)
    throw new Refusal(`${url} cannot be downloaded: more bytes came than the server had said.`);
  throw new Refusal(
    `${url} has ${readableSize(bytes)} or more, and at most ${readableSize(max)} are taken: allow more with --max-size. Nothing was kept.`,
  );
}

/** Writes the body of an answer to `file` from an offset on. Gives the length of the file. */
async function appendBody(
  response: Response,
  file: string,
  from: number,
  onBytes: (done: number) => void,
): Promise<number> {
  const handle = await fs.promises.open(file, from > 0 ? "r+" : "w");
  let at = from;
  try {
    for await (const chunk of response.body ?? []) {
      onBytes(at + chunk.length); // before it is written: it may be too much
      for (let written = 0; written < chunk.length; )
        written += (await writeAt(handle, file, chunk.subarray(written), at + written)).bytesWritten;
      at += chunk.length;
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
  return at;
}

/** Writes to an open file; an error names it. */
async function writeAt(handle: fs.promises.FileHandle, file: string, bytes: Uint8Array, at: number) {
  try {
    return await handle.write(bytes, 0, bytes.length, at);
  } catch (error) {
    return naming(file, () => {
      throw error;
    });
  }
}
