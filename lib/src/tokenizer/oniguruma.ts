// Extracted from chapters/01-tokenizer/3-fast-merges.ipynb: edit it there, or here and run `npm run backport`.

//| 01-tokenizer/3-fast-merges.ipynb#pattern-nodes
/** A part of a class: a character, a range, a set such as `\w`, or another class. */
export type ClassNode =
  | { type: "character"; code: number }
  | { type: "range"; from: number; to: number }
  | { type: "set"; name: string; not: boolean }
  | { type: "class"; not: boolean; sides: ClassNode[][] };

/** A part of a pattern. A group holds its choices, and each choice is a row of parts. */
export type PatternNode =
  | ClassNode
  | { type: "dot" }
  | { type: "assertion"; name: string }
  | { type: "reference"; to: string }
  | { type: "repeat"; body: PatternNode; min: number; max: number; kind: "greedy" | "lazy" | "possessive" }
  | {
      type: "group";
      kind: "plain" | "atomic" | "captured";
      name: string;
      options: PatternOptions;
      choices: PatternNode[][];
    }
  | { type: "look"; behind: boolean; not: boolean; choices: PatternNode[][] }
  | { type: "options"; options: PatternOptions };

/** Options that a group such as `(?i-m:…)` switches on and off. */
export interface PatternOptions {
  ignoreCase?: boolean;
  /** Whether the dot matches line ends too. */
  dotAll?: boolean;
  /** Whether white space and comments are left out of the pattern. */
  extended?: boolean;
}

