// Extracted from chapters/03-moe/a-files-of-weights.ipynb: edit it there, or here and run `npm run backport`.
import { float16Value } from "./float16.js";
import { compareText, isRecord, shown } from "./keys.js";

//| 03-moe/a-files-of-weights.ipynb#safetensors-types-parts
/** Bits of one element, for every dtype of the format, in the format's own order (the writer sorts by it). */
export const safetensorsBits = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
};

//| 03-moe/a-files-of-weights.ipynb#safetensors-types
/** The name of an element type as safetensors spells it. */
export type SafetensorsDtype = keyof typeof safetensorsBits;

//| 03-moe/a-files-of-weights.ipynb#safetensors-interfaces
/** One array: its element type, its shape (`[]` is a single number) and its bytes, little-endian, row by row. */
export interface SafetensorsTensor {
  dtype: SafetensorsDtype;
  shape: number[];
  data: Uint8Array;
}

/** Where a tensor lies: `begin` (included) and `end` (not included) count bytes from the start of the file. */
export interface SafetensorsEntry {
  dtype: SafetensorsDtype;
  shape: number[];
  begin: number;
  end: number;
}

/** What the head of a file says about the rest of it. `fileLength` is the length the file must have, in bytes. */
export interface SafetensorsHeader {
  tensors: Map<string, SafetensorsEntry>;
  metadata: Record<string, string>;
  fileLength: number;
}

/** A whole file: its tensors in the order of their bytes, and its `__metadata__` (text by name). */
export interface SafetensorsFile {
  tensors: Map<string, SafetensorsTensor>;
  metadata: Record<string, string>;
}

//| 03-moe/a-files-of-weights.ipynb#header-length
/** The format's own limit on the JSON header, in bytes. */
export const maxSafetensorsHeader = 100_000_000;

/**
 * Says how many bytes to read from the start of a file to have its whole header: 8 and the length that the
 * first 8 bytes state. Throws for fewer than 8 bytes and for a length over the format's limit.
 */
export function safetensorsHeaderLength(bytes: Uint8Array): number {
  if (bytes.length < 8)
    throw new Error(`A safetensors file has at least 8 bytes, but this has ${bytes.length}.`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, 8);
  const length = view.getBigUint64(0, true);
  if (length > BigInt(maxSafetensorsHeader)) {
    throw new Error(
      `This is not a safetensors file: it claims a header of ${length} bytes; at most 100000000 are allowed.`,
    );
  }
  return 8 + Number(length);
}

//| 03-moe/a-files-of-weights.ipynb#duplicate-key
/** Where the string of a JSON text ends that begins at `at`: the place after its closing quote. */
export function jsonStringEnd(json: string, at: number): number {
  for (let i = at + 1; i < json.length; i++) {
    if (json[i] === "\\") i++;
    else if (json[i] === '"') return i + 1;
  }
  return json.length;
}

/**
 * Finds the first key that stands twice in the same object of a JSON text, which must be valid. `JSON.parse` would
 * quietly keep the last of the two.
 */
export function findDuplicateKey(json: string): string | undefined {
  const open: Set<string>[] = [];
  let text = "";
  for (let i = 0; i < json.length; i++) {
    if (json[i] === "{") open.push(new Set());
    else if (json[i] === "}") open.pop();
    else if (json[i] === '"') {
      const end = jsonStringEnd(json, i);
      text = json.slice(i, end);
      i = end - 1;
    } else if (json[i] === ":") {
      const key: string = JSON.parse(text);
      const keys = open[open.length - 1];
      if (keys.has(key)) return key;
      keys.add(key);
    }
  }
  return undefined;
}

//| 03-moe/a-files-of-weights.ipynb#header-json
/** Decodes and parses the JSON of a header: UTF-8, an object, no key twice. `bytes` is the JSON alone. */
export function parseHeaderJson(bytes: Uint8Array): Record<string, unknown> {
  if (bytes[0] !== 0x7b) throw new Error("This is not a safetensors file: its header does not begin with {.");
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Error("The safetensors header is not valid UTF-8 text.");
  }
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch {
    throw new Error("The safetensors header is not valid JSON.");
  }
  const duplicate = findDuplicateKey(text);
  if (duplicate !== undefined)
    throw new Error(`The safetensors header has the key ${shown(duplicate)} twice.`);
  return header as Record<string, unknown>;
}

