// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import {
  type Gpu,
  GpuError,
  currentGpu,
  pinned,
  reportGpuError,
  throwGpuErrors,
  withErrorScope,
} from "./device.js";

//| 02-attention/a-the-engine-room.ipynb#storage
/** A piece of GPU memory. While a step is being recorded `buffer` is still missing: the memory plan fills it in. */
export interface Storage {
  /** Size in bytes, a multiple of 4. */
  readonly bytes: number;
  buffer: GPUBuffer | undefined;
  /** How many tensors and recordings hold it: at 0 the memory is free. */
  owners: number;
  /** A window has no buffer of its own: it shows a part of another storage, from a byte on. */
  within?: { storage: Storage; offset: number };
}

//| 02-attention/a-the-engine-room.ipynb#storage-helpers
/** The storage that a window shows a part of, or the storage itself. */
export function wholeOf(storage: Storage): Storage {
  return storage.within?.storage ?? storage;
}

//| 02-attention/a-the-engine-room.ipynb#free-lists-parts
/** The buffers of one device. */
export interface Pool {
  /** All that the driver has not refused. */
  usable: WeakSet<GPUBuffer>;
  /** Those that nobody uses now, by size: memory that was used once is used again, since making a buffer is slow. */
  free: Map<number, GPUBuffer[]>;
  /** Bytes that they may take in all: what this process may have, for a software adapter; no bound for others. */
  room: number;
}

/** One pool a device. */
export const pools = new WeakMap<GPUDevice, Pool>();

/** Bytes that this process may have, as far as it can know: what it is limited to, or else what the machine has left. */
export function processMemory(): number | undefined {
  const { process } = globalThis as { process?: NodeJS.Process };
  const limit = process?.constrainedMemory?.() || Number.POSITIVE_INFINITY;
  return limit < 2 ** 60 ? limit : process?.availableMemory?.();
}

//| 02-attention/a-the-engine-room.ipynb#free-lists
/** Bytes of GPU memory: held in all, free for reuse, and the most that was in use at one time. */
export const memory = { held: 0, free: 0, peak: 0 };

//| 02-attention/a-the-engine-room.ipynb#free-lists-helpers
/** The pool of a device. */
export function poolOf({ device, facts }: Gpu): Pool {
  const existing = pools.get(device);
  if (existing) return existing;
  const room = facts.kind === "cpu" ? processMemory() : undefined;
  const pool = { usable: new WeakSet<GPUBuffer>(), free: new Map(), room: room ?? Number.POSITIVE_INFINITY };
  pools.set(device, pool);
  Object.assign(memory, { held: 0, free: 0, peak: 0 }); // what a lost device had is gone
  return pool;
}

//| 02-attention/a-the-engine-room.ipynb#free-list-parts
/** The free buffers of one size. */
export function freeList({ free }: Pool, size: number): GPUBuffer[] {
  const list = free.get(size) ?? [];
  free.set(size, list);
  return list;
}

//| 02-attention/a-the-engine-room.ipynb#free-list
/** Bytes a buffer really takes: whole blocks of 256, so that near sizes share a free list. */
export function blockSize(bytes: number): number {
  return Math.max(256, Math.ceil(bytes / 256) * 256);
}

//| 02-attention/a-the-engine-room.ipynb#readable-bytes-parts
/** Bytes that a kernel can bind as one array, and bytes that one buffer can have at all, in whole blocks of 256. */
export function bindingLimit(): number {
  const { limits } = currentGpu().facts;
  return Math.floor(Math.min(limits.maxBufferSize, limits.maxStorageBufferBindingSize) / 256) * 256;
}

