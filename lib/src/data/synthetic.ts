// Extracted from chapters/01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb: edit it there, or here and run `npm run backport`.
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import { type Write, fileChecksum, realPlace, replaceFile, writeWhole } from "./files.js";
import { randomStream } from "./random.js";

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#grammar-types
/** A thing with its word forms: `{ it: "Mara", she: "she", her: "her" }`. The form `it` is the usual one. */
export interface Item {
  [form: string]: string;
}

/** One step of a template: fixed text, a new variable drawn from a list, a variable again, or a choice. */
export type Part =
  | { kind: "text"; text: string }
  | { kind: "draw"; variable: string; list: string; except: string[]; form: string }
  | { kind: "again"; variable: string; form: string }
  | { kind: "choice"; options: Part[][] };

/** Everything a template may refer to: lists of items, and rules, which are lists of templates. */
export interface Grammar {
  lists: { [name: string]: Item[] };
  rules: { [name: string]: string[] };
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#parse-variable
/** The inside of `<hero>`, `<hero.her>`, `<hero:name>`, `<hero:name.her>` or `<friend:name-hero>`. */
export function parseVariable(inside: string): Part {
  const [what, form = "it"] = inside.split(".");
  const [variable, source] = what.split(":");
  if (source === undefined) return { kind: "again", variable, form };
  const [list, ...except] = source.split("-");
  return { kind: "draw", variable, list, except, form };
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#parse-parts
/** Reads parts up to a `|`, a `]` or the end; leaves `state.at` there. */
export function parseParts(state: { tokens: string[]; at: number }): Part[] {
  const parts: Part[] = [];
  for (; state.at < state.tokens.length; state.at++) {
    const token = state.tokens[state.at];
    if (token === "|" || token === "]") break;
    if (token === "[") parts.push({ kind: "choice", options: parseOptions(state) });
    else if (token[0] === "<") parts.push(parseVariable(token.slice(1, -1)));
    else parts.push({ kind: "text", text: token[0] === "\\" ? token[1] : token });
  }
  return parts;
}

/** Reads `[a|b|c]`, from the bracket that opens it to the one that closes it. */
export function parseOptions(state: { tokens: string[]; at: number }): Part[][] {
  const options: Part[][] = [];
  do {
    state.at++; // over "[" or "|"
    options.push(parseParts(state));
  } while (state.tokens[state.at] === "|");
  if (state.tokens[state.at] !== "]") throw new Error(`A [ is not closed: ${state.tokens.join("")}`);
  return options;
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#expand-rules
/** The template with every `@rule` written out as the choice `[a|b|c]` between the rule's own templates. */
export function expandRules(template: string, rules: Grammar["rules"]): string {
  return template.replace(/\\[\s\S]|@(\w+)/g, (found, name?: string) => {
    if (name === undefined) return found; // an escaped character stays as it is
    if (!rules[name]) throw new Error(`There is no rule named ${name}.`);
    return `[${rules[name].map((option) => expandRules(option, rules)).join("|")}]`;
  });
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#parse-template
/**
 * The parts of a template. `<hero:name>` draws an item from the list `name` and calls it hero; `<friend:name-hero>` draws one
 * that is not hero's; `<hero>` writes it again and `<hero.her>` another form of it; `[a|b|c]` is a choice of three;
 * `@rule` is a choice of the rule's templates. A backslash takes the meaning from the next character.
 */
export function parseTemplate(template: string, rules: Grammar["rules"]): Part[] {
  const tokens = expandRules(template, rules).match(/\\[\s\S]|<[^>]+>|[[\]|]|[^\\<[\]|]+/g) ?? [];
  const state = { tokens, at: 0 };
  const parts = parseParts(state);
  if (state.at < tokens.length)
    throw new Error(`Unexpected ${tokens[state.at]} in the template: ${template}`);
  return parts;
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#items-of
/** Items from a table in words: the first line names the forms, each other line is an item, commas between. */
export function itemsOf(table: string): Item[] {
  const [head, ...rows] = table.trim().split(/\s*\n\s*/);
  const forms = head.split(/,\s*/);
  return rows.map((row) => {
    const words = row.split(/,\s*/);
    return Object.fromEntries(forms.map((form, i) => [form, words[i]]));
  });
}

/** Items with one form, from words between commas. */
export function wordsOf(words: string): Item[] {
  return words.split(/,\s*/).map((it) => ({ it }));
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#word-form
/** A form of an item; a form with a capital (`She`) is the small one (`she`) with a capital. */
export function wordForm(item: Item, form: string): string {
  const small = item[form] ?? item[form[0].toLowerCase() + form.slice(1)];
  if (small === undefined) throw new Error(`${item.it} has no form ${form}.`);
  return item[form] ?? small[0].toUpperCase() + small.slice(1);
}

/** The items that a draw chooses from: its list without the items of the variables it excepts. */
export function drawable(part: Part & { kind: "draw" }, grammar: Grammar, bound: Map<string, Item>): Item[] {
  const taken = part.except.map((variable) => bound.get(variable));
  return grammar.lists[part.list].filter((item) => !taken.includes(item));
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#sample-parts
/** A stretch of sampled text and its surprise: how many bits the choice that made it was worth (0 for fixed text). */
export interface Step {
  text: string;
  bits: number;
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#sample-parts-helpers
/** Writes one text from the parts, every choice uniform; `bound` holds the variables and grows. */
export function sampleParts(
  parts: Part[],
  grammar: Grammar,
  bound: Map<string, Item>,
  random: () => number,
): Step[] {
  const pick = <T>(from: T[]): T => from[Math.floor(random() * from.length)];
  return parts.flatMap((part): Step[] => {
    if (part.kind === "text") return [{ text: part.text, bits: 0 }];
    if (part.kind === "again") return [{ text: wordForm(bound.get(part.variable)!, part.form), bits: 0 }];
    if (part.kind === "choice") {
      const [first, ...rest] = sampleParts(pick(part.options), grammar, bound, random);
      return [
        { text: first?.text ?? "", bits: Math.log2(part.options.length) + (first?.bits ?? 0) },
        ...rest,
      ];
    }
    const items = drawable(part, grammar, bound);
    bound.set(part.variable, pick(items));
    return [{ text: wordForm(bound.get(part.variable)!, part.form), bits: Math.log2(items.length) }];
  });
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#measure-parts-2
/** Length of a text in UTF-8. */
export function utf8Bytes(text: string): number {
  return new TextEncoder().encode(text).length;
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#measure
/** What a text costs on average: bits of choice, and bytes of UTF-8. */
export interface Measure {
  bits: number;
  bytes: number;
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#measure-part
/** The cost of text, a draw or a variable again; `lists` says which list each variable on the way here came from. */
export function measurePart(
  part: Exclude<Part, { kind: "choice" }>,
  grammar: Grammar,
  lists: Map<string, string>,
): Measure {
  if (part.kind === "text") return { bits: 0, bytes: utf8Bytes(part.text) };
  if (part.kind === "draw") lists.set(part.variable, part.list);
  const items = grammar.lists[lists.get(part.variable) ?? ""];
  if (!items) throw new Error(`The variable ${part.variable} is used before it is drawn.`);
  const bytes = items.reduce((sum, item) => sum + utf8Bytes(wordForm(item, part.form)), 0) / items.length;
  return { bits: part.kind === "draw" ? Math.log2(items.length - part.except.length) : 0, bytes };
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#join-options
/** A uniform choice: log2 of the number of options, plus the average of what the options cost. */
export function choiceCost(costs: Measure[]): Measure {
  const average = (of: keyof Measure) => costs.reduce((sum, cost) => sum + cost[of], 0) / costs.length;
  return { bits: Math.log2(costs.length) + average("bits"), bytes: average("bytes") };
}

/** After a choice, those variables are known that every option knows. */
export function keepCommon(lists: Map<string, string>, branches: Map<string, string>[]): void {
  for (const [variable, list] of branches[0]) {
    if (branches.every((branch) => branch.has(variable))) lists.set(variable, list);
  }
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#measure-parts
/**
 * The exact expected bits and bytes of the texts that the parts write. Bits of successive choices add up (the chain rule);
 * lengths add up (expectation is linear, and every variable is uniform over its list wherever it is written).
 */
export function measureParts(parts: Part[], grammar: Grammar, lists: Map<string, string>): Measure {
  const total: Measure = { bits: 0, bytes: 0 };
  for (const part of parts) {
    let cost: Measure;
    if (part.kind === "choice") {
      const branches = part.options.map(() => new Map(lists));
      cost = choiceCost(part.options.map((option, i) => measureParts(option, grammar, branches[i])));
      keepCommon(lists, branches);
    } else cost = measurePart(part, grammar, lists);
    total.bits += cost.bits;
    total.bytes += cost.bytes;
  }
  return total;
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#read-part
/** One way in which the start of a text follows from some parts: where it ends, the variables, and the bits so far. */
export interface Derivation {
  at: number;
  bound: Map<string, Item>;
  bits: number;
}

/** Every way to go on from a derivation with one more part that is no choice. */
export function readPart(
  part: Exclude<Part, { kind: "choice" }>,
  grammar: Grammar,
  text: string,
  way: Derivation,
): Derivation[] {
  const read = (written: string, bits: number, bound = way.bound): Derivation[] =>
    text.startsWith(written, way.at) ? [{ at: way.at + written.length, bound, bits: way.bits + bits }] : [];
  if (part.kind === "text") return read(part.text, 0);
  if (part.kind === "again") return read(wordForm(way.bound.get(part.variable)!, part.form), 0);
  const items = drawable(part, grammar, way.bound);
  return items.flatMap((item) =>
    read(wordForm(item, part.form), Math.log2(items.length), new Map(way.bound).set(part.variable, item)),
  );
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#derivations
/** Every way in which `text`, read from `from.at`, can have been written by the parts. */
export function derivations(parts: Part[], grammar: Grammar, text: string, from: Derivation): Derivation[] {
  let ways = [from];
  for (const part of parts) {
    ways = ways.flatMap((way) => {
      if (part.kind !== "choice") return readPart(part, grammar, text, way);
      const chosen = { ...way, bits: way.bits + Math.log2(part.options.length) };
      return part.options.flatMap((option) => derivations(option, grammar, text, chosen));
    });
  }
  return ways;
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#people-and-places
/** Who and what the stories are about. */
export const STORY_LISTS: Grammar["lists"] = {
  name: [
    ...["Mara", "Ines", "Freya", "Selma", "Ruth", "Ayla", "Wilma", "Noor"].map((it) => ({
      it,
      she: "she",
      her: "her",
      hers: "her",
    })),
    ...["Otto", "Luca", "Jonas", "Piet", "Emil", "Hugo", "Tariq", "Bruno"].map((it) => ({
      it,
      she: "he",
      her: "him",
      hers: "his",
    })),
  ],
  look: wordsOf("red, blue, green, golden, silver, tiny, painted, wooden"),
  thing: wordsOf(
    "lantern, kite, drum, key, bell, boat, clock, flute, basket, mirror, marble, whistle, compass, ribbon, box, spoon",
  ),
  food: wordsOf("bread, honey, plums, cheese, soup, apples, nuts, cake"),
  mood: wordsOf("sleepy, hungry, curious, grumpy, clever, lazy, gentle, proud"),
  nook: wordsOf(
    "under the bed, behind the stove, in the barn, on the roof, by the well, in the cupboard, near the gate, under the stairs",
  ),
  place: itemsOf(`it, at
    garden, in
    harbour, at
    mill, at
    forest, in
    market, at
    bridge, on
    hill, on
    tower, in`),
  beast: itemsOf(`it, a, sound
    fox, a fox, barked
    owl, an owl, hooted
    goat, a goat, bleated
    crow, a crow, croaked
    cat, a cat, meowed
    mouse, a mouse, squeaked
    bear, a bear, growled
    goose, a goose, honked`),
};

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#story-phrases
/** Turns of phrase that the stories share. */
export const STORY_PHRASES: Grammar["rules"] = {
  when: [
    "One [morning|evening|night|afternoon]",
    "[Early|Late|One day|Once] in [spring|summer|autumn|winter]",
    "[After|Before] [breakfast|lunch|supper|school]",
    "On [a windy|a rainy|a sunny|the longest] day",
  ],
  glad: ["laughed", "smiled", "clapped", "danced", "sang", "cheered", "beamed", "blushed"],
  sad: ["sighed", "wept", "frowned", "shivered"],
  soon: [
    "Soon",
    "Then",
    "At last",
    "Just before dark",
    "A little later",
    "At noon",
    "All at once",
    "In the end",
  ],
  quickly: ["quickly", "quietly", "slowly", "bravely", "gladly", "carefully", "happily", "calmly"],
  thanks: ["Thank you", "How kind", "You are a good friend", "I will never forget this"],
  sky: [
    "The sun was [warm|high|pale|bright]",
    "The [wind|air] was [cold|soft|still|sweet]",
    "Snow lay on the [fields|roofs|road|trees]",
    "The [stars|swallows|leaves|clouds] were out",
  ],
  search: [
    "<hero.She> looked <nook:nook> and <nook2:nook-nook>",
    "First <hero.she> looked <nook:nook>, then <nook2:nook-nook>",
    "<hero.She> searched @quickly, <nook:nook> and <nook2:nook-nook>",
    "<hero.She> asked <helper:beast.a>, but the <helper> only <helper.sound>; <hero.she> looked <nook:nook>",
  ],
  end: [
    "That night [everyone|the whole house|even the cat|nobody] slept [well|late|soundly|by the fire].",
    "They talked about it for [years|weeks|days|hours], and always @glad.",
    "And the <last:place> was [quiet|bright|merry|still] again.",
    "They walked home past the <last:place>, [hand in hand|singing|in the dark|by moonlight].",
    "Since then <hero> [often|always|never|seldom] goes out alone.",
    "After that they shared [some|all the|a little|warm] <treat:food>.",
    "It was a [good|fine|long|strange] day <last:place.at> the <last>.",
    "<hero> kept the <thing> [for years|near the door|close by|<nook3:nook>].",
  ],
};

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#story-lost
/** Stories of things lost and given. Each begins with its title. */
export const GIFT_STORIES: string[] = [
  `The <look:look> <thing:thing>
[@when <hero:name> could not find <hero.hers> <look> <thing>|@when the <look> <thing> of <hero:name> was gone|<hero:name> had lost <hero.hers> <look> <thing>|@when <hero:name> missed <hero.hers> <look> <thing>]. @search, but [it was not there|found only dust|found only some <meal:food>|saw only a <mood:mood> dog]. <hero> @sad.
@soon <friend:name-hero> came [back|home] from the <place:place>. "[Is this yours?|Did you lose this?|Do you know this?|Look what I found!]" said <friend>, and [held up|held out|brought out|unwrapped] the <look> <thing>. <hero> @glad. "@thanks, <friend>!" @end`,
  `A gift for <friend:name>
[@sky. It was the birthday of <friend>, and|@when it was the birthday of <friend>, and|@sky, and] <hero:name-friend> wanted to [make|find|buy|build] a <look:look> <thing:thing> for <friend.her>. <hero.She> [worked|hummed and worked|went to work|toiled] @quickly, <nook:nook>, until it was [done|ready|right|perfect].
"[What is it?|Is it for me?|What do you have there?|May I open it?]" asked <friend>. It was the <look> <thing>! <friend> @glad. "@thanks, <hero>," said <friend.she> @quickly. @end`,
  `<hero:name> and the <mood:mood> <beast:beast>
@when <hero> met <beast.a> [near|behind|beside|not far from] the <place:place>. The <beast> was <mood>, and <beast.sound> @quickly. "[I am hungry|I am cold|I am lost|I am tired]," it said. So <hero> gave it [some|half of the|a bit of|all the] <meal:food>, and it ate @quickly.
@soon <hero> dropped <hero.hers> <look:look> <thing:thing> into the [river|well|mud|snow]. <hero.She> @sad. But the <mood> <beast> <beast.sound>, [jumped in|ran over|came back|set out] and brought the <look> <thing> back. "@thanks, <beast>!" said <hero>. @end`,
];

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#story-adventures
/** Stories of races, storms, soup and questions. */
export const ADVENTURE_STORIES: string[] = [
  `The race to the <goal:place>
"[Who is faster|Shall we race|Can you beat me|Do you dare to run], <friend:name>?" asked <hero:name-friend>. @sky. They ran past the <place:place-goal> and over the [stones|grass|wall|ditch]. <hero> ran @quickly, but <friend> ran [faster|better|like the wind|on and on].
<friend> was first <goal.at> the <goal>, and won a <look:look> <thing:thing>. <hero> @sad. "[Take it|Keep it|You may have it|It is for both of us], <hero>," said <friend> @quickly. <hero> @glad, and took the <look> <thing>. @end`,
  `A storm <place:place.at> the <place>
@when a storm came, and <hero:name> and <friend:name-hero> hid <nook:nook>. They had only [some|a bit of|a little|old] <meal:food> and a <look:look> <thing:thing>. "[I am afraid|It is so dark|Will it end|Hold my hand]," said <friend>. <hero> lifted the <look> <thing> and told <friend.her> about a <mood:mood> <beast:beast> who [could sing|lost a shoe|found the moon|feared the rain].
<friend> @glad. @soon the storm was over, and they ate the <meal> @quickly. "@thanks, <hero>," said <friend>. @end`,
  `Soup for <friend:name>
<friend> was [ill|sad|tired|cold], so <hero:name-friend> made soup of [old|sweet|warm|fresh] <meal:food> and <more:food-meal>. @sky. "[It needs salt|It smells good|Taste it first|Not so fast]," said <beast:beast.a> <nook:nook>. <hero> stirred the <meal> and the <more> @quickly with a <look:look> <thing:thing>.
<friend> ate @quickly. "[What is in it?|Is there more?|Who taught you this?|Who was here?]" asked <friend>. "<meal.It> and <more>," said <hero>, and @glad, "and the <beast> helped." @end`,
  `What the <beast:beast> knew
"[Where does the wind sleep|Who paints the leaves|Why is the sea salty|Where do the stars go]?" asked <hero:name>. @when <hero.she> asked <friend:name-hero>, <place:place.at> the <place>, but <friend> only @glad. "Ask the <mood:mood> <beast>," said <friend>. "It lives <nook:nook>."
The <beast> <beast.sound> @quickly. "[I know|I forgot|Ask me tomorrow|That is a secret]," it said, "but bring me a <look:look> <thing:thing>." So <hero> and <friend> brought the <mood> <beast> a <look> <thing>, and it told them [everything|nothing|half of it|a long tale]. @end`,
];

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#sum-lists
/** Every pair of numbers from..to that `fact` accepts, as the item that it makes of them. */
export function numberPairs(
  from: number,
  to: number,
  fact: (a: number, b: number) => Item | undefined,
): Item[] {
  const numbers = Array.from({ length: to - from + 1 }, (_, i) => from + i);
  return numbers
    .flatMap((a) => numbers.map((b) => fact(a, b)))
    .filter((item): item is Item => item !== undefined);
}

/** Facts of arithmetic, each an item: two numbers and what comes out. */
export const SUM_LISTS: Grammar["lists"] = {
  sum: numberPairs(2, 9, (a, b) => ({ it: `${a}`, b: `${b}`, c: `${a + b}` })),
  easy: numberPairs(1, 8, (a, b) => (a + b < 10 ? { it: `${a}`, b: `${b}`, c: `${a + b}` } : undefined)),
  less: numberPairs(1, 9, (a, b) => (a - b > 1 ? { it: `${a}`, b: `${b}`, c: `${a - b}` } : undefined)),
  product: numberPairs(2, 9, (a, b) => ({ it: `${a}`, b: `${b}`, c: `${a * b}` })),
  seller: wordsOf("baker, farmer, tailor, fisher, potter, miller, grocer, florist"),
  goods: wordsOf("rolls, eggs, coats, shells, cups, sacks, lemons, roses"),
};

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#sum-templates
/** Arithmetic, with its working shown. */
export const SUM_TEMPLATES: string[] = [
  "What is <t:easy><o:easy> + <t.b><o.b>? Tens: <t>0 + <t.b>0 = <t.c>0. Ones: <o> + <o.b> = <o.c>. Sum: <t.c><o.c>.",
  `The <seller:seller> has <s:sum> <goods:goods> and [gets|buys|makes|finds] <s.b> more. <s> + <s.b> = <s.c>, so there are <s.c> <goods>.`,
  `The <seller:seller> has <s:less> <goods:goods> and [sells|loses|breaks|gives away] <s.b>. <s> - <s.b> = <s.c>, so <s.c> <goods> are left.`,
  `The <goods:goods> cost <p:product> coins each. How much are <p.b>? <p.b> x <p> = <p.c>, so the <seller:seller> takes <p.c> coins.`,
  "Add and multiply: <p:product> x <p.b> = <p.c>, <r:sum> + <r.b> = <r.c>, <q:product> x <q.b> = <q.c>, <s:sum> + <s.b> = <s.c>.",
  "Digits: <a:digit> <b:digit> <c:digit> <d:digit> <e:digit>. Backwards: <e> <d> <c> <b> <a>. Again: <a> <b> <c> <d> <e>.",
];

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#code-lists
/** A small function applied to a number: what it is called, what it does, and what comes out. */
export function callFacts(name: string, body: string, apply: (x: number) => number): Item[] {
  return Array.from({ length: 8 }, (_, i) => ({ it: name, body, x: `${i + 2}`, y: `${apply(i + 2)}` }));
}

/** Names for parameters and variables, and function calls with their results. */
export const CODE_LISTS: Grammar["lists"] = {
  parameter: wordsOf("x, n, k, value, count, size, width, step"),
  variable: wordsOf("total, result, answer, score, level, limit, amount, index"),
  call: [
    ...callFacts("double", "* 2", (x) => 2 * x),
    ...callFacts("triple", "* 3", (x) => 3 * x),
    ...callFacts("addOne", "+ 1", (x) => x + 1),
    ...callFacts("addTen", "+ 10", (x) => x + 10),
    ...callFacts("minusOne", "- 1", (x) => x - 1),
    ...callFacts("minusTwo", "- 2", (x) => x - 2),
  ],
  rank: numberPairs(1, 9, (a, b) =>
    a === b ? undefined : { it: `${a}`, b: `${b}`, more: `${a > b}`, max: `${Math.max(a, b)}` },
  ),
  label: wordsOf("ready, done, open, closed, empty, full, early, late"),
};

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#code-templates
/** Small programs whose last line follows from the lines before it. */
export const CODE_TEMPLATES: string[] = [
  `function <f:call>(<p:parameter>) {
  return <p> <f.body>;
}
const <v:variable> = <f>(<f.x>);
[console.log|print|assert|show](<v>); // <f.y>`,
  `const <f:call> = (<p:parameter>) => <p> <f.body>;
let <v:variable> = <f.x>;
<v> = <f>(<v>);
[console.log|print|assert|show](<v>); // <f.y>`,
  `let <v:variable> = <s:sum>;
const <w:variable-v> = <s.b>;
<v> += <w>;
[console.log|print|assert|show](<v>); // <s.c>`,
  `const <v:variable> = <r:rank>;
const <w:variable-v> = <r.b>;
if (<v> > <w>) {
  [console.log|print|assert|show](<v>);
} else {
  [console.log|print|assert|show](<w>);
} // <r.max>`,
  `let <v:variable> = "<l:label>";
while (<v> === "<l>") {
  <v> = "<m:label-l>";
}
[console.log|print|assert|show](<v>); // <m>`,
];

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#record-lists
/** What the records are about: cities with their countries, days with the day after. */
export const RECORD_LISTS: Grammar["lists"] = {
  digit: wordsOf("0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
  city: itemsOf(`it, country
    Oslo, Norway
    Bergen, Norway
    Lima, Peru
    Cusco, Peru
    Cairo, Egypt
    Luxor, Egypt
    Osaka, Japan
    Kyoto, Japan`),
  day: itemsOf(`it, next
    Monday, Tuesday
    Tuesday, Wednesday
    Wednesday, Thursday
    Thursday, Friday
    Friday, Saturday
    Saturday, Sunday
    Sunday, Monday`),
  ware: wordsOf("lamp, chair, radio, tent, rope, scale, globe, violin"),
  state: wordsOf("new, paid, sent, lost"),
  weather: wordsOf("rain, snow, fog, wind, sun, hail, frost, haze"),
};

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#record-templates
/** Records, one JSON object a line, whose fields agree with each other. */
export const RECORD_TEMPLATES: string[] = [
  `{"order": <a:digit><b:digit><c:digit><d:digit>, "item": "<w:ware>", "price": <p:product>, "count": <p.b>, "total": <p.c>}
{"order": <a><b><c><d>, "city": "<y:city>", "country": "<y.country>", "state": "<s:state>"}`,
  `{"user": <a:digit><b:digit><c:digit><d:digit>, "city": "<y:city>", "country": "<y.country>"}
{"user": <a><b><c><d>, "[likes|owns|rents|wants]": "<w:ware>", "since": "<day:day>"}`,
  `{"city": "<y:city>", "country": "<y.country>", "<day:day>": "<s:weather>", "<day.next>": "<t:weather>", "low": <l:less.b>, "high": <l>}`,
  `{"from": "<y:city>", "to": "<z:city-y>", "train": <a:digit><b:digit><c:digit>, "day": "<day:day>"}
{"train": <a><b><c>, "[late|full|on time|cancelled]": true, "in": "<z.country>"}`,
  `{"key": "<a:digit><b:digit><c:digit><d:digit><e:digit><f:digit>", "[at|by|for|near]": "<y:city>", "item": "<w:ware>"}
{"key": "<a><b><c><d><e><f>", "country": "<y.country>", "item": "<v:ware-w>", "not": "<w>"}`,
];

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#domains-parts
/** One kind of document: its name, its share of the documents, and its templates. */
export interface Domain {
  name: string;
  share: number;
  parts: Part[];
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#domains
/** All lists and phrases together. */
export const GRAMMAR: Grammar = {
  lists: { ...STORY_LISTS, ...SUM_LISTS, ...CODE_LISTS, ...RECORD_LISTS },
  rules: {
    ...STORY_PHRASES,
    story: [...GIFT_STORIES, ...ADVENTURE_STORIES],
    arithmetic: SUM_TEMPLATES,
    code: CODE_TEMPLATES,
    record: RECORD_TEMPLATES,
  },
};

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#domains-helpers
/** The four domains of the corpus. Shares are of documents; a story is longer than a sum. */
export const DOMAINS: Domain[] = [
  { name: "story", share: 0.4, parts: parseTemplate("@story", GRAMMAR.rules) },
  { name: "arithmetic", share: 0.2, parts: parseTemplate("@arithmetic", GRAMMAR.rules) },
  { name: "code", share: 0.2, parts: parseTemplate("@code", GRAMMAR.rules) },
  { name: "record", share: 0.2, parts: parseTemplate("@record", GRAMMAR.rules) },
];

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#synthetic-documents-parts
/** A domain, with the probability that is its share. */
export function chooseDomain(random: () => number): Domain {
  let at = random();
  for (const domain of DOMAINS) {
    if (at < domain.share) return domain;
    at -= domain.share;
  }
  return DOMAINS[0]; // the shares add up to 1 but for rounding
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#synthetic-documents
/** What stands after each document: the end of its last line, and an empty line. No document has one inside. */
export const DOCUMENT_END = "\n\n";

/** A document of the corpus: its domain, its text with the blank line after it, and how it was made. */
export interface SyntheticDocument {
  domain: string;
  text: string;
  /** -log2 of the document's probability. */
  bits: number;
  steps: Step[];
}

/** The endless corpus of a seed, document by document. */
export function* syntheticDocuments(seed: number): Generator<SyntheticDocument> {
  const random = randomStream(seed);
  for (;;) {
    const domain = chooseDomain(random);
    const steps = sampleParts(domain.parts, GRAMMAR, new Map(), random);
    steps[0].bits -= Math.log2(domain.share);
    steps.push({ text: DOCUMENT_END, bits: 0 });
    const bits = steps.reduce((sum, step) => sum + step.bits, 0);
    yield { domain: domain.name, text: steps.map((step) => step.text).join(""), bits, steps };
  }
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#synthetic-entropy
/** The entropy of a domain or of the corpus. */
export interface Entropy {
  bitsPerDocument: number;
  bytesPerDocument: number;
  bitsPerByte: number;
}

/** Entropy of a mean document: bits over bytes. */
export function entropyOf({ bits, bytes }: Measure): Entropy {
  return { bitsPerDocument: bits, bytesPerDocument: bytes, bitsPerByte: bits / bytes };
}

/**
 * The exact entropy of the corpus, from the grammar alone: H = (sum of share * (H(domain) - log2 share)) / (mean bytes).
 * No model of these bytes can have a lower expected loss.
 */
export function syntheticEntropy(): Entropy & { domains: { [name: string]: Entropy } } {
  const domains: { [name: string]: Entropy } = {};
  const total: Measure = { bits: 0, bytes: 0 };
  for (const { name, share, parts } of DOMAINS) {
    const { bits, bytes } = measureParts(parts, GRAMMAR, new Map());
    domains[name] = entropyOf({ bits, bytes: bytes + DOCUMENT_END.length });
    total.bits += share * (bits - Math.log2(share));
    total.bytes += share * (bytes + DOCUMENT_END.length);
  }
  return { ...entropyOf(total), domains };
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#document-bits
/**
 * -log2 of the exact probability of a document, found by reading it against the grammar; Infinity if the grammar cannot
 * write it. All ways to derive it are added up, though there is never more than one.
 */
export function documentBits(text: string): number {
  let probability = 0;
  for (const { share, parts } of DOMAINS) {
    for (const way of derivations(parts, GRAMMAR, text, { at: 0, bound: new Map(), bits: 0 })) {
      if (text.slice(way.at) === DOCUMENT_END) probability += share * 2 ** -way.bits;
    }
  }
  return -Math.log2(probability);
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#gathered
/** Joins small strings to strings of at least `size` characters (but for the last). */
export function* gathered(texts: Iterable<string>, size: number): Generator<string> {
  let parts: string[] = [];
  let length = 0;
  for (const text of texts) {
    parts.push(text);
    length += text.length;
    if (length < size) continue;
    yield parts.join("");
    [parts, length] = [[], 0];
  }
  if (length > 0) yield parts.join("");
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#synthetic-text
/** The first `bytes` bytes of the corpus of a seed, in pieces of whole documents; the last one is cut short. */
export function* syntheticText(seed: number, bytes: number): Generator<string> {
  let left = bytes;
  for (const { text } of syntheticDocuments(seed)) {
    const piece = text.slice(0, left); // the corpus is ASCII: characters are bytes
    left -= piece.length;
    if (piece) yield piece;
    if (left === 0) return;
  }
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#own-corpus
/** What is known about a synthetic corpus; stands beside it as FILE.json. */
export interface SyntheticCard {
  kind: "synthetic";
  seed: number;
  bytes: number;
  sha256: string;
  entropy_bits_per_byte: number;
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#own-corpus-helpers
/** Throws unless `file` and `file.json` are free, or hold a corpus as it was written here: only that may be written over. */
export function checkOwnCorpus(file: string): void {
  const note = `${file}.json`;
  const other = (name: string) =>
    new Error(`${name} exists, and is not what tslm data synth wrote: name another file.`);
  let card: Partial<SyntheticCard> | undefined;
  if (fs.existsSync(note)) {
    try {
      card = JSON.parse(fs.readFileSync(note, "utf8"));
    } catch {} // it is not JSON, hence another program's
    if (card?.kind !== "synthetic") throw other(note);
  }
  const found = fs.statSync(file, { throwIfNoEntry: false });
  if (!found) return;
  const same = found.isFile() && found.size === card?.bytes && fileChecksum(file) === card.sha256;
  if (!same) throw other(file);
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#write-synthetic
/**
 * Writes `bytes` bytes of the corpus of a seed to `file`, and what is known about it to `file.json`. Throws one sentence, and
 * touches nothing, if something else lies there.
 */
export function writeSynthetic(
  file: string,
  seed: number,
  bytes: number,
  onBytes: (done: number) => void = () => {},
): SyntheticCard {
  checkOwnCorpus(file);
  const hash = crypto.createHash("sha256");
  let done = 0;
  const fill = (write: Write) => {
    for (const text of gathered(syntheticText(seed, bytes), 2 ** 20)) {
      hash.update(text);
      write(text);
      done += text.length;
      onBytes(done);
    }
  };
  let card: SyntheticCard | undefined;
  writeWhole(file, fill, () => {
    const base = { kind: "synthetic" as const, seed, bytes, sha256: hash.digest("hex") };
    card = { ...base, entropy_bits_per_byte: syntheticEntropy().bitsPerByte };
    // Whenever we are stopped, the card never stands beside a corpus that it does not fit.
    fs.rmSync(realPlace(file), { force: true });
    replaceFile(`${file}.json`, `${JSON.stringify(card, null, 2)}\n`);
  });
  return card!;
}
