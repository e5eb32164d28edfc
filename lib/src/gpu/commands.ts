// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import {
  type Storage,
  checkFits,
  checkUsable,
  giveBuffer,
  newBuffer,
  takeBuffer,
  wholeOf,
} from "./buffers.js";
import { type Synchronous, inContext } from "./context.js";
import {
  type Gpu,
  GpuError,
  checkAlive,
  currentGpu,
  reportGpuError,
  throwGpuErrors,
  unsettledCalls,
  withErrorScope,
} from "./device.js";
import type { Kernel } from "./kernel.js";
import { type TextureCopy, copyToTexture, textureFor } from "./textures.js";

//| 02-attention/a-the-engine-room.ipynb#report-compilation
/** Turns a failed compilation into one error with the line that is wrong. */
export async function reportCompilation(
  gpu: Gpu,
  name: string,
  module: GPUShaderModule,
  error: GPUError,
): Promise<void> {
  const { messages } = await module.getCompilationInfo();
  const first = messages.find(({ type }) => type === "error");
  const where = first ? `line ${first.lineNum}: ${first.message}` : error.message;
  reportGpuError(gpu, new GpuError(`Kernel "${name}" does not compile: ${where}`), true);
}

/** The layout of a kernel's bindings: arrays and textures that it reads first, then arrays that it writes, then its sizes. */
export function bindingLayout(
  device: GPUDevice,
  { reads, writes, textures, sizes }: Kernel,
): GPUBindGroupLayout {
  const typeOf = (binding: number): GPUBufferBindingType => {
    if (binding < reads) return "read-only-storage";
    return binding < reads + writes ? "storage" : "uniform";
  };
  const texture = { storageTexture: { access: "read-only", format: "rgba32float" } } as const;
  const entries = Array.from({ length: reads + writes + Math.min(1, sizes.length) }, (_, binding) => ({
    binding,
    visibility: 4, // GPUShaderStage.COMPUTE
    ...(textures.includes(binding) ? texture : { buffer: { type: typeOf(binding) } }),
  }));
  return device.createBindGroupLayout({ entries });
}

//| 02-attention/a-the-engine-room.ipynb#compile
/** Compiles a kernel. Errors in its source come out at the next wait, naming kernel and line, and `failed` is called. */
export function compile(gpu: Gpu, kernel: Kernel, failed: () => void): GPUComputePipeline {
  const { device } = gpu;
  const { name, code } = kernel;
  const make = () => {
    const module = device.createShaderModule({ label: name, code });
    const layout = device.createPipelineLayout({ bindGroupLayouts: [bindingLayout(device, kernel)] });
    const compute = { module, entryPoint: "main" };
    return { module, pipeline: device.createComputePipeline({ label: name, layout, compute }) };
  };
  const compiled = withErrorScope(device, "validation", make, (error): Promise<void> => {
    failed();
    return reportCompilation(gpu, name, compiled.module, error);
  });
  return compiled.pipeline;
}

//| 02-attention/a-the-engine-room.ipynb#pipeline-for
/** Compiled kernels by their key, one table a device. */
export const pipelines = new WeakMap<GPUDevice, Map<string, GPUComputePipeline>>();

/** Pipelines that have not run yet. A driver may put compiling off until then, so their first run takes longer. */
export const freshPipelines = new Set<GPUComputePipeline>();

/** The compiled form of a kernel: compiled once, then remembered by its key. */
export function pipelineFor(gpu: Gpu, kernel: Kernel): GPUComputePipeline {
  const compiled = pipelines.get(gpu.device) ?? new Map<string, GPUComputePipeline>();
  pipelines.set(gpu.device, compiled);
  const ready = compiled.get(kernel.key);
  if (ready) return ready;
  const pipeline = compile(gpu, kernel, () => compiled.delete(kernel.key));
  compiled.set(kernel.key, pipeline);
  freshPipelines.add(pipeline);
  return pipeline;
}

