/** What a figure is: the part of plotly's specification that the live and the static picture share. */

/** A value along an axis: a number, a category or a date. */
export type AxisValue = number | string;

/** A list of values; typed arrays as they come from the GPU are welcome. */
export type Values<T> =
  | readonly T[]
  | Float32Array
  | Float64Array
  | Int32Array
  | Uint32Array
  | Uint8Array
  | Uint16Array;

export interface Line {
  color?: string;
  width?: number;
  dash?: "solid" | "dash" | "dot" | "dashdot";
  /** "hv" draws steps, "spline" a smooth curve. */
  shape?: "linear" | "hv" | "spline";
}

export interface Marker {
  color?: string | Values<number> | readonly string[];
  size?: number | Values<number>;
  symbol?: "circle" | "square" | "diamond" | "cross" | "x" | "triangle-up";
  opacity?: number;
  colorscale?: ColorScale;
  line?: { color?: string; width?: number };
}

/** A named scale ("Blues", "Viridis", "RdBu"…) or stops from 0 to 1. */
export type ColorScale = string | readonly (readonly [number, string])[];

/** One set of values in a figure: lines and points ("scatter"), bars, or a coloured grid ("heatmap"). */
export interface Trace {
  type?: "scatter" | "bar" | "heatmap";
  name?: string;
  x?: Values<AxisValue>;
  y?: Values<AxisValue>;
  /** Heatmaps only: rows from bottom to top (or top to bottom with yaxis.autorange "reversed"). */
  z?: readonly Values<number | null>[];
  mode?:
    | "lines"
    | "markers"
    | "lines+markers"
    | "text"
    | "markers+text"
    | "lines+text"
    | "lines+markers+text";
  line?: Line;
  marker?: Marker;
  /** Words at each point, on each bar, or in each cell of a heatmap. */
  text?: string | readonly string[] | readonly (readonly string[])[];
  /** Heatmaps: "%{text}" or "%{z:.2f}" writes into the cells. */
  texttemplate?: string;
  textposition?: string;
  textfont?: { size?: number; color?: string };
  hovertemplate?: string;
  hoverinfo?: string;
  /** Bars: "h" lays them on their side. */
  orientation?: "v" | "h";
  fill?: "none" | "tozeroy" | "tonexty";
  fillcolor?: string;
  opacity?: number;
  colorscale?: ColorScale;
  reversescale?: boolean;
  /** What the first and the last colour stand for. An end that is left out is that of the values. */
  zmin?: number;
  zmax?: number;
  zmid?: number;
  showscale?: boolean;
  colorbar?: { title?: string | { text?: string } };
  showlegend?: boolean;
  legendgroup?: string;
  xgap?: number;
  ygap?: number;
  width?: number;
  /** "y2" draws against the axis on the right. */
  yaxis?: "y" | "y2";
  error_y?: { array: Values<number>; visible?: boolean };
}

export interface Axis {
  title?: string | { text?: string };
  type?: "linear" | "log" | "category";
  /** Log axes: in powers of ten, as plotly has it. */
  range?: readonly [number, number];
  autorange?: boolean | "reversed";
  rangemode?: "normal" | "tozero" | "nonnegative";
  tickvals?: Values<AxisValue>;
  ticktext?: readonly string[];
  tickformat?: string;
  tickangle?: number;
  ticksuffix?: string;
  tickprefix?: string;
  /** From tick to tick; on log axes in powers of ten. */
  dtick?: number;
  showgrid?: boolean;
  showticklabels?: boolean;
  zeroline?: boolean;
  visible?: boolean;
  scaleanchor?: string;
  constrain?: string;
}

/** A straight reference line or a box; `xref: "paper"` counts from 0 to 1 across the plot. */
export interface Shape {
  type: "line" | "rect";
  x0: AxisValue;
  x1: AxisValue;
  y0: AxisValue;
  y1: AxisValue;
  xref?: "x" | "paper";
  yref?: "y" | "paper";
  line?: Line;
  fillcolor?: string;
  opacity?: number;
  layer?: "above" | "below";
}

/** Words at a place; `x` and `y` are values of the axes, on a log axis too. */
export interface Annotation {
  text: string;
  x: AxisValue;
  y: AxisValue;
  xref?: "x" | "paper";
  yref?: "y" | "paper";
  showarrow?: boolean;
  ax?: number;
  ay?: number;
  xanchor?: "left" | "center" | "right" | "auto";
  yanchor?: "top" | "middle" | "bottom" | "auto";
  font?: { size?: number; color?: string };
}

export interface Layout {
  title?: string | { text?: string };
  xaxis?: Axis;
  yaxis?: Axis;
  /** A second axis on the right, for traces with `yaxis: "y2"`. */
  yaxis2?: Axis;
  /** Pixels; 720 by 400 unless told. */
  width?: number;
  height?: number;
  barmode?: "group" | "stack" | "overlay" | "relative";
  bargap?: number;
  showlegend?: boolean;
  legend?: { orientation?: "h" | "v"; x?: number; y?: number; title?: { text?: string } };
  shapes?: readonly Shape[];
  annotations?: readonly Annotation[];
}

/** A plotly figure, in the part of plotly that the live and the static picture share. */
export interface Figure {
  data: readonly Trace[];
  layout?: Layout;
}
