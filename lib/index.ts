/**
 * lth-train for other Node tools. Open a session, train it, take snapshots, prune, rewind, evaluate; or run a whole
 * experiment. Shapes: N batch, C features in, K features out. All errors are LthError with a `code`.
 */
export { datasetNames, datasetSource } from './data/catalogue.js';
export { type FetchEvent, type Fetched, type FetchOptions, fetchDataset } from './data/fetch.js';
export {
  type PackEvent,
  type Packed,
  type PackedPart,
  type PackOptions,
  packPictures,
} from './data/pack.js';
export type { Source, SourceFile } from './data/sources.js';
export { type VerifiedPart, type VerifiedShards, verifyShards } from './data/verifyShards.js';
export {
  type AnalysisOptions,
  type AnalysisSummary,
  type ConnectivityOptions,
  measureConnectivity,
  measureStability,
  type StabilityOptions,
} from './experiment/analyse.js';
export type { ExperimentEvent } from './experiment/Event.js';
export { kernelsOf, type LevelKernels } from './experiment/kernels.js';
export { maskOverlap } from './experiment/overlap.js';
export type {
  ConnectivityResult,
  MaskPlace,
  OverlapResult,
  Problem,
  Result,
  RunSummary,
  StabilityResult,
  TensorDistance,
  UnitCounts,
} from './experiment/Result.js';
export type { Keep } from './experiment/retention.js';
export { type RunOptions, runExperiment } from './experiment/run.js';
export { summarise } from './experiment/summary.js';
export { type Verification, type VerifyProblem, verifyRun } from './experiment/verify.js';
export type {
  BuildInfo,
  DatasetInfo,
  DeviceMode,
  KernelChoice,
  KernelRule,
  NetworkSummary,
  ParameterInfo,
  ProductCosts,
  RunEnd,
  ScoreMethod,
  SessionInfo,
  SessionMemory,
  Tuning,
} from './native/AddonTypes.js';
export { type ErrorCode, LthError } from './native/errors.js';
export { networkByName, networkNames } from './networks/catalogue.js';
export { inceptionV3 } from './networks/imagenet/inception.js';
export { imagenetResnet } from './networks/imagenet/resnet.js';
export { squeezenet } from './networks/imagenet/squeezenet.js';
export { lenet } from './networks/lenet.js';
export type {
  Add,
  AveragePool,
  BatchNorm,
  Concat,
  Conv,
  Dropout,
  Extent,
  Flatten,
  GlobalPool,
  Initialisation,
  Layer,
  Linear,
  MaxPool,
  Network,
  Relu,
} from './networks/Network.js';
export { resnet } from './networks/resnet.js';
export { vgg } from './networks/vgg.js';
export { type Branch, branchNames, type Control, controlNames, type Retraining } from './recipe/branches.js';
export { loadRecipe, type RecipeOverrides, recipeNames, toYaml } from './recipe/load.js';
export type { PaperFigure, PaperFigures, Recipe, Steps } from './recipe/Recipe.js';
export { type LayerDensities, type ReportExtras, reportExtras } from './report/extras.js';
export { renderReport } from './report/report.js';
export { metricsSchema } from './session/arrow.js';
export { CompiledNetwork } from './session/CompiledNetwork.js';
export { Dataset } from './session/Dataset.js';
export {
  type MaskOverlap,
  Masks,
  type MaskView,
  type OverlapCounts,
  type PruneOptions,
} from './session/Masks.js';
export {
  type BatchesOptions,
  type ColourDistortion,
  type PictureBatch,
  type PictureCrop,
  type PictureFailure,
  Pictures,
} from './session/Pictures.js';
export {
  type Evaluation,
  type OpenOptions,
  type Optimiser,
  Session,
  type SplitName,
  type TrainOptions,
} from './session/Session.js';
export { Snapshot, type SnapshotDistance, type SnapshotView } from './session/Snapshot.js';
export { builtinTuning, measureTuning, tuningName } from './session/tuning.js';
export type { ReplacedPicture } from './store/records.js';
