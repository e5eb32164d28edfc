// A worker thread that counts the pieces of the lists of texts it is sent, one after the other.
import { parentPort } from "node:worker_threads";
import { countPieces } from "../tokenizer/merges.js";
import { patternSplitter, PATTERNS } from "../tokenizer/pretokenize.js";

const splitter = patternSplitter(PATTERNS.house);

parentPort!.on("message", (texts: string[]) => parentPort!.postMessage(countPieces(texts, splitter)));
