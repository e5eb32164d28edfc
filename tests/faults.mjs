// Faults at the n-th change of the disk: the process dies before it or halfway through it, or the disk is full or fails. Tests
// call `injectFault`; a real process takes it with `node --import ./tests/faults.mjs` and TSLM_FAULT=kill:17 in its
// environment (TSLM_FAULT=none:FILE counts: at the end FILE holds the names of all calls).
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";

/** The functions that change the disk. Of those that open files, only what opens them to be written counts. */
const changing = [
  ..."appendFileSync copyFileSync cpSync fdatasyncSync fsyncSync ftruncateSync linkSync mkdirSync mkdtempSync".split(
    " ",
  ),
  ..."openSync renameSync rmSync rmdirSync symlinkSync truncateSync unlinkSync writeFileSync writeSync".split(
    " ",
  ),
];

const messages = { ENOSPC: "no space left on device", EIO: "i/o error" };
/** What a full disk refuses. It still renames and removes. */
const takesRoom = /^(append|copy|cp|f?datasync|fsync|mkd|open|symlink|link|write)/;

/** What ends a process that is killed only in play: from then on it changes nothing. */
export class Killed extends Error {}

function systemError(code, name, target) {
  const syscall = name.replace("Sync", "").toLowerCase();
  const where = typeof target === "number" ? {} : { path: String(target) };
  return Object.assign(new Error(`${code}: ${messages[code]}, ${syscall}`), { code, syscall, ...where });
}

/** Does half of a call, as a process that dies in the middle leaves it; what has no halves is done. */
function half(original, name, args) {
  if (name === "writeFileSync" || name === "appendFileSync") {
    const bytes = typeof args[1] === "string" ? Buffer.from(args[1]) : args[1];
    original(args[0], bytes.subarray(0, bytes.length >> 1), ...args.slice(2));
  } else if (name === "writeSync" && typeof args[1] !== "string") {
    const [handle, bytes, offset = 0, length = bytes.length - offset, position] = args;
    original(handle, bytes, offset, length >> 1, position);
  } else if (name === "rmSync" && fs.existsSync(args[0]) && fs.statSync(args[0]).isDirectory()) {
    const [first] = fs.readdirSync(args[0]);
    if (first) original(`${args[0]}/${first}`, args[1]);
  } else original(...args);
}

/**
 * Lets the call number `at` (from 1) of those whose name and file match `of` go wrong: "kill" dies before it, "torn" halfway, "ENOSPC" refuses it and all after it that
 * take room, "EIO" refuses it alone. `die` ends the process; without it, every later call throws as if it were dead. Returns
 * the names of the calls so far and what takes the fault away.
 */
export function injectFault({ kind = "none", at = 0, of = /(?:)/, die = undefined } = {}) {
  const originals = Object.fromEntries(changing.map((name) => [name, fs[name]]));
  const calls = [];
  let [depth, dead, matching] = [0, false, 0];
  const kill = () => {
    dead = true;
    die?.();
    throw new Killed("killed");
  };
  const counts = (name, args) => name !== "openSync" || !["r", undefined].includes(args[1]);
  for (const name of changing)
    fs[name] = (...args) => {
      const original = originals[name];
      if (depth > 0 || !counts(name, args)) return original(...args);
      if (dead) throw new Killed("killed");
      calls.push(`${name} ${typeof args[0] === "number" ? "" : args[0]}`);
      const matches = of.test(calls.at(-1));
      if (matches) matching += 1;
      const isIt = matches && matching === at;
      depth += 1;
      try {
        if (isIt && kind === "kill") kill();
        if (isIt && kind === "torn") {
          half(original, name, args);
          kill();
        }
        const full = kind === "ENOSPC" && matching >= at && takesRoom.test(name);
        if (full && /^(write|append)/.test(name)) half(original, name, args);
        if (full || (kind === "EIO" && isIt)) throw systemError(kind, name, args[0]);
        return original(...args);
      } finally {
        depth -= 1;
      }
    };
  syncBuiltinESMExports();
  const restore = () => {
    Object.assign(fs, originals);
    syncBuiltinESMExports();
  };
  return { calls, restore };
}

if (process.env.TSLM_FAULT && process.execArgv.some((argument) => argument.includes("faults.mjs"))) {
  const [kind, at] = process.env.TSLM_FAULT.split(":");
  const time = performance.now.bind(performance);
  performance.now = () => (time() > 1e12 ? 1 : 0); // no timings in what is written
  const die = () => process.kill(process.pid, "SIGKILL");
  const { calls, restore } = injectFault({ kind, at: Number(at), die });
  if (kind === "none")
    process.on("exit", () => {
      restore();
      fs.writeFileSync(at, calls.join("\n"));
    });
}
