// Extracted from chapters/02-attention/3-tensors-and-gradients.ipynb: edit it there, or here and run `npm run backport`.
import { type Storage, checkFits } from "../gpu/buffers.js";
import { allocate, download, release, run, upload } from "../gpu/commands.js";
import { type Synchronous, inContext } from "../gpu/context.js";
import type { Kernel } from "../gpu/kernel.js";

//| 02-attention/3-tensors-and-gradients.ipynb#dtype
/** What a tensor's elements are: 32-bit floats, or 32-bit unsigned integers such as token ids. */
export type DType = "f32" | "u32";

/** The array type on the JavaScript side. */
export type ArrayOf<D extends DType> = D extends "f32" ? Float32Array : Uint32Array;

/** The number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}

//| 02-attention/3-tensors-and-gradients.ipynb#dtype-helpers
/** Bytes of one element. */
export const bytesPerElement: Record<DType, number> = { f32: 4, u32: 4 };

/** Bytes of a tensor of a shape and type. */
export function bytesOf(shape: readonly number[], dtype: DType): number {
  return sizeOf(shape) * bytesPerElement[dtype];
}

//| 02-attention/3-tensors-and-gradients.ipynb#describe
/** A tensor's shape and type as error messages show it, such as `f32 [2, 3]`. */
export function describe({ dtype, shape }: { dtype: DType; shape: readonly number[] }): string {
  return `${dtype} [${shape.join(", ")}]`;
}

/** The values as the array type that the GPU is given. */
export function typedArray(values: ArrayLike<number>, dtype: DType): Float32Array | Uint32Array {
  if (dtype === "f32") return values instanceof Float32Array ? values : Float32Array.from(values);
  return values instanceof Uint32Array ? values : Uint32Array.from(values);
}

//| 02-attention/3-tensors-and-gradients.ipynb#collected
/** Frees the memory of tensors that nobody can reach any more. */
export const collected = new FinalizationRegistry<Storage>((storage) => release(storage));

/** The tensors of each scope that is open, innermost last. */
export const openScopes: { free(): void }[][] = [];

//| 02-attention/3-tensors-and-gradients.ipynb#tensor-class
/** How a tensor was made: what is needed to send a gradient back. */
export interface TapeNode {
  /** Nodes are numbered in the order of their making, so that going backward is going down. */
  order: number;
  inputs: Tensor[];
  /** The gradients of the inputs from the gradient of the output; none for an input that has none. */
  backward: (gradient: Tensor) => (Tensor | undefined)[];
}

/** Numbers in GPU memory with a shape; the last dimension is contiguous (row-major). */
export class Tensor<D extends DType = "f32"> {
  /** Set on results of operations that gradients flow through. */
  node: TapeNode | undefined;
  /** Whether gradients are wanted for it: see `parameter`. */
  trainable = false;
  freed = false;

  constructor(
    readonly storage: Storage,
    readonly shape: readonly number[],
    readonly dtype: D,
  ) {
    collected.register(this, storage, this);
    openScopes.at(-1)?.push(this);
  }

  /** The number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }

  /** Reads the elements back from the GPU. */
  async array(): Promise<ArrayOf<D>> {
    const bytes = await download(this.storage);
    return (this.dtype === "f32" ? new Float32Array(bytes) : new Uint32Array(bytes)) as ArrayOf<D>;
  }

  /** Reads the single element of a tensor of size 1. */
  async value(): Promise<number> {
    if (this.size !== 1) throw new Error(`value() wants a tensor with one element, not ${describe(this)}.`);
    return (await this.array())[0];
  }

  /** Replaces the elements in place: how the next batch reaches a recorded step. */
  write(values: ArrayLike<number>): void {
    if (values.length !== this.size)
      throw new Error(`write() wants ${this.size} values for ${describe(this)}, not ${values.length}.`);
    upload(this.storage, typedArray(values, this.dtype));
  }