/** The error for a construct that cannot be said in JavaScript. */
export function unsayable(what: string): Error {
  return new Error(`it uses ${what}, which tslm does not translate`);
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-reader
/** Reads a pattern from left to right. */
export class PatternReader {
  at = 0;
  depth = 0;
  groups = 0;
  /** Where a group has a name, the others capture nothing. */
  readonly hasNames: boolean;

  constructor(readonly text: string) {
    this.hasNames = /\(\?(<[^=!]|')/.test(text);
  }

  /** Takes what a sticky expression matches here; undefined where it does not. */
  take(expression: RegExp): RegExpExecArray | undefined {
    expression.lastIndex = this.at;
    const found = expression.exec(this.text) ?? undefined;
    this.at += found?.[0].length ?? 0;
    return found;
  }

  /** Takes one character. Throws at the end of the pattern. */
  next(): string {
    const code = this.text.codePointAt(this.at);
    if (code === undefined) throw new Error("it ends too early");
    const character = String.fromCodePoint(code);
    this.at += character.length;
    return character;
  }
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-escapes
/** What escapes stand for: control characters, and sets of characters. */
export const CONTROL_ESCAPES: { [letter: string]: number } = {
  t: 9,
  n: 10,
  v: 11,
  f: 12,
  r: 13,
  a: 7,
  e: 27,
};
export const SET_ESCAPES: { [letter: string]: string } = { d: "digit", s: "space", w: "word", h: "hex" };
export const ASSERTION_ESCAPES: { [letter: string]: string } = {
  A: "text start",
  z: "text end",
  Z: "last line end",
  b: "word edge",
  B: "no word edge",
};

/** An escape that means the same inside a class and outside: a character or a set. The backslash is behind us. */
export function readEscape(reader: PatternReader): ClassNode {
  const property = reader.take(/([pP])\{(\^?)([\w -]+)\}/y);
  if (property) {
    const not = (property[1] === "P") !== (property[2] === "^");
    return { type: "set", name: `p ${property[3]}`, not };
  }
  const [, long, four, two, octal] =
    reader.take(/x\{([\da-f]{1,8})\}|u([\da-f]{4})|x([\da-f]{1,2})|(0[0-7]{0,2})/iy) ?? [];
  const code = octal ? Number.parseInt(octal, 8) : Number.parseInt(long ?? four ?? two, 16);
  if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000) || (two && code > 127))
    throw unsayable(`the character of code ${code}`);
  if (!Number.isNaN(code)) return { type: "character", code };
  const letter = reader.next();
  const set = SET_ESCAPES[letter.toLowerCase()];
  if (set) return { type: "set", name: set, not: letter !== letter.toLowerCase() };
  if (letter in CONTROL_ESCAPES) return { type: "character", code: CONTROL_ESCAPES[letter] };
  if (/[A-Za-z0-9]/.test(letter)) throw unsayable(`\\${letter}`);
  return { type: "character", code: letter.codePointAt(0)! };
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-class
/** A class; its `[` is behind us. The sides are what `&&` stands between. */
export function readClass(reader: PatternReader): ClassNode {
  if (++reader.depth > 100) throw new Error("it is nested too deeply");
  const not = reader.take(/\^/y) !== undefined;
  if (reader.take(/\]/y)) throw unsayable("a class that begins with ]");
  const sides: ClassNode[][] = [[]];
  while (!reader.take(/\]/y)) {
    const side = sides[sides.length - 1];
    if (reader.take(/&&/y)) sides.push([]);
    else side.push(readClassItem(reader, side));
  }
  if (sides.some((side) => side.length === 0)) throw unsayable("an empty side of && in a class");
  reader.depth--;
  return { type: "class", not, sides };
}

/** An item of a class, a range included. */
export function readClassItem(reader: PatternReader, before: ClassNode[]): ClassNode {
  const posix = reader.take(/\[:(\^?)(\w+):\]/y);
  if (posix) return { type: "set", name: posix[2], not: posix[1] === "^" };
  if (reader.take(/\[/y)) return readClass(reader);
  if (reader.text[reader.at] === "-" && before.length > 0 && reader.text[reader.at + 1] !== "]")
    throw unsayable("a - in a class that is neither first nor last");
  const from = readClassCharacter(reader);
  if (from.type !== "character" || !reader.take(/-(?!\])/y)) return from;
  const to =
    reader.text[reader.at] === "[" || reader.text.startsWith("&&", reader.at)
      ? from
      : readClassCharacter(reader);
  if (to === from || to.type !== "character" || to.code < from.code)
    throw new Error("a range in a class is wrong");
  return { type: "range", from: from.code, to: to.code };
}

/** A character of a class, or a set: in a class `\b` is the backspace. */
export function readClassCharacter(reader: PatternReader): ClassNode {
  const character = reader.next();
  if (character !== "\\") return { type: "character", code: character.codePointAt(0)! };
  return reader.take(/b/y) ? { type: "character", code: 8 } : readEscape(reader);
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-operators
/** Options by their letters: in Ruby's dialect, which this is, `m` is what JavaScript calls `s`. */
export function optionsOf(letters: string, value: boolean): PatternOptions {
  const names = { i: "ignoreCase", m: "dotAll", x: "extended" } as const;
  return Object.fromEntries([...letters].map((letter) => [names[letter as "i" | "m" | "x"], value]));
}

/** `\R`: any end of a line; the two characters of Windows are one, and are not taken apart. */
export function lineEnd(): PatternNode {
  const character = (code: number): PatternNode => ({ type: "character", code });
  const others: ClassNode = { type: "set", name: "line end", not: false };
  return {
    type: "group",
    kind: "atomic",
    name: "",
    options: {},
    choices: [[character(13), character(10)], [others]],
  };
}

/** Whether an operator such as `*`, `++` or `{1,3}?` stands here: then the last part is repeated by it. */
export function readRepeat(reader: PatternReader, parts: PatternNode[]): boolean {
  const found = reader.take(/([*+?])([?+]?)|\{(?:(\d+)(,?)(\d*)|,(\d+))\}(\??)/y);
  if (!found) return false;
  const [, sign, suffix, from, comma, to, most, lazy] = found;
  const body = parts.pop();
  if (!body || ["assertion", "look", "options"].includes(body.type))
    throw new Error(`there is nothing that ${found[0]} could repeat`);
  const min = sign ? (sign === "+" ? 1 : 0) : Number(from ?? 0);
  const end = sign ? (sign === "?" ? 1 : Infinity) : Number(most ?? (to || (comma ? Infinity : from)));
  if (end < min || Math.max(min, end === Infinity ? 0 : end) > 10_000) throw unsayable(found[0]);
  const kind = suffix === "+" ? "possessive" : suffix || lazy ? "lazy" : "greedy";
  parts.push({ type: "repeat", body, min, max: end, kind });
  return true;
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-group-head
/** A node, or each of several, without its choices. */
export type WithoutChoices<Node> = Node extends unknown ? Omit<Node, "choices"> : never;

/** The beginning of a group, up to its choices; options alone, as in `(?i)`, have none. */
export type GroupHead =
  | WithoutChoices<PatternNode & { type: "group" | "look" }>
  | (PatternNode & { type: "options" });

/** Reads the beginning of a group; its `(` is behind us. */
export function readGroupHead(reader: PatternReader): GroupHead {
  const look = reader.take(/\?(<?)([=!])/y);
  if (look) return { type: "look", behind: look[1] === "<", not: look[2] === "!" };
  const ownName = reader.take(/\?(?:<([\p{L}_][\p{L}\p{N}_]*)>|'([\p{L}_][\p{L}\p{N}_]*)')/uy);
  const group = { type: "group" as const, name: "", options: {} };
  if (ownName || (!/[?*]/.test(reader.text[reader.at]) && !reader.hasNames)) {
    const name = ownName ? (ownName[1] ?? ownName[2]) : `${++reader.groups}`;
    return { ...group, kind: "captured", name };
  }
  if (reader.take(/\?>/y)) return { ...group, kind: "atomic" };
  if (!reader.take(/\?(?=[imx:-])/y)) {
    if (/[?*]/.test(reader.text[reader.at] ?? ""))
      throw unsayable(`a group (${reader.text.slice(reader.at, reader.at + 3)}`);
    return { ...group, kind: "plain" };
  }
  const [, on, off = "", end] = reader.take(/([imx]*)(?:-([imx]*))?([:)])/y) ?? [];
  if (end === undefined) throw unsayable(`the options (?${reader.text.slice(reader.at, reader.at + 3)}`);
  const options = { ...optionsOf(on, true), ...optionsOf(off, false) };
  return end === ")" ? { type: "options", options } : { ...group, kind: "plain", options };
}

/** What follows a `\` outside of a class: a reference, an assertion, or what a class may hold too. */
export function readEscapedPart(reader: PatternReader): PatternNode {
  const reference = reader.take(/([1-9])(?!\d)|k(?:<(\w+)>|'(\w+)')/y);
  if (reference) return { type: "reference", to: reference[1] ?? reference[2] ?? reference[3] };
  const letter = reader.text[reader.at];
  if (letter in ASSERTION_ESCAPES) return { type: "assertion", name: ASSERTION_ESCAPES[reader.next()] };
  if (reader.take(/N/y)) return { type: "set", name: "newline", not: true };
  if (reader.take(/O/y)) return { type: "set", name: "any", not: false };
  if (reader.take(/R/y)) return lineEnd();
  return readEscape(reader);
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-groups
/** A part of a pattern that an operator may follow, or an assertion. */
export function readPatternPart(reader: PatternReader, extended: boolean): PatternNode {
  const character = reader.next();
  if (character === "[") return readClass(reader);
  if (character === "(") return readGroup(reader, extended);
  if (character === ".") return { type: "dot" };
  if (character === "^") return { type: "assertion", name: "line start" };
  if (character === "$") return { type: "assertion", name: "line end" };
  return character === "\\"
    ? readEscapedPart(reader)
    : { type: "character", code: character.codePointAt(0)! };
}

/** The choices of a group, up to its `)`, or to the end of the pattern. */
export function readChoices(reader: PatternReader, extended: boolean): PatternNode[][] {
  if (++reader.depth > 100) throw new Error("it is nested too deeply");
  const choices: PatternNode[][] = [[]];
  for (;;) {
    if (extended) reader.take(/(?:[ \t\r\n\f]|#[^\n]*)+/y);
    if (reader.take(/\(\?#[^)]*\)/y)) continue;
    if (reader.at === reader.text.length || reader.text[reader.at] === ")") break;
    const choice = choices[choices.length - 1];
    if (reader.take(/\|/y)) choices.push([]);
    else if (!readRepeat(reader, choice)) choice.push(readPatternPart(reader, extended));
    const last = choices[choices.length - 1].at(-1);
    if (last?.type === "options") extended = last.options.extended ?? extended;
  }
  reader.depth--;
  return choices;
}

/** A group; its `(` is behind us. */
export function readGroup(reader: PatternReader, extended: boolean): PatternNode {
  const head = readGroupHead(reader);
  if (head.type === "options") return head;
  const inside = head.type === "group" ? (head.options.extended ?? extended) : extended;
  const choices = readChoices(reader, inside);
  if (!reader.take(/\)/y)) throw new Error("a group is not closed");
  return { ...head, choices };
}

//| 01-tokenizer/3-fast-merges.ipynb#read-pattern
/** The parts of a pattern in Oniguruma's dialect. Throws where it is none, or has a construct that we do not translate. */
export function readPattern(pattern: string): PatternNode[][] {
  if (pattern.length > 10_000) throw new Error(`it is ${pattern.length} characters long`);
  const reader = new PatternReader(pattern);
  const choices = readChoices(reader, false);
  if (reader.at < pattern.length) throw new Error("a group is closed that was not opened");
  return choices;
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-sets
/** What Oniguruma's names of sets mean, as parts of a class. */
export const PATTERN_SETS: { [name: string]: string } = {
  any: "\\p{Any}",
  digit: "\\p{Nd}",
  space: "\\p{White_Space}",
  hex: "0-9A-Fa-f",
  word: "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}",
  newline: "\\n",
  "line end": "\\n-\\r\\u0085\\u2028\\u2029",
  alnum: "\\p{Alphabetic}\\p{Nd}",
  alpha: "\\p{Alphabetic}",
  ascii: "\\p{ASCII}",
  blank: "\\p{Zs}\\t",
  cntrl: "\\p{Cc}",
  lower: "\\p{Lowercase}",
  upper: "\\p{Uppercase}",
  xdigit: "0-9A-Fa-f",
  graph: "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Cf}\\p{Co}",
  print: "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Cf}\\p{Co}\\p{Zs}",
  punct: "\\p{P}\\p{S}",
};

/** Numerals of Latin-1 that Oniguruma counts among the letters of words, though not inside a class. */
export const WORD_NUMERALS = "\u00b2\u00b3\u00b9\u00bc-\u00be";

/** What a set holds, as parts of a class; `inClass` where it stands in one. */
export function setItems(name: string, inClass: boolean): string {
  const property = name.startsWith("p ") ? name.slice(2) : undefined;
  const key = property?.toLowerCase() ?? name;
  if (property && (key === "punct" || !(key in PATTERN_SETS))) return propertyItem(property);
  if (!(key in PATTERN_SETS)) throw unsayable(`[:${name}:]`);
  return PATTERN_SETS[key] + (key === "word" && !inClass ? WORD_NUMERALS : "");
}

/** A property of Unicode by its name in JavaScript, which minds the case of letters. */
export function propertyItem(name: string): string {
  const capitals = name
    .trim()
    .toLowerCase()
    .replace(/(?:^|[ _-])[a-z]/g, (start) => start.toUpperCase());
  for (const spelling of [name, capitals.replace(/[ -]/g, "_")])
    for (const property of [spelling, `Script=${spelling}`])
      if (isProperty(property)) return `\\p{${property}}`;
  throw unsayable(`\\p{${name}}`);
}

/** Whether JavaScript has a property. Versions of Unicode disagree about the one that we leave out. */
export function isProperty(property: string): boolean {
  try {
    new RegExp(`\\p{${property}}`, "u");
    return property !== "Extended_Pictographic" && property !== "ExtPict";
  } catch {
    return false;
  }
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-cases
/** One character, written so that it means itself anywhere in a pattern. */
export function characterSource(code: number): string {
  const character = String.fromCodePoint(code);
  return /^[\p{L}\p{Nd} ]$/u.test(character) ? character : `\\u{${code.toString(16)}}`;
}

/** What letters have in common that are equal when case is ignored. */
export function caseKey(letter: string): string {
  const upper = letter.toUpperCase();
  return (upper.length === letter.length && letter !== "\u0131" ? upper : letter).toLowerCase();
}

/** Letters that are equal when case is ignored, by their key; letters that then equal several (`ß` is `ss`); those several. */
export interface CaseFolds {
  equal: Map<string, string[]>;
  long: string[];
  strings: string[];
}

export let knownFolds: CaseFolds | undefined;

/** All letters that have cases. */
export function caseFolds(): CaseFolds {
  if (knownFolds) return knownFolds;
  const folds: CaseFolds = { equal: new Map(), long: [], strings: [] };
  for (let code = 65; code < 0x1e944; code++) {
    const letter = String.fromCodePoint(code);
    const upper = letter.toUpperCase();
    if (upper === letter && letter.toLowerCase() === letter) continue;
    const key = caseKey(letter);
    if (!folds.equal.has(key)) folds.equal.set(key, key === letter ? [] : [key]);
    if (!folds.equal.get(key)!.includes(letter)) folds.equal.get(key)!.push(letter);
    const isLong = [...upper].length > 1;
    if (isLong) folds.strings.push(upper.toLowerCase());
    if (isLong || letter === "İ" || letter === "ẞ") folds.long.push(letter);
  }
  knownFolds = folds;
  return folds;
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-cases-2
/** A letter where case is ignored. */
export function anyCaseSource(code: number): string {
  const letter = String.fromCodePoint(code);
  const { equal, long } = caseFolds();
  if (long.includes(letter)) throw unsayable(`${JSON.stringify(letter)} where case is ignored`);
  const letters = equal.get(caseKey(letter)) ?? [];
  return letters.length > 1 ? `[${letters.join("")}]` : characterSource(code);
}

/** Throws where several letters that follow each other equal one, as `ss` does `ß`. */
export function refuseLongFolds(parts: PatternNode[]): void {
  const text = parts.map((part) => (part.type === "character" ? String.fromCodePoint(part.code) : "\n"));
  const keys = text.map(caseKey).join("");
  const found = caseFolds().strings.find((letters) => keys.includes(letters));
  if (found) throw unsayable(`${JSON.stringify(found)} where case is ignored`);
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-class-source
/** The parts of a class: those that JavaScript's classes hold, and those that must be choices beside them. */
export interface ClassParts {
  items: string;
  others: string[];
}

/** A class of such parts. JavaScript's flag `v` would know nested classes and `&&`, but V8 11 loses matches with it. */
export function unionSource({ items, others }: ClassParts, not: boolean): string {
  if (others.length === 0) return `[${not ? "^" : ""}${items}]`;
  const any = `(?:${[...(items === "" ? [] : [`[${items}]`]), ...others].join("|")})`;
  return not ? `(?:(?!${any})[^])` : any;
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-class-source-2
/** The parts of one side of a class. */
export function classParts(nodes: ClassNode[]): ClassParts {
  const all: ClassParts = { items: "", others: [] };
  for (const node of nodes) {
    const { items, others } = classPart(node);
    all.items += items;
    all.others.push(...others);
  }
  return all;
}

export function classPart(node: ClassNode): ClassParts {
  if (node.type === "character") return { items: characterSource(node.code), others: [] };
  if (node.type === "range")
    return { items: `${characterSource(node.from)}-${characterSource(node.to)}`, others: [] };
  if (node.type === "class") {
    if (!node.not && node.sides.length === 1) return classParts(node.sides[0]);
    return { items: "", others: [classSource(node, false)] };
  }
  const items = setItems(node.name, true);
  if (!node.not) return { items, others: [] };
  const isOne = /^\\p\{[^}]*\}$/.test(items);
  return isOne ? { items: items.replace("p", "P"), others: [] } : { items: "", others: [`[^${items}]`] };
}

/** A class. Where case is ignored, what its letters equal is added to the whole of it, and only then is it negated. */
export function classSource({ not, sides }: ClassNode & { type: "class" }, ignoreCase: boolean): string {
  const sources = sides.map((side) => unionSource(classParts(side), false));
  const all = sources.slice(0, -1).map((source) => `(?=${source})`);
  const parts =
    sides.length === 1
      ? classParts(sides[0])
      : { items: "", others: [`(?:${all.join("")}${sources.at(-1)})`] };
  if (!ignoreCase) return unionSource(parts, not);
  const isIn = new RegExp(`^${unionSource(parts, false)}$`, "u");
  const { equal, long } = caseFolds();
  const twice = not ? undefined : long.find((letter) => isIn.test(letter));
  if (twice) throw unsayable(`a class with ${JSON.stringify(twice)} where case is ignored`);
  const more = [...equal.values()].filter((letters) => letters.some((letter) => isIn.test(letter)));
  return unionSource({ ...parts, items: parts.items + more.flat().join("") }, not);
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-place
/** Where a part of a pattern stands. */
export interface PatternPlace {
  options: PatternOptions;
  /** In a look-behind JavaScript matches from right to left, where some of our forms would mean something else. */
  behind: boolean;
  /** The groups that have certainly matched by now. */
  matched: ReadonlySet<string>;
  /** The names of the groups so far. */
  names: Set<string>;
}

/** An assertion. A line starts after a line end, but not at the end of the text. */
export function assertionSource(name: string, behind: boolean): string {
  const word = `[${PATTERN_SETS.word}${WORD_NUMERALS}]`;
  const sources: { [name: string]: string } = {
    "line start": "(?:^|(?<=\\n)(?!$))",
    "line end": "(?=\\n|$)",
    "text start": "^",
    "text end": "$",
    "last line end": "(?=\\n?$)",
    "word edge": `(?:(?<=${word})(?!${word})|(?<!${word})(?=${word}))`,
    "no word edge": `(?:(?<=${word})(?=${word})|(?<!${word})(?!${word}))`,
  };
  if (behind && (name === "text end" || name === "last line end"))
    throw unsayable(`the ${name} in a look-behind`);
  return sources[name];
}

/** A group that gives nothing back: what a look-ahead has found is taken as a whole. */
export function atomicSource(inner: string, place: PatternPlace): string {
  if (place.behind) throw unsayable("an atomic group in a look-behind");
  const name = `atom${place.names.size}`;
  place.names.add(name);
  return `(?=(?<${name}>${inner}))\\k<${name}>`;
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-references
/** Whether a part of a pattern can match nothing. */
export function mayBeEmpty(part: PatternNode): boolean {
  if (part.type === "repeat")
    return part.min === 0 || (part.kind === "lazy" && part.min === part.max) || mayBeEmpty(part.body);
  if (part.type === "group") return part.choices.some((choice) => choice.every(mayBeEmpty));
  return ["assertion", "look", "options", "reference"].includes(part.type);
}

/** A reference to a group: where that has not matched, JavaScript's matches nothing, and Oniguruma's fails. */
export function referenceSource(to: string, place: PatternPlace): string {
  if (place.options.ignoreCase) throw unsayable("a reference to a group where case is ignored");
  if (place.behind || !place.matched.has(to))
    throw unsayable("a reference to a group that may not have matched");
  return `\\k<group_${to}>`;
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-repeats
/** A repetition. `inner` is its body in JavaScript, which ends one whose body matched nothing in its own way: those need care. */
export function repeatSource(
  { kind, min, max, body }: PatternNode & { type: "repeat" },
  inner: string,
  place: PatternPlace,
): string {
  const isAtom =
    /^(?:character|set|dot|class)$/.test(body.type) || (body.type === "group" && body.kind === "plain");
  const atom = isAtom ? inner : `(?:${inner})`;
  if (kind === "lazy" && min === max) return `(?:${atom}{${min}}|)`; // `a{3}?` is three or none
  if (mayBeEmpty(body) && min !== max) {
    if (min !== 0 || max !== 1) throw unsayable("a repetition of what may be empty");
    const choices = kind === "lazy" ? `|${inner}` : `${inner}|`;
    return kind === "possessive" ? atomicSource(choices, place) : `(?:${choices})`;
  }
  const bounds = `${min},${max === Infinity ? "" : max}`;
  const operator = { "0,": "*", "1,": "+", "0,1": "?" }[bounds] ?? (min === max ? `{${min}}` : `{${bounds}}`);
  if (kind === "possessive") return atomicSource(atom + operator, place);
  return atom + operator + (kind === "lazy" ? "?" : "");
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-choices
/** Writes parts that follow each other. */
export type RowSource = (parts: PatternNode[], place: PatternPlace) => string;

/** The choices of a group. Options in the middle hold for all that follows in it: `a(?i)b|c` is `a(?i:b|c)`. */
export function choiceSource(choices: PatternNode[][], place: PatternPlace, rowSource: RowSource): string {
  const sources: string[] = [];
  for (const [i, parts] of choices.entries()) {
    const at = parts.findIndex(({ type }) => type === "options");
    const directive = parts[at];
    if (directive?.type !== "options") {
      sources.push(rowSource(parts, place));
      continue;
    }
    const rest = [parts.slice(at + 1), ...choices.slice(i + 1)];
    const options = { ...place.options, ...directive.options };
    const inner = choiceSource(rest, { ...place, options }, rowSource);
    sources.push(`${rowSource(parts.slice(0, at), place)}(?:${inner})`);
    break;
  }
  return sources.join("|");
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-group-source
/** A group. */
export function groupSource(
  { kind, name, options, choices }: PatternNode & { type: "group" },
  place: PatternPlace,
  rowSource: RowSource,
): string {
  if (kind === "captured") {
    if (place.behind) throw unsayable("a capturing group in a look-behind");
    if (place.names.has(`group_${name}`)) throw unsayable("two groups of one name");
    place.names.add(`group_${name}`);
    return `(?<group_${name}>${choiceSource(choices, place, rowSource)})`;
  }
  const inside = { ...place, options: { ...place.options, ...options } };
  const inner = choiceSource(choices, inside, rowSource);
  return kind === "atomic" ? atomicSource(inner, place) : `(?:${inner})`;
}

/** A look-around. */
export function lookSource(
  { behind, not, choices }: PatternNode & { type: "look" },
  place: PatternPlace,
  rowSource: RowSource,
): string {
  if (place.behind) throw unsayable("a look-around in a look-behind");
  return `(?${behind ? "<" : ""}${not ? "!" : "="}${choiceSource(choices, { ...place, behind }, rowSource)})`;
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-source
/** One part of a pattern in JavaScript. */
export function partSource(part: PatternNode, place: PatternPlace): string {
  const { ignoreCase = false, dotAll } = place.options;
  switch (part.type) {
    case "character":
      return ignoreCase ? anyCaseSource(part.code) : characterSource(part.code);
    case "range":
      throw new Error("a range stands outside of a class");
    case "class":
      return classSource(part, ignoreCase);
    case "set":
      return `[${part.not ? "^" : ""}${setItems(part.name, false)}]`;
    case "dot":
      return dotAll ? "[^]" : "[^\\n]";
    case "assertion":
      return assertionSource(part.name, place.behind);
    case "reference":
      return referenceSource(part.to, place);
    case "repeat":
      return repeatSource(part, partSource(part.body, place), place);
    case "look":
      return lookSource(part, place, rowSource);
    case "options":
      return "";
    case "group":
      return groupSource(part, place, rowSource);
  }
}

/** Parts that follow each other. */
export function rowSource(parts: PatternNode[], place: PatternPlace): string {
  if (place.options.ignoreCase) refuseLongFolds(parts);
  const matched = new Set(place.matched);
  return parts
    .map((part) => {
      const source = partSource(part, { ...place, matched });
      if (part.type === "group" && part.kind === "captured") matched.add(part.name);
      return source;
    })
    .join("");
}

//| 01-tokenizer/3-fast-merges.ipynb#javascript-pattern
/** A pattern in Oniguruma's dialect as JavaScript reads it with the flag `u`. Throws what it cannot say. */
export function javascriptPattern(pattern: string): string {
  const choices = readPattern(pattern);
  const source = choiceSource(
    choices,
    { options: {}, behind: false, matched: new Set(), names: new Set() },
    rowSource,
  );
  // A group that nothing refers to needs no name, and is quicker without.
  return source.replace(/\(\?<(group_[^>]+)>/g, (whole, name) =>
    source.includes(`\\k<${name}>`) ? whole : "(?:",
  );
}
