// A line chart: every run one curve, a legend by name at the curves' ends, values under the pointer.

// What curves are drawn against: from a curve [steps, seconds, values] of a run to numbers.
const AXES = {
  steps: {title: "training steps", unit: "step", of: (run, steps) => steps},
  tokens: {title: "training tokens", unit: "tokens", of: (run, steps) => steps.map((step) => step * run.tokensPerStep)},
  flops: {title: "training FLOPs", unit: "FLOPs", of: (run, steps) => steps.map((step) => step * run.tokensPerStep * run.flopsPerToken)},
  seconds: {title: "seconds of training", unit: "seconds", of: (run, steps, seconds) => seconds},
};

const TIME_UNITS = [["days", 86400], ["hours", 3600], ["minutes", 60], ["seconds", 1]];

// Series {run, x, y, steps} of the key in every run that has it, in the axis' own unit; and the axis' title.
function seriesOf(runs, key, axisName) {
  const axis = AXES[axisName];
  const series = runs.filter((run) => run.curves[key]).map((run) => {
    const [steps, seconds, values] = run.curves[key];
    return {run, steps, x: axis.of(run, steps, seconds), y: values};
  });
  let title = axis.title;
  if (axisName === "seconds") {
    const longest = Math.max(1, ...series.map(({x}) => x[x.length - 1]));
    const [name, size] = TIME_UNITS.find(([, size]) => longest >= 3 * size) || TIME_UNITS[3];
    for (const one of series) one.x = one.x.map((value) => value / size);
    title = `${name} of training`;
  }
  return {series, title};
}

