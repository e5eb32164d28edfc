// What an answer's text looks like: a little Markdown as blocks of parts, and the tokens as places in the text. Pure functions.

/** A way of writing that stands between two marks. */
const INLINE = [
  { mark: "`", tag: "code" },
  { mark: "**", tag: "strong" },
  { mark: "*", tag: "em" },
];

/**
 * Parts of a line of text, `{start, end, tag}`, without the marks around code, strong and emphasised words. An opening mark
 * stands before a word, a closing one after it, so that the stars of `2 * 3 * 4` stay.
 */
function inlineParts(text, from, to) {
  const parts = [];
  let plainFrom = from;
  const add = (start, end, tag) => start < end && parts.push({ start, end, tag });
  for (let at = from; at < to; at++) {
    const way = INLINE.find((one) => text.startsWith(one.mark, at));
    if (!way) continue;
    const { mark, tag } = way;
    const inside = at + mark.length;
    const close = text.indexOf(mark, inside + 1);
    if (close < 0 || close + mark.length > to || /\s/.test(text[inside]) || /\s/.test(text[close - 1])) {
      at = inside - 1;
      continue;
    }
    add(plainFrom, at, "span");
    add(inside, close, tag);
    plainFrom = close + mark.length;
    at = plainFrom - 1;
  }
  add(plainFrom, to, "span");
  return parts;
}

/** Lines of a text as `[start, end]`, without their ends. */
function lines(text) {
  const ends = [];
  for (let start = 0; start <= text.length; ) {
    const newline = text.indexOf("\n", start);
    const end = newline < 0 ? text.length : newline;
    ends.push([start, end]);
    start = end + 1;
  }
  return ends;
}

/**
 * A text as blocks `{kind, language?, start, end, parts}`: code between fences, headings, items of lists, paragraphs of
 * what the model thinks first (between `<think>` and `</think>`) and of its answer, in which lines stay as they are. Parts are places in the text with the tag that they get.
 */
export function textBlocks(text) {
  const blocks = [];
  let paragraph;
  let fence;
  let isThought = false;
  for (const [start, end] of lines(text)) {
    const line = text.slice(start, end);
    if (!fence && /^\s*<\/?think>\s*$/.test(line)) {
      isThought = !line.includes("/");
      paragraph = undefined;
      continue;
    }
    const [, ticks, language] = /^\s{0,3}(```+)\s*([\w+#.-]*)\s*$/.exec(line) ?? [];
    if (fence) {
      if (ticks && language === "" && ticks.length >= fence.ticks) fence = undefined;
      else {
        const [part] = fence.block.parts;
        if (part) part.end = end;
        else fence.block.parts = [{ start, end, tag: "span" }];
        fence.block.end = end;
      }
      continue;
    }
    const heading = /^#{1,6}\s+/.exec(line);
    const item = /^\s*[-*+]\s+/.exec(line);
    if (ticks) {
      const block = { kind: "code", language, start, end, parts: [] };
      blocks.push(block);
      fence = { ticks: ticks.length, block };
      paragraph = undefined;
    } else if (heading || item) {
      const parts = inlineParts(text, start + (heading ?? item)[0].length, end);
      blocks.push({ kind: heading ? "heading" : "item", start, end, parts });
      paragraph = undefined;
    } else if (line.trim() === "") paragraph = undefined;
    else if (paragraph) {
      paragraph.end = end;
      paragraph.parts = inlineParts(text, paragraph.start, end);
    } else {
      const kind = isThought ? "thought" : "paragraph";
      paragraph = { kind, start, end, parts: inlineParts(text, start, end) };
      blocks.push(paragraph);
    }
  }
  return blocks;
}

/** A text as it is, as one block. */
export function plainBlocks(text) {
  const whole = { start: 0, end: text.length };
  return text === "" ? [] : [{ kind: "paragraph", ...whole, parts: [{ ...whole, tag: "span" }] }];
}

/**
 * Where tokens stand in a text: `{start, end, tokens}`, the indices of several tokens where they share a character. A token is
 * known by its bytes. The text may have lost a blank at its beginning; tokens that are not of it, such as marks, have no place.
 */
export function tokenPlaces(text, tokenBytes) {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const places = [];
  let pending = [];
  let at = 0;
  for (const [index, bytes] of tokenBytes.entries()) {
    let piece = decoder.decode(Uint8Array.from(bytes), { stream: true });
    pending.push(index);
    if (piece === "") continue;
    if (at === 0 && piece.startsWith(" ") && !text.startsWith(" ")) piece = piece.slice(1);
    const shown = text.slice(at, at + piece.length);
    if (!piece.startsWith(shown)) {
      pending = [];
      continue;
    }
    if (shown !== "") places.push({ start: at, end: at + shown.length, tokens: pending });
    at += shown.length;
    pending = [];
    if (shown.length < piece.length) break;
  }
  return places;
}

/** Parts cut where tokens begin, each with the place of a token that it belongs to: `{start, end, tag, place?}`. */
export function cutAtTokens(parts, places) {
  const cut = [];
  let next = 0;
  for (const { start, end, tag } of parts) {
    while (next < places.length && places[next].end <= start) next++;
    let at = start;
    for (let i = next; at < end; i++) {
      const place = places[i];
      const to = place ? Math.min(end, place.start <= at ? place.end : place.start) : end;
      cut.push({ start: at, end: to, tag, place: place && place.start <= at ? i : undefined });
      if (place && place.start > at) i--;
      at = to;
    }
  }
  return cut;
}

/** A token's text with blanks and line ends made visible. */
export function visible(token) {
  if (token === "") return "(end)";
  return token.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}
