// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.

//| 02-attention/2-matrix-products.ipynb#float16
/** The bits of the 16-bit float nearest to a number (of two equally near, the even one): 1 sign, 5 exponent, 10 fraction. */
export function float16Bits(value: number): number {
  const [size, sign] = [Math.abs(value), value < 0 || Object.is(value, -0) ? 0x8000 : 0];
  if (Number.isNaN(value)) return 0x7e00;
  if (size >= 65520) return sign | 0x7c00; // infinite
  const exponent = Math.max(-14, Math.floor(Math.log2(size)));
  const units = size * 2 ** (10 - exponent);
  const below = Math.floor(units);
  const up = units - below > 0.5 || (units - below === 0.5 && below % 2 !== 0);
  return sign | (((exponent + 14) << 10) + below + (up ? 1 : 0));
}

/** The value of an f16 given by its bits: 1 sign, 5 exponent, 10 fraction (IEEE 754-2019, binary16). */
export function float16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
