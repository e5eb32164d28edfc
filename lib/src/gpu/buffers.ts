// Extracted from chapters/02-attention/1-the-first-kernel.ipynb: edit it there, or here and run `npm run backport`.
import { GpuError, currentGpu } from "./device.js";

//| 02-attention/1-the-first-kernel.ipynb#storage
/** A piece of GPU memory. While a step is being recorded `buffer` is still missing: the memory plan fills it in. */
export interface Storage {
  /** Size in bytes, a multiple of 4. */
  readonly bytes: number;
  buffer: GPUBuffer | undefined;
  /** How many tensors and recordings hold it: at 0 the memory is free. */
  owners: number;
}

//| 02-attention/1-the-first-kernel.ipynb#free-lists
/** Free buffers by size: memory that was used once is used again, since making a buffer is slow. */
export const freeBuffers = new WeakMap<GPUDevice, Map<number, GPUBuffer[]>>();

/** Bytes of GPU memory: held in all, free for reuse, and the most that was in use at one time. */
export const memory = { held: 0, free: 0, peak: 0 };

/** The list of free buffers of one size. */
export function freeList(device: GPUDevice, size: number): GPUBuffer[] {
  const lists = freeBuffers.get(device) ?? new Map<number, GPUBuffer[]>();
  freeBuffers.set(device, lists);
  const list = lists.get(size) ?? [];
  lists.set(size, list);
  return list;
}

/** Bytes a buffer really takes: whole blocks of 256, so that near sizes share a free list. */
export function blockSize(bytes: number): number {
  return Math.max(256, Math.ceil(bytes / 256) * 256);
}

//| 02-attention/1-the-first-kernel.ipynb#readable-bytes
/** Bytes as a person reads them. */
export function readableBytes(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  const power = Math.min(3, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return `${power === 0 ? bytes : (bytes / 1024 ** power).toFixed(1)} ${units[power]}`;
}

/** Refuses a size that the adapter cannot bind, saying what is needed and what there is. */
export function checkFits(bytes: number, what: string): void {
  const { limits, name } = currentGpu().facts;
  const most = Math.min(limits.maxBufferSize, limits.maxStorageBufferBindingSize);
  if (bytes <= most) return;
  const [needed, given] = [readableBytes(bytes), readableBytes(most)];
  throw new GpuError(
    `${what} needs ${needed}, but one array on ${name} holds at most ${given}: choose a smaller size.`,
  );
}

//| 02-attention/1-the-first-kernel.ipynb#take-give
/** A buffer of at least `bytes` bytes whose content is whatever was there before. */
export function takeBuffer(bytes: number, what = "An array"): GPUBuffer {
  checkFits(bytes, what);
  const { device } = currentGpu();
  const size = blockSize(bytes);
  const reused = freeList(device, size).pop();
  if (reused) memory.free -= size;
  else memory.held += size;
  memory.peak = Math.max(memory.peak, memory.held - memory.free);
  return reused ?? device.createBuffer({ size, usage: 0x80 | 0x08 | 0x04 }); // STORAGE | COPY_DST | COPY_SRC
}

/** Gives a buffer back for reuse. Work already encoded keeps its meaning: the queue runs in order. */
export function giveBuffer(buffer: GPUBuffer): void {
  freeList(currentGpu().device, buffer.size).push(buffer);
  memory.free += buffer.size;
}

//| 02-attention/1-the-first-kernel.ipynb#drop-free
/** Gives all free buffers back to the driver. Wait for the GPU first (`finish`): it may still be using them. */
export function dropFreeBuffers(): void {
  for (const list of freeBuffers.get(currentGpu().device)?.values() ?? [])
    for (const buffer of list.splice(0)) {
      buffer.destroy();
      memory.held -= buffer.size;
      memory.free -= buffer.size;
    }
}
