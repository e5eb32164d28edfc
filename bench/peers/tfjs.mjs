import "../dawn.mjs";
import { createRequire } from "node:module";
import { corrections, factors, rotation, trainingStep } from "../inputs.mjs";

// The bundles for Node: the modules have imports that Node does not resolve.
const require = createRequire(import.meta.url);
const tf = require("@tensorflow/tfjs");
require("@tensorflow/tfjs-backend-webgpu");
if (!(await tf.setBackend("webgpu"))) throw new Error("it did not open its WebGPU backend");
await tf.ready();
const { queue } = tf.backend().device;

export async function matmul(size) {
  const [a, b] = factors(size).map((values) => tf.tensor2d(values, [size, size]));
  const run = async () => {
    const c = tf.matMul(a, b);
    tf.backend().endComputePassEncoder();
    tf.backend().submitQueue();
    await queue.onSubmittedWorkDone();
    c.dispose();
  };
  return { run, read: () => tf.matMul(a, b).data() };
}

/** The loss of a model, of its weights by name: what tslm's decoder computes, written with this library's functions. */
function lossOf({ model, batch, context, inputs, targets }) {
  const { layers, heads, headDim, hiddenSize, normEps, vocabSize } = model;
  const [cosines, sines] = rotation(model, context).map((v) => tf.tensor(v, [1, 1, context, headDim]));
  const ids = tf.tensor1d(Int32Array.from(inputs), "int32");
  const goals = tf.oneHot(tf.tensor1d(Int32Array.from(targets), "int32"), vocabSize).toFloat();
  const future = tf.tensor(
    Float32Array.from({ length: context * context }, (_, i) =>
      i % context > Math.floor(i / context) ? -1e9 : 0,
    ),
    [1, 1, context, context],
  );
  const linear = (x, weight) => tf.matMul(x, weight, false, true);
  const norm = (x, weight) => x.mul(x.square().mean(-1, true).add(normEps).rsqrt()).mul(weight);
  const turned = (x) => {
    const [left, right] = tf.split(x, 2, -1);
    return x.mul(cosines).add(tf.concat([right.neg(), left], -1).mul(sines));
  };
  const split = (x) => x.reshape([batch, context, heads, headDim]).transpose([0, 2, 1, 3]);
  return (w) => {
    let x = tf.gather(w["model.embed_tokens.weight"], ids);
    for (let layer = 0; layer < layers; layer++) {
      const named = (name) => w[`model.layers.${layer}.${name}.weight`];
      const y = norm(x, named("input_layernorm"));
      const [q, k, v] = ["q", "k", "v"].map((name) => split(linear(y, named(`self_attn.${name}_proj`))));
      const scores = tf
        .matMul(turned(q), turned(k), false, true)
        .mul(headDim ** -0.5)
        .add(future);
      const mixed = tf
        .matMul(tf.softmax(scores), v)
        .transpose([0, 2, 1, 3])
        .reshape([batch * context, hiddenSize]);
      x = x.add(linear(mixed, named("self_attn.o_proj")));
      const z = norm(x, named("post_attention_layernorm"));
      const gate = linear(z, named("mlp.gate_proj"));
      x = x.add(
        linear(gate.mul(gate.sigmoid()).mul(linear(z, named("mlp.up_proj"))), named("mlp.down_proj")),
      );
    }
    const logits = linear(norm(x, w["model.norm.weight"]), w["model.embed_tokens.weight"]);
    return tf
      .logSoftmax(logits)
      .mul(goals)
      .sum()
      .mul(-1 / (batch * context))
      .asScalar();
  };
}

export async function step() {
  const task = trainingStep();
  const { betas, epsilon, weightDecay: decay, rate } = task.settings;
  const [beta1, beta2] = betas;
  const loss = lossOf(task);
  const parameters = task.weights.map((each) => ({
    ...each,
    variable: tf.variable(tf.tensor(each.values, each.shape), true, each.name),
    mean: tf.variable(tf.zeros(each.shape), false),
    square: tf.variable(tf.zeros(each.shape), false),
  }));
  const variables = Object.fromEntries(parameters.map(({ name, variable }) => [name, variable]));
  let done = 0;
  return async () => {
    const [correction1, correction2] = corrections(task.settings, done++);
    const value = tf.tidy(() => {
      const { value, grads } = tf.variableGrads(() => loss(variables));
      for (const { name, variable, mean, square, decayed } of parameters) {
        const g = grads[name];
        mean.assign(mean.mul(beta1).add(g.mul(1 - beta1)));
        square.assign(square.mul(beta2).add(g.square().mul(1 - beta2)));
        const move = mean.mul(correction1).div(square.mul(correction2).sqrt().add(epsilon));
        variable.assign(variable.sub((decayed ? move.add(variable.mul(decay)) : move).mul(rate)));
      }
      return value;
    });
    const [number] = await value.data();
    value.dispose();
    return number;
  };
}