//| 03-moe/a-files-of-weights.ipynb#tensor-bytes
/** Whether a value is a whole number from 0 up that a JavaScript number holds exactly. */
export function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/**
 * The size in bytes of a tensor. Throws if the product overflows exact integers, or if a dtype of 4 or 6 bits does
 * not fill whole bytes.
 */
export function tensorByteLength(name: string, dtype: SafetensorsDtype, shape: number[]): number {
  let bits = safetensorsBits[dtype];
  let overflows = false;
  for (const size of shape) {
    bits *= size;
    overflows ||= !Number.isSafeInteger(bits);
  }
  if (overflows) throw new Error(`Tensor ${shown(name)} of shape ${shown(shape)} is too large to address.`);
  if (bits % 8 !== 0)
    throw new Error(`Tensor ${shown(name)} of ${dtype} ${shown(shape)} does not fill whole bytes.`);
  return bits / 8;
}

//| 03-moe/a-files-of-weights.ipynb#read-entry
/** Checks one entry of the header. Its offsets count from the end of the header, which is at `dataStart`. */
export function readSafetensorsEntry(name: string, entry: unknown, dataStart: number): SafetensorsEntry {
  const stated = isRecord(entry) ? entry : ({} as Record<string, unknown>);
  const { dtype, shape } = stated;
  const offsets = stated.data_offsets;
  if (typeof dtype !== "string") throw new Error(`Tensor ${shown(name)} states no dtype.`);
  if (!Object.hasOwn(safetensorsBits, dtype)) {
    throw new Error(
      `Tensor ${shown(name)} has the dtype ${shown(dtype)}, which safetensors does not define.`,
    );
  }
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    throw new Error(
      `Tensor ${shown(name)} has no valid shape: it must be a list of whole numbers from 0 up.`,
    );
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    throw new Error(
      `Tensor ${shown(name)} has no valid data_offsets: they must be two whole numbers from 0 up.`,
    );
  }
  const knownDtype = dtype as SafetensorsDtype;
  const bytes = tensorByteLength(name, knownDtype, shape);
  if (offsets[1] - offsets[0] !== bytes) {
    const range = `data_offsets ${offsets[0]} to ${offsets[1]}`;
    throw new Error(
      `Tensor ${shown(name)} of ${dtype} ${shown(shape)} takes ${bytes} bytes, but has ${range}.`,
    );
  }
  return { dtype: knownDtype, shape, begin: dataStart + offsets[0], end: dataStart + offsets[1] };
}

//| 03-moe/a-files-of-weights.ipynb#read-metadata
/** Checks the `__metadata__` of a header: an object whose values are all text. Absent, it is empty. */
export function readSafetensorsMetadata(value: unknown): Record<string, string> {
  const metadata = value ?? {};
  if (!isRecord(metadata)) throw new Error("The __metadata__ of a safetensors file must be an object.");
  for (const [key, text] of Object.entries(metadata)) {
    if (typeof text !== "string") throw new Error(`The __metadata__ key ${shown(key)} must hold text.`);
  }
  return metadata as Record<string, string>;
}

//| 03-moe/a-files-of-weights.ipynb#contiguous
/**
 * Orders entries by position and checks that they follow each other from `dataStart` without a hole or an overlap.
 * Returns the sorted entries; the last one ends where the file must end.
 */
export function checkContiguous(
  entries: [string, SafetensorsEntry][],
  dataStart: number,
): [string, SafetensorsEntry][] {
  const sorted = [...entries].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let position = dataStart;
  for (const [name, { begin, end }] of sorted) {
    if (begin < position) throw new Error(`Tensor ${shown(name)} overlaps the tensor before it.`);
    if (begin > position)
      throw new Error(`${begin - position} bytes before tensor ${shown(name)} belong to none.`);
    position = end;
  }
  return sorted;
}

