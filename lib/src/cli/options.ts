// Readers for the values of options. A value that does not fit is bad usage: commander names the option and ends with 2.
import { InvalidArgumentError, Option } from "commander";

/** A whole number of at least `least`, and at most `most` where that is given. */
export function wholeNumber(least = 0, most?: number): (text: string) => number {
  return (text) => {
    const value = Number(text.replaceAll("_", ""));
    const range = most === undefined ? `of at least ${least}` : `from ${least} to ${most}`;
    if (text.trim() === "" || !Number.isSafeInteger(value) || value < least || value > (most ?? value))
      throw new InvalidArgumentError(`It must be a whole number ${range}.`);
    return value;
  };
}

/** A number between `least` and `most`, both included. */
export function numberBetween(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === "" || !(value >= least && value <= most)) {
      const range = most === Infinity ? `of at least ${least}` : `between ${least} and ${most}`;
      throw new InvalidArgumentError(`It must be a number ${range}.`);
    }
    return value;
  };
}

/** The option of commands that run a model: how its weights are kept. */
export function dtypeOption(): Option {
  const help =
    "how weights are kept: auto (as in the file: 16-bit ones stay 16 bits, quantized ones stay packed), f32, f16 or bf16";
  return new Option("--dtype <type>", help).choices(["auto", "f32", "f16", "bf16"]).default("auto");
}

/** The option of commands that write a model: how large a file may be. */
export function shardOption(): Option {
  const help = "weights of more bytes than this are written in several files, with an index";
  return new Option("--max-shard-size <size>", help).argParser(byteSize).default(5e9, "5GB");
}

/** A size such as 500000, 64kB, 4MB or 1GiB, in bytes. */
export function byteSize(text: string): number {
  const [, digits, unit = ""] = /^([\d_]*\.?\d+)\s*([kmg]?i?)b?$/i.exec(text.trim()) ?? [];
  const power = "kmg".indexOf(unit[0]?.toLowerCase() ?? "-") + 1;
  const bytes = Math.round(Number(digits?.replaceAll("_", "")) * (unit.length === 2 ? 1024 : 1000) ** power);
  if (!(bytes >= 1))
    throw new InvalidArgumentError("It must be a number of bytes, such as 500000, 64kB or 4MB.");
  return bytes;
}
