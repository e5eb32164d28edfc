// Extracted from chapters/03-moe/a-files-of-weights.ipynb: edit it there, or here and run `npm run backport`.
import { closestMatch } from "leven";

//| 03-moe/a-files-of-weights.ipynb#shown-value
/** A value as a sentence shows it: its JSON, cut where it is long. */
export function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length <= 100 ? text : `${text.slice(0, 99)}…`;
}

//| 03-moe/a-files-of-weights.ipynb#is-record
/** Whether a value is an object with keys: neither null nor an array. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

//| 03-moe/a-files-of-weights.ipynb#compare-text
/** Orders text by its UTF-16 units, as `<` does: the same everywhere, whatever the locale. */
export function compareText(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

//| 03-moe/a-files-of-weights.ipynb#read-keys
/** The part of a zod schema that `readKeys` uses. */
export interface KeySchema<T> {
  safeParse(value: unknown): {
    data?: T;
    error?: { issues: { path: PropertyKey[]; message: string }[] };
  };
}

//| 03-moe/a-files-of-weights.ipynb#read-keys-helpers
/**
 * Reads the keys of a schema, whose messages say what a value must be. Throws one sentence for the first key that is
 * missing or of the wrong type; `where` comes before the key's name.
 */
export function readKeys<T>(schema: KeySchema<T>, json: Record<string, unknown>, where = ""): T {
  const { data, error } = schema.safeParse(json);
  if (!error) return data as T;
  const { path, message } = error.issues[0];
  const key = where + path.join(".");
  const value = path.reduce<unknown>((inner, step) => (inner as Record<PropertyKey, unknown>)[step], json);
  if (value === undefined) throw new Error(`${key} is missing; it must be ${message}.`);
  throw new Error(`${key} must be ${message}, not ${shown(value)}.`);
}

//| 03-moe/a-files-of-weights.ipynb#without-nulls
/** The same object without the keys whose value is null: in a config.json, null means "not given". */
export function withoutNulls(json: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(json).filter(([, value]) => value !== null));
}

/** The same object without the keys that are undefined. */
export function withoutUndefined<T extends object>(settings: T): T {
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined)) as T;
}

//| 03-moe/a-files-of-weights.ipynb#nearest-name
/** The known name nearest to a mistyped one, if there is one within a third of its letters. */
export function nearestName(name: string, known: string[]): string | undefined {
  const maxDistance = Math.max(2, Math.floor(name.length / 3));
  return closestMatch(name.toLowerCase(), known, { maxDistance });
}

/** The end of a sentence about an unknown name: `; did you mean X?`, or a full stop where nothing is near. */
export function didYouMean(name: string, known: string[]): string {
  const nearest = nearestName(name, known);
  return nearest === undefined ? "." : `; did you mean ${nearest}?`;
}
