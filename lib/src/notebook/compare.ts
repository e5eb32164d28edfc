/** Where two answers first differ, said so that a person can look there. */

/** One place where an answer is not what it should be. */
export interface Difference {
  /** Where: "[2]", "[1].name", "get("a")"; empty for the whole answer. */
  path: string;
  got: unknown;
  expected: unknown;
  /** Set when the trouble is a length or a kind rather than a value. */
  because?: string;
  /** The element still is what `poison` put there. */
  unwritten?: boolean;
}

/** Bits that stand for "never written": as a float a NaN that no arithmetic gives, as a whole number an unlikely one. */
export const POISON = 0x7fc0dead;

type NumberArray = Float32Array | Float64Array | Int32Array | Uint32Array | Uint8Array;

const isNumberArray = (value: unknown): value is NumberArray =>
  ArrayBuffer.isView(value) && !(value instanceof DataView);

/** The bits of one element of a typed array, 32 of them where it has more. */
function elementBits(array: NumberArray, at: number): number {
  const view = new DataView(array.buffer, array.byteOffset + at * array.BYTES_PER_ELEMENT);
  if (array.BYTES_PER_ELEMENT === 8) return Number(view.getBigUint64(0, true) >> 32n);
  return array.BYTES_PER_ELEMENT === 4 ? view.getUint32(0, true) : Number.NaN;
}

/** Fills an array that is to be written, so that an element which never is shows: with `POISON` where that can be told. */
export function poison(value: unknown): void {
  if (Array.isArray(value)) value.fill(Number.NaN);
  else if (!isNumberArray(value)) return;
  else if (value.BYTES_PER_ELEMENT === 8)
    new BigUint64Array(value.buffer, value.byteOffset, value.length).fill(BigInt(POISON) << 32n);
  else if (value.BYTES_PER_ELEMENT === 4)
    new Uint32Array(value.buffer, value.byteOffset, value.length).fill(POISON);
  else value.fill(0xad);
}

type ArrayLikeValue = ArrayLike<unknown>;

const isList = (value: unknown): value is ArrayLikeValue =>
  Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));

/** A value's kind as a learner would say it. */
export function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (value instanceof Promise) return "a promise";
  if (Array.isArray(value)) return "an array";
  if (typeof value !== "object") return value === undefined ? "undefined" : `a ${typeof value}`;
  const name = value.constructor?.name ?? "Object";
  return name === "Object" ? "an object" : `a ${name}`;
}

/** True when two numbers agree within a tolerance, relative for large ones, absolute for small ones. */
export function closeNumbers(got: number, expected: number, tolerance: number): boolean {
  if (Object.is(got, expected) || got === expected) return true;
  // Within a share of infinity lies every number.
  if (!Number.isFinite(expected)) return false;
  // Ids and counts are right or wrong, however large they are.
  if (tolerance <= 1e-5 && Number.isInteger(got) && Number.isInteger(expected)) return false;
  return Math.abs(got - expected) <= tolerance * Math.max(1, Math.abs(expected));
}

/**
 * The first place where `got` is not `expected`, or undefined when they agree. Typed arrays and arrays
 * compare by their elements; numbers by `tolerance`.
 */
export function firstDifference(
  got: unknown,
  expected: unknown,
  tolerance = 0,
  path = "",
): Difference | undefined {
  if (typeof expected === "number" && typeof got === "number") {
    return closeNumbers(got, expected, tolerance) ? undefined : { path, got, expected };
  }
  if (isList(expected)) {
    if (!isList(got)) return { path, got, expected, because: `it is ${kindOf(got)}, not a list` };
    return listDifference(got, expected, tolerance, path);
  }
  if (expected instanceof Map) return mapDifference(got, expected, tolerance, path);
  if (expected instanceof Set) return setDifference(got, expected, path);
  if (expected !== null && typeof expected === "object")
    return objectDifference(got, expected, tolerance, path);
  if (Object.is(got, expected)) return undefined;
  const because =
    typeof got === typeof expected ? undefined : `it is ${kindOf(got)}, not ${kindOf(expected)}`;
  return { path, got, expected, because };
}

