// Names that a person may have meant.
import { closestMatch } from "leven";

/** ` (did you mean "x"?)` for the known name nearest to `name`, or nothing where none is near. */
export function suggestion(name: string, names: string[]): string {
  const nearest = closestMatch(name, names, { maxDistance: Math.max(2, Math.floor(name.length / 3)) });
  return nearest === undefined ? "" : ` (did you mean "${nearest}"?)`;
}
