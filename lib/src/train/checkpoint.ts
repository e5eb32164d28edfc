// Extracted from chapters/04-training/7-checkpoints.ipynb: edit it there, or here and run `npm run backport`.
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { z } from "zod";
import type { BatchCursor } from "../data/batches.js";
import { checkedJson, parseChecked, syncFolder, writeSynced } from "../data/files.js";
import { float32Tensor, readSafetensors, toFloat32, writeSafetensors } from "../formats/safetensors.js";
import type { Tensor } from "../tensor/tensor.js";

//| 04-training/7-checkpoints.ipynb#run-state
/** How far a run has come. */
export interface RunProgress {
  /** Steps that are done. */
  step: number;
  /** The lowest validation loss so far, in nats a token, and when that was. */
  best?: { step: number; loss: number };
  /** The latest validation loss. */
  last?: { step: number; loss: number };
}

/** Where a run stands, besides its tensors: with them, all that the next step depends on. Plain JSON. */
export interface RunState extends RunProgress {
  /** Tokens that the model has learned from. */
  tokens: number;
  seed: number;
  /** The stream of training batches, just after the last one used. */
  cursor: BatchCursor;
}

//| 04-training/7-checkpoints.ipynb#tensor-bytes
/** Reads tensors back from the GPU into the bytes of a safetensors file. */
export async function tensorBytes(tensors: Map<string, Tensor>): Promise<Uint8Array> {
  const entries: [string, ReturnType<typeof float32Tensor>][] = [];
  for (const [name, tensor] of tensors)
    entries.push([name, float32Tensor([...tensor.shape], await tensor.array())]);
  return writeSafetensors(new Map(entries));
}

/** The arrays in the bytes of a safetensors file, by name. */
export function savedArrays(bytes: Uint8Array): Map<string, Float32Array> {
  const { tensors } = readSafetensors(bytes);
  return new Map([...tensors].map(([name, saved]) => [name, toFloat32(saved)]));
}

//| 04-training/7-checkpoints.ipynb#names-parts
/** The name of the checkpoint after so many steps. */
export function checkpointName(step: number): string {
  return `step-${String(step).padStart(6, "0")}`;
}

/** The step that a checkpoint's name says. */
export function checkpointStep(name: string): number {
  return Number(name.slice("step-".length));
}

/** The checkpoints in the folder of a run, oldest first. One that was not finished has another name and does not count. */
export function listCheckpoints(run: string): string[] {
  const names = fs.existsSync(run) ? fs.readdirSync(run) : [];
  const checkpoints = names.filter((name) => /^step-\d{6,}$/.test(name));
  return checkpoints.sort((a, b) => checkpointStep(a) - checkpointStep(b));
}

//| 04-training/7-checkpoints.ipynb#names
/** The files of a checkpoint by name, as bytes. */
export type CheckpointFiles = Map<string, Uint8Array>;

/** A checkpoint in memory. */
export interface Checkpoint {
  state: RunState;
  files: CheckpointFiles;
}

//| 04-training/7-checkpoints.ipynb#sha256
/** The sha256 of some bytes, in hexadecimal. */
export function sha256Of(bytes: Uint8Array | string): string {
  return crypto.createHash("sha256").update(bytes).digest("hex");
}

//| 04-training/7-checkpoints.ipynb#state-text-code
/**
 * The content of state.json: the state, size and sha256 of each other file, and last the sha256 of all that, so that
 * damage to state.json itself shows too.
 */
export function stateText(state: RunState, files: CheckpointFiles): string {
  const described = [...files].map(([name, bytes]) => [
    name,
    { bytes: bytes.length, sha256: sha256Of(bytes) },
  ]);
  const content = { format: "tslm checkpoint", version: 1, ...state, files: Object.fromEntries(described) };
  return checkedJson(content);
}

//| 04-training/7-checkpoints.ipynb#remove
/** Removes a checkpoint. It loses its name first, so that a half-removed one is never taken for a whole one. */
export function removeCheckpoint(folder: string): void {
  const doomed = path.join(path.dirname(folder), `.${path.basename(folder)}.removed`);
  fs.rmSync(doomed, { recursive: true, force: true });
  fs.renameSync(folder, doomed);
  fs.rmSync(doomed, { recursive: true });
}

/** Removes what a kill in the middle of writing or removing a checkpoint left behind. */
export function removeUnfinished(run: string): void {
  for (const name of fs.readdirSync(run)) {
    if (/^\.step-\d+\.(partial|removed)$/.test(name)) fs.rmSync(path.join(run, name), { recursive: true });
  }
}

//| 04-training/7-checkpoints.ipynb#write-checkpoint-parts
/** Leaves of a run's checkpoints the newest `keep`, and nothing that is unfinished. */
export function tidyCheckpoints(run: string, keep = 2): void {
  removeUnfinished(run);
  for (const old of listCheckpoints(run).slice(0, -keep)) removeCheckpoint(path.join(run, old));
}

/** Writes the files of a checkpoint, state.json last, and waits until all are on the disk. */
export function fillCheckpoint(folder: string, state: RunState, files: CheckpointFiles): void {
  fs.mkdirSync(folder);
  for (const [name, bytes] of files) writeSynced(path.join(folder, name), bytes);
  writeSynced(path.join(folder, "state.json"), stateText(state, files));
  syncFolder(folder);
}

