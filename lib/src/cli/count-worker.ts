// A worker thread that counts the pieces of the texts it is sent, one after the other.
import { parentPort } from "node:worker_threads";
import { countBlock } from "../tokenizer/merges.js";
import { patternSplitter, PATTERNS } from "../tokenizer/pretokenize.js";

const splitter = patternSplitter(PATTERNS.house);

parentPort!.on("message", (text: string) => parentPort!.postMessage(countBlock(text, splitter)));
