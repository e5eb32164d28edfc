// What `tslm bench` found out.
import type { StepName } from "./bench-names.js";
import type { StepReport } from "./bench-steps.js";

/** One row of the table: an operation at a shape, with what was measured or why it was not. */
export interface OperationRow {
  operation: string;
  shape: string;
  seconds?: number;
  /** 10⁹ operations or 10⁹ bytes a second, and the rate as a share of the ceiling's. */
  gigaflops?: number;
  gigabytes?: number;
  share?: number;
  why?: string;
}

/** What is printed. */
export interface BenchReport {
  adapter: { name: string; kind: string; subgroup_size: number };
  ceiling: { gigaflops: number; gigaflops16?: number; gigabytes: number };
  /** Rates that this adapter or this library has not, by name, and why. */
  missing: Record<string, string>;
  operations: OperationRow[];
  steps: (StepReport | { name: StepName; why: string })[];
}
