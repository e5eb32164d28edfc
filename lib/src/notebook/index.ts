/// <reference types="@webgpu/types" preserve="true" />
/** What the cells of a notebook use to talk to their reader: figures, tables, progress, tests, exercises. */
export { check, hint, rehearse, VERDICT_MIME } from "./check.js";
export type { Rehearsed } from "./check.js";
export { asFastAs, claim, shortestInTurns } from "./claim.js";
export { display, inNotebook } from "./display.js";
export type { Display, MimeBundle } from "./display.js";
export { liveFigure, show } from "./figure.js";
export type { LiveFigure } from "./figure.js";
export type {
  Annotation,
  Axis,
  AxisValue,
  ColorScale,
  Figure,
  Layout,
  Line,
  Marker,
  Shape,
  Trace,
  Values,
} from "./spec.js";
export { Interrupted, untilInterrupted } from "./interrupt.js";
export { judge, todo } from "./judge.js";
export type { Check, Mistake, Verdict } from "./judge.js";
export { runBody } from "./kernel.js";
export type { KernelArray, KernelFrame, KernelResult } from "./kernel.js";
export { markdown } from "./markdown.js";
export { tryMutants } from "./mutants.js";
export type { Tried } from "./mutants.js";
export { progress } from "./progress.js";
export type { Progress } from "./progress.js";
export { randomFrom, scoreRow } from "./random.js";
export type { Random, RowKind } from "./random.js";
export { table } from "./table.js";
export type { TableOptions, TableRow } from "./table.js";
export { expect, test } from "./test.js";
export type { AsymmetricMatchers, AsyncMatchers, Expect, Matchers } from "./test.js";