  /** Frees the memory now instead of when the tensor is collected. */
  free(): void {
    if (this.freed) return;
    this.freed = true;
    collected.unregister(this);
    release(this.storage);
  }
}

//| 02-attention/3-tensors-and-gradients.ipynb#make
/** A new tensor whose elements are not set yet: kernels write them. Errors name its maker, where that is a kernel. */
export function empty<D extends DType = "f32">(
  shape: readonly number[],
  dtype?: D,
  maker?: Kernel,
): Tensor<D> {
  const kind = dtype ?? ("f32" as D);
  const from = maker ? ` from kernel "${maker.name}"` : "";
  const what = `A tensor ${kind} [${shape.join(", ")}]${from}`;
  const bytes = bytesOf(shape, kind);
  if (maker) checkFits(bytes, what);
  return new Tensor(allocate(bytes, what), [...shape], kind);
}

/** A tensor from values in row-major order; the shape defaults to one dimension. */
export function tensor<D extends DType = "f32">(
  values: ArrayLike<number>,
  shape: readonly number[] = [values.length],
  dtype?: D,
): Tensor<D> {
  const result = empty(shape, dtype);
  result.write(values);
  return result;
}

/** A tensor of zeros [...shape]. */
export function zeros(shape: readonly number[]): Tensor {
  return tensor(new Float32Array(sizeOf(shape)), shape);
}

/** Token ids or other indices as a `u32` tensor [...shape]; [values] unless a shape is given. */
export function indices(values: ArrayLike<number>, shape?: readonly number[]): Tensor<"u32"> {
  return tensor(values, shape, "u32");
}

//| 02-attention/3-tensors-and-gradients.ipynb#view
/** The same elements under another shape of the same size, such as [batch, tokens, hidden] as [batch * tokens, hidden]: nothing is copied. */
export function view<D extends DType>(source: Tensor<D>, shape: readonly number[]): Tensor<D> {
  if (sizeOf(shape) !== source.size)
    throw new Error(
      `Cannot see ${describe(source)} as [${shape.join(", ")}]: ${source.size} elements are not ${sizeOf(shape)}.`,
    );
  source.storage.owners += 1;
  return new Tensor(source.storage, [...shape], source.dtype);
}

//| 02-attention/3-tensors-and-gradients.ipynb#launch
/** Runs a kernel from tensors into tensors that exist. */
export function launchInto(kernel: Kernel, inputs: Tensor<DType>[], outputs: Tensor<DType>[]): void {
  run(
    kernel,
    [...inputs, ...outputs].map(({ storage }) => storage),
  );
}

/** Runs a kernel from tensors to a new tensor of the given shape. */
export function launch<D extends DType = "f32">(
  kernel: Kernel,
  inputs: Tensor<DType>[],
  shape: readonly number[],
  dtype?: D,
): Tensor<D> {
  const output = empty(shape, dtype, kernel);
  launchInto(kernel, inputs, [output]);
  return output;
}

//| 02-attention/3-tensors-and-gradients.ipynb#tensors-in
/** Every tensor in a value: itself, or those in its elements, fields and map values. */
export function tensorsIn(value: unknown): Tensor[] {
  if (value instanceof Tensor) return [value as Tensor];
  if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return [];
  const parts = value instanceof Map ? [...value.values()] : Object.values(value);
  return parts.flatMap(tensorsIn);
}

//| 02-attention/3-tensors-and-gradients.ipynb#scope
/**
 * Frees every tensor made inside `work` when it ends, except those it returns (alone, in an array, or in an object).
 * `work` is synchronous: tensors whose numbers are wanted are returned, and read outside.
 */
export function scope<T>(work: () => Synchronous<T>): T {
  const tensors: Tensor[] = [];
  openScopes.push(tensors);
  return inContext("scope", work, (result) => {
    openScopes.pop();
    const returned = new Set(tensorsIn(result));
    for (const tensor of tensors) {
      if (!returned.has(tensor)) tensor.free();
      else openScopes.at(-1)?.push(tensor);
    }
  });
}
