// Extracted from chapters/01-tokenizer/6-a-corpus-you-can-answer-for.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import {
  chooseBands,
  contentHash,
  hashSet,
  meetingChance,
  nearIndex,
  recentIndex,
  shingleHashes,
  signatureSimilarity,
  textSignature,
  wordHashes,
} from "../../src/data/duplicates.js";
import { randomStream } from "../../src/data/random.js";

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#hash-set-test
await test("a set of hashes is JavaScript's own set", () => {
  const random = randomStream(1);
  const [ours, theirs] = [hashSet(), new Set<string>()];
  let wrong = 0;
  for (let i = 0; i < 12_000; i++) {
    const [high, low] = [Math.floor(random() * 300) * 2 ** 23, Math.floor(random() * 100)];
    const known = theirs.has(`${high} ${low || 1}`);
    theirs.add(`${high} ${low || 1}`);
    if (ours.has(high, low) !== known || ours.add(high, low) === known) wrong++;
  }
  expect(wrong).toBe(0);
  expect(ours.size).toBe(theirs.size);
});

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#content-hash-test
await test("texts that differ in white space alone have one hash, others have another", () => {
  const same = ["a b\nc", "  a   b c", "a\tb\r\n\r\nc\n"].map((text) => contentHash(text).join());
  expect(new Set(same).size).toBe(1);
  const others = ["a b c", "ab c", "a b C", "a b c.", ""].map((text) => contentHash(text).join());
  expect(new Set([...same, ...others]).size).toBe(5);
});

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#plain-shingles
/** The words of a text in lower case: runs of letters and digits, and each character of Chinese or Japanese by itself. */
function plainWords(text: string): string[] {
  return (
    text.toLowerCase().match(/[\u2e80-\u2fff\u3040-\u9fff]|(?:(?![\u2e80-\u9fff])[\p{L}\p{N}])+/gu) ?? []
  );
}

/** All runs of five words; of a text with fewer words, the run of those it has. */
function plainShingles(words: string[]): Set<string> {
  const count = Math.max(words.length > 0 ? 1 : 0, words.length - 4);
  return new Set(Array.from({ length: count }, (_, i) => words.slice(i, i + 5).join(" ")));
}

