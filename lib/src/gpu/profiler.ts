// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import { type Dispatch, finish, prepare, waitFor, watchDispatches } from "./commands.js";
import type { Synchronous } from "./context.js";
import { GpuError, currentGpu } from "./device.js";
import { copyToTexture } from "./textures.js";

//| 02-attention/a-the-engine-room.ipynb#profile-types-parts
/** Kernels that one profile can time. */
export const profileCapacity = 2000;

//| 02-attention/a-the-engine-room.ipynb#profile-types
/** GPU time of one kernel, all its calls together. */
export interface ProfileRow {
  name: string;
  calls: number;
  /** GPU time in microseconds. */
  microseconds: number;
}

//| 02-attention/a-the-engine-room.ipynb#time-dispatch
/** Runs one kernel between two timestamps: a pass of no work reads the clock before its textures are filled, and its own after. */
export function timeDispatch(dispatch: Dispatch, querySet: GPUQuerySet, names: string[]): void {
  const { gpu, pipeline, bindings, copies, workgroups } = prepare(dispatch);
  const { device } = gpu;
  gpu.latestKernel = dispatch.kernel.name;
  const at = names.length * 2;
  const timed = names.length < profileCapacity;
  const clock = (index: object) => (timed ? { timestampWrites: { querySet, ...index } } : {});
  const encoder = device.createCommandEncoder();
  encoder.beginComputePass(clock({ beginningOfPassWriteIndex: at })).end();
  for (const copy of copies) copyToTexture(encoder, copy);
  const pass = encoder.beginComputePass(clock({ endOfPassWriteIndex: at + 1 }));
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, bindings);
  pass.dispatchWorkgroups(...workgroups);
  pass.end();
  device.queue.submit([encoder.finish()]);
  if (timed) names.push(dispatch.kernel.name);
}

//| 02-attention/a-the-engine-room.ipynb#read-timestamps
/** Reads `count` pairs of timestamps and gives the differences in microseconds. */
export async function readTimestamps(querySet: GPUQuerySet, count: number): Promise<number[]> {
  const gpu = currentGpu();
  const { device } = gpu;
  const size = Math.max(16, count * 16);
  const resolved = device.createBuffer({ size, usage: 0x200 | 0x04 }); // QUERY_RESOLVE | COPY_SRC
  const staging = device.createBuffer({ size, usage: 0x01 | 0x08 }); // MAP_READ | COPY_DST
  const encoder = device.createCommandEncoder();
  encoder.resolveQuerySet(querySet, 0, Math.max(1, count) * 2, resolved, 0);
  encoder.copyBufferToBuffer(resolved, 0, staging, 0, size);
  device.queue.submit([encoder.finish()]);
  await waitFor(gpu, staging.mapAsync(1));
  const ticks = new BigUint64Array(staging.getMappedRange().slice(0));
  resolved.destroy();
  staging.destroy();
  return Array.from({ length: count }, (_, i) => Number(ticks[2 * i + 1] - ticks[2 * i]) / 1000);
}

//| 02-attention/a-the-engine-room.ipynb#profile-parts
/** Adds up times by name. */
export function summarise(names: string[], times: number[]): ProfileRow[] {
  const rows = new Map<string, ProfileRow>();
  names.forEach((name, i) => {
    const row = rows.get(name) ?? { name, calls: 0, microseconds: 0 };
    rows.set(name, { name, calls: row.calls + 1, microseconds: row.microseconds + times[i] });
  });
  return [...rows.values()].sort((a, b) => b.microseconds - a.microseconds);
}

//| 02-attention/a-the-engine-room.ipynb#profile
/**
 * Runs `work` with a clock around every kernel and gives the GPU time by kernel name, longest first.
 * Throws where the adapter has no timestamps.
 */
export async function profile<T>(work: () => Synchronous<T>): Promise<ProfileRow[]> {
  const { device } = currentGpu();
  if (!device.features.has("timestamp-query"))
    throw new GpuError("This adapter has no timestamps, so kernels cannot be timed on it.");
  const querySet = device.createQuerySet({ type: "timestamp", count: profileCapacity * 2 });
  const names: string[] = [];
  await finish();
  watchDispatches((dispatch) => timeDispatch(dispatch, querySet, names), work);
  const times = await readTimestamps(querySet, names.length);
  querySet.destroy();
  return summarise(names, times);
}
