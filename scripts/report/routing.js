// Heat maps of expert load, and how many different experts a token reaches, at one recorded step.

function loadColour(stops, value) {
  const last = stops[stops.length - 1];
  const at = Math.min(value, last[0]);
  const i = Math.max(1, stops.findIndex(([limit]) => at <= limit));
  const [[low, from], [high, to]] = [stops[i - 1], stops[i]];
  const share = (at - low) / (high - low);
  const channel = (text, k) => parseInt(text.slice(1 + 2 * k, 3 + 2 * k), 16);
  return `rgb(${[0, 1, 2].map((k) => Math.round(channel(from, k) + share * (channel(to, k) - channel(from, k))))})`;
}

function drawLoadScale(box, stops) {
  box.replaceChildren(element("span", "", "load / mean load"));
  const limit = stops[stops.length - 1][0], width = 240;
  const svg = shape(box, "svg", {width: width + 60, height: 34, role: "img", "aria-label": "colours of the load"});
  for (let i = 0; i < 120; ++i) {
    shape(svg, "rect", {x: 10 + i * width / 120, y: 4, width: width / 120 + 0.5, height: 12, fill: loadColour(stops, i / 119 * limit)});
  }
  shape(svg, "rect", {x: 10, y: 4, width, height: 12, fill: "none", stroke: "#cfd4da"});
  for (const [at] of stops) {
    shape(svg, "text", {x: 10 + at / limit * width, y: 30, "text-anchor": "middle"}, at === limit ? `≥ ${at}` : `${at}`);
  }
}

const sum = (values) => values.reduce((a, b) => a + b, 0);
const expertLoad = (layer) => layer.heads[0].map((_, e) => sum(layer.heads.map((head) => head[e])));

// rows: {label, counts, apart (from the row above)}. Loads are over the mean of their own row.
function heatMap(box, rows, stops) {
  const experts = rows[0].counts.length, left = Math.max(58, 12 + 7.2 * Math.max(...rows.map(({label}) => label.length)));
  const width = box.clientWidth, cell = Math.min(56, (width - left - 4) / experts), height = rows.length > 12 ? 16 : 24;
  const bottom = rows.length * height + 7 * rows.filter(({apart}) => apart).length;
  const svg = shape(box, "svg", {width, height: bottom + 22, role: "img", "aria-label": "load of each expert"});
  const gap = cell > 7 ? 1 : 0;
  let top = 0;
  for (const {label, counts, apart} of rows) {
    const mean = sum(counts) / experts;
    if (apart) top += 7;
    shape(svg, "text", {x: left - 10, y: top + height / 2 + 4, "text-anchor": "end"}, label);
    counts.forEach((count, e) => {
      const ratio = mean ? count / mean : 0;
      const rect = shape(svg, "rect", {x: left + e * cell, y: top, width: cell - gap + (gap ? 0 : 0.3), height: height - 1, fill: loadColour(stops, ratio)});
      rect.dataset.tip = `${label}, expert ${e}: ${count.toLocaleString("en")} choices, ${ratio.toFixed(2)} × mean`;
    });
    top += height;
  }
  const every = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((step) => step * cell >= 26) || 1000;
  for (let e = 0; e < experts; e += every) {
    shape(svg, "text", {x: left + (e + 0.5) * cell, y: bottom + 15, "text-anchor": "middle"}, `${e}`);
  }
  shape(svg, "text", {x: left - 10, y: bottom + 15, "text-anchor": "end"}, "expert");
  svg.addEventListener("pointermove", (event) => {
    const text = event.target.dataset && event.target.dataset.tip;
    if (text) tip.show(event, [element("div", "", text)]);
    else tip.hide();
  });
  svg.addEventListener("pointerleave", () => tip.hide());
}

function panel(box, run, notes) {
  const out = element("div"), title = element("p", "panel-title");
  title.append(sample(run.style), element("b", "", run.name), element("span", "", notes));
  out.append(title);
  box.append(out);
  return out;
}

// The newest record up to `step`, or else the first.
function recordAt(run, step) {
  return run.routing.reduce((best, record) => record.step <= step ? record : best, run.routing[0]);
}

function drawLoadMaps(box, runs, step, stops) {
  box.replaceChildren();
  for (const run of runs) {
    const record = recordAt(run, step), loads = record.layers.map(expertLoad);
    const ratios = loads.flatMap((load) => load.map((count) => count * load.length / (sum(load) || 1)));
    const dropped = sum(record.layers.map((layer) => layer.dropped)) / sum(loads.map(sum));
    const out = panel(box, run, `step ${record.step.toLocaleString("en")} · ${run.experts} experts · busiest ${Math.max(...ratios).toFixed(2)} × mean · ` +
      `${ratios.filter((ratio) => ratio <= 0.1).length} of ${ratios.length} idle · ${percent(dropped)} dropped`);
    heatMap(out, record.layers.map((layer, i) => ({label: `layer ${layer.layer}`, counts: loads[i]})), stops);
  }
}

const chosenLayers = (record, layer) => record.layers.filter((one) => layer === "all" || `${one.layer}` === layer);

function drawHeadMaps(box, runs, step, layer, stops) {
  box.replaceChildren();
  for (const run of runs.filter((one) => one.headCount > 1)) {
    const record = recordAt(run, step), layers = chosenLayers(record, layer);
    if (!layers.length) continue;
    const out = panel(box, run, `step ${record.step.toLocaleString("en")} · ${run.headCount} sub-tokens a token`);
    heatMap(out, layers.flatMap((one, i) => one.heads.map((counts, head) => (
      {label: `layer ${one.layer}, sub-token ${head}`, counts, apart: head === 0 && i > 0}))), stops);
  }
}

// Bars of the share of tokens by the number of different experts.
function drawDifferent(box, runs, step, layer) {
  box.replaceChildren();
  for (const run of runs.filter((one) => one.choices > 1)) {
    const layers = chosenLayers(recordAt(run, step), layer);
    if (!layers.length) continue;
    const tokens = layers[0].different.map((_, i) => sum(layers.map((one) => one.different[i])));
    const total = sum(tokens), mean = sum(tokens.map((count, i) => count * (i + 1))) / total;
    const out = panel(box, run, `mean ${mean.toFixed(2)} of ${tokens.length}`);
    const bar = Math.min(64, 420 / tokens.length), height = 150, width = Math.max(200, bar * tokens.length + 10);
    const svg = shape(out, "svg", {width, height: height + 46, role: "img", "aria-label": "tokens by different experts"});
    const top = Math.max(...tokens) / total;
    tokens.forEach((count, i) => {
      const size = count / total / top * (height - 22), x = 5 + i * bar;
      const rect = shape(svg, "rect", {x: x + bar * 0.1, y: height - size, width: bar * 0.8, height: size, fill: run.style.colour});
      rect.dataset.tokens = count;
      shape(svg, "text", {x: x + bar / 2, y: height - size - 6, "text-anchor": "middle"}, percent(count / total));
      shape(svg, "text", {x: x + bar / 2, y: height + 17, "text-anchor": "middle"}, `${i + 1}`);
    });
    shape(svg, "line", {class: "baseline", x1: 5, x2: 5 + bar * tokens.length, y1: height, y2: height});
    shape(svg, "text", {class: "axis", x: 5 + bar * tokens.length / 2, y: height + 38, "text-anchor": "middle"}, "different experts");
  }
}
