// What `tslm bench --only` may name; apart from the measuring itself, so that help and mistakes cost no driver.

/** Operations, in the order in which they are measured. */
export const operationNames = [
  "matmul",
  "f16",
  "grouped",
  "attention",
  "rmsnorm",
  "swiglu",
  "dropout",
  "rope",
  "add",
  "cross-entropy",
  "embedding",
  "adamw",
] as const;

/** Training steps. */
export const stepNames = ["shakespeare-char", "dense", "moe", "gpt2", "gpt2-f16"] as const;

/** What `tslm bench decode` may measure: models by their size, and the formats of their weights. */
export const decodeModelNames = ["12m", "124m", "0.6b"] as const;
export const formatNames = ["f32", "f16", "bf16", "int8", "int4", "mxfp4"] as const;

export type DecodeModelName = (typeof decodeModelNames)[number];
export type FormatName = (typeof formatNames)[number];
export type OperationName = (typeof operationNames)[number];
export type StepName = (typeof stepNames)[number];

/** All names. `ceiling` is measured in any case. */
export const benchNames: string[] = ["ceiling", ...operationNames, ...stepNames];
