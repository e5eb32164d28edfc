/** Figures: a plotly specification in, a picture in every front end out. */
import { display, inNotebook, type MimeBundle } from "./display.js";
import { planFigure, titleOf } from "./frame.js";
import { limitTrace, liveHtml, toPlotly } from "./plotly.js";
import type { Figure } from "./spec.js";
import { drawFigure } from "./svg.js";
import { plainText } from "./text.js";

/** What a figure shows, in words: for consoles, search and readers who do not see it. */
function describe(figure: Figure): string {
  const { title, xaxis, yaxis } = figure.layout ?? {};
  const axes = [titleOf(yaxis?.title), titleOf(xaxis?.title)].filter(Boolean).join(" against ");
  const names = figure.data.map((trace) => trace.name).filter(Boolean);
  const kinds = [...new Set(figure.data.map((trace) => trace.type ?? "scatter"))].join(" and ");
  const parts = [titleOf(title) || `${kinds} figure`, axes, names.join(", ")].filter(Boolean);
  return plainText(`[figure] ${parts.join("; ")}`);
}

/** A figure in all the forms that front ends show. `live` false leaves out the interactive page. */
export function figureBundle(figure: Figure, live = true): MimeBundle {
  const limited = { ...figure, data: figure.data.map(limitTrace) };
  const { drawn, frame } = planFigure(limited);
  const svg = drawFigure(drawn, frame, figure.layout ?? {});
  const plotly = toPlotly(limited, drawn, frame);
  return {
    "application/vnd.plotly.v1+json": plotly,
    "image/svg+xml": svg,
    "text/html": live ? liveHtml(svg, plotly) : svg,
    "text/plain": describe(figure),
  };
}

/** Shows a figure: interactive where the front end can, a still picture where it cannot. */
export function show(figure: Figure): void {
  display(figureBundle(figure));
}

/** A figure that changes while a cell runs. */
export interface LiveFigure {
  /** Shows newer values; called more often than five times a second, the newest wins. */
  update(figure: Figure): void;
  /** Ends the changes: the last figure stays, interactive, and is what a saved notebook keeps. */
  done(figure?: Figure): void;
}

const MILLISECONDS_BETWEEN_UPDATES = 200;

/** Shows a figure that is redrawn in place, such as a loss while a model trains. */
export function liveFigure(figure: Figure): LiveFigure {
  if (!inNotebook()) {
    let last = figure;
    const update = (next: Figure) => {
      last = next;
    };
    return { update, done: (next) => show(next ?? last) };
  }
  let newest = figure;
  let drawnAt = performance.now();
  let timer: NodeJS.Timeout | undefined;
  const shown = display(figureBundle(figure, false));
  const draw = (live: boolean) => {
    clearTimeout(timer);
    timer = undefined;
    drawnAt = performance.now();
    shown.update(figureBundle(newest, live));
  };
  return {
    update(next) {
      newest = next;
      const wait = drawnAt + MILLISECONDS_BETWEEN_UPDATES - performance.now();
      if (wait <= 0) draw(false);
      else timer ??= setTimeout(draw, wait, false).unref();
    },
    done(next) {
      newest = next ?? newest;
      draw(true);
    },
  };
}
