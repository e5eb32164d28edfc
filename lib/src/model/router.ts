// Extracted from chapters/03-moe/1-why-experts.ipynb: edit it there, or here and run `npm run backport`.
import { currentGpu } from "../gpu/device.js";
import { elementwiseKernel } from "../kernels/elementwise.js";
import { jitterKernel } from "../kernels/jitter.js";
import { softmaxBackwardKernel } from "../kernels/softmax.js";
import { type ExpertGroups, type TopkShape, topkBackwardKernel, topkKernel } from "../kernels/topk.js";
import { track } from "../tensor/autograd.js";
import { type Tensor, describe, empty, launch, launchInto } from "../tensor/tensor.js";

//| 03-moe/1-why-experts.ipynb#router-types
/** How a router chooses. */
export interface RouterSettings {
  /** Experts that each token visits (top-k). */
  expertsPerToken: number;
  /** Whether the weights of a token's experts are divided by their sum. */
  normalize: boolean;
  /** What makes scores of logits: softmax over all experts unless given, or the sigmoid of each by itself. */
  scoring?: "softmax" | "sigmoid";
  /** Added to each expert's score for the choice alone, [experts]: see `updateRouterBias`. */
  bias?: Tensor;
  /** Experts stand in `count` groups of neighbours, and a token chooses from the `kept` groups whose two best have the highest sum. */
  groups?: ExpertGroups;
  /** The weights are multiplied by this at the end, 1 unless given. */
  scale?: number;
}

//| 03-moe/1-why-experts.ipynb#routing
/** What a router decided about N tokens and E experts, k experts a token. */
export interface Routing {
  /** What the router's matrix gave [N, E]. */
  logits: Tensor;
  /** The share of each expert in a token's scores [N, E], chosen or not: each row adds up to 1. Gradients flow through. */
  probabilities: Tensor;
  /** The experts of each token, likeliest first [N, k]. */
  experts: Tensor<"u32">;
  /** How much each of them counts [N, k]. Gradients flow through. */
  weights: Tensor;
}

//| 03-moe/1-why-experts.ipynb#router-shape
/** The sizes of a routing. Throws for logits that are not [tokens, experts], and for a bias of another size. */
export function routerShape(logits: Tensor, settings: RouterSettings): TopkShape {
  const [rows, experts] = logits.shape;
  const { expertsPerToken, normalize, scoring, bias, groups, scale } = settings;
  if (logits.shape.length !== 2)
    throw new Error(`route wants logits [tokens, experts], not ${describe(logits)}.`);
  if (bias && bias.size !== experts)
    throw new Error(
      `route: the bias ${describe(bias)} must have one element for each of ${experts} experts.`,
    );
  return { rows, experts, expertsPerToken, normalize, scoring, biased: bias !== undefined, groups, scale };
}

/** The gradient of the logits from that of the probabilities, all [tokens, experts]. */
export function probabilitiesBackward(
  { rows, experts, scoring }: TopkShape,
  [probabilities, logits, gradient]: Tensor[],
): Tensor {
  const softmaxBack = softmaxBackwardKernel(rows, experts, currentGpu().facts);
  const back = launch(softmaxBack, [probabilities, gradient], logits.shape);
  if (scoring !== "sigmoid") return back;
  // A softmax is exponentials divided by their sum; of a sigmoid the slope is smaller by 1 − score.
  const slope = elementwiseKernel("slope of sigmoids", [logits.size, logits.size], ["a / (1 + exp(b))"]);
  return launch(slope, [back, logits], logits.shape);
}

//| 03-moe/1-why-experts.ipynb#route
/**
 * Chooses experts for each token from logits [N, E]. The choice has no gradient; the weights of the chosen do, and
 * that is all a router learns from. Throws when a token is to visit more experts than there are.
 */
export function route(logits: Tensor, settings: RouterSettings): Routing {
  const shape = routerShape(logits, settings);
  const { rows, expertsPerToken, scoring } = shape;
  const [probabilities, weights] = [empty(logits.shape), empty([rows, expertsPerToken])];
  const experts = empty([rows, expertsPerToken], "u32");
  const inputs = settings.bias ? [logits, settings.bias] : [logits];
  launchInto(topkKernel(shape), inputs, [probabilities, weights, experts]);
  track(weights, [logits], (gradient) => {
    const given = scoring === "sigmoid" ? logits : probabilities;
    return [launch(topkBackwardKernel(shape), [given, weights, experts, gradient], logits.shape)];
  });
  track(probabilities, [logits], (gradient) => [
    probabilitiesBackward(shape, [probabilities, logits, gradient]),
  ]);
  return { logits, probabilities, experts, weights };
}

//| 03-moe/1-why-experts.ipynb#jitter
/** How much what a router sees is shaken in training, and the seed of it. */
export interface Jitter {
  /** Each number is multiplied by a factor from 1 − amount to 1 + amount. */
  amount: number;
  /** [1]; the same seed gives the same factors. */
  seed: Tensor<"u32">;
}

/** x [...] with each number multiplied by a random factor near 1, and so the gradient. Source: the Switch Transformer. */
export function jittered(x: Tensor, { amount, seed }: Jitter): Tensor {
  const shaken = (values: Tensor) => launch(jitterKernel(x.size, amount), [values, seed], x.shape);
  return track(shaken(x), [x], (gradient) => [shaken(gradient)]);
}
