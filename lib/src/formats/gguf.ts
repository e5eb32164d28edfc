// Extracted from chapters/05-inference/a-files-of-gguf.ipynb: edit it there, or here and run `npm run backport`.
import { ggufTypes } from "./gguf-blocks.js";
import { shown } from "./keys.js";
import { joinedBytes } from "./safetensors.js";

//| 05-inference/a-files-of-gguf.ipynb#gguf-values
/** The types of a key's value, in the order of their numbers in a file. */
export const ggufValueTypes = `u8 i8 u16 i16 u32 i32 f32 bool string array u64 i64 f64`.split(" ");

/** A number, a truth value or a text. */
export type GgufScalar = number | bigint | boolean | string;

//| 05-inference/a-files-of-gguf.ipynb#gguf-types
/** The value of a key with its type in the file (`u8` to `f64`, `bool`, `string`); of an array, the type of its entries. */
export interface GgufValue {
  type: string;
  isArray?: boolean;
  value: GgufScalar | GgufScalar[];
}

/** A tensor of a file: its type, its shape (outermost size first, as everywhere here), and where its bytes lie. */
export interface GgufTensor {
  type: string;
  shape: number[];
  begin: number;
  end: number;
}

/** What the head of a file says; tensors in the order of their bytes. */
export interface GgufHead {
  keys: Map<string, GgufValue>;
  tensors: Map<string, GgufTensor>;
}

//| 05-inference/a-files-of-gguf.ipynb#cursor
/** Reads the bytes of a file from `begin` to `end`, which is not included. */
export type ReadBytes = (begin: number, end: number) => Uint8Array;

/** A place in a file, which moves on as bytes are taken. */
export interface Cursor {
  position: number;
  readonly size: number;
  /** The next bytes. Throws, saying what they would have been, where the file has not that many. */
  take(length: number, what: string): DataView;
}

/** A cursor at the start of a file of `size` bytes. */
export function cursorAt(size: number, read: ReadBytes): Cursor {
  let from = 0;
  let held: Uint8Array = new Uint8Array(0);
  const cursor: Cursor = {
    position: 0,
    size,
    take(length, what) {
      const at = cursor.position;
      if (length > size - at)
        throw new Error(
          `The file ends within ${what}: ${length} bytes are wanted at byte ${at}, and there are ${size - at}.`,
        );
      if (at < from || at + length > from + held.length) {
        from = at;
        held = read(at, Math.min(size, at + Math.max(length, 2 ** 20)));
      }
      cursor.position = at + length;
      return new DataView(held.buffer, held.byteOffset + at - from, length);
    },
  };
  return cursor;
}

