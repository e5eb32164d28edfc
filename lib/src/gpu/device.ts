// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.

//| 02-attention/a-the-engine-room.ipynb#adapter-facts
/** What kind of hardware answers: a processor running shaders in software, or a graphics processor. */
export type AdapterKind = "cpu" | "gpu";

/** Plain facts about the adapter that kernels are written for. */
export interface AdapterFacts {
  name: string;
  vendor: string;
  architecture: string;
  kind: AdapterKind;
  features: string[];
  /** Lanes that run in step and can exchange registers; 0 when the adapter has none or does not promise one size. */
  subgroupSize: number;
  /** Whether shaders may compute in 16-bit floats. */
  f16: boolean;
  /** Matrices that subgroups can multiply, such as `f16 f32 16x16x16`: operands, results, rows x columns x inner. */
  subgroupMatrices: string[];
  /** Upper bounds by WebGPU's own names, in bytes or counts. */
  limits: Record<string, number>;
}

//| 02-attention/a-the-engine-room.ipynb#gpu-interface
/** An open device: where buffers live and kernels run. */
export interface Gpu {
  device: GPUDevice;
  facts: AdapterFacts;
  /** What went wrong and nobody has heard yet: causes, and what followed from them. */
  errors: { causes: Error[]; others: Error[] };
  /** The kernel that it was given last, by name. */
  latestKernel?: string;
  /** Set once the device is lost: the sentence that everyone gets who asks it for something or still waits for it. */
  lost?: string;
}

/** How to open the device. */
export interface GpuOptions {
  /**
   * Keep the driver's bounds checks on every array access (the default). Kernels that are tested with checks may run
   * without them, which is faster. The first call in a process decides.
   */
  robust?: boolean;
}

/** An error that came from the GPU or its driver. */
export class GpuError extends Error {
  override name = "GpuError";
}

//| 02-attention/a-the-engine-room.ipynb#pinned
/** What must live as long as the process: Dawn crashes when its instance is collected before its devices. */
export const pinned = globalThis as typeof globalThis & {
  tslmGpu?: { entry: GPU; gpu?: Gpu; opening?: Promise<Gpu> };
};

//| 02-attention/a-the-engine-room.ipynb#dawn-switches
/** Dawn's switches: exact timestamps and new features always, no bounds checks when asked. */
export function dawnSwitches(robust: boolean): string[] {
  const on = ["allow_unsafe_apis", "vulkan_enable_f16_on_nvidia", "use_vulkan_memory_model"];
  if (!robust) on.push("disable_robustness");
  return [`enable-dawn-features=${on.join(",")}`, "disable-dawn-features=timestamp_quantization"];
}

