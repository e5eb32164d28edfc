import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { tickLabel } from "../../lib/src/notebook/axes.js";
import { contrastingText, sampleColor, SEQUENTIAL, toHex } from "../../lib/src/notebook/colors.js";
import { figureBundle } from "../../lib/src/notebook/figure.js";
import type { Figure, Layout } from "../../lib/src/notebook/index.js";
import { limitTrace, shortNumber, thinLine, toPlainJson } from "../../lib/src/notebook/plotly.js";
import { encodePng, renderSvg } from "../../lib/src/notebook/svg.js";

const svgOf = (data: Figure["data"], layout: Layout = {}) => renderSvg({ data, layout });

/** The numbers of an attribute of every element of one kind, outside of clip paths. */
function numbers(svg: string, tag: string, attribute: string): number[] {
  const drawn = svg.replace(/<clipPath.*?<\/clipPath>/g, "");
  const elements = drawn.match(new RegExp(`<${tag} [^>]*>`, "g")) ?? [];
  return elements.map((element) => Number(new RegExp(` ${attribute}="([^"]*)"`).exec(element)?.[1]));
}

const texts = (svg: string) => [...svg.matchAll(/<text[^>]*>(.*?)<\/text>/g)].map(([, text]) => text);

describe("the static picture", () => {
  test("points stand in the order and proportion of their values", () => {
    const svg = svgOf([{ x: [0, 1, 3], y: [0, 10, 5], mode: "markers" }]);
    const [x, y] = [numbers(svg, "circle", "cx"), numbers(svg, "circle", "cy")];
    expect((x[2] - x[0]) / (x[1] - x[0])).toBeCloseTo(3, 1);
    expect((y[0] - y[1]) / (y[0] - y[2])).toBeCloseTo(2, 1);
  });

  test("a log axis spaces powers evenly and leaves out what is not above zero", () => {
    const svg = svgOf([{ x: [1, 2, 3, 4], y: [1, 10, 100, 0], mode: "markers" }], { yaxis: { type: "log" } });
    const y = numbers(svg, "circle", "cy");
    expect(y).toHaveLength(3);
    expect(y[0] - y[1]).toBeCloseTo(y[1] - y[2], 0);
  });

  test("stacked bars stand on each other, grouped ones beside each other", () => {
    const data: Figure["data"] = [
      { type: "bar", x: ["a"], y: [2], name: "one", marker: { color: "#111111" } },
      { type: "bar", x: ["a"], y: [3], name: "two", marker: { color: "#222222" } },
    ];
    const bars = (layout: Layout) =>
      ["#111111", "#222222"].map((color) => {
        const [, x, y, , height] = new RegExp(
          `<rect x="([^"]*)" y="([^"]*)" width="([^"]*)" height="([^"]*)" fill="${color}"(?! rx="2")`,
        )
          .exec(svgOf(data, layout))!
          .map(Number);
        return { x, y, height };
      });
    const [low, high] = bars({ barmode: "stack" });
    expect(high.x).toBe(low.x);
    expect(high.y + high.height).toBeCloseTo(low.y, 0);
    const [left, right] = bars({});
    expect(right.x).toBeGreaterThan(left.x);
    expect(left.y + left.height).toBeCloseTo(right.y + right.height, 0);
    expect(right.height / left.height).toBeCloseTo(1.5, 1);
  });

  test("names that look like numbers stay names: bars have their width, shapes and notes count places", () => {
    const svg = svgOf([{ type: "bar", x: ["1", "4", "16"], y: [1, 2, 3] }], {
      annotations: [{ x: "16", y: 3, text: "last", showarrow: false }],
    });
    const bars = numbers(svg, "rect", "width").slice(1);
    expect(bars).toHaveLength(3);
    expect(Math.min(...bars)).toBeGreaterThan(100);
    const [, x] = /<text x="([^"]*)"[^>]*>last</.exec(svg)!;
    expect(Number(x)).toBeCloseTo(numbers(svg, "rect", "x")[3] + bars[2] / 2, 0);
    const [cell] = numbers(
      svgOf([{ type: "heatmap", x: ["1"], y: ["0"], z: [[5]], showscale: false }]),
      "rect",
      "width",
    ).slice(1);
    expect(cell).toBeGreaterThan(500);
  });

  test("a heatmap has a cell for each value, none for null, and words in them that can be read", () => {
    const z = [
      [0, 1],
      [null, 0.5],
    ];
    const svg = svgOf([{ type: "heatmap", x: ["a", "b"], y: ["c", "d"], z, texttemplate: "%{z:.1f}" }]);
    expect(texts(svg).filter((text) => /^\d\.\d$/.test(text))).toEqual(
      expect.arrayContaining(["0.0", "1.0", "0.5"]),
    );
    const first = toHex(sampleColor(SEQUENTIAL, 0));
    const last = toHex(sampleColor(SEQUENTIAL, 1));
    expect(svg).toContain(`fill="${first}"`);
    expect(svg).toContain(`fill="${last}"`);
    expect(contrastingText(sampleColor(SEQUENTIAL, 1))).toBe("#ffffff");
  });

  test.each([
    [{ zmin: 0 }, 0, 4],
    [{ zmax: 8 }, 2, 8],
    [{ zmid: 3, zmax: 8 }, -2, 8],
    [{ zmin: 9, zmax: 1 }, 8.5, 9.5],
  ])("a scale of which %j is said is the same in the live figure", (ends, low, high) => {
    const trace = { type: "heatmap" as const, z: [[2, 4]], ...ends };
    const { "application/vnd.plotly.v1+json": plotly, "image/svg+xml": svg } = figureBundle({
      data: [trace],
    });
    expect(plotly).toMatchObject({ data: [{ zmin: low, zmax: high }] });
    const scale = (plotly as { data: [{ colorscale: typeof SEQUENTIAL }] }).data[0].colorscale;
    for (const value of trace.z[0])
      expect(svg).toContain(`fill="${toHex(sampleColor(scale, (value - low) / (high - low)))}"`);
  });

  test("the lowest of living values is not the colour of none", () => {
    const svg = svgOf([{ type: "heatmap", z: [[2, 4]], zmin: 0, showscale: false }]);
    expect(svg).not.toContain(`fill="${toHex(sampleColor(SEQUENTIAL, 0))}"`);
  });

  test("what plotly leaves out, the picture leaves out: gaps, what is transparent, negative ends, steps of powers", () => {
    const wide = svgOf([{ type: "heatmap", z: [[1, 2]], ygap: 20, showscale: false, opacity: 0.5 }]);
    const [page, ...cells] = numbers(wide, "rect", "height");
    const [, clip] = /<clipPath.*?height="([^"]*)"/.exec(wide)!;
    expect(page - Number(clip)).toBeGreaterThan(0);
    expect(cells[0]).toBeCloseTo(Number(clip) - 20, 0);
    expect(numbers(wide, "rect", "x")[2] - numbers(wide, "rect", "x")[1]).toBeCloseTo(
      numbers(wide, "rect", "width")[1],
      0,
    );
    expect(wide).toContain('<g opacity="0.5">');
    expect(svgOf([{ x: [1], y: [1], mode: "markers", marker: { opacity: 0 } }])).toContain(
      'fill-opacity="0"',
    );
    const positive = svgOf([{ y: [0, 5] }], { yaxis: { rangemode: "nonnegative" } });
    expect(texts(positive).filter((text) => text.startsWith("−"))).toEqual([]);
    const powers = svgOf([{ y: [1, 1e6] }], { yaxis: { type: "log", dtick: 3 } });
    expect(texts(powers).filter((text) => /^1|M|k/.test(text))).toEqual(
      expect.arrayContaining(["1", "1k", "1M"]),
    );
  });

  test("a large heatmap is one image, and reversed rows are turned", () => {
    const z = Array.from({ length: 40 }, (_, row) => Array(40).fill(row));
    const upward = svgOf([{ type: "heatmap", z }]);
    const downward = svgOf([{ type: "heatmap", z }], { yaxis: { autorange: "reversed" } });
    const image = (svg: string) => /href="data:image\/png;base64,([^"]*)"/.exec(svg)![1];
    expect(image(upward)).not.toBe(image(downward));
    expect(upward.length).toBeLessThan(12_000);
  });

  test("titles, labels, legend, reference lines and notes appear, escaped", () => {
    const svg = svgOf(
      [
        { y: [1, 2], name: "a < b" },
        { y: [2, 3], name: "second" },
      ],
      {
        title: "R&D",
        xaxis: { title: "step" },
        yaxis: { title: "loss" },
        shapes: [{ type: "line", x0: 0, x1: 1, xref: "paper", y0: 1.5, y1: 1.5, line: { dash: "dash" } }],
        annotations: [{ x: 0, y: 1.5, text: "floor", showarrow: false }],
      },
    );
    expect(texts(svg)).toEqual(
      expect.arrayContaining(["R&amp;D", "step", "loss", "a &lt; b", "second", "floor"]),
    );
    expect(svg).toContain("stroke-dasharray");
  });

  test("any finite data give finite coordinates in well-formed SVG", () => {
    const value = fc.oneof(
      fc.double({ min: -1e12, max: 1e12, noNaN: true }),
      fc.constant(0),
      fc.constant(Number.NaN),
    );
    const list = fc.array(value, { minLength: 0, maxLength: 30 });
    const axis = fc.constantFrom("linear" as const, "log" as const);
    fc.assert(
      fc.property(
        list,
        list,
        axis,
        axis,
        fc.constantFrom("scatter" as const, "bar" as const),
        (x, y, xt, yt, type) => {
          const svg = svgOf([{ type, x: x.length ? x : undefined, y, mode: "lines+markers" }], {
            xaxis: { type: xt },
            yaxis: { type: yt },
          });
          expect(svg).not.toMatch(/NaN|Infinity|undefined/);
          const opened = svg.match(/<[a-zA-Z][^>]*[^/]>|<[a-zA-Z]>/g)?.length;
          expect(opened).toBe(svg.match(/<\/[a-zA-Z]+>/g)?.length);
        },
      ),
      { numRuns: 300 },
    );
  });

  test("an unknown kind or colour scale is refused by name", () => {
    expect(() => svgOf([{ type: "pie" as "bar", y: [1] }])).toThrow('type "pie"');
    expect(() => svgOf([{ type: "heatmap", z: [[1]], colorscale: "Jet" }])).toThrow('colour scale "Jet"');
  });
});

