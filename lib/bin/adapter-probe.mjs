// Opens the WebGPU adapter, lets it add two numbers, and prints what it is as one line, "ADAPTER {json}". Run by
// probeAdapter in a process of its own: a broken driver may end this one.

function say(answer) {
  process.stdout.write(`ADAPTER ${JSON.stringify(answer)}\n`, () => process.exit(0));
}

/** WebGPU tells "cpu" alone; the other kinds are told from the vendor, and left unknown where that is not enough. */
function adapterKind(info) {
  const words = `${info.device} ${info.description}`.toLowerCase();
  if (info.isFallbackAdapter || /llvmpipe|swiftshader|lavapipe|basic render/.test(words)) return "cpu";
  if (info.vendor === "nvidia" && !/tegra|orin|xavier/.test(words)) return "discrete";
  if (["apple", "arm", "qualcomm", "img-tec", "samsung"].includes(info.vendor)) return "integrated";
  if (info.vendor === "intel") return /arc|flex|max/.test(words) ? "discrete" : "integrated";
  if (info.vendor === "amd" && /radeon (rx|pro|vii)|instinct|\bmi\d/.test(words)) return "discrete";
  return "unknown";
}

/** 2 + 3, by the adapter: shaders compile, kernels run, results come back. */
async function addTwoNumbers(device) {
  const { COPY_SRC, COPY_DST, STORAGE, MAP_READ } = GPUBufferUsage;
  const module = device.createShaderModule({
    code: `@group(0) @binding(0) var<storage, read_write> x: array<u32, 2>;
           @compute @workgroup_size(1) fn main() { x[0] += x[1]; }`,
  });
  const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module } });
  const numbers = device.createBuffer({ size: 8, usage: STORAGE | COPY_SRC | COPY_DST });
  const result = device.createBuffer({ size: 8, usage: MAP_READ | COPY_DST });
  device.queue.writeBuffer(numbers, 0, new Uint32Array([2, 3]));
  const layout = pipeline.getBindGroupLayout(0);
  const group = device.createBindGroup({ layout, entries: [{ binding: 0, resource: { buffer: numbers } }] });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(numbers, 0, result, 0, 8);
  device.queue.submit([encoder.finish()]);
  await result.mapAsync(GPUMapMode.READ);
  return new Uint32Array(result.getMappedRange())[0];
}

/** The library's own switches for Dawn, so that the features shown are those that it sees; none before it is built. */
async function switches() {
  const built = await import("../dist/gpu/device.js").catch(() => undefined);
  return built?.dawnSwitches(true) ?? [];
}

async function main() {
  const { create, globals } = await import("webgpu");
  Object.assign(globalThis, globals);
  globalThis.pinned = create(await switches()); // collected, it would take the process with it
  const adapter = await globalThis.pinned.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) return say({ ok: false, reason: "Dawn found no adapter that it can use" });
  const { info } = adapter;
  const limits = {};
  for (const name in adapter.limits) limits[name] = adapter.limits[name];
  const facts = {
    name: (info.device || info.description || info.vendor).replace(/-+$/, ""),
    vendor: info.vendor,
    architecture: info.architecture,
    kind: adapterKind(info),
    driver: info.description,
    features: [...adapter.features].sort(),
    limits,
  };
  const device = await adapter.requestDevice();
  const sum = await addTwoNumbers(device);
  if (sum !== 5) return say({ ok: false, ...facts, reason: `${facts.name} says that 2 + 3 is ${sum}` });
  say({ ok: true, ...facts });
}

main().catch((error) => {
  const loaded =
    error.code === "ERR_MODULE_NOT_FOUND" ? "the Node package webgpu is not installed" : error.message;
  say({ ok: false, reason: loaded.split("\n")[0] });
});