//| 04-training/7-checkpoints.ipynb#write-checkpoint
/**
 * Writes a checkpoint into the folder of a run and returns its own folder. It gets its name in one step after every byte
 * is on the disk; only then do older ones go, all but the newest `keep`.
 */
export function writeCheckpoint(run: string, state: RunState, files: CheckpointFiles, keep = 2): string {
  fs.mkdirSync(run, { recursive: true });
  removeUnfinished(run);
  const folder = path.join(run, checkpointName(state.step));
  const partial = path.join(run, `.${checkpointName(state.step)}.partial`);
  try {
    fillCheckpoint(partial, state, files);
    if (fs.existsSync(folder)) removeCheckpoint(folder);
    fs.renameSync(partial, folder);
  } catch (error) {
    fs.rmSync(partial, { recursive: true, force: true }); // where the disk is full, its room is wanted
    throw error;
  }
  syncFolder(run);
  tidyCheckpoints(run, keep);
  return folder;
}

//| 04-training/7-checkpoints.ipynb#damaged
/** An error that says what is wrong with a file of a checkpoint, and how to go on from the one before it. */
export function damagedCheckpoint(folder: string, file: string, problem: string): Error {
  const run = path.dirname(folder);
  const before = listCheckpoints(run)
    .filter((name) => checkpointStep(name) < checkpointStep(path.basename(folder)))
    .pop();
  const advice = before
    ? `To go on from ${before}, the checkpoint before it, remove the folder ${folder} and resume again.`
    : `There is no checkpoint before it: begin the run again.`;
  return new Error(`${path.join(folder, file)} is damaged: ${problem}. ${advice}`);
}

//| 04-training/7-checkpoints.ipynb#read-state
/** What state.json says: the state, and size and sha256 of the other files. */
export interface SavedState extends RunState {
  files: Record<string, { bytes: number; sha256: string }>;
}

/** What state.json must hold. */
export const stateSchema = (() => {
  const count = z.int().nonnegative();
  const place = { epoch: count, position: count };
  const sources = z.array(z.strictObject({ ...place, windows: count })).min(1);
  const measured = z.strictObject({ step: count, loss: z.number().nonnegative() }).optional();
  const file = z.strictObject({ bytes: count, sha256: z.hex().length(64) });
  return z.strictObject({
    step: count,
    tokens: count,
    seed: count,
    cursor: z.union([z.strictObject(place), z.strictObject({ sources })]),
    best: measured,
    last: measured,
    files: z.record(z.string().regex(/^\w[\w.-]*$/), file),
  });
})();

/** Reads state.json, and holds it against its own checksum and against the name of its folder. */
export function readState(folder: string): SavedState {
  const damaged = (problem: string) => damagedCheckpoint(folder, "state.json", problem);
  const { format, version, ...saved } = (() => {
    try {
      return parseChecked(fs.readFileSync(path.join(folder, "state.json"), "utf8"));
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      throw damaged(code === "ENOENT" ? "it is missing" : message);
    }
  })();
  if (format !== "tslm checkpoint" || version !== 1)
    throw new Error(`${folder} is not a checkpoint of version 1; it was written by another version of tslm.`);
  const { data, error } = stateSchema.safeParse(saved);
  if (error) throw damaged(`its ${error.issues[0].path.join(".") || "content"} makes no sense`);
  if (checkpointName(data.step) !== path.basename(folder)) throw damaged(`it is of step ${data.step}`);
  return data as SavedState; // in a cell, whose compiler is not strict, the schema's type has only optional keys
}

//| 04-training/7-checkpoints.ipynb#read-checkpoint-parts
/** The state alone. */
export function stateIn(saved: SavedState): RunState {
  const { step, tokens, seed, cursor, best, last } = saved;
  return { step, tokens, seed, cursor, ...(best ? { best } : {}), ...(last ? { last } : {}) };
}

//| 04-training/7-checkpoints.ipynb#read-checkpoint
/** Reads a checkpoint, every byte held against its checksum. Throws one sentence that names the file that is damaged. */
export function readCheckpoint(folder: string): Checkpoint {
  const saved = readState(folder);
  const files: CheckpointFiles = new Map();
  for (const [name, { bytes, sha256 }] of Object.entries(saved.files)) {
    const file = path.join(folder, name);
    if (!fs.existsSync(file)) throw damagedCheckpoint(folder, name, "it is missing");
    const content = new Uint8Array(fs.readFileSync(file));
    if (content.length !== bytes)
      throw damagedCheckpoint(folder, name, `it has ${content.length} bytes where state.json says ${bytes}`);
    if (sha256Of(content) !== sha256)
      throw damagedCheckpoint(folder, name, "its checksum is not the one in state.json");
    files.set(name, content);
  }
  return { state: stateIn(saved), files };
}

/** The newest checkpoint of a run; none if there is none yet. Throws if it is damaged: an older one is never taken silently. */
export function latestCheckpoint(run: string): Checkpoint | undefined {
  const newest = listCheckpoints(run).pop();
  return newest === undefined ? undefined : readCheckpoint(path.join(run, newest));
}
