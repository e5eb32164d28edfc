// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.

//| 02-attention/2-matrix-products.ipynb#wgsl-text-code
/** A number as WGSL writes an f32. Throws for what WGSL cannot write. */
export function wgslNumber(value: number): string {
  if (!Number.isFinite(value)) throw new Error(`WGSL has no way to write ${value}.`);
  const text = String(Math.fround(value));
  return /[.e]/.test(text) ? text : `${text}.0`;
}

/** Floats that one load brings from arrays of these lengths: four where all are whole fours, else one. */
export function vectorWidth(...lengths: number[]): 1 | 4 {
  return lengths.every((length) => length % 4 === 0) ? 4 : 1;
}

/** WGSL that calls the element of such arrays `V`. */
export function vectorAlias(width: 1 | 4): string {
  return `alias V = ${width === 4 ? "vec4f" : "f32"};`;
}

/** The bits of a number as an f32: how it travels among a kernel's sizes, which reads it as `bitcast<f32>(sizes.name)`. */
export function floatBits(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0];
}