//| 02-attention/a-the-engine-room.ipynb#prepare-parts
/** A dispatch with everything the GPU needs looked up. */
export interface PreparedDispatch {
  gpu: Gpu;
  name: string;
  pipeline: GPUComputePipeline;
  bindings: GPUBindGroup;
  /** What is copied into textures before. */
  copies: TextureCopy[];
  workgroups: readonly [number, number, number];
}

/** Small buffers of sizes by their content, one table a device. They are few, and live as long as it. */
export const sizesBuffers = new WeakMap<GPUDevice, Map<string, GPUBuffer>>();

/** The buffer that holds these sizes, made when they are first asked for. */
export function sizesBuffer(device: GPUDevice, sizes: readonly number[]): GPUBuffer {
  const buffers = sizesBuffers.get(device) ?? new Map<string, GPUBuffer>();
  sizesBuffers.set(device, buffers);
  const key = sizes.join();
  const ready = buffers.get(key);
  if (ready) return ready;
  const buffer = device.createBuffer({ size: Math.ceil(sizes.length / 4) * 16, usage: 0x40 | 0x08 }); // UNIFORM | COPY_DST
  device.queue.writeBuffer(buffer, 0, Uint32Array.from(sizes));
  buffers.set(key, buffer);
  return buffer;
}

//| 02-attention/a-the-engine-room.ipynb#prepare
/** One kernel with the memory it runs on, in the order of its bindings. */
export interface Dispatch {
  kernel: Kernel;
  storages: Storage[];
}

//| 02-attention/a-the-engine-room.ipynb#prepare-2
/** The binding of a storage, or of the part that a window shows. Throws when there is no memory, or more than can be bound. */
export function bindingOf(storage: Storage, user: string): GPUBufferBinding {
  const { buffer } = wholeOf(storage);
  if (!buffer) throw new GpuError(`${user} was given memory that is already freed.`);
  checkUsable(buffer, user);
  checkFits(storage.bytes, `An array of ${user}`);
  return { buffer, offset: storage.within?.offset ?? 0, size: Math.max(4, storage.bytes) };
}

/** Looks up the compiled kernel and binds its memory. */
export function prepare({ kernel, storages }: Dispatch): PreparedDispatch {
  const gpu = currentGpu();
  const pipeline = pipelineFor(gpu, kernel);
  const arrays = storages.map((storage) => bindingOf(storage, `Kernel "${kernel.name}"`));
  const sizes = kernel.sizes.length > 0 ? [{ buffer: sizesBuffer(gpu.device, kernel.sizes) }] : [];
  const resources: GPUBindingResource[] = [...arrays, ...sizes];
  const copies = kernel.textures.map((binding) => {
    const from = arrays[binding];
    const texture = textureFor(binding, storages[binding].bytes, `A texture for kernel "${kernel.name}"`);
    resources[binding] = texture.createView();
    return { from, texture };
  });
  const entries = resources.map((resource, binding) => ({ binding, resource }));
  const layout = pipeline.getBindGroupLayout(0);
  const bindings = gpu.device.createBindGroup({ label: kernel.name, layout, entries });
  return { gpu, name: kernel.name, pipeline, bindings, copies, workgroups: kernel.workgroups };
}

//| 02-attention/a-the-engine-room.ipynb#encoding-types
/** Commands that were encoded and not yet handed to the GPU. */
export interface Encoding {
  gpu: Gpu;
  encoder: GPUCommandEncoder;
  pass: GPUComputePassEncoder;
  count: number;
}

/** What the commands of this process are doing now: waiting, being recorded, or being watched. */
export const commands: {
  waiting?: Encoding;
  recording?: Dispatch[];
  watcher?: (dispatch: Dispatch) => void;
} = {};

/** Work is handed to the GPU at least this often, so that it is busy while the program goes on. */
export const dispatchesPerSubmit = 64;

//| 02-attention/a-the-engine-room.ipynb#encode-parts
/** Opens a new list of commands. */
export function beginEncoding(gpu: Gpu): Encoding {
  const encoder = gpu.device.createCommandEncoder();
  return { gpu, encoder, pass: encoder.beginComputePass(), count: 0 };
}

