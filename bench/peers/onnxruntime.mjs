import ort from "onnxruntime-node";
import { factors } from "../inputs.mjs";

/** A field of a protocol buffer: a number, or text, or bytes with their length before them. */
function field(number, value) {
  const varint = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...varint(n >>> 7)]);
  if (typeof value === "number") return [...varint(number << 3), ...varint(value)];
  const bytes = typeof value === "string" ? [...Buffer.from(value)] : value;
  return [...varint((number << 3) | 2), ...varint(bytes.length), ...bytes];
}

/** An ONNX model of one product: c = MatMul(a, b), all [size, size] in f32. */
function matmulModel(size) {
  const side = field(1, field(1, size));
  const matrix = (name) => {
    const type = field(1, [...field(1, 1), ...field(2, [...side, ...side])]);
    return [...field(1, name), ...field(2, type)];
  };
  const node = [...field(1, "a"), ...field(1, "b"), ...field(2, "c"), ...field(4, "MatMul")];
  const ends = [...field(11, matrix("a")), ...field(11, matrix("b")), ...field(12, matrix("c"))];
  const graph = [...field(1, node), ...field(2, "product"), ...ends];
  return Uint8Array.from([...field(1, 8), ...field(7, graph), ...field(8, field(2, 13))]);
}

/** The inputs are copied to the GPU and the result back in each run: this binding for Node has no other way. */
export async function matmul(size) {
  const options = { executionProviders: ["webgpu"], logSeverityLevel: 3 };
  const session = await ort.InferenceSession.create(matmulModel(size), options);
  const [a, b] = factors(size).map((values) => new ort.Tensor("float32", values, [size, size]));
  const run = async () => (await session.run({ a, b })).c.data;
  return { run, read: run };
}
