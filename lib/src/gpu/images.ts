// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import { checkMemory, memory, newMemory, poolOf } from "./buffers.js";
import { currentGpu } from "./device.js";

//| 02-attention/a-the-engine-room.ipynb#image-declaration
/** Texels, of four floats each, in a row of an image: what every adapter allows. */
export const imageWidth = 8192;

/** Declares, among what a kernel reads, an array of fours that it reads as an image. */
export function imageOf(name: string): string {
  return `${name}: texture_storage_2d<rgba32float, read>`;
}

/** Whether a declaration is one of an image. */
export function isImage(declaration: string): boolean {
  return declaration.includes(": texture_storage_2d<");
}

/** The WGSL function, `aFour` for an image `a`, that gives the four floats at an index which counts in fours. */
export function imageFunction(name: string): string {
  const texel = `vec2u(at % ${imageWidth}u, at / ${imageWidth}u)`;
  return `fn ${name}Four(at: u32) -> vec4f { return textureLoad(${name}, ${texel}); }`;
}

//| 02-attention/a-the-engine-room.ipynb#image-pool
/** Images by binding and rows, one table a device. They are few, and live as long as it. */
export const images = new WeakMap<GPUDevice, Map<string, GPUTexture>>();

/** A new image. Throws when there is no room for it. */
export function newImage(rows: number, what: string, refused: () => void): GPUTexture {
  const pool = poolOf(currentGpu());
  const bytes = rows * imageWidth * 16;
  checkMemory(pool, bytes, what);
  const descriptor = { size: [imageWidth, rows], format: "rgba32float", usage: 0x02 | 0x08 } as const; // COPY_DST | STORAGE_BINDING
  const strike = () => {
    memory.held -= bytes;
    refused();
  };
  const image = newMemory(bytes, what, (device) => device.createTexture(descriptor), strike);
  memory.held += bytes;
  memory.peak = Math.max(memory.peak, memory.held - memory.free);
  return image;
}

/** The image for arrays of `bytes` bytes at a binding. `what` is its name in errors. */
export function imageFor(binding: number, bytes: number, what: string): GPUTexture {
  const { device } = currentGpu();
  const known = images.get(device) ?? new Map<string, GPUTexture>();
  images.set(device, known);
  const rows = 2 ** Math.ceil(Math.log2(Math.max(1, bytes / (imageWidth * 16))));
  const key = `${binding} ${rows}`;
  const image = known.get(key) ?? newImage(rows, what, () => known.delete(key));
  known.set(key, image);
  return image;
}

//| 02-attention/a-the-engine-room.ipynb#image-copy
/** An array that is to be copied, and the image that it goes into. */
export interface ImageCopy {
  from: GPUBufferBinding;
  image: GPUTexture;
}

/** Copies an array of whole fours into its image: the full rows, then what is left. */
export function copyToImage(encoder: GPUCommandEncoder, { from, image }: ImageCopy): void {
  const { buffer, offset = 0, size = 0 } = from;
  const bytesPerRow = imageWidth * 16;
  const rows = Math.floor(size / bytesPerRow);
  const rest = Math.floor((size % bytesPerRow) / 16);
  if (rows > 0)
    encoder.copyBufferToTexture({ buffer, offset, bytesPerRow }, { texture: image }, [imageWidth, rows]);
  if (rest > 0)
    encoder.copyBufferToTexture(
      { buffer, offset: offset + rows * bytesPerRow },
      { texture: image, origin: [0, rows] },
      [rest, 1],
    );
}