//| 02-attention/a-the-engine-room.ipynb#readable-bytes
/** Bytes as a person reads them. */
export function readableBytes(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  const power = Math.min(3, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return `${power === 0 ? bytes : (bytes / 1024 ** power).toFixed(1)} ${units[power]}`;
}

//| 02-attention/a-the-engine-room.ipynb#readable-bytes-helpers
/** Refuses a size that the adapter cannot bind (or, with another limit, hold), saying what is needed and what there is. */
export function checkFits(bytes: number, what: string, most = bindingLimit()): void {
  if (bytes <= most) return;
  const [needed, given] = [readableBytes(bytes), readableBytes(most)];
  throw new GpuError(
    `${what} needs ${needed}, but one array on ${currentGpu().facts.name} holds at most ${given}: choose a smaller size.`,
  );
}

//| 02-attention/a-the-engine-room.ipynb#out-of-memory
/** The error for memory that is not to be had: who wanted how much, and what this process had then. */
export function outOfMemory(
  { room }: Pool,
  what: string,
  bytes: number,
  { held, free, peak }: typeof memory,
): GpuError {
  const had = `${readableBytes(held)}${Number.isFinite(room) ? ` of ${readableBytes(room)}` : ""}`;
  const unused =
    free > 0 ? `, ${readableBytes(free)} of it unused (\`dropFreeBuffers\` gives that back)` : "";
  return new GpuError(
    `Out of GPU memory: ${what} needs ${readableBytes(bytes)}, and this process holds ${had} already${unused}; ` +
      `the most it used at one time is ${readableBytes(peak)}.`,
  );
}

//| 02-attention/a-the-engine-room.ipynb#new-buffer
/**
 * Makes a buffer or another thing of `size` bytes. Whether the driver has memory for it comes out later: if not, the next
 * wait throws in the name of `what`, and `refused` is called.
 */
export function newMemory<T>(
  size: number,
  what: string,
  make: (device: GPUDevice) => T,
  refused?: () => void,
): T {
  const gpu = currentGpu();
  const before = { ...memory };
  const failed = () => {
    refused?.();
    reportGpuError(gpu, outOfMemory(poolOf(gpu), what, size, before), true);
  };
  return withErrorScope(gpu.device, "out-of-memory", () => make(gpu.device), failed);
}

/** A new buffer, with memory or without, as `newMemory` says. */
export function newBuffer(
  { size, usage, what }: { size: number; usage: number; what: string },
  refused?: () => void,
): GPUBuffer {
  return newMemory(size, what, (device) => device.createBuffer({ size, usage }), refused);
}

//| 02-attention/a-the-engine-room.ipynb#grow-pool
/** Throws when a pool has no room for `size` bytes more. */
export function checkMemory(pool: Pool, size: number, what: string): void {
  if (memory.held + size > pool.room) throw outOfMemory(pool, what, size, memory);
}

/** Adds a new buffer to a pool. Throws when it has no room for it. */
export function growPool(pool: Pool, size: number, what: string): GPUBuffer {
  checkMemory(pool, size, what);
  const usage = 0x80 | 0x08 | 0x04; // STORAGE | COPY_DST | COPY_SRC
  const buffer = newBuffer({ size, usage, what }, () => strikeOut(pool, buffer));
  pool.usable.add(buffer);
  memory.held += size;
  return buffer;
}

/** Takes a buffer that the driver refused out of the books, whether someone has it or it is free again. The peak stays. */
export function strikeOut(pool: Pool, buffer: GPUBuffer): void {
  pool.usable.delete(buffer);
  memory.held -= buffer.size;
  const list = freeList(pool, buffer.size);
  const at = list.indexOf(buffer);
  if (at >= 0) memory.free -= list.splice(at, 1)[0].size;
}

//| 02-attention/a-the-engine-room.ipynb#take-give
/** A buffer of at least `bytes` bytes whose content is whatever was there before. `what` is its name in errors. */
export function takeBuffer(bytes: number, what = "An array"): GPUBuffer {
  checkFits(bytes, what, currentGpu().facts.limits.maxBufferSize);
  const pool = poolOf(currentGpu());
  const size = blockSize(bytes);
  const reused = freeList(pool, size).pop();
  if (reused) memory.free -= size;
  const buffer = reused ?? growPool(pool, size, what);
  memory.peak = Math.max(memory.peak, memory.held - memory.free);
  return buffer;
}

/** Gives a buffer back for reuse. Work already encoded keeps its meaning: the queue runs in order. */
export function giveBuffer(buffer: GPUBuffer): void {
  const gpu = pinned.tslmGpu?.gpu;
  const pool = gpu && pools.get(gpu.device);
  if (!pool?.usable.has(buffer)) return; // the driver had refused it, or it was lost with its device
  freeList(pool, buffer.size).push(buffer);
  memory.free += buffer.size;
}

//| 02-attention/a-the-engine-room.ipynb#check-usable
/** Throws when a buffer cannot be used: its device was lost, or the driver had no memory for it. */
export function checkUsable(buffer: GPUBuffer, user: string): void {
  const gpu = currentGpu();
  if (poolOf(gpu).usable.has(buffer)) return;
  throwGpuErrors(gpu); // the reason, if nobody has heard it yet
  throw new GpuError(`${user} was given memory that was lost with its device or never had: make it anew.`);
}

//| 02-attention/a-the-engine-room.ipynb#drop-free
/** Gives all free buffers back to the driver. Wait for the GPU first (`finish`): it may still be using them. */
export function dropFreeBuffers(): void {
  for (const list of poolOf(currentGpu()).free.values())
    for (const buffer of list.splice(0)) {
      buffer.destroy();
      memory.held -= buffer.size;
      memory.free -= buffer.size;
    }
}