function listDifference(got: ArrayLikeValue, expected: ArrayLikeValue, tolerance: number, path: string) {
  const shared = Math.min(got.length, expected.length);
  for (let i = 0; i < shared; i++) {
    const found = firstDifference(got[i], expected[i], tolerance, `${path}[${i}]`);
    if (!found) continue;
    return isNumberArray(got) && elementBits(got, i) === POISON ? { ...found, unwritten: true } : found;
  }
  if (got.length === expected.length) return undefined;
  const because = `it has ${got.length} elements, not ${expected.length}`;
  return { path, got, expected, because };
}

function mapDifference(got: unknown, expected: Map<unknown, unknown>, tolerance: number, path: string) {
  if (!(got instanceof Map)) return { path, got, expected, because: `it is ${kindOf(got)}, not a Map` };
  for (const [key, value] of expected) {
    const at = `${path}.get(${showValue(key)})`;
    if (!got.has(key)) return { path: at, got: undefined, expected: value, because: "this key is missing" };
    const found = firstDifference(got.get(key), value, tolerance, at);
    if (found) return found;
  }
  const extra = [...got.keys()].find((key) => !expected.has(key));
  if (extra === undefined) return undefined;
  const at = `${path}.get(${showValue(extra)})`;
  return { path: at, got: got.get(extra), expected: undefined, because: "this key should not be there" };
}

function setDifference(got: unknown, expected: Set<unknown>, path: string) {
  if (!(got instanceof Set)) return { path, got, expected, because: `it is ${kindOf(got)}, not a Set` };
  const missing = [...expected].find((item) => !got.has(item));
  if (missing !== undefined) return { path, got, expected, because: `${showValue(missing)} is missing` };
  const extra = [...got].find((item) => !expected.has(item));
  if (extra === undefined) return undefined;
  return { path, got, expected, because: `${showValue(extra)} should not be there` };
}

function objectDifference(
  got: unknown,
  expected: object,
  tolerance: number,
  path: string,
): Difference | undefined {
  if (got === null || typeof got !== "object")
    return { path, got, expected, because: `it is ${kindOf(got)}, not an object` };
  for (const [key, value] of Object.entries(expected)) {
    const found = firstDifference((got as Record<string, unknown>)[key], value, tolerance, `${path}.${key}`);
    if (found) return found;
  }
  return undefined;
}

const quoted = (text: string) => JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}…` : text);

function showNumber(value: number): string {
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
}

/** A value in one short line; long lists show their beginning. */
export function showValue(value: unknown, most = 12): string {
  if (typeof value === "number") return showNumber(value);
  if (typeof value === "string") return quoted(value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return value.name || "a function";
  if (value === null || typeof value !== "object") return String(value);
  if (isList(value)) {
    const shown = Array.from({ length: Math.min(most, value.length) }, (_, i) => showValue(value[i], 6));
    return `[${shown.join(", ")}${value.length > most ? `, … ${value.length} in all` : ""}]`;
  }
  const pairs = value instanceof Map ? [...value] : value instanceof Set ? [] : Object.entries(value);
  if (value instanceof Set) return `Set ${showValue([...value], most)}`;
  const shown = pairs.slice(0, most).map(([key, item]) => `${String(key)}: ${showValue(item, 6)}`);
  return `{ ${shown.join(", ")}${pairs.length > most ? ", …" : ""} }`;
}

/** A deep copy of plain values; functions and objects of classes are passed on as they are. */
export function copyValue<T>(value: T): T {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(copyValue) as T;
  if (ArrayBuffer.isView(value) && !(value instanceof DataView))
    return (value as unknown as Uint8Array).slice() as T;
  if (value instanceof Map) return new Map([...value].map(([key, item]) => [key, copyValue(item)])) as T;
  if (value instanceof Set) return new Set(value) as T;
  if (Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, copyValue(item)])) as T;
}
