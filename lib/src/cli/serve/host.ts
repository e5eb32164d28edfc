// Keeps an engine open: when its device is lost, the next who asks for it waits until the model is open again.
import { GpuError, pinned } from "../../gpu/device.js";
import type { Engine, EngineState } from "../../infer/engine.js";

/** An engine that comes back. */
export interface Host {
  /** The engine; opened again when its device is lost. */
  engine(): Promise<Engine>;
  /** Whether the engine is open and its device there. */
  isReady(): boolean;
  /** The engine's state, its counts since the first was opened; undefined while none is open. */
  state(): EngineState | undefined;
  close(): Promise<void>;
}

/** What counts on over engines. */
const counts = [
  "prefixQueries",
  "prefixHits",
  "preemptions",
  "promptTokens",
  "generatedTokens",
  "steps",
] as const;

/** Whether the device is lost. */
export function isDeviceLost(): boolean {
  return pinned.tslmGpu?.gpu?.lost !== undefined;
}

/** A host of the engines that `open` gives; `say` hears of a loss and of its end. */
export function hostEngine(open: () => Promise<Engine>, say: (text: string) => void): Host {
  let current: Engine | undefined;
  let opening: Promise<Engine> | undefined;
  const before = Object.fromEntries(counts.map((name) => [name, 0])) as Record<
    (typeof counts)[number],
    number
  >;
  const isReady = () => current !== undefined && current.state().failed === undefined && !isDeviceLost();

  async function reopen(): Promise<Engine> {
    if (current) {
      const failed = current;
      const end = failed.state();
      for (const name of counts) before[name] += end[name];
      current = undefined;
      say(`${end.failed ?? "The GPU device was lost."} The model is being opened again.`);
      await failed.close().catch(() => {}); // what it held may be gone
    }
    current = await open();
    return current;
  }

  return {
    isReady,
    async engine() {
      if (isReady()) return current!;
      opening ??= reopen().finally(() => {
        opening = undefined;
      });
      try {
        return await opening;
      } catch (error) {
        throw error instanceof GpuError ? error : new GpuError((error as Error).message);
      }
    },
    state() {
      const now = current?.state();
      if (!now) return undefined;
      return { ...now, ...Object.fromEntries(counts.map((name) => [name, now[name] + before[name]])) };
    },
    async close() {
      await opening?.catch(() => {});
      await current?.close();
      current = undefined;
    },
  };
}
