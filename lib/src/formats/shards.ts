// Extracted from chapters/03-moe/a-files-of-weights.ipynb: edit it there, or here and run `npm run backport`.
import { compareText } from "./keys.js";
import {
  type TensorType,
  orderTensors,
  readSafetensors,
  safetensorsHeaderBytes,
  tensorByteLength,
} from "./safetensors.js";

//| 03-moe/a-files-of-weights.ipynb#plan-shards
/** Tensors in files: as many in one as `most` bytes hold, in their order; one that is larger is alone. */
export function planShards<T extends TensorType>(ordered: [string, T][], most: number): [string, T][][] {
  const shards: [string, T][][] = [[]];
  let bytes = 0;
  for (const [name, tensor] of ordered) {
    const own = tensorByteLength(name, tensor.dtype, tensor.shape);
    if (bytes + own > most && bytes > 0) {
      shards.push([]);
      bytes = 0;
    }
    shards[shards.length - 1].push([name, tensor]);
    bytes += own;
  }
  return shards;
}

/** The name of a file of weights, counted from 0. */
export function shardName(shard: number, count: number): string {
  const five = (number: number) => String(number).padStart(5, "0");
  return count === 1 ? "model.safetensors" : `model-${five(shard + 1)}-of-${five(count)}.safetensors`;
}

/** The text of model.safetensors.index.json: how much there is in all, and the file of each tensor. */
export function shardIndex(shards: [string, TensorType][][]): string {
  const metadata = { total_parameters: 0, total_size: 0 };
  const places: [string, string][] = [];
  for (const [i, shard] of shards.entries())
    for (const [name, { dtype, shape }] of shard) {
      metadata.total_parameters += shape.reduce((product, length) => product * length, 1);
      metadata.total_size += tensorByteLength(name, dtype, shape);
      places.push([name, shardName(i, shards.length)]);
    }
  const weight_map = Object.fromEntries(places.sort(([a], [b]) => compareText(a, b)));
  return `${JSON.stringify({ metadata, weight_map }, null, 2)}\n`;
}

//| 03-moe/a-files-of-weights.ipynb#shard-files
/** The name of the file that says which tensor is in which shard. */
export const indexName = "model.safetensors.index.json";

/** A safetensors file piece by piece: its head, then the bytes of each tensor. */
export function* filePieces<T extends TensorType>(
  ordered: [string, T][],
  bytesOf: (tensor: T, name: string) => Uint8Array,
): Generator<Uint8Array> {
  yield safetensorsHeaderBytes(ordered, { format: "pt" }); // transformers wants to be told whose tensors they are
  for (const [name, tensor] of ordered) yield bytesOf(tensor, name);
}

/**
 * The files of tensors by name, each of at most `most` bytes where its tensors allow it, and their index where there are several.
 * The bytes of a tensor are asked for when its turn has come.
 */
export function shardFiles<T extends TensorType>(
  tensors: Map<string, T>,
  most: number,
  bytesOf: (tensor: T, name: string) => Uint8Array,
): Record<string, Iterable<Uint8Array> | string> {
  const shards = planShards(orderTensors(tensors), most);
  const files = shards.map((shard, i) => [shardName(i, shards.length), filePieces(shard, bytesOf)] as const);
  return { ...Object.fromEntries(files), ...(shards.length > 1 ? { [indexName]: shardIndex(shards) } : {}) };
}

/** A file of weights as the files of at most `most` bytes that hold the same. */
export function splitFile(bytes: Uint8Array, most: number): Record<string, Iterable<Uint8Array> | string> {
  const { tensors } = readSafetensors(bytes);
  if (bytes.length <= most) return { [shardName(0, 1)]: [bytes] };
  return shardFiles(tensors, most, ({ data }) => data);
}