// The range of y: whole for logarithms; on a linear axis the first tenth, which towers over the rest, is cut off.
function rangeOf(series, options) {
  let low = Infinity, high = -Infinity;
  const end = Math.max(...series.map(({x}) => x[x.length - 1]));
  const start = options.late ? end / 2 : options.cutStart && !options.log ? end / 10 : -Infinity;
  for (const {x, y} of series) {
    const inside = y.filter((_, i) => x[i] >= start);
    for (const value of inside.length ? inside : y.slice(-1)) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  if (options.fromZero && !options.late) low = Math.min(0, low);
  if (low === high) [low, high] = [low - Math.abs(low || 1) * 0.05, high + Math.abs(high || 1) * 0.05];
  const margin = options.log ? (high / low) ** 0.06 : 0.06 * (high - low);
  return {
    x: [options.late ? end / 2 : Math.min(0, ...series.map(({x}) => x[0])), end],
    y: options.log ? [low / margin, high * margin] : [options.fromZero && low === 0 ? 0 : low - margin, high + margin],
  };
}

function scale([from, to], [low, high], log) {
  const by = log ? Math.log : (value) => value;
  const factor = (high - low) / (by(to) - by(from));
  const out = (value) => low + (by(value) - by(from)) * factor;
  out.invert = (pixel) => from + (pixel - low) / (high - low) * (to - from);  // linear axes only
  return out;
}

function drawAxes(svg, area, x, y, range, options) {
  for (const tick of (options.log ? logTicks : linearTicks)(...range.y, area.height / 55)) {
    shape(svg, "line", {class: "grid", x1: area.left, x2: area.right, y1: y(tick), y2: y(tick)});
    shape(svg, "text", {x: area.left - 10, y: y(tick) + 4, "text-anchor": "end"}, options.format(tick));
  }
  for (const tick of linearTicks(...range.x, Math.max(2, (area.right - area.left) / 110))) {
    shape(svg, "line", {class: "baseline", x1: x(tick), x2: x(tick), y1: area.bottom, y2: area.bottom + 5});
    shape(svg, "text", {x: x(tick), y: area.bottom + 20, "text-anchor": "middle"}, short(tick));
  }
  shape(svg, "line", {class: "baseline", x1: area.left, x2: area.right, y1: area.bottom, y2: area.bottom});
  shape(svg, "text", {class: "axis x-title", x: (area.left + area.right) / 2, y: area.bottom + 44, "text-anchor": "middle"}, options.xTitle);
  shape(svg, "text", {class: "axis y-title", x: 0, y: 14}, options.yTitle + (options.log ? " (logarithmic)" : ""));
}

function drawCurve(svg, one, x, y) {
  const points = one.x.map((value, i) => `${x(value).toFixed(2)},${y(one.y[i]).toFixed(2)}`);
  shape(svg, "path", {class: "curve", d: `M${points.join("L")}`, stroke: one.run.style.colour, "stroke-dasharray": one.run.style.dash, "data-run": one.run.name});
  const every = one.x.length > 40 ? Math.ceil(one.x.length / 12) : 1;
  for (let i = one.x.length - 1; i >= 0; i -= every) drawMarker(svg, one.run.style, x(one.x[i]), y(one.y[i]), 4.2);
}

// Name and last value of every curve, beside its marker at the right edge.
function drawEnds(svg, series, area, y, format) {
  const clamp = (value) => Math.min(area.bottom, Math.max(area.top, value));
  const places = spread(series.map((one) => clamp(y(one.y[one.y.length - 1]))), 19, area.bottom);
  series.forEach((one, i) => {
    drawMarker(svg, one.run.style, area.right + 22, places[i], 4.6);
    const text = shape(svg, "text", {class: "end", x: area.right + 34, y: places[i] + 4.5}, `${one.run.name}  `);
    shape(text, "tspan", {"font-weight": 700}, format(one.y[one.y.length - 1]));
  });
}

// The values at the recorded step nearest to the pointer.
function readOut(event, svg, series, area, x, y, options, cursor) {
  const at = x.invert(event.clientX - svg.getBoundingClientRect().left);
  const nearest = (one) => one.x.reduce((best, value, i) => Math.abs(value - at) < Math.abs(one.x[best] - at) ? i : best, 0);
  const found = series.map((one) => ({one, i: nearest(one)}));
  const closest = found.reduce((best, other) => Math.abs(other.one.x[other.i] - at) < Math.abs(best.one.x[best.i] - at) ? other : best);
  const target = closest.one.x[closest.i];
  cursor.setAttribute("x1", x(target));
  cursor.setAttribute("x2", x(target));
  cursor.removeAttribute("visibility");
  const table = element("table");
  const near = found.filter(({one, i}) => Math.abs(x(one.x[i]) - x(target)) < 14);
  near.sort((a, b) => a.one.y[a.i] - b.one.y[b.i]);
  for (const {one, i} of near) {
    const row = table.insertRow();
    row.insertCell().append(sample(one.run.style));
    row.insertCell().textContent = one.run.name;
    row.insertCell().textContent = options.value(one.y[i]);
    row.cells[1].style.textAlign = "left";
  }
  const where = options.unit === "step" ? "" : ` (${short(target)} ${options.xTitle.split(" of ")[0].replace("training ", "")})`;
  tip.show(event, [element("h4", "", `step ${closest.one.steps[closest.i].toLocaleString("en")}${where}`), table]);
}

// options: height, xTitle, yTitle, unit, log, late (second half only), cutStart, fromZero, format (ticks), value (values)
function lineChart(box, series, options) {
  box.replaceChildren();
  if (!series.length) {
    box.append(element("div", "empty", options.empty || "Nothing was recorded for the runs that are shown."));
    return;
  }
  const width = box.clientWidth, height = options.height;
  const ends = width >= 720 ? 44 + 7.6 * Math.max(...series.map(({run, y}) => run.name.length + 2 + options.value(y[y.length - 1]).length)) : 14;
  const area = {left: 62, right: width - Math.min(ends, width / 3), top: 34, bottom: height - 54, height: height - 88};
  const range = rangeOf(series, options);
  const x = scale(range.x, [area.left, area.right]), y = scale(range.y, [area.bottom, area.top], options.log);
  const svg = shape(box, "svg", {width, height, role: "img", "aria-label": `${options.yTitle} against ${options.xTitle}`});
  drawAxes(svg, area, x, y, range, options);
  const clip = shape(shape(svg, "defs", {}), "clipPath", {id: `${box.id}-clip`});
  shape(clip, "rect", {x: area.left - 6, y: area.top - 6, width: area.right - area.left + 12, height: area.height + 12});
  const curves = shape(svg, "g", {"clip-path": `url(#${box.id}-clip)`});
  const cursor = shape(curves, "line", {class: "cursor", y1: area.top, y2: area.bottom, visibility: "hidden"});
  for (const one of series) drawCurve(curves, one, x, y);
  if (width >= 720) drawEnds(svg, series, area, y, options.value);
  const catcher = shape(svg, "rect", {class: "catcher", x: area.left, y: area.top, width: area.right - area.left, height: area.height, fill: "transparent"});
  catcher.addEventListener("pointermove", (event) => readOut(event, svg, series, area, x, y, options, cursor));
  catcher.addEventListener("pointerleave", () => {
    tip.hide();
    cursor.setAttribute("visibility", "hidden");
  });
}