//| 05-inference/a-files-of-gguf.ipynb#scalars
/** An integer of 64 bits, as a number where that is exact. */
export function plainInteger(value: bigint): number | bigint {
  return BigInt(Number(value)) === value && Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

/** The values of fixed size: their bytes, and how they are read. */
export const fixedValues: Record<string, { bytes: number; get(view: DataView): GgufScalar }> = {
  u8: { bytes: 1, get: (view) => view.getUint8(0) },
  i8: { bytes: 1, get: (view) => view.getInt8(0) },
  u16: { bytes: 2, get: (view) => view.getUint16(0, true) },
  i16: { bytes: 2, get: (view) => view.getInt16(0, true) },
  u32: { bytes: 4, get: (view) => view.getUint32(0, true) },
  i32: { bytes: 4, get: (view) => view.getInt32(0, true) },
  f32: { bytes: 4, get: (view) => view.getFloat32(0, true) },
  bool: { bytes: 1, get: (view) => view.getUint8(0) === 1 },
  u64: { bytes: 8, get: (view) => plainInteger(view.getBigUint64(0, true)) },
  i64: { bytes: 8, get: (view) => plainInteger(view.getBigInt64(0, true)) },
  f64: { bytes: 8, get: (view) => view.getFloat64(0, true) },
};

//| 05-inference/a-files-of-gguf.ipynb#counts
/** Reads 32 bits without a sign. */
export function takeU32(cursor: Cursor, what: string): number {
  return cursor.take(4, what).getUint32(0, true);
}

/** Reads a count of things that take at least `least` bytes each. Throws where so many cannot be in the rest of the file. */
export function takeCount(cursor: Cursor, what: string, least: number): number {
  const count = cursor.take(8, `the number of ${what}`).getBigUint64(0, true);
  const room = Math.floor((cursor.size - cursor.position) / least);
  if (count > BigInt(room))
    throw new Error(`The file claims ${count} ${what}, but has room for ${room} at most.`);
  return Number(count);
}

/** Reads a text: its length, then UTF-8. */
export function takeText(cursor: Cursor, what: string): string {
  const { buffer, byteOffset, byteLength } = cursor.take(takeCount(cursor, `bytes of ${what}`, 1), what);
  try {
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Error(`The text of ${what} is not UTF-8.`);
  }
}

//| 05-inference/a-files-of-gguf.ipynb#values
/** Entries that an array may have: far more than any vocabulary. */
export const largestArray = 2 ** 24;

/** The name of a type of value. Throws for a number that is none. */
export function valueType(id: number, key: string): string {
  if (id < ggufValueTypes.length) return ggufValueTypes[id];
  throw new Error(`The key ${shown(key)} has a value of type ${id}, which GGUF does not define.`);
}

/** Reads one value that is not an array. */
export function takeScalar(cursor: Cursor, type: string, what: string): GgufScalar {
  if (type === "string") return takeText(cursor, what);
  const { bytes, get } = fixedValues[type];
  const view = cursor.take(bytes, what);
  if (type === "bool" && view.getUint8(0) > 1)
    throw new Error(`${what} must be true or false (1 or 0), not ${view.getUint8(0)}.`);
  return get(view);
}

/** Reads the value of a key. */
export function takeValue(cursor: Cursor, key: string): GgufValue {
  const what = `the key ${shown(key)}`;
  const type = valueType(takeU32(cursor, what), key);
  if (type !== "array") return { type, value: takeScalar(cursor, type, what) };
  const entries = valueType(takeU32(cursor, what), key);
  if (entries === "array")
    throw new Error(`The key ${shown(key)} holds arrays in an array, which is not read.`);
  const count = takeCount(
    cursor,
    `entries of ${what}`,
    entries === "string" ? 8 : fixedValues[entries].bytes,
  );
  if (count > largestArray)
    throw new Error(`The key ${shown(key)} has ${count} entries; at most ${largestArray} are read.`);
  const value: GgufScalar[] = [];
  for (let i = 0; i < count; i++) value.push(takeScalar(cursor, entries, what));
  return { type: entries, isArray: true, value };
}

//| 05-inference/a-files-of-gguf.ipynb#tensor-entry
/** The type of a tensor with what is known of it. Throws for a number that is none. */
export function tensorType(id: number, name: string): { type: string; numbers: number; bytes: number } {
  const found = Object.entries(ggufTypes).find(([, type]) => type.id === id);
  if (found) return { type: found[0], ...found[1] };
  throw new Error(`The tensor ${shown(name)} is of type ${id}, which is unknown.`);
}

/** The bytes of a tensor. Throws where it is too large to address, or where its rows are not whole blocks. */
export function ggufByteLength(name: string, type: string, shape: number[]): number {
  const { numbers, bytes } = ggufTypes[type];
  const columns = shape[shape.length - 1] ?? 1;
  if (columns % numbers !== 0)
    throw new Error(
      `The tensor ${shown(name)} of ${type} has rows of ${columns}, which are not whole blocks of ${numbers}.`,
    );
  const blocks = shape.reduce((product, size) => product * size, 1) / numbers;
  if (!Number.isSafeInteger(blocks * bytes))
    throw new Error(`The tensor ${shown(name)} of shape ${shown(shape)} is too large to address.`);
  return blocks * bytes;
}

/** Reads the entry of a tensor. Its place is still counted from the start of the data. */
export function takeTensor(cursor: Cursor): [name: string, tensor: GgufTensor] {
  const name = takeText(cursor, "the name of a tensor");
  const what = `the tensor ${shown(name)}`;
  const dimensions = takeU32(cursor, what);
  if (dimensions > 4)
    throw new Error(`The tensor ${shown(name)} claims ${dimensions} dimensions; at most 4 are defined.`);
  const sizes = Array.from({ length: dimensions }, () => Number(cursor.take(8, what).getBigUint64(0, true)));
  if (sizes.includes(0)) throw new Error(`The tensor ${shown(name)} has a size of 0.`);
  const { type } = tensorType(takeU32(cursor, what), name);
  const begin = Number(cursor.take(8, what).getBigUint64(0, true));
  const shape = sizes.reverse();
  return [name, { type, shape, begin, end: begin + ggufByteLength(name, type, shape) }];
}

//| 05-inference/a-files-of-gguf.ipynb#placing
/** The next multiple of an alignment. */
export function alignedTo(position: number, alignment: number): number {
  return Math.ceil(position / alignment) * alignment;
}

/** The alignment that the keys state, 32 where they do not. */
export function alignmentOf(keys: Map<string, GgufValue>): number {
  const { type, value } = keys.get("general.alignment") ?? { type: "u32", value: 32 };
  const isPower =
    typeof value === "number" && value >= 1 && value <= 2 ** 16 && Number.isInteger(Math.log2(value));
  if (type === "u32" && isPower) return value;
  throw new Error(`general.alignment must be a power of two (u32) up to 65536, not ${shown(value)}.`);
}

/** Tensors with their places counted from the start of the file. Throws unless they follow each other, and the file ends with them. */
export function placeTensors(
  tensors: [string, GgufTensor][],
  cursor: Cursor,
  alignment: number,
): Map<string, GgufTensor> {
  const start = alignedTo(cursor.position, alignment);
  let next = 0;
  for (const [name, tensor] of tensors) {
    if (tensor.begin !== next)
      throw new Error(
        `The tensor ${shown(name)} begins at byte ${tensor.begin} of the data instead of ${next}.`,
      );
    next = alignedTo(tensor.end, alignment);
    tensor.begin += start;
    tensor.end += start;
    if (tensor.end > cursor.size)
      throw new Error(
        `The file is cut off: the tensor ${shown(name)} ends at byte ${tensor.end} of ${cursor.size}. Copy it again.`,
      );
  }
  if (cursor.size > start + next)
    throw new Error(`The file has ${cursor.size - start - next} bytes after its last tensor.`);
  return new Map(tensors);
}

//| 05-inference/a-files-of-gguf.ipynb#head
/**
 * Reads the head of a GGUF file (version 2 or 3) of `size` bytes; `read` gives any part of it. Everything in it is checked. Throws
 * one sentence for whatever breaks the format.
 */
export function readGgufHead(size: number, read: ReadBytes): GgufHead {
  const cursor = cursorAt(size, read);
  const magic = size >= 24 ? takeU32(cursor, "its first bytes") : 0;
  if (magic !== 0x46554747) throw new Error("This is not a GGUF file: it does not begin with GGUF.");
  const version = takeU32(cursor, "its version");
  if (version > 0 && version % 65536 === 0)
    throw new Error("This GGUF file is big-endian, which is not read.");
  if (version !== 2 && version !== 3)
    throw new Error(`This GGUF file is of version ${version}; 2 and 3 are read.`);
  const tensorCount = takeCount(cursor, "tensors", 24);
  const keyCount = takeCount(cursor, "keys", 13);
  const keys = new Map<string, GgufValue>();
  for (let i = 0; i < keyCount; i++) {
    const key = takeText(cursor, "the name of a key");
    if (keys.has(key)) throw new Error(`The key ${shown(key)} stands twice in the file.`);
    keys.set(key, takeValue(cursor, key));
  }
  const tensors = Array.from({ length: tensorCount }, () => takeTensor(cursor));
  const names = new Set<string>();
  for (const [name] of tensors) {
    if (names.has(name)) throw new Error(`The tensor ${shown(name)} stands twice in the file.`);
    names.add(name);
  }
  return { keys, tensors: placeTensors(tensors, cursor, alignmentOf(keys)) };
}

//| 05-inference/a-files-of-gguf.ipynb#write-values
/** Writes the values of fixed size. */
export const fixedWriters: Record<string, (view: DataView, value: never) => void> = {
  u8: (view, value) => view.setUint8(0, value),
  i8: (view, value) => view.setInt8(0, value),
  u16: (view, value) => view.setUint16(0, value, true),
  i16: (view, value) => view.setInt16(0, value, true),
  u32: (view, value) => view.setUint32(0, value, true),
  i32: (view, value) => view.setInt32(0, value, true),
  f32: (view, value) => view.setFloat32(0, value, true),
  bool: (view, value) => view.setUint8(0, value ? 1 : 0),
  u64: (view, value) => view.setBigUint64(0, BigInt(value), true),
  i64: (view, value) => view.setBigInt64(0, BigInt(value), true),
  f64: (view, value) => view.setFloat64(0, value, true),
};

/** The bytes of one value that is not an array. */
export function scalarBytes(type: string, value: GgufScalar): Uint8Array {
  if (type === "string") {
    const text = new TextEncoder().encode(value as string);
    return joinedBytes([scalarBytes("u64", text.length), text]);
  }
  const bytes = new Uint8Array(fixedValues[type].bytes);
  fixedWriters[type](new DataView(bytes.buffer), value as never);
  return bytes;
}

//| 05-inference/a-files-of-gguf.ipynb#write-head
/** The bytes of a key with its value. */
export function keyBytes(key: string, { type, isArray, value }: GgufValue): Uint8Array[] {
  const typeBytes = (name: string) => scalarBytes("u32", ggufValueTypes.indexOf(name));
  const name = scalarBytes("string", key);
  if (!isArray) return [name, typeBytes(type), scalarBytes(type, value as GgufScalar)];
  const entries = value as GgufScalar[];
  const count = scalarBytes("u64", entries.length);
  return [
    name,
    typeBytes("array"),
    typeBytes(type),
    count,
    ...entries.map((entry) => scalarBytes(type, entry)),
  ];
}

/** A tensor to be written; `data` is asked for when its turn has come. */
export interface GgufSource {
  name: string;
  type: string;
  shape: number[];
  data: () => Uint8Array;
}

//| 05-inference/a-files-of-gguf.ipynb#write-file
/** The head of a GGUF file (version 3) with such keys and tensors, padded to where the data begin. */
export function ggufHeadBytes(keys: Map<string, GgufValue>, tensors: GgufSource[]): Uint8Array {
  const alignment = alignmentOf(keys);
  const pieces = [
    scalarBytes("u32", 0x46554747),
    scalarBytes("u32", 3),
    scalarBytes("u64", tensors.length),
    scalarBytes("u64", keys.size),
    ...[...keys].flatMap(([key, value]) => keyBytes(key, value)),
  ];
  let offset = 0;
  for (const { name, type, shape } of tensors) {
    pieces.push(scalarBytes("string", name), scalarBytes("u32", shape.length));
    pieces.push(...[...shape].reverse().map((size) => scalarBytes("u64", size)));
    pieces.push(scalarBytes("u32", ggufTypes[type].id), scalarBytes("u64", offset));
    offset += alignedTo(ggufByteLength(name, type, shape), alignment);
  }
  const bytes = joinedBytes(pieces);
  return joinedBytes([bytes, new Uint8Array(alignedTo(bytes.length, alignment) - bytes.length)]);
}

//| 05-inference/a-files-of-gguf.ipynb#write-pieces
/** A GGUF file piece by piece: its head, then each tensor, padded. The same content always gives the same bytes. */
export function* ggufPieces(keys: Map<string, GgufValue>, tensors: GgufSource[]): Generator<Uint8Array> {
  yield ggufHeadBytes(keys, tensors);
  for (const { name, type, shape, data } of tensors) {
    const bytes = data();
    const length = ggufByteLength(name, type, shape);
    if (bytes.length !== length)
      throw new Error(`The tensor ${shown(name)} takes ${length} bytes, but has ${bytes.length}.`);
    yield bytes;
    yield new Uint8Array(alignedTo(length, alignmentOf(keys)) - length);
  }
}