//| 03-moe/a-files-of-weights.ipynb#read-header
/**
 * Reads the header alone, so that a caller can then read the ranges it wants. `bytes` is the start of a file, at
 * least `safetensorsHeaderLength` long; everything in the header is checked.
 * Rules: safetensors, `safetensors/src/tensor.rs` and the format section of its README.
 */
export function readSafetensorsHeader(bytes: Uint8Array): SafetensorsHeader {
  const dataStart = safetensorsHeaderLength(bytes);
  if (bytes.length < dataStart) {
    throw new Error(`The safetensors header ends at byte ${dataStart}, but there are only ${bytes.length}.`);
  }
  const header = parseHeaderJson(bytes.subarray(8, dataStart));
  const tensorEntries = Object.entries(header).filter(([name]) => name !== "__metadata__");
  const entries = tensorEntries.map(([name, entry]): [string, SafetensorsEntry] => [
    name,
    readSafetensorsEntry(name, entry, dataStart),
  ]);
  const sorted = checkContiguous(entries, dataStart);
  const fileLength = sorted.length > 0 ? sorted[sorted.length - 1][1].end : dataStart;
  // biome-ignore lint/complexity/useLiteralKeys: an index signature is read by name
  return { tensors: new Map(sorted), metadata: readSafetensorsMetadata(header["__metadata__"]), fileLength };
}

//| 03-moe/a-files-of-weights.ipynb#read-file
/**
 * Reads a whole safetensors file. The `data` of each tensor is a view into `bytes`, not a copy, and may start at any
 * offset. Throws one sentence for whatever breaks the format.
 */
export function readSafetensors(bytes: Uint8Array): SafetensorsFile {
  const { tensors, metadata, fileLength } = readSafetensorsHeader(bytes);
  if (bytes.length < fileLength) {
    throw new Error(
      `The safetensors file is cut off: ${bytes.length} bytes of ${fileLength}. Copy it again.`,
    );
  }
  if (bytes.length > fileLength) {
    throw new Error(`The safetensors file has ${bytes.length - fileLength} bytes after its last tensor.`);
  }
  const views = [...tensors].map(([name, { dtype, shape, begin, end }]): [string, SafetensorsTensor] => [
    name,
    { dtype, shape, data: bytes.subarray(begin, end) },
  ]);
  return { tensors: new Map(views), metadata };
}

//| 03-moe/a-files-of-weights.ipynb#order-tensors
/** What a header says of a tensor besides its place. */
export type TensorType = Pick<SafetensorsTensor, "dtype" | "shape">;

/**
 * Sorts tensors as the format's own writer does: widest dtype first, so that every tensor of a file is aligned to its
 * elements, then by name.
 */
export function orderTensors<T extends TensorType>(tensors: Map<string, T>): [string, T][] {
  const rank = Object.keys(safetensorsBits);
  if (tensors.has("__metadata__")) throw new Error('A tensor cannot be named "__metadata__".');
  return [...tensors].sort(
    ([a, left], [b, right]) => rank.indexOf(right.dtype) - rank.indexOf(left.dtype) || compareText(a, b),
  );
}

