/// <reference types="@webgpu/types" preserve="true" />
// The public names of the library, written by `npm run extract`; docs/library.md says what each is.
export { type Storage, blockSize, dropFreeBuffers, memory, readableBytes } from "./gpu/buffers.js";
export { type Ceiling, copyKernel, measureCeiling } from "./gpu/ceiling.js";
export { runChecked } from "./gpu/checked.js";
export {
  type Dispatch,
  allocate,
  download,
  finish,
  flush,
  recordDispatches,
  release,
  run,
  upload,
} from "./gpu/commands.js";
export {
  type AdapterFacts,
  type AdapterKind,
  type Gpu,
  GpuError,
  type GpuOptions,
  currentGpu,
  openGpu,
} from "./gpu/device.js";
export { type Kernel, type KernelParts, kernel } from "./gpu/kernel.js";
export { type ProfileRow, profile } from "./gpu/profiler.js";
export { shortestRuns } from "./gpu/timing.js";
export {
  type CountedWord,
  bpeJson,
  countWords,
  encodePieceByDefinition,
  learnMergesByDefinition,
  mergePair,
  mostFrequentPair,
  pairKey,
  pairOfKey,
} from "./tokenizer/bpe.js";
export {
  type EncodeOptions,
  type StreamDecoder,
  type Tokenizer,
  characterTokenizer,
  streamDecoder,
  textOfBytes,
} from "./tokenizer/characters.js";
export { type ChatMessage, type ChatOptions, encodeChat, renderChat } from "./tokenizer/chat.js";
export { loadTiktoken, loadTokenizer } from "./tokenizer/files.js";
export { bytesPerToken, fertility } from "./tokenizer/measure.js";
export {
  type AddedToken,
  type TokenFinder,
  byteTokenizer,
  cutAtTokens,
  tokenFinder,
  trainBpe,
} from "./tokenizer/merges.js";
export { PATTERNS, type PatternName } from "./tokenizer/pretokenize.js";
export type {
  Activation,
  AttentionConfig,
  FamilySettings,
  GatedActivation,
  LatentConfig,
  ModelConfig,
  MoeConfig,
} from "./formats/config.js";
export { type GenerationConfig, parseGenerationConfig } from "./formats/generation.js";
export { type GgufHead, type GgufTensor, type GgufValue, readGgufHead } from "./formats/gguf.js";
export { ggufBytes, ggufNumbers, writableTypes } from "./formats/gguf-blocks.js";
export * from "./formats/rope.js";
export {
  type SafetensorsDtype,
  type SafetensorsEntry,
  type SafetensorsFile,
  type SafetensorsHeader,
  type SafetensorsTensor,
  readSafetensors,
  readSafetensorsHeader,
  toFloat32,
  toInt32,
  writeSafetensors,
} from "./formats/safetensors.js";
export { type CacheShape, cacheWriteKernel } from "./kernels/cache.js";
export { ignoredTarget } from "./kernels/cross-entropy.js";
export {
  type DispatchShape,
  combineKernel,
  dispatchTiles,
  gatherKernel,
  padding,
} from "./kernels/dispatch.js";
export { elementwiseKernel } from "./kernels/elementwise.js";
export { bf16Format, f16Format, int4Format, int8Format, mxfp4Format } from "./kernels/formats.js";
export type { OperandFormat, PackedArray, SliceFormat } from "./kernels/operands.js";
export { range, vectorAlias, vectorWidth, wgslNumber } from "./kernels/wgsl.js";
export {
  type Batch,
  type BatchCursor,
  type BatchOptions,
  type Batches,
  type SourceCursor,
  batches,
  documentStarts,
  nextSource,
} from "./data/batches.js";
export * from "./data/bits-per-byte.js";
export type { CorpusOptions, CorpusProgress, CorpusSource } from "./data/corpus.js";
export {
  type Benchmark,
  FILTERS,
  type Filter,
  type Overlap,
  type TextShape,
  addToBenchmark,
  benchmarkRuns,
  overlapWith,
  textShape,
} from "./data/filters.js";
export type { Manifest, Shard, Split } from "./data/manifest.js";
export { prepareCorpus } from "./data/prepare.js";
export * from "./data/random.js";
export {
  type OpenShards,
  type TokenSource,
  type WeightedSource,
  isForValidation,
  openShards,
  tokensInMemory,
} from "./data/shards.js";
export { type Document, type DocumentOptions, type NormalStep, documents } from "./data/sources.js";
export {
  DOCUMENT_END,
  type Entropy,
  GRAMMAR,
  type Grammar,
  type Item,
  type Measure,
  type Part,
  type Step,
  type SyntheticDocument,
  entropyOf,
  measureParts,
  parseTemplate,
  syntheticDocuments,
  syntheticEntropy,
  syntheticText,
  writeSynthetic,
} from "./data/synthetic.js";
export { type KeyValues, type Scoring, type Visibility, attend } from "./tensor/attend.js";
export { attention, causalSoftmax, mergeHeads, splitHeads } from "./tensor/attention.js";
export { gradients, parameter, reshape, withInference, withoutGradients } from "./tensor/autograd.js";
export { type Recording, capture } from "./tensor/capture.js";
export { mixingWeights, relativeError } from "./tensor/check.js";
export { crossEntropy, linearCrossEntropy, tokenLosses } from "./tensor/cross-entropy.js";
export { type Dropout, dropout } from "./tensor/dropout.js";
export { embed } from "./tensor/embedding.js";
export { add, mean, multiply, scale, subtract, sum, unary } from "./tensor/operations.js";
export { pieces } from "./tensor/pieces.js";
export * from "./tensor/precision.js";
export {
  type Adapter,
  type LinearExtras,
  PackedWeight,
  type Weight,
  adapted,
  describeWeight,
  linear,
  matmul,
  pack,
  unpack,
} from "./tensor/products.js";
export { normals, uniforms } from "./tensor/random.js";
export { type RopeLayout, rope, rotaryHeads } from "./tensor/rope.js";
export { gelu, layerNorm, rmsNorm, silu, softmax, swiglu } from "./tensor/rows.js";
export { sampleInputs, sampleRows } from "./tensor/sample.js";
export {
  type ArrayOf,
  type DType,
  type TapeNode,
  Tensor,
  empty,
  indices,
  launch,
  launchInto,
  scope,
  sizeOf,
  tensor,
  view,
  zeros,
} from "./tensor/tensor.js";
export { balanceLoss, routerZLoss, updateRouterBias } from "./model/balance.js";
export { type FeedForward, runBlock } from "./model/block.js";
export { completeModelConfig, modelConfigText, parseModelConfig } from "./model/config.js";
export {
  type ParameterCount,
  type StoredDtype,
  type TokenFlops,
  cacheBytes,
  countParameters,
  flopsPerToken,
  storedDtypes,
  weightBytes,
} from "./model/count.js";
export {
  type ForwardResult,
  type HiddenResult,
  forward,
  hiddenStates,
  outputLogits,
  sequenceContext,
} from "./model/decoder.js";
export {
  modelFamilies,
  namedWeights,
  parametersByName,
  parametersOf,
  randomModel,
  weightsOf,
} from "./model/families.js";
export { type GgufExport, type GgufModel, ggufModelPieces, openGgufModel } from "./model/gguf.js";
export { type GgufTextEnds, ggufTokenizerKeys } from "./model/gguf-tokenizer.js";
export { latentAttention } from "./model/latent.js";
export { type MoeResult, type MoeSettings, type MoeWeights, moe } from "./model/moe.js";
export { type RopeTables, ropeTable, ropeTables } from "./model/positions.js";
export type { QuantizeSettings } from "./model/quantize.js";
export { type Jitter, type RouterSettings, type Routing, jittered, route } from "./model/router.js";
export type {
  AttentionCache,
  Block,
  BlockContext,
  Dense,
  Experts,
  Heads,
  Latent,
  Linear,
  Model,
  ModelFamily,
  ModelParameter,
  ModelWeight,
  Norm,
  Role,
  StoredRows,
  WeightEntry,
} from "./model/structure.js";
export { type UpcycleSettings, upcycle } from "./model/upcycling.js";
export {
  type LoadedModel,
  type ModelDtype,
  type ModelFiles,
  type OpenSettings,
  loadModel,
  openModelFiles,
  saveModel,
} from "./model/weights.js";
export {
  type Checkpoint,
  type CheckpointFiles,
  type RunProgress,
  type RunState,
  latestCheckpoint,
  readCheckpoint,
  writeCheckpoint,
} from "./train/checkpoint.js";
export { type TrainConfig, parseTrainConfig, trainingSettings } from "./train/configuration.js";
export * from "./train/evaluate.js";
export { imbalanceFigure, loadFigure, lossFigure, metricFigure } from "./train/figures.js";
export { type StepReport, type TrainOptions, train } from "./train/loop.js";
export type { ExpertLoad, Metrics } from "./train/monitor.js";
export { makeOptimizer } from "./train/muon.js";
export {
  type Optimizer,
  type OptimizerSettings,
  accumulateInto,
  clearAll,
  defaultOptimizer,
  globalNorm,
  restoreState,
} from "./train/optimizers.js";
export { makeLossScale } from "./train/precision.js";
export { type Run, startRun } from "./train/run.js";
export { type Schedule, learningRate } from "./train/schedule.js";
export {
  type GradientHook,
  type RecordedStep,
  type RouterTraining,
  type StepResult,
  type TrainingData,
  type TrainingSettings,
  defaultRouterTraining,
  recordStep,
  trainingStep,
  update,
} from "./train/step.js";
export { type KeyValueCache, cacheOf, keyValueCache, pagedCache } from "./infer/cache.js";
export {
  type Choice,
  type Engine,
  type EngineRequest,
  type EngineSettings,
  openEngine,
} from "./infer/engine.js";
export { type GenerateSettings, generate, generateText, plainGenerate } from "./infer/generate.js";
export {
  type Candidate,
  type SamplingSettings,
  type StopFilter,
  argmax,
  keepMinP,
  keepTopP,
  likelierFirst,
  plainSampling,
  rankedCandidates,
  sampleFrom,
  sampleToken,
  stopFilter,
  writeSampling,
} from "./infer/sampling.js";
export { type Session, openSession } from "./infer/session.js";
export { type Draft, lookupDraft, modelDraft, speculate } from "./infer/speculate.js";
