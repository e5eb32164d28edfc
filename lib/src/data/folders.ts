// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import { spawnSync } from "node:child_process";
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { Worker } from "node:worker_threads";
import {
  fileChecksum,
  isLeftover,
  naming,
  realPlace,
  removeLeftovers,
  replaceFile,
  syncFile,
  syncFolder,
} from "./files.js";

//| 01-tokenizer/a-the-pipeline.ipynb#machine-place
/** The first characters of the SHA-256 of some words. */
export function shortHash(words: string): string {
  return crypto.createHash("sha256").update(words).digest("hex").slice(0, 12);
}

/** Names this machine since it was started, and what numbers processes on it: only here does a process number mean a process. */
export function machineMark(): string {
  const facts = [os.hostname()];
  if (process.platform === "linux") {
    try {
      // A container shares the kernel with others, and has processes of its own.
      facts.push(
        fs.readFileSync("/proc/sys/kernel/random/boot_id", "utf8"),
        fs.readlinkSync("/proc/self/ns/pid"),
      );
    } catch {} // a system without /proc: then the name has to do
  }
  return shortHash(facts.join("\n"));
}

//| 01-tokenizer/a-the-pipeline.ipynb#is-alive
/** Whether there is a process of this number. */
export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0); // signal 0 only asks
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#process-start
/**
 * When a process of this machine began, in a form that only equals itself: on Linux in ticks since the machine started, elsewhere
 * in seconds since 1970. Undefined if there is no such process; NaN if it cannot be told.
 */
export function processStart(pid: number): number | undefined {
  if (process.platform === "linux") return linuxStart(pid);
  if (pid === process.pid) return Math.round(Date.now() / 1000 - process.uptime());
  const [program, ...words] =
    process.platform === "win32"
      ? [
          "powershell",
          "-NoProfile",
          "-Command",
          `(Get-Process -Id ${pid}).StartTime.ToUniversalTime().ToString("o")`,
        ]
      : ["ps", "-o", "lstart=", "-p", String(pid)];
  const { stdout } = spawnSync(program, words, {
    encoding: "utf8",
    env: { ...process.env, LC_ALL: "C", TZ: "UTC" },
  });
  const began = Date.parse(process.platform === "win32" ? stdout : `${stdout} UTC`);
  return isAlive(pid) ? Math.round(began / 1000) : undefined;
}