/** What two sets have in common, as a share of what either has. */
function jaccard<T>(a: Set<T>, b: Set<T>): number {
  let common = 0;
  for (const each of a) if (b.has(each)) common++;
  return common / (a.size + b.size - common);
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#shingle-test
await test("hashed shingles are as many as the plain ones, and equal where those are", () => {
  const random = randomStream(3);
  const pieces = "the|The|fox|Grüße|ÉTÉ|été|7|42nd|日本|語| |, |\n|…|“|(|don't|x".split("|");
  const known = new Map<number, string>();
  for (let round = 0; round < 3000; round++) {
    const text = Array.from(
      { length: Math.floor(random() * 20) },
      () => pieces[Math.floor(random() * pieces.length)],
    ).join("");
    const words = plainWords(text);
    expect(wordHashes(text).length).toBe(words.length);
    const hashes = shingleHashes(wordHashes(text));
    for (let i = 0; i < hashes.length; i++) {
      const shingle = words.slice(i, i + 5).join(" ");
      expect(known.get(hashes[i]) ?? shingle).toBe(shingle); // no two shingles share a hash
      known.set(hashes[i], shingle);
    }
    expect(new Set(hashes).size).toBe(plainShingles(words).size);
  }
});

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#planted
/** A document of random words, common ones often and rare ones rarely. */
function randomWords(random: () => number, length: number): string[] {
  return Array.from({ length }, () => `w${Math.floor(20_000 ** random()).toString(36)}`);
}

/** A copy with some of its words replaced, so many that about the share `similarity` of all shingles stays (J, in expectation). */
function editedCopy(words: string[], similarity: number, random: () => number): string[] {
  const shared = (2 * similarity) / (1 + similarity); // of each text's own shingles
  const each = 1 - shared ** (1 / 5); // a shingle survives if none of its five words is replaced
  return words.map((word) => (random() < each ? randomWords(random, 1)[0] : word));
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#minhash-test
await test("signatures estimate the Jaccard similarity without bias, as closely as 128 throws of a coin", () => {
  const random = randomStream(5);
  for (const similarity of [0.2, 0.5, 0.8, 0.95]) {
    let [sum, squares] = [0, 0];
    for (let round = 0; round < 400; round++) {
      const words = randomWords(random, 40 + Math.floor(random() * 200));
      const copy = editedCopy(words, similarity, random);
      const exact = jaccard(plainShingles(words), plainShingles(copy));
      const error =
        signatureSimilarity(textSignature(words.join(" ")), textSignature(copy.join(", "))) - exact;
      sum += error;
      squares += error ** 2;
    }
    const expected = (similarity * (1 - similarity)) / 128;
    expect(Math.abs(sum / 400)).toBeLessThan(5 * Math.sqrt(expected / 400)); // five standard errors of the mean
    expect(squares / 400).toBeLessThan(1.5 * expected + 1e-4);
  }
  expect(signatureSimilarity(textSignature("?!"), textSignature("... !"))).toBeLessThan(0.1); // no words in either
  expect(textSignature("One Two, three")).toEqual(textSignature("one two three"));
});

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#planted-set
/** Documents one after the other: new ones, and copies of those with their exact similarity. */
function* plantedSet(count: number, seed: number): Generator<{ text: string; similarity: number }> {
  const random = randomStream(seed);
  const originals: string[][] = [];
  for (let i = 0; i < count; i++) {
    const kind = originals.length > 0 ? random() : 1;
    if (kind >= 0.2) {
      originals.push(randomWords(random, 50 + Math.floor(random() * 150)));
      yield { text: originals[originals.length - 1].join(" "), similarity: 0 };
    } else {
      const words = originals[Math.floor(random() * originals.length)];
      const copy = editedCopy(words, kind < 0.1 ? 0.8 + 0.2 * random() : 0.8 * random(), random);
      yield { text: copy.join(" "), similarity: jaccard(plainShingles(words), plainShingles(copy)) };
    }
  }
}

/** What the index finds in a planted set: for each document its exact similarity to an earlier one, and whether it was dropped. */
function findPlanted(count: number, seed: number): { similarity: number; dropped: boolean }[] {
  const index = nearIndex(0.8);
  return [...plantedSet(count, seed)].map(({ text, similarity }) => ({
    similarity,
    dropped: index.findOrAdd(textSignature(text)) !== undefined,
  }));
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#near-index-test
await test("at least 95 % of near-duplicates are found and under 1 % of other documents dropped", () => {
  const planted = findPlanted(6000, 7);
  const share = (of: { dropped: boolean }[]) => of.filter(({ dropped }) => dropped).length / of.length;
  const near = planted.filter(({ similarity }) => similarity >= 0.8);
  expect(near.length).toBeGreaterThan(300);
  expect(share(near)).toBeGreaterThan(0.95);
  expect(share(planted.filter(({ similarity }) => similarity < 0.8))).toBeLessThan(0.01);
});

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#same-index-test
await test("what was taken in is found again by its number, also in full buckets and grown tables", () => {
  const random = randomStream(8);
  const texts = Array.from({ length: 3000 }, () => randomWords(random, 60).join(" "));
  const index = nearIndex();
  for (const text of texts) expect(index.findOrAdd(textSignature(text))).toBeUndefined();
  expect(index.size).toBe(3000);
  for (const [document, text] of texts.entries())
    expect(index.findOrAdd(textSignature(text.toUpperCase()))).toEqual({ document, similarity: 1 });
  expect(index.size).toBe(3000);
  const footer = randomWords(random, 40);
  const pages = Array.from({ length: 300 }, () => [...randomWords(random, 20), ...footer].join(" ")); // J of about 0.5 among them
  for (const page of pages) index.findOrAdd(textSignature(page));
  for (const page of pages) expect(index.findOrAdd(textSignature(page))).toBeDefined();
});

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#recent-index-test
await test("an index of generations finds the last one or two of them, by their numbers, and forgets what is older", () => {
  const random = randomStream(9);
  const signatures = Array.from({ length: 250 }, () => textSignature(randomWords(random, 60).join(" ")));
  const index = recentIndex(0.8, 100);
  for (const signature of signatures) expect(index.findOrAdd(signature)).toBeUndefined();
  expect(index.size).toBe(250);
  signatures.forEach((signature, document) =>
    expect(index.find(signature)).toEqual(document < 100 ? undefined : { document, similarity: 1 }),
  );
});

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#bands-test
await test("bands are as long as the wish to find allows", () => {
  for (const threshold of [0.5, 0.7, 0.8, 0.9]) {
    const { bands, rows } = chooseBands(threshold);
    expect(bands * rows).toBeLessThanOrEqual(128);
    expect(meetingChance(threshold, bands, rows)).toBeGreaterThanOrEqual(0.99);
    expect(meetingChance(threshold, Math.floor(128 / (rows + 1)), rows + 1)).toBeLessThan(0.99);
  }
  expect(chooseBands(0.8)).toEqual({ bands: 16, rows: 6 });
  expect(() => chooseBands(0.01)).toThrow("is too low");
});
