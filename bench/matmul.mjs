// f32 matrix products on one adapter in one run: tslm and other WebGPU libraries, taking turns, medians.
// npm install --prefix bench && npm run matmul --prefix bench [-- SIZE…]
process.env.XDG_RUNTIME_DIR ??= "/tmp";
const { create, globals } = await import("../node_modules/webgpu/index.js");
// The browser's door to WebGPU, so that all libraries share one instance with the same switches.
Object.assign(globalThis, globals);
const gpu = create(["enable-dawn-features=allow_unsafe_apis,disable_robustness"]);
const navigator = { gpu, userAgent: "node", hardwareConcurrency: 2 };
Object.defineProperty(globalThis, "navigator", { value: navigator, configurable: true });

const tslm = await import("../lib/dist/index.js");
await tslm.openGpu();
const { facts } = tslm.currentGpu();

/** Each library: `prepare(size, a, b)` gives `run`, which computes one product and waits for it, and `read`, its values. */
const libraries = {
  async tslm(size, a, b) {
    const kernel = tslm.matmulKernel({ batch: 1, rows: size, columns: size, inner: size }, facts);
    const [x, y, c] = [tslm.tensor(a, [size, size]), tslm.tensor(b, [size, size]), tslm.empty([size, size])];
    const run = async () => {
      tslm.launchInto(kernel, [x, y], [c]);
      await tslm.finish();
    };
    return { run, read: () => c.array() };
  },
  async "jax-js"(size, a, b) {
    const { numpy, init, defaultDevice } = await import("@jax-js/jax");
    await init("webgpu");
    defaultDevice("webgpu");
    const [x, y] = [a, b].map((values) => numpy.array(values).reshape([size, size]));
    const run = async () => {
      const product = numpy.matmul(x.ref, y.ref);
      await product.blockUntilReady();
      product.dispose();
    };
    return { run, read: () => numpy.matmul(x.ref, y.ref).data() };
  },
};

/** Whether c is the product of a and b, judged by one row in 64 bits: who computes something else is not compared. */
function isProduct(size, a, b, c) {
  for (let column = 0; column < size; column++) {
    let sum = 0;
    for (let k = 0; k < size; k++) sum += a[k] * b[k * size + column];
    if (!(Math.abs(sum - c[column]) < 1e-3)) return false;
  }
  return true;
}

const median = (times) => times.sort((x, y) => x - y)[times.length >> 1];

/** Median seconds of each library, which take turns so that a machine's moods meet all alike. */
async function compare(size, rounds = 7) {
  const random = () => Float32Array.from({ length: size * size }, () => Math.random() - 0.5);
  const [a, b] = [random(), random()];
  const runs = new Map();
  for (const [name, prepare] of Object.entries(libraries)) {
    try {
      const { run, read } = await prepare(size, a, b);
      await run();
      if (!isProduct(size, a, b, await read())) throw new Error("its result is not the product");
      runs.set(name, { run, times: [] });
    } catch (error) {
      console.log(`${name} left out: ${error.message}`);
    }
  }
  for (let round = 0; round < rounds; round++)
    for (const each of runs.values()) {
      const start = performance.now();
      await each.run();
      each.times.push((performance.now() - start) / 1000);
    }
  return new Map([...runs].map(([name, { times }]) => [name, median(times)]));
}

const ceiling = await tslm.measureCeiling();
console.log(
  `${facts.name}: ${ceiling.gigaflops.toFixed(1)} GFLOP/s multiply-adds, ${ceiling.gigabytes.toFixed(1)} GB/s copy`,
);
const sizes = process.argv.slice(2).map(Number);
for (const size of sizes.length > 0 ? sizes : [512]) {
  const seconds = await compare(size);
  const rows = [...seconds].map(([library, time]) => ({
    library,
    size,
    ms: +(time * 1000).toFixed(1),
    "GFLOP/s": +((2 * size ** 3) / time / 1e9).toFixed(1),
    "of the ceiling": `${Math.round((100 * 2 * size ** 3) / time / 1e9 / ceiling.gigaflops)} %`,
    "tslm is faster": `${(time / seconds.get("tslm")).toFixed(1)} ×`,
  }));
  console.table(rows);
}
process.exit(0);
