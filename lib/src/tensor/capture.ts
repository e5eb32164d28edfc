// Extracted from chapters/04-training/5-one-step-recorded.ipynb: edit it there, or here and run `npm run backport`.
import { type Storage, blockSize, giveBuffer, takeBuffer, wholeOf } from "../gpu/buffers.js";
import {
  type Dispatch,
  type PreparedDispatch,
  encode,
  freshPipelines,
  prepare,
  recordDispatches,
  release,
} from "../gpu/commands.js";
import type { Synchronous } from "../gpu/context.js";
import type { TextureCopy } from "../gpu/textures.js";
import { scope, tensorsIn } from "./tensor.js";

//| 04-training/5-one-step-recorded.ipynb#last-uses
/** The memory that a recorded step uses and did not make. */
export function outsideStorages(dispatches: Dispatch[]): Set<Storage> {
  const all = dispatches.flatMap(({ storages }) => storages.map(wholeOf));
  return new Set(all.filter(({ buffer }) => buffer !== undefined));
}

/** The number of the last dispatch that uses each storage. */
export function lastUses(dispatches: Dispatch[]): Map<Storage, number> {
  const last = new Map<Storage, number>();
  dispatches.forEach(({ storages }, at) => {
    for (const storage of storages) last.set(wholeOf(storage), at);
  });
  return last;
}

//| 04-training/5-one-step-recorded.ipynb#memory-plan
/** Buffers that a step needs for its intermediate results. */
export interface MemoryPlan {
  buffers: GPUBuffer[];
  /** The storages that share them; each has its buffer filled in. */
  shared: Set<Storage>;
  unplannedBytes: number;
}

/** The smallest free buffer that fits, or a new one. */
export function planned(plan: MemoryPlan, free: GPUBuffer[], storage: Storage, what: string): GPUBuffer {
  plan.shared.add(storage);
  const fitting = free.filter(({ size }) => size >= storage.bytes).sort((a, b) => a.size - b.size);
  const [best] = fitting;
  if (best) {
    free.splice(free.indexOf(best), 1);
    return best;
  }
  const buffer = takeBuffer(storage.bytes, what);
  plan.buffers.push(buffer);
  return buffer;
}

//| 04-training/5-one-step-recorded.ipynb#fill-plan
/** Gives a step's buffers, in order: where each storage is first used, and free again after its last use. */
export function fillPlan(plan: MemoryPlan, dispatches: Dispatch[], results: Set<Storage>): void {
  const last = lastUses(dispatches);
  const free: GPUBuffer[] = [];
  dispatches.forEach(({ storages, kernel }, at) => {
    const what = `Kernel "${kernel.name}"`;
    for (const storage of storages.map(wholeOf).filter(({ buffer }) => !buffer)) {
      plan.unplannedBytes += blockSize(storage.bytes);
      storage.buffer = results.has(storage)
        ? takeBuffer(storage.bytes, what)
        : planned(plan, free, storage, what);
    }
    for (const storage of new Set(storages.map(wholeOf))) {
      if (last.get(storage) === at && plan.shared.has(storage)) free.push(storage.buffer!);
    }
  });
}

//| 04-training/5-one-step-recorded.ipynb#plan-memory
/**
 * Walks through the step in order: a storage takes a free buffer at its first use, the smallest that is large enough,
 * and gives it back after its last. Results keep a buffer of their own. Throws when memory runs out, and keeps none.
 */
export function planMemory(dispatches: Dispatch[], results: Set<Storage>): MemoryPlan {
  const plan: MemoryPlan = { buffers: [], shared: new Set(), unplannedBytes: 0 };
  try {
    fillPlan(plan, dispatches, results);
  } catch (error) {
    for (const buffer of plan.buffers) giveBuffer(buffer);
    for (const storage of plan.shared) storage.buffer = undefined;
    throw error;
  }
  return plan;
}

//| 04-training/5-one-step-recorded.ipynb#recording
/** A step written down once, ready to run again and again. */
export interface Recording<T> {
  /** Runs the step. The tensors of its result are the same each time, with new values. */
  run(): T;
  /** Kernels that one run starts. */
  dispatches: number;
  /** Kernels that nothing has run before: the driver may compile them in the first run, which then takes longer. */
  newKernels: number;
  /** Bytes that the intermediate results take in the memory plan, and what they would take with a buffer each. */
  plannedBytes: number;
  unplannedBytes: number;
  /** Gives the planned memory back. */
  free(): void;
}

//| 04-training/5-one-step-recorded.ipynb#prepare-step
/** Prepares a step's dispatches, in order. An array that its texture holds already, as it is now, is not copied again. */
export function prepareStep(dispatches: Dispatch[]): PreparedDispatch[] {
  const held = new Map<GPUTexture, GPUBufferBinding>();
  const isHeld = ({ from, texture }: TextureCopy) => {
    const { buffer, offset, size } = held.get(texture) ?? {};
    return buffer === from.buffer && offset === from.offset && size === from.size;
  };
  return dispatches.map(({ kernel, storages }) => {
    const prepared = prepare({ kernel, storages });
    const copies = prepared.copies.filter((copy) => !isHeld(copy));
    for (const { from, texture } of copies) held.set(texture, from);
    const written = new Set(storages.slice(kernel.reads).map((storage) => wholeOf(storage).buffer));
    for (const [texture, { buffer }] of held) if (written.has(buffer)) held.delete(texture);
    return { ...prepared, copies };
  });
}

//| 04-training/5-one-step-recorded.ipynb#capture
/**
 * Records what `step`, which is synchronous, does on the GPU, without running it, and plans its memory: intermediate results share buffers when
 * their lifetimes do not meet. The step may read and write tensors made outside of it; whatever changes from run to run
 * (a batch, a learning rate) is written into such tensors. It cannot make tensors from values or read them back.
 */
export function capture<T>(step: () => Synchronous<T>): Recording<T> {
  const { result, dispatches } = recordDispatches<T>(() => scope<T>(step) as Synchronous<T>);
  const results = new Set(tensorsIn(result).map(({ storage }) => wholeOf(storage)));
  const outside = outsideStorages(dispatches);
  const plan = planMemory(dispatches, results);
  for (const storage of [...outside, ...results]) storage.owners += 1;
  const prepared = prepareStep(dispatches);
  for (const storage of plan.shared) storage.buffer = undefined;
  return {
    run() {
      for (const dispatch of prepared) encode(dispatch);
      return result;
    },
    dispatches: dispatches.length,
    newKernels: new Set(prepared.map(({ pipeline }) => pipeline).filter((one) => freshPipelines.has(one)))
      .size,
    plannedBytes: plan.buffers.reduce((total, { size }) => total + size, 0),
    unplannedBytes: plan.unplannedBytes,
    free() {
      for (const storage of [...outside, ...results]) release(storage);
      for (const buffer of plan.buffers) giveBuffer(buffer);
    },
  };
}