/** WebGPU's entry point: the browser's own, or Dawn's where there is no browser. */
export async function gpuEntry(robust: boolean): Promise<GPU> {
  const browser = (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
  if (browser) return browser;
  // Mesa complains on every start when this is missing; any folder will do.
  process.env.XDG_RUNTIME_DIR ??= "/tmp";
  const dawn = await import("webgpu");
  return dawn.create(dawnSwitches(robust));
}

//| 02-attention/a-the-engine-room.ipynb#adapter-facts-read
/** Reads the sizes of matrices that subgroups can multiply: an experiment of Dawn's, absent elsewhere. */
export function subgroupMatrices(info: GPUAdapterInfo): string[] {
  type Matrix = { componentType: string; resultComponentType: string; M: number; N: number; K: number };
  const { subgroupMatrixConfigs = [] } = info as { subgroupMatrixConfigs?: Iterable<Matrix> };
  return Array.from(
    subgroupMatrixConfigs,
    ({ componentType, resultComponentType, M, N, K }) =>
      `${componentType} ${resultComponentType} ${M}x${N}x${K}`,
  );
}

/** Reads the facts off an adapter. */
export function adapterFacts({ info, features, limits }: GPUAdapter): AdapterFacts {
  const { subgroupMinSize, subgroupMaxSize } = info;
  const fixed = features.has("subgroups") && subgroupMinSize === subgroupMaxSize;
  const described = `${info.description} ${info.device} ${info.architecture}`;
  const names = Object.keys(Object.getPrototypeOf(limits)).filter((name) => /^m(ax|in)/.test(name));
  return {
    name: info.description || info.device || info.vendor || "unknown adapter",
    vendor: info.vendor,
    architecture: info.architecture,
    kind: /llvmpipe|lavapipe|swiftshader|software|\bcpu\b/i.test(described) ? "cpu" : "gpu",
    features: [...features].sort(),
    subgroupSize: fixed ? (subgroupMaxSize ?? 0) : 0,
    f16: features.has("shader-f16"),
    subgroupMatrices: subgroupMatrices(info),
    limits: Object.fromEntries(names.map((name) => [name, limits[name as "maxBufferSize"] as number])),
  };
}

//| 02-attention/a-the-engine-room.ipynb#pending-errors
/** Errors arrive after the call that caused them: this one is kept until the program next waits for the GPU. */
export function reportGpuError({ errors }: Gpu, error: Error, isCause = false): void {
  errors[isCause ? "causes" : "others"].push(error);
}

/** Throws the first error that has arrived, and forgets the rest: they are its consequences. */
export function throwGpuErrors({ errors, lost }: Gpu): void {
  const [cause] = errors.causes.splice(0);
  const [other] = errors.others.splice(0);
  const first = cause ?? (lost === undefined ? other : new GpuError(lost));
  if (first) throw first;
}

//| 02-attention/a-the-engine-room.ipynb#error-scope
/** Calls of which the driver has not said yet whether they worked. */
export const unsettledCalls = new Set<Promise<void>>();

/** Makes a call, and hands the driver's complaint about it to `failed` when it comes. */
export function withErrorScope<T>(
  device: GPUDevice,
  filter: GPUErrorFilter,
  call: () => T,
  failed: (error: GPUError) => void | Promise<void>,
): T {
  device.pushErrorScope(filter);
  const result = call();
  const outcome = device.popErrorScope().then((error) => (error ? failed(error) : undefined));
  const settled: Promise<void> = outcome.then(() => void unsettledCalls.delete(settled));
  unsettledCalls.add(settled);
  return result;
}

//| 02-attention/a-the-engine-room.ipynb#current-gpu-parts
/** Notes that a device is lost. */
export function loseDevice(gpu: Gpu, { message, reason }: GPUDeviceLostInfo): void {
  const last = gpu.latestKernel ? ` after it was given kernel "${gpu.latestKernel}"` : "";
  gpu.lost =
    `The GPU device was lost${last} (${message || reason || "nobody says why"}): ` +
    "`await openGpu()` opens a new one, where tensors and recordings must be made anew.";
}

/** Throws when the device is lost. */
export function checkAlive({ lost }: Gpu): void {
  if (lost !== undefined) throw new GpuError(lost);
}

//| 02-attention/a-the-engine-room.ipynb#current-gpu
/** The device that `openGpu` opened. Throws when there is none yet, or when it is lost. */
export function currentGpu(): Gpu {
  const gpu = pinned.tslmGpu?.gpu;
  if (!gpu) throw new GpuError("No GPU is open yet: call `await openGpu()` first.");
  checkAlive(gpu);
  return gpu;
}

//| 02-attention/a-the-engine-room.ipynb#wanted
/** The features kernels know how to use; the rest stay off. */
export const wantedFeatures = [
  "shader-f16",
  "subgroups",
  "timestamp-query",
  "chromium-experimental-subgroup-matrix",
];

/** The limits kernels need raised: WebGPU gives the smallest common ones unless asked. */
export const wantedLimits = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupStorageSize",
];

//| 02-attention/a-the-engine-room.ipynb#open-gpu
/** Asks for an adapter, and for a device with everything that kernels can use. */
export async function openDevice(entry: GPU): Promise<Gpu> {
  const adapter = await entry.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter)
    throw new GpuError(
      "No GPU adapter was found: `npx tslm doctor` says what is missing and how to mend it.",
    );
  const facts = adapterFacts(adapter);
  const requiredFeatures = wantedFeatures.filter((name) => adapter.features.has(name)) as GPUFeatureName[];
  const requiredLimits = Object.fromEntries(wantedLimits.map((name) => [name, facts.limits[name]]));
  const device = await adapter.requestDevice({ requiredFeatures, requiredLimits });
  const gpu: Gpu = { device, facts, errors: { causes: [], others: [] } };
  device.onuncapturederror = (event) => {
    event.preventDefault(); // or it is printed as well
    reportGpuError(gpu, new GpuError(event.error.message));
  };
  device.lost.then((info) => loseDevice(gpu, info));
  return gpu;
}

//| 02-attention/a-the-engine-room.ipynb#open-once
/**
 * Opens the best adapter there is and makes it the current one; a second call gives the same device, or a new one when
 * that is lost. Throws a `GpuError` that says what to do where there is none.
 */
export async function openGpu({ robust = true }: GpuOptions = {}): Promise<Gpu> {
  pinned.tslmGpu ??= { entry: await gpuEntry(robust) };
  const state = pinned.tslmGpu;
  if (state.gpu?.lost !== undefined) state.gpu = state.opening = undefined;
  state.opening ??= openDevice(state.entry).catch((error) => {
    state.opening = undefined; // so that one may try again
    throw error;
  });
  state.gpu = await state.opening;
  return state.gpu;
}