describe("what is kept of a figure", () => {
  test("numbers stay within a thousandth of their neighbours' distance", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: -1e9, max: 1e9, noNaN: true }), { minLength: 2, maxLength: 40 }),
        (values) => {
          const kept = toPlainJson(values) as number[];
          const span = Math.max(...values) - Math.min(...values);
          kept.forEach((value, i) => {
            expect(Math.abs(value - values[i])).toBeLessThanOrEqual(
              Math.max(span / 1000, Math.abs(values[i]) * 1e-12),
            );
          });
        },
      ),
    );
    expect(shortNumber(12345)).toBe(12345);
    expect(shortNumber(0.000123456)).toBe(0.0001235);
    expect(toPlainJson({ y: new Float32Array([0.1]), f: () => 1, n: Number.NaN })).toEqual({
      y: [0.1],
      n: null,
    });
  });

  test("a long line is thinned without losing its spikes", () => {
    const y = Float64Array.from({ length: 100_000 }, (_, i) =>
      i === 77_777 ? 99 : i === 3 ? -99 : Math.sin(i),
    );
    const kept = thinLine(y, 2000);
    expect(kept.length).toBeLessThanOrEqual(2000);
    expect(kept).toEqual(expect.arrayContaining([0, 3, 77_777, 99_999]));
    const trace = limitTrace({ y, mode: "lines" });
    expect(trace.x).toHaveLength(trace.y!.length);
  });

  test("what cannot be thinned unseen is refused with advice", () => {
    expect(() => limitTrace({ mode: "markers", y: new Float32Array(6000) })).toThrow("show a sample");
    expect(() => limitTrace({ type: "heatmap", z: Array(200).fill(new Float32Array(200)) })).toThrow(
      "40000 cells",
    );
  });

  test("the bundle has every form, and the page carries no copy of plotly", () => {
    const bundle = figureBundle({ data: [{ y: [1, 2, 3], name: "</script>" }], layout: { title: "T" } });
    expect(Object.keys(bundle).sort()).toEqual([
      "application/vnd.plotly.v1+json",
      "image/svg+xml",
      "text/html",
      "text/plain",
    ]);
    const html = String(bundle["text/html"]);
    expect(html).toContain("<svg");
    expect(html).toContain("files/node_modules/plotly.js-cartesian-dist-min/plotly-cartesian.min.js");
    expect(html.match(/<\/script>/g)).toHaveLength(2);
    expect(html.length).toBeLessThan(20_000);
    expect(bundle["text/plain"]).toBe("[figure] T; </script>");
  });
});

test("tick labels read as a person writes them", () => {
  expect([0, 0.5, 1].map((v) => tickLabel(v, 0.5))).toEqual(["0", "0.5", "1.0"]);
  expect(tickLabel(25_000, 5000)).toBe("25k");
  expect(tickLabel(3e9, 1e9)).toBe("3B");
  expect(tickLabel(-2, 1)).toBe("−2");
});

test("a PNG has the signature, its size and as many bytes as it says", () => {
  const png = encodePng(2, 1, Uint8Array.of(255, 0, 0, 255, 0, 255, 0, 255));
  expect(png.subarray(1, 4).toString("latin1")).toBe("PNG");
  expect([png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([2, 1]);
  expect(png.subarray(-8, -4).toString("latin1")).toBe("IEND");
  expect(png.readUInt32BE(png.length - 4)).toBe(0xae426082); // the CRC of every IEND
});
