// The browser's door to WebGPU for libraries that look for one, opened on Dawn with the switches that tslm uses.
import { create, globals } from "../node_modules/webgpu/index.js";

Object.assign(globalThis, globals);
const switches = ["enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia,disable_robustness"];
const navigator = { gpu: create(switches), userAgent: "node", hardwareConcurrency: 2 };
Object.defineProperty(globalThis, "navigator", { value: navigator, configurable: true });
