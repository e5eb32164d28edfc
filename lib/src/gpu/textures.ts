// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import { checkMemory, memory, newMemory, poolOf } from "./buffers.js";
import { currentGpu } from "./device.js";

//| 02-attention/a-the-engine-room.ipynb#image-declaration
/** Texels, of four floats each, in a row of a texture: what every adapter allows. */
export const textureWidth = 8192;

/** Declares, among what a kernel reads, an array of fours that it reads as a texture. */
export function textureOf(name: string): string {
  return `${name}: texture_storage_2d<rgba32float, read>`;
}

/** Whether a declaration is one of a texture. */
export function isTexture(declaration: string): boolean {
  return declaration.includes(": texture_storage_2d<");
}

/** The WGSL function, `aFour` for a texture `a`, that gives the four floats at an index which counts in fours. */
export function textureFunction(name: string): string {
  const texel = `vec2u(at % ${textureWidth}u, at / ${textureWidth}u)`;
  return `fn ${name}Four(at: u32) -> vec4f { return textureLoad(${name}, ${texel}); }`;
}

//| 02-attention/a-the-engine-room.ipynb#image-pool
/** Textures by binding and rows, one table a device. They are few, and live as long as it. */
export const textures = new WeakMap<GPUDevice, Map<string, GPUTexture>>();

/** A new texture. Throws when there is no room for it. */
export function newTexture(rows: number, what: string, refused: () => void): GPUTexture {
  const pool = poolOf(currentGpu());
  const bytes = rows * textureWidth * 16;
  checkMemory(pool, bytes, what);
  const descriptor = { size: [textureWidth, rows], format: "rgba32float", usage: 0x02 | 0x08 } as const; // COPY_DST | STORAGE_BINDING
  const strike = () => {
    memory.held -= bytes;
    refused();
  };
  const texture = newMemory(bytes, what, (device) => device.createTexture(descriptor), strike);
  memory.held += bytes;
  memory.peak = Math.max(memory.peak, memory.held - memory.free);
  return texture;
}

/** The texture for arrays of `bytes` bytes at a binding. `what` is its name in errors. */
export function textureFor(binding: number, bytes: number, what: string): GPUTexture {
  const { device } = currentGpu();
  const bySize = textures.get(device) ?? new Map<string, GPUTexture>();
  textures.set(device, bySize);
  const rows = 2 ** Math.ceil(Math.log2(Math.max(1, bytes / (textureWidth * 16))));
  const key = `${binding} ${rows}`;
  const texture = bySize.get(key) ?? newTexture(rows, what, () => bySize.delete(key));
  bySize.set(key, texture);
  return texture;
}

//| 02-attention/a-the-engine-room.ipynb#image-copy
/** An array that is to be copied, and the texture that it goes into. */
export interface TextureCopy {
  from: GPUBufferBinding;
  texture: GPUTexture;
}

/** Copies an array of whole fours into its texture: the full rows, then what is left. */
export function copyToTexture(encoder: GPUCommandEncoder, { from, texture }: TextureCopy): void {
  const { buffer, offset = 0, size = 0 } = from;
  const bytesPerRow = textureWidth * 16;
  const rows = Math.floor(size / bytesPerRow);
  const rest = Math.floor((size % bytesPerRow) / 16);
  if (rows > 0)
    encoder.copyBufferToTexture({ buffer, offset, bytesPerRow }, { texture: texture }, [textureWidth, rows]);
  if (rest > 0)
    encoder.copyBufferToTexture(
      { buffer, offset: offset + rows * bytesPerRow },
      { texture: texture, origin: [0, rows] },
      [rest, 1],
    );
}
