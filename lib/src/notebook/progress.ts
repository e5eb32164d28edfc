import { type Display, display, escapeHtml, inNotebook, type MimeBundle } from "./display.js";
import { interruptCheck } from "./interrupt.js";

/** A progress bar in a cell's output. */
export interface Progress {
  /**
   * Says how far the work is, with an optional few words (a loss, a rate). Throws `Interrupted` after an interrupt, so that
   * the loop ends with its cell; inside of `untilInterrupted` the work's own signal says it.
   */
  update(done: number, text?: string): void;
  /** Ends the bar where it stands. */
  stop(text?: string): void;
  /** Ends the bar in its final state, which is what a saved notebook keeps. */
  done(text?: string): void;
}

interface ProgressState {
  label: string;
  total: number;
  done: number;
  text: string;
  finished: boolean;
  /** It was ended before its end. */
  stopped: boolean;
  /** What is left, in words; only while it runs, so that a saved notebook has no timing. */
  remaining: string;
}

const MILLISECONDS_BETWEEN_UPDATES = 200;

function inWords(seconds: number): string {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 90) return `${Math.ceil(seconds)} s left`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s left`;
}

function describe(state: ProgressState): string {
  const { label, total, done, text, remaining } = state;
  const parts = [
    `${Math.round((100 * done) / Math.max(total, 1e-9))} %`,
    `${done} of ${total}`,
    text,
    remaining,
  ];
  return `${label}: ${parts.filter(Boolean).join(" · ")}`;
}

function bundle(state: ProgressState): MimeBundle {
  const share = Math.min(1, Math.max(0, state.done / Math.max(state.total, 1e-9)));
  const color = state.stopped ? "#d29c06" : state.finished ? "#1a936f" : "#3b6fd4";
  const bar =
    `<div style="flex:0 0 180px;height:8px;border-radius:4px;background:rgba(128,140,160,.25);overflow:hidden">` +
    `<div style="width:${(100 * share).toFixed(1)}%;height:100%;background:${color}"></div></div>`;
  const rest = [`${state.done} of ${state.total}`, state.text, state.remaining].filter(Boolean).join(" · ");
  const html =
    `<div style="display:flex;align-items:center;gap:12px;font-size:13px;margin:4px 0">` +
    `<span style="font-weight:600">${escapeHtml(state.label)}</span>${bar}` +
    `<span style="font-variant-numeric:tabular-nums">${escapeHtml(rest)}</span></div>`;
  return { "text/html": html, "text/plain": describe(state) };
}

/** The bar where there is no notebook: one line that rewrites itself on a terminal, else only the end. */
function consoleBar(): Display {
  const terminal = Boolean(process.stderr.isTTY);
  return { update: (data) => void (terminal && process.stderr.write(`\r\x1b[2K${data["text/plain"]}`)) };
}

/**
 * Shows a bar for work of `total` steps, updated in place at most five times a second. The work must yield
 * now and then (an `await`), or the front end sees nothing before the end.
 */
export function progress(label: string, total: number): Progress {
  const fresh = { done: 0, text: "", finished: false, stopped: false, remaining: "" };
  const state: ProgressState = { label, total, ...fresh };
  const checkInterrupt = interruptCheck();
  const started = performance.now();
  const shown = inNotebook() ? display(bundle(state)) : consoleBar();
  let last = 0;
  let timer: NodeJS.Timeout | undefined;
  const draw = () => {
    clearTimeout(timer);
    timer = undefined;
    last = performance.now();
    shown.update(bundle(state));
  };
  const drawSoon = () => {
    const wait = last + MILLISECONDS_BETWEEN_UPDATES - performance.now();
    if (wait <= 0) draw();
    else if (!timer) timer = setTimeout(draw, wait).unref();
  };
  const end = (text?: string) => {
    if (state.finished) return;
    if (text !== undefined) state.text = text;
    Object.assign(state, { finished: true, stopped: state.done < total, remaining: "" });
    draw();
    if (!inNotebook()) console.error(process.stderr.isTTY ? "" : describe(state));
  };
  return {
    update(done, text) {
      if (state.finished) return;
      try {
        checkInterrupt();
      } catch (error) {
        end("interrupted");
        throw error;
      }
      state.done = done;
      if (text !== undefined) state.text = text;
      const elapsed = (performance.now() - started) / 1000;
      state.remaining = done > 0 && elapsed > 2 ? inWords((elapsed / done) * (total - done)) : "";
      drawSoon();
    },
    stop: (text) => end(text),
    done(text) {
      state.done = Math.max(state.done, total);
      end(text);
    },
  };
}
