// Extracted from chapters/04-training/7-checkpoints.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { tensor } from "../../src/tensor/tensor.js";
import {
  latestCheckpoint,
  listCheckpoints,
  savedArrays,
  tensorBytes,
  writeCheckpoint,
} from "../../src/train/checkpoint.js";

//| 04-training/7-checkpoints.ipynb#tensor-bytes-test
await openGpu();

await test("tensors come back from their bytes with the same bits, whatever the bits are", async () => {
  const bits = Uint32Array.from({ length: 1000 }, (_, i) => Math.imul(i + 1, 2654435761));
  bits.set([0, 0x80000000, 1, 0x7f800000, 0xff7fffff]); // 0, -0, the smallest number, infinity, the most negative
  const numbers = new Float32Array(bits.buffer);
  const bytes = await tensorBytes(
    new Map([
      ["a.velocity", tensor(numbers, [10, 100])],
      ["b", tensor([1.5])],
    ]),
  );
  const back = savedArrays(bytes);
  expect(new Uint32Array(back.get("a.velocity")!.slice().buffer)).toEqual(bits);
  expect([...back.get("b")!]).toEqual([1.5]);
});

//| 04-training/7-checkpoints.ipynb#checkpoint-tests
function withFolder(work: (folder: string) => void): void {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-checkpoint-"));
  try {
    work(folder);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

function someFiles(seed: number): Map<string, Uint8Array> {
  const bytes = (size: number) => Uint8Array.from({ length: size }, (_, i) => (i * seed * 31) >> 3);
  return new Map([
    ["model.safetensors", bytes(3000)],
    ["config.json", bytes(90)],
    ["empty", bytes(0)],
  ]);
}

const someState = (step: number) => ({
  step,
  tokens: step * 7,
  seed: 3,
  cursor: { epoch: 1, position: step },
});

await test("a checkpoint is read back as it was written, and the newest two are kept", () => {
  withFolder((folder) => {
    expect(latestCheckpoint(folder)).toBeUndefined();
    for (const step of [5, 999_999, 1_000_000]) writeCheckpoint(folder, someState(step), someFiles(step));
    expect(fs.readdirSync(folder).sort()).toEqual(["step-1000000", "step-999999"]);
    expect(latestCheckpoint(folder)).toEqual({ state: someState(1_000_000), files: someFiles(1_000_000) });
    writeCheckpoint(folder, someState(1_000_000), someFiles(2)); // once more, after going on from it
    expect(latestCheckpoint(folder)!.files).toEqual(someFiles(2));
    fs.rmSync(path.join(folder, "step-1000000", "empty"));
    expect(() => latestCheckpoint(folder)).toThrow("To go on from step-999999, the checkpoint before it");
  });
});

//| 04-training/7-checkpoints.ipynb#damage-tests
await test("damage to any file at any place is found and named", () => {
  withFolder((folder) => {
    const newest = writeCheckpoint(folder, someState(7), someFiles(7));
    for (const name of fs.readdirSync(newest)) {
      const file = path.join(newest, name);
      const good = fs.readFileSync(file);
      for (let at = 0; at < good.length; at += 37) {
        const bad = Buffer.from(good);
        bad[at] ^= 1 << (at % 8);
        fs.writeFileSync(file, bad);
        expect(() => latestCheckpoint(folder)).toThrow(`${file} is damaged`);
      }
      fs.writeFileSync(file, good);
      fs.rmSync(file);
      expect(() => latestCheckpoint(folder)).toThrow(`${file} is damaged: it is missing`);
      fs.writeFileSync(file, good);
    }
    expect(latestCheckpoint(folder)!.state).toEqual(someState(7));
  });
});

//| 04-training/7-checkpoints.ipynb#unfinished-tests
await test("what a kill leaves in the middle of writing or removing is no checkpoint, and is cleaned up", () => {
  withFolder((folder) => {
    writeCheckpoint(folder, someState(1), someFiles(1));
    writeCheckpoint(folder, someState(2), someFiles(2));
    const leftOver = [".step-000003.partial", ".step-000001.removed"];
    for (const name of leftOver)
      fs.cpSync(path.join(folder, "step-000002"), path.join(folder, name), { recursive: true });
    expect(latestCheckpoint(folder)!.state.step).toBe(2);
    writeCheckpoint(folder, someState(3), someFiles(3));
    expect(fs.readdirSync(folder).sort()).toEqual(["step-000002", "step-000003"]);
  });
});

await test("a damaged checkpoint names the one before it, and is not passed over in silence", () => {
  withFolder((folder) => {
    for (const step of [1, 2]) writeCheckpoint(folder, someState(step), someFiles(step));
    fs.appendFileSync(path.join(folder, "step-000002", "config.json"), "x");
    expect(() => latestCheckpoint(folder)).toThrow(
      /step-000002.config\.json is damaged: it has 91 bytes.*step-000001/,
    );
  });
});

await test("a name of seven digits comes after one of six, wherever checkpoints are put in order", () => {
  withFolder((folder) => {
    for (const step of [999_998, 999_999, 1_000_000])
      writeCheckpoint(folder, someState(step), someFiles(step));
    expect(listCheckpoints(folder)).toEqual(["step-999999", "step-1000000"]);
    expect(latestCheckpoint(folder)!.state.step).toBe(1_000_000);
    fs.appendFileSync(path.join(folder, "step-1000000", "config.json"), "x");
    expect(() => latestCheckpoint(folder)).toThrow(/To go on from step-999999, the checkpoint before it/);
  });
});