/** The same from /proc. A process that has ended and whose parent has not noticed counts as ended. */
export function linuxStart(pid: number): number | undefined {
  try {
    const text = fs.readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" "); // the name before may hold anything
    return "ZX".includes(fields[0]) ? undefined : Number(fields[19]);
  } catch {
    return isAlive(pid) ? Number.NaN : undefined;
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#heartbeat
/** Milliseconds between two heartbeats, and for how long one is waited for. */
export const HEARTBEAT = { every: 1500, patience: 9000 };

/** Does nothing for some milliseconds, nor lets anything else be done in this thread. */
export function standStill(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

/** Whether the time of a file changes while we look: clocks of two machines may differ, so we compare it with itself alone. */
export function beats(file: string): boolean {
  const time = () => fs.statSync(file, { throwIfNoEntry: false })?.mtimeMs;
  const first = time();
  for (let waited = 0; waited < HEARTBEAT.patience; waited += 300) {
    standStill(300);
    const now = time();
    if (now === undefined) return false;
    if (now !== first) return true;
  }
  return false;
}

/** Renews the time of a file, after `delay` milliseconds, from a thread of its own: it beats while this one computes. Gives what ends it. */
export function startHeartbeat(file: string, delay: number): () => void {
  const program = `const fs = require("node:fs");
    setInterval(() => { try { const now = new Date(); fs.utimesSync(${JSON.stringify(file)}, now, now); } catch {} }, ${HEARTBEAT.every});`;
  let worker: Worker | undefined;
  const begin = () => {
    worker = new Worker(program, { eval: true, execArgv: [], env: {} });
    worker.on("error", () => {}); // no heartbeat is no reason to end
    worker.unref();
  };
  const timer = delay > 0 ? setTimeout(begin, delay).unref() : undefined;
  if (!timer) begin();
  return () => {
    clearTimeout(timer);
    void worker?.terminate();
  };
}

//| 01-tokenizer/a-the-pipeline.ipynb#lock-names
/** Who holds a lock, as the name of its file says it. */
export interface Holder {
  file: string;
  machine: string;
  pid: number;
  began: number;
}

/** The locks that lie in a folder under a prefix. */
export function locksIn(folder: string, prefix: string): Holder[] {
  return fs.readdirSync(folder).flatMap((name) => {
    const form = /^([0-9a-f]{12})-(\d+)-(\d+)-[0-9a-f]{8}$/;
    const [, machine, pid, began] = (name.startsWith(prefix) && form.exec(name.slice(prefix.length))) || [];
    return pid ? [{ file: path.join(folder, name), machine, pid: Number(pid), began: Number(began) }] : [];
  });
}

/** Whether a holder is still there. Of another machine, only its heartbeat tells: the time of its file, renewed while it lives. */
export function isHeld({ file, machine, pid, began }: Holder): boolean {
  if (machine !== machineMark()) return beats(file);
  const start = processStart(pid);
  if (start === undefined) return false;
  // Elsewhere than on Linux the clock is asked twice, and may be set in between.
  return Number.isNaN(start) || Math.abs(start - began) <= (process.platform === "linux" ? 0 : 3);
}

//| 01-tokenizer/a-the-pipeline.ipynb#take-lock
/** A lock that is held. */
export interface Lock {
  /** The folder, links followed. */
  folder: string;
  /** Gives it back; a folder that was made for it and is still empty goes with it. */
  release(): void;
}

/** The locks of this process, given back at its end whatever happens. */
export const heldLocks = new Set<Lock>();
process.on("exit", () => {
  for (const lock of heldLocks) lock.release();
});

/** Puts our lock into a folder, which is made where it is not there. Gives the folders that were made, outermost first. */
export function putLock(folder: string, file: string, content: string): string[] {
  const first = fs.mkdirSync(folder, { recursive: true });
  try {
    naming(folder, () => fs.writeFileSync(file, content, { flag: "wx" }));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return putLock(folder, file, content); // it went again just now
    fs.rmSync(file, { force: true });
    throw error;
  }
  const missing = [];
  for (
    let parent = folder;
    first !== undefined && parent.length >= first.length;
    parent = path.dirname(parent)
  )
    missing.unshift(parent);
  return missing;
}

/** Removes folders that are empty, innermost first. */
export function removeEmpty(folders: string[]): void {
  for (const folder of [...folders].reverse()) {
    try {
      fs.rmdirSync(folder);
    } catch {
      return; // somebody put something there
    }
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#lock-folder
/** One sentence on who holds a lock. */
export function heldSentence(place: string, { file, pid }: Holder): string {
  let about: { host?: string; what?: string; since?: string } = {};
  try {
    about = JSON.parse(fs.readFileSync(file, "utf8"));
  } catch {} // it has just gone, or was cut by a full disk
  const { host = "this machine", what = "another command", since = "just now" } = about;
  return `${place} is in use: process ${pid} on ${host} (${what}, since ${since}) is writing there. Wait until it has ended, or name another place with --out.`;
}

/** The first of other locks that is held; those of the dead are removed. Throws away none of ours: each has a name of its own. */
export function holderAmong(others: Holder[]): Holder | undefined {
  for (const other of others) {
    if (isHeld(other)) return other;
    fs.rmSync(other.file, { force: true });
  }
  return undefined;
}

/** A lock to be handed out. */
export function heldLock(folder: string, file: string, newFolders: string[], endHeartbeat: () => void): Lock {
  const release = () => {
    if (!heldLocks.delete(lock)) return;
    endHeartbeat();
    try {
      fs.rmSync(file, { force: true });
    } catch {} // a failing disk: it is the lock of a dead process soon
    removeEmpty(newFolders);
  };
  const lock = { folder, release };
  heldLocks.add(lock);
  return lock;
}

//| 01-tokenizer/a-the-pipeline.ipynb#wait-for-lock
/** Takes the lock whose files begin with `prefix` in a folder; `place` is what the error calls it. */
export function takeLock(folder: string, prefix: string, place: string, what: string): Lock {
  const [here, nonce] = [machineMark(), crypto.randomBytes(4).toString("hex")];
  const file = path.join(
    folder,
    `${prefix}${here}-${process.pid}-${processStart(process.pid) || 0}-${nonce}`,
  );
  const about = JSON.stringify({
    pid: process.pid,
    host: os.hostname(),
    since: new Date().toISOString(),
    what,
  });
  for (let left = 12; ; left--) {
    const newFolders = putLock(folder, file, about);
    const others = locksIn(folder, prefix).filter((lock) => lock.file !== file);
    const abroad = others.some(({ machine }) => machine !== here);
    const endHeartbeat = startHeartbeat(file, abroad ? 0 : 300); // what is done by then needs none
    const holder = holderAmong(others);
    const lock = heldLock(folder, file, newFolders, endHeartbeat);
    if (holder === undefined && fs.existsSync(file)) return lock;
    const sentence = holder && heldSentence(place, holder);
    lock.release();
    if (sentence && (left <= 0 || holder?.machine !== here)) throw new Error(sentence);
    standStill(10 + 40 * Math.random());
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#locks
/** How the names of a folder's locks begin. */
export const LOCK_PREFIX = ".tslm-lock-";

/**
 * Takes the lock of a folder, making the folder if it is not there; `what` says to others what is being done there. The lock is
 * given back by `release`, by the end of the process, and by the end of its machine. Throws one sentence that says who holds it.
 */
export function lockFolder(folder: string, what: string): Lock {
  const place = realPlace(folder);
  if (fs.statSync(place, { throwIfNoEntry: false })?.isDirectory() === false)
    throw new Error(`${folder} is a file; name a folder.`);
  return takeLock(place, LOCK_PREFIX, folder, what);
}

/** Takes the lock of a single file, in the same way; the lock lies beside it. */
export function lockFile(file: string, what: string): Lock {
  const place = realPlace(file);
  return takeLock(path.dirname(place), `.${path.basename(place).slice(0, 60)}${LOCK_PREFIX}`, file, what);
}

//| 01-tokenizer/a-the-pipeline.ipynb#whole-folder
/** What a folder says of the files that tslm wrote there. */
export interface Ledger {
  format: "tslm folder";
  version: 1;
  /** The command, such as "data prepare": another one leaves the folder alone. */
  made_by: string;
  /** In the order in which they take their places: the last one says that all are there. */
  files: Record<string, { bytes: number; sha256: string }>;
}

/** Names in a folder of whose owner there is no doubt: its list, and where it is filled and whole before it is seen. */
export const OWN_NAMES = { ledger: ".tslm.json", partial: ".tslm-partial", whole: ".tslm-whole" } as const;

/** The list of a folder's own files; none where there is none that can be read. */
export function readLedger(folder: string): Ledger | undefined {
  try {
    const ledger = JSON.parse(fs.readFileSync(path.join(folder, OWN_NAMES.ledger), "utf8")) as Ledger;
    const files = Object.values(ledger.files);
    const good = files.every(({ bytes, sha256 }) => Number.isInteger(bytes) && /^[0-9a-f]{64}$/.test(sha256));
    const names = Object.keys(ledger.files).every(
      (name) => path.basename(name) === name && !name.startsWith(".tslm"),
    );
    return ledger.format === "tslm folder" && ledger.version === 1 && good && names ? ledger : undefined;
  } catch {
    return undefined;
  }
}

/** Writes the list of a folder's own files. */
export function writeLedger(folder: string, madeBy: string, files: Ledger["files"]): void {
  const ledger: Ledger = { format: "tslm folder", version: 1, made_by: madeBy, files };
  replaceFile(path.join(folder, OWN_NAMES.ledger), `${JSON.stringify(ledger, null, 2)}\n`);
}

//| 01-tokenizer/a-the-pipeline.ipynb#foreign-names
/** What file managers and file systems put into folders by themselves; nothing of ours touches it. */
export const HARMLESS_NAMES = [".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep", "lost+found"];

/** The names in a folder but for those of tslm's own that mean nothing to others, and harmless ones; none where there is no folder. */
export function namesIn(folder: string): string[] {
  const names = fs.existsSync(folder) ? fs.readdirSync(folder) : [];
  const own = [...HARMLESS_NAMES, ...Object.values(OWN_NAMES)] as string[];
  const others = names.filter((name) => !own.includes(name) && !name.startsWith(LOCK_PREFIX));
  return others.filter((name) => !isLeftover(name)).sort();
}

/** Files that were held against their checksum, as they were then: by name, with size, time and place on the disk. */
export type SeenFiles = Map<string, string>;

/** Whether a file is as a list says: a file, of that size, with that content. One that has not changed since is not read again. */
export function isUnchanged(
  file: string,
  { bytes, sha256 }: { bytes: number; sha256: string },
  seen: SeenFiles,
): boolean {
  const found = fs.lstatSync(file, { throwIfNoEntry: false });
  if (!found?.isFile() || found.size !== bytes) return false;
  const look = `${sha256} ${found.ino} ${found.mtimeMs} ${found.ctimeMs}`;
  if (seen.get(file) === look) return true;
  if (fileChecksum(file) !== sha256) return false;
  seen.set(file, look);
  return true;
}

//| 01-tokenizer/a-the-pipeline.ipynb#check-owned
/** Throws one sentence unless all that lies in a folder was written there by the command `by`, and is as it was written. */
export function checkOwned(
  folder: string,
  by: string,
  ledgers: (Ledger | undefined)[],
  seen: SeenFiles,
): void {
  const written = ledgers.flatMap((ledger) => ledger ?? []);
  const other = written.find(({ made_by }) => made_by !== by);
  if (other) throw new Error(`${folder} holds what "tslm ${other.made_by}" wrote; name another folder.`);
  for (const name of namesIn(folder)) {
    const file = path.join(folder, name);
    const entries = written.flatMap(({ files }) => (Object.hasOwn(files, name) ? [files[name]] : []));
    if (entries.length === 0)
      throw new Error(
        `${folder} holds other files (${name}), which are not tslm's to replace; name a new or an empty folder.`,
      );
    if (!entries.some((entry) => isUnchanged(file, entry, seen)))
      throw new Error(`${file} was changed since tslm wrote it; move it away, or name another folder.`);
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#check-apart
/** Throws one sentence if one of the files or folders that are read lies in the folder that is written, or holds it. */
export function checkApart(folder: string, inputs: string[]): void {
  const out = realPlace(folder);
  const within = (inner: string, outer: string) =>
    inner === outer || inner.startsWith(outer.endsWith(path.sep) ? outer : outer + path.sep);
  for (const input of inputs) {
    const place = realPlace(input);
    if (within(place, out))
      throw new Error(`${input} is read and lies in ${folder}, which is written: name another folder.`);
    if (within(out, place))
      throw new Error(`${folder} is written and lies in ${input}, which is read: name another folder.`);
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#install-folder
/** Size and checksum of each file in a folder, which are on the disk then; `last` comes last. Checksums that are known are believed. */
export function describeFiles(folder: string, last: string, known: Map<string, string>): Ledger["files"] {
  const names = namesIn(folder).filter((name) => name !== last);
  const entries = [...names, last].map((name) => {
    const file = path.join(folder, name);
    syncFile(file);
    return [name, { bytes: fs.statSync(file).size, sha256: known.get(name) ?? fileChecksum(file) }];
  });
  return Object.fromEntries(entries);
}

/** Moves the files of `.tslm-whole` to their places, and removes the old ones; also what is left of that by a kill. */
export function installWhole(folder: string): void {
  const whole = path.join(folder, OWN_NAMES.whole);
  const next = readLedger(whole);
  if (next) {
    const names = Object.keys(next.files);
    const moved = (name: string) => !fs.existsSync(path.join(whole, name));
    const old = Object.keys(readLedger(folder)?.files ?? {});
    // First what says that all are there: nobody shall take a mixture for a whole.
    for (const name of old.reverse())
      if (!names.includes(name) || !moved(name)) fs.rmSync(path.join(folder, name), { force: true });
    for (const name of names)
      if (!moved(name)) fs.renameSync(path.join(whole, name), path.join(folder, name));
    syncFolder(folder);
    fs.renameSync(path.join(whole, OWN_NAMES.ledger), path.join(folder, OWN_NAMES.ledger));
  }
  fs.rmdirSync(whole); // empty now; if it is not, nothing is lost
  syncFolder(folder);
}

//| 01-tokenizer/a-the-pipeline.ipynb#claim-folder
/** A folder that a command fills. */
export interface Claim {
  /** The folder, links followed. */
  folder: string;
  /** Where it is filled; what an unfinished run left there may be there. */
  partial: string;
  /** Throws unless the folder is still as it was when it was claimed. */
  check(): void;
  /**
   * Gives what was filled its place, the file `last` last. Checksums that are known already need not be computed again.
   */
  install(last: string, known?: Map<string, string>): void;
  /** Forgets what was filled. */
  discard(): void;
  /** Gives the lock back. */
  release(): void;
}

/**
 * Takes a folder for the command `by` ("data prepare"), which reads `inputs`. Throws one sentence, and has touched nothing, if
 * another process is filling it, if it holds anything that this command did not write, or if an input lies in it.
 */
export function claimFolder(folder: string, by: string, inputs: string[] = []): Claim {
  checkApart(folder, inputs);
  const lock = lockFolder(folder, `tslm ${by}`);
  const place = (name: string) => path.join(lock.folder, name);
  const whole = place(OWN_NAMES.whole);
  const partial = place(OWN_NAMES.partial);
  const seen: SeenFiles = new Map();
  const check = () => checkOwned(lock.folder, by, [readLedger(lock.folder), readLedger(whole)], seen);
  try {
    check();
    removeLeftovers(lock.folder);
    if (fs.existsSync(whole)) installWhole(lock.folder);
  } catch (error) {
    lock.release();
    throw error;
  }
  const install = (last: string, known = new Map<string, string>()) => {
    check();
    writeLedger(partial, by, describeFiles(partial, last, known));
    fs.renameSync(partial, whole);
    syncFolder(lock.folder);
    installWhole(lock.folder);
  };
  const discard = () => fs.rmSync(partial, { recursive: true, force: true });
  return { folder: lock.folder, partial, check, install, discard, release: lock.release };
}

//| 01-tokenizer/a-the-pipeline.ipynb#write-whole-folder
/** How a folder is filled: by which command, from which files, and the file that takes its place last. */
export interface FolderFill {
  by: string;
  last: string;
  inputs?: string[];
}

/** Fills a folder wholly or not at all: what `fill` writes takes its place when all is written. */
export async function writeWholeFolder<T>(
  folder: string,
  { by, last, inputs }: FolderFill,
  fill: (partial: string) => T | Promise<T>,
): Promise<T> {
  const claim = claimFolder(folder, by, inputs);
  process.prependOnceListener("exit", claim.discard); // a signal may end the process while `fill` waits
  try {
    claim.discard();
    fs.mkdirSync(claim.partial);
    const result = await fill(claim.partial);
    claim.install(last);
    return result;
  } catch (error) {
    claim.discard();
    throw error;
  } finally {
    process.off("exit", claim.discard);
    claim.release();
  }
}