/** Copies arrays into textures. That cannot be done inside of a pass, so one ends before and the next begins after. */
export function fillTextures(encoding: Encoding, copies: TextureCopy[]): void {
  if (copies.length === 0) return;
  encoding.pass.end();
  for (const copy of copies) copyToTexture(encoding.encoder, copy);
  encoding.pass = encoding.encoder.beginComputePass();
}

//| 02-attention/a-the-engine-room.ipynb#encode
/** Hands the waiting commands to the GPU without waiting for them. */
export function flush(): void {
  const { waiting } = commands;
  if (!waiting) return;
  commands.waiting = undefined;
  waiting.pass.end();
  waiting.gpu.device.queue.submit([waiting.encoder.finish()]);
}

//| 02-attention/a-the-engine-room.ipynb#encode-helpers
/** Adds a dispatch to those that wait: one pass holds many, since starting a pass costs more than a dispatch. */
export function encode({ gpu, name, pipeline, bindings, copies, workgroups }: PreparedDispatch): void {
  checkAlive(gpu);
  if (commands.waiting?.gpu !== gpu) commands.waiting = beginEncoding(gpu); // what waited for a lost device is dropped
  const { waiting } = commands;
  gpu.latestKernel = name;
  if (freshPipelines.size > 0) freshPipelines.delete(pipeline);
  fillTextures(waiting, copies);
  waiting.pass.setPipeline(pipeline);
  waiting.pass.setBindGroup(0, bindings);
  waiting.pass.dispatchWorkgroups(...workgroups);
  if (++waiting.count >= dispatchesPerSubmit) flush();
}

//| 02-attention/a-the-engine-room.ipynb#run-parts
/** Throws when a kernel is given more or fewer arrays than it works on. */
export function checkArrays({ name, reads, writes }: Kernel, storages: Storage[]): void {
  const arrays = reads + writes;
  if (storages.length === arrays) return;
  throw new GpuError(`Kernel "${name}" works on ${arrays} arrays, and was given ${storages.length}.`);
}

//| 02-attention/a-the-engine-room.ipynb#run
/**
 * Runs a kernel on memory: encoded now, executed in order. While a step is recorded it is only written down.
 * Throws when the number of arrays is not the kernel's.
 */
export function run(kernel: Kernel, storages: Storage[]): void {
  checkArrays(kernel, storages);
  const { recording, watcher } = commands;
  if (recording) recording.push({ kernel, storages });
  else if (watcher) watcher({ kernel, storages });
  else encode(prepare({ kernel, storages }));
}

//| 02-attention/a-the-engine-room.ipynb#rest-until
/**
 * Waits for the GPU, sleeping a millisecond at a time, so that Dawn's asking whether it is done takes no core from a
 * software adapter. A browser does its own waiting.
 */
export async function restUntil<T>(work: Promise<T>): Promise<T> {
  if (typeof setImmediate === "undefined") return work;
  let settled = false;
  const settle = () => {
    settled = true;
  };
  work.then(settle, settle);
  const never = new Int32Array(new SharedArrayBuffer(4)); // nobody wakes it: waiting on it is sleeping
  for (let turn = 0; !settled; turn++) {
    await new Promise((resolve) => setImmediate(resolve));
    if (!settled && turn > 20) Atomics.wait(never, 0, 0, 1);
  }
  return work;
}

//| 02-attention/a-the-engine-room.ipynb#finish-parts
/** Waits for something that the GPU does. Throws the first error that came up; when the device is lost, that. */
export async function waitFor(gpu: Gpu, work: Promise<unknown>): Promise<void> {
  const done = restUntil(work).catch((error: Error) => reportGpuError(gpu, new GpuError(error.message)));
  await Promise.all([done, ...unsettledCalls]);
  throwGpuErrors(gpu);
}