//| 03-moe/a-files-of-weights.ipynb#header-bytes
/** Pieces of a file as one array, one after the other. */
export function joinedBytes(pieces: Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(pieces.reduce((total, piece) => total + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

/**
 * Makes the head of a file for tensors in the order they will be written: the length, then JSON padded with spaces to
 * a multiple of 8. Metadata keys are sorted, so equal content gives equal bytes.
 */
export function safetensorsHeaderBytes(
  ordered: [string, TensorType][],
  metadata: Record<string, string> = {},
): Uint8Array {
  const keys = Object.keys(metadata).sort();
  const header: [string, unknown][] = [];
  if (keys.length > 0)
    header.push(["__metadata__", Object.fromEntries(keys.map((key) => [key, metadata[key]]))]);
  let offset = 0;
  for (const [name, { dtype, shape }] of ordered) {
    const end = offset + tensorByteLength(name, dtype, shape);
    header.push([name, { dtype, shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  const bytes = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(bytes.length - 8), true);
  bytes.set(json, 8);
  return bytes;
}

//| 03-moe/a-files-of-weights.ipynb#write-file-parts
/** Makes an f32 tensor of `values` (row by row), sharing their memory. */
export function float32Tensor(shape: number[], values: Float32Array): SafetensorsTensor {
  return { dtype: "F32", shape, data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength) };
}

//| 03-moe/a-files-of-weights.ipynb#write-file
/** Writes tensors and metadata (text by name) as one safetensors file. The same content always gives the same bytes. */
export function writeSafetensors(
  tensors: Map<string, SafetensorsTensor>,
  metadata: Record<string, string> = {},
): Uint8Array {
  const ordered = orderTensors(tensors);
  for (const [name, { dtype, shape, data }] of ordered) {
    const bytes = tensorByteLength(name, dtype, shape);
    if (data.length === bytes) continue;
    throw new Error(
      `Tensor ${shown(name)} of ${dtype} ${shown(shape)} takes ${bytes} bytes, but has ${data.length}.`,
    );
  }
  return joinedBytes([safetensorsHeaderBytes(ordered, metadata), ...ordered.map(([, { data }]) => data)]);
}

//| 03-moe/a-files-of-weights.ipynb#widen
/**
 * The bytes themselves if they start at a multiple of `size` in their buffer, as typed arrays need, else a copy.
 * (The copy is not made by `slice`, which on a Node Buffer makes another view of the same memory.)
 */
export function alignBytes(bytes: Uint8Array, size: number): Uint8Array {
  return bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes);
}

/** Widens bf16 numbers, given as 16 bits each: a bf16 is the upper half of an f32. */
export function widenBfloat16(halves: Uint16Array): Float32Array {
  const words = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) words[i] = halves[i] << 16;
  return new Float32Array(words.buffer);
}

//| 03-moe/a-files-of-weights.ipynb#widen-f16
/** What each of the 65,536 f16 numbers is as an f32; made when it is first wanted. */
export const float16Values: { table?: Float32Array } = {};

/** Widens f16 numbers, given as 16 bits each; every f16 is also an f32. */
export function widenFloat16(halves: Uint16Array): Float32Array {
  float16Values.table ??= Float32Array.from({ length: 65536 }, (_, bits) => float16Value(bits));
  const { table } = float16Values;
  const values = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) values[i] = table[halves[i]];
  return values;
}

//| 03-moe/a-files-of-weights.ipynb#to-numbers
/**
 * The numbers of a tensor of dtype F32, BF16, F16 or F64 as f32, row by row; f64 is rounded. An aligned F32 tensor is
 * returned as a view of the same memory. Throws, naming the dtype, for any other.
 */
export function toFloat32({ dtype, data }: SafetensorsTensor): Float32Array {
  const { buffer, byteOffset, length } = alignBytes(data, safetensorsBits[dtype] / 8);
  if (dtype === "F32") return new Float32Array(buffer, byteOffset, length / 4);
  if (dtype === "BF16") return widenBfloat16(new Uint16Array(buffer, byteOffset, length / 2));
  if (dtype === "F16") return widenFloat16(new Uint16Array(buffer, byteOffset, length / 2));
  if (dtype === "F64") return new Float32Array(new Float64Array(buffer, byteOffset, length / 8));
  throw new Error(`Numbers of dtype ${dtype} cannot be read as f32; F32, BF16, F16 and F64 can.`);
}

//| 03-moe/a-files-of-weights.ipynb#to-ids
/**
 * The numbers of a tensor of dtype I32 or I64, such as token ids, as 32-bit integers. Throws for any other dtype, and for
 * an I64 that does not fit.
 */
export function toInt32({ dtype, data }: SafetensorsTensor): Int32Array {
  const { buffer, byteOffset, length } = alignBytes(data, safetensorsBits[dtype] / 8);
  if (dtype === "I32") return new Int32Array(buffer, byteOffset, length / 4);
  if (dtype !== "I64") throw new Error(`Numbers of dtype ${dtype} cannot be read as i32; I32 and I64 can.`);
  return Int32Array.from(new BigInt64Array(buffer, byteOffset, length / 8), (value) => {
    if (BigInt.asIntN(32, value) !== value) throw new Error(`The integer ${value} does not fit 32 bits.`);
    return Number(value);
  });
}
