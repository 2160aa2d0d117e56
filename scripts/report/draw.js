"use strict";
// Small tools: elements, numbers as text, ticks, and how a run is drawn.

const SVG = "http://www.w3.org/2000/svg";

// An SVG element appended to `parent`.
function shape(parent, name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function element(name, className, text) {
  const out = document.createElement(name);
  if (className) out.className = className;
  if (text !== undefined) out.textContent = text;
  return out;
}

// "1.5 M", as in the table.
function short(value) {
  for (const [limit, unit] of [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= 0.9995 * limit) return `${+(value / limit).toPrecision(3)} ${unit}`;
  }
  return `${+value.toPrecision(3)}`;
}

function plain(value) {
  return Math.abs(value) >= 1e4 || (value !== 0 && Math.abs(value) < 1e-3) ? short4(value) : `${+value.toPrecision(4)}`;
}

function short4(value) {
  return Math.abs(value) < 1 ? value.toExponential(1) : short(value);
}

function percent(value) {
  return `${100 * value >= 0.095 ? +(100 * value).toFixed(1) : +(100 * value).toPrecision(1)} %`;
}

function twoDecimals(value) {
  return value < 1000 ? value.toFixed(2) : short(value);
}

// 1, 2, 5 times powers of ten within [low, high], about `count` of them.
function linearTicks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) ticks.push(+(i * step).toPrecision(12));
  return ticks;
}

function logTicks(low, high, count) {
  if (high / low < 4) return linearTicks(low, high, count).filter((tick) => tick > 0);
  const ticks = [], factors = high / low > 1e4 ? [1] : high / low > 12 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; ++power) {
    for (const factor of factors) {
      const tick = factor * 10 ** power;
      if (tick >= low && tick <= high) ticks.push(+tick.toPrecision(12));
    }
  }
  return ticks;
}

// The outline of a marker of radius r.
function markerPath(name, x, y, r) {
  const polygon = (points) => "M" + points.map(([dx, dy]) => `${(x + dx * r).toFixed(2)},${(y + dy * r).toFixed(2)}`).join("L") + "Z";
  switch (name) {
    case "square": return polygon([[-.9, -.9], [.9, -.9], [.9, .9], [-.9, .9]]);
    case "triangle": return polygon([[0, -1.2], [1.15, .85], [-1.15, .85]]);
    case "triangle-down": return polygon([[0, 1.2], [1.15, -.85], [-1.15, -.85]]);
    case "diamond": return polygon([[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]]);
    case "plus": return polygon([[-.4, -1.2], [.4, -1.2], [.4, -.4], [1.2, -.4], [1.2, .4], [.4, .4], [.4, 1.2], [-.4, 1.2], [-.4, .4], [-1.2, .4], [-1.2, -.4], [-.4, -.4]]);
    case "cross": return polygon([[0, -.5], [.7, -1.2], [1.2, -.7], [.5, 0], [1.2, .7], [.7, 1.2], [0, .5], [-.7, 1.2], [-1.2, .7], [-.5, 0], [-1.2, -.7], [-.7, -1.2]]);
    default: return `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`;
  }
}

function drawMarker(parent, style, x, y, r) {
  shape(parent, "path", {d: markerPath(style.marker, x, y, r), fill: style.colour, stroke: "#fff", "stroke-width": 1});
}

// A short piece of a run's line, for legends and tables.
function sample(style) {
  const out = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({width: 38, height: 14, class: "sample", "aria-hidden": "true"})) out.setAttribute(key, value);
  shape(out, "path", {d: "M1,7H37", stroke: style.colour, "stroke-width": 2.4, "stroke-dasharray": style.dash});
  drawMarker(out, style, 19, 7, 4.6);
  return out;
}

// Moves label positions apart to at least `gap`, as little as possible, and up from below `bottom`.
function spread(positions, gap, bottom) {
  const order = positions.map((_, i) => i).sort((a, b) => positions[a] - positions[b]), placed = [...positions];
  for (let round = 0; round < 200; ++round) {
    for (let i = 0; i + 1 < order.length; ++i) {
      const overlap = gap - (placed[order[i + 1]] - placed[order[i]]);
      if (overlap > 1e-6) {
        placed[order[i]] -= overlap / 2;
        placed[order[i + 1]] += overlap / 2;
      }
    }
  }
  for (let i = order.length - 1, limit = bottom; i >= 0; --i, limit = placed[order[i + 1]] - gap) {
    placed[order[i]] = Math.min(placed[order[i]], limit);
  }
  return placed;
}

const tip = {
  box: document.getElementById("tip"),
  show(event, content) {
    this.box.replaceChildren(...content);
    this.box.hidden = false;
    const width = this.box.offsetWidth, room = document.documentElement.clientWidth;
    const left = event.clientX + 18 + width > room ? event.clientX - 18 - width : event.clientX + 18;
    this.box.style.left = `${Math.max(8, left) + window.scrollX}px`;
    this.box.style.top = `${event.clientY + window.scrollY - 12}px`;
  },
  hide() { this.box.hidden = true; },
};
