// The device for a command.
import { quietAdapters } from "../../bin/quiet.mjs";
import { type Gpu, openGpu } from "../gpu/device.js";

/** Opens the best adapter for our own kernels, which are tested with bounds checks and run without. */
export async function openAdapter(): Promise<Gpu> {
  await quietAdapters();
  return openGpu({ robust: false });
}