//| 02-attention/a-the-engine-room.ipynb#finish
/** Waits until the GPU has done everything asked of it. Throws the first error that it met. */
export async function finish(): Promise<void> {
  const gpu = currentGpu();
  flush();
  await waitFor(gpu, gpu.device.queue.onSubmittedWorkDone());
}

/** Writes numbers into GPU memory, after everything that was asked before. */
export function upload(storage: Storage, data: Float32Array | Uint32Array | Uint8Array): void {
  const { buffer } = wholeOf(storage);
  if (!buffer) throw new GpuError("Cannot write into memory that is freed or only planned.");
  checkUsable(buffer, "`upload`");
  flush();
  const { queue } = currentGpu().device;
  const offset = storage.within?.offset ?? 0;
  queue.writeBuffer(buffer, offset, data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
}

//| 02-attention/a-the-engine-room.ipynb#download
/** Reads GPU memory back: waits for everything asked before. Throws what went wrong on the way. */
export async function download(storage: Storage): Promise<ArrayBuffer> {
  const { bytes, within } = storage;
  const { buffer } = wholeOf(storage);
  if (commands.recording)
    throw new GpuError(
      "A step that is being recorded cannot read values: return the tensor and read it afterwards.",
    );
  if (!buffer) throw new GpuError("Cannot read memory that is already freed.");
  checkUsable(buffer, "`download`");
  const gpu = currentGpu();
  flush();
  const size = Math.max(4, bytes);
  const staging = newBuffer({ size, usage: 0x01 | 0x08, what: "Reading an array back" }); // MAP_READ | COPY_DST
  const encoder = gpu.device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, within?.offset ?? 0, staging, 0, size);
  gpu.device.queue.submit([encoder.finish()]);
  await waitFor(gpu, staging.mapAsync(1));
  const copy = staging.getMappedRange().slice(0, bytes);
  staging.destroy();
  return copy;
}

//| 02-attention/a-the-engine-room.ipynb#allocate-parts
/**
 * A window on a part of a storage, which holds its memory as an owner does. Kernels can bind it where `offset` is a multiple of 256.
 */
export function openWindow(storage: Storage, offset: number, bytes: number): Storage {
  const whole = wholeOf(storage);
  whole.owners += 1;
  const within = { storage: whole, offset: offset + (storage.within?.offset ?? 0) };
  return { bytes, buffer: undefined, owners: 1, within };
}

//| 02-attention/a-the-engine-room.ipynb#allocate
/** New memory of a size in bytes: only planned while a step is recorded. Its content is not defined. */
export function allocate(bytes: number, what?: string): Storage {
  return { bytes, buffer: commands.recording ? undefined : takeBuffer(bytes, what), owners: 1 };
}

/** Gives up one owner's hold on memory; the last one frees it for reuse. */
export function release(storage: Storage): void {
  if (--storage.owners > 0) return;
  if (storage.within) release(storage.within.storage);
  if (storage.buffer) giveBuffer(storage.buffer);
  storage.buffer = undefined;
}

//| 02-attention/a-the-engine-room.ipynb#record-parts
/** Whether a step is being recorded. */
export function isRecording(): boolean {
  return commands.recording !== undefined;
}

//| 02-attention/a-the-engine-room.ipynb#record
/** Writes down what `step`, which is synchronous, would run, in order, without running it. */
export function recordDispatches<T>(step: () => Synchronous<T>): { result: T; dispatches: Dispatch[] } {
  if (commands.recording) throw new GpuError("A step is being recorded already: recordings do not nest.");
  const dispatches: Dispatch[] = [];
  commands.recording = dispatches;
  const result = inContext("Recording", step, () => {
    commands.recording = undefined;
  });
  return { result, dispatches };
}

//| 02-attention/a-the-engine-room.ipynb#watch
/** Hands every dispatch of `work`, which is synchronous, to `watcher` instead of running it: a profiler runs it with a clock. */
export function watchDispatches<T>(watcher: (dispatch: Dispatch) => void, work: () => Synchronous<T>): T {
  flush();
  commands.watcher = watcher;
  return inContext("Watching", work, () => {
    commands.watcher = undefined;
  });
}
