// The page's state, its switches, and drawing what they say.

const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const routed = DATA.runs.filter((run) => run.routing.length);
const routingSteps = [...new Set(routed.flatMap((run) => run.routing.map((record) => record.step)))].sort((a, b) => a - b);
const hidden = new Set();

window.addEventListener("error", (event) => {
  byId("errors").hidden = false;
  byId("errors").textContent = `A chart could not be drawn: ${event.message}`;
});

function finalPerplexity(run, set, key) {
  const curve = run.curves[`validation/${set}/${key}`];
  return curve && curve[2][curve[2].length - 1];
}

const droplessDiffers = DATA.runs.some((run) => DATA.sets.some((set) =>
  finalPerplexity(run, set, "perplexity") !== finalPerplexity(run, set, "perplexity_dropless")));
const layers = [...new Set(routed.flatMap((run) => run.routing[0].layers.map((layer) => layer.layer)))].sort((a, b) => a - b);

const choice = (value, label) => ({value: `${value}`, label: label || `${value}`});
// Every switch: its label and its values, the first of which is the default unless `initial` says otherwise.
const SWITCHES = {
  set: {label: "On", values: [...DATA.sets.map((set) => choice(set)), choice("training", "training text")]},
  x: {label: "Against", values: [choice("steps"), choice("tokens"), choice("flops", "FLOPs"), choice("seconds", "time")], initial: DATA.x},
  y: {label: "Scale", values: [choice("log", "logarithmic"), choice("linear")]},
  part: {label: "Show", values: [choice("all", "whole run"), choice("late", "second half")]},
  capacity: {label: "Experts", values: [choice("perplexity", "capacity as trained"), choice("perplexity_dropless", "dropless")]},
  layer: {label: "Layer", values: [choice("all"), ...layers.map((layer) => choice(layer))]},
  balance: {label: "", values: DATA.balance.map(({key, label}) => choice(key, label))},
  health: {label: "", values: DATA.health.map(({key, label}) => choice(key, label))},
};

const state = {step: routingSteps.length - 1};

function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const [name, {values, initial}] of Object.entries(SWITCHES)) {
    const wanted = asked.get(name);
    const known = values.some(({value}) => value === wanted);
    state[name] = known ? wanted : initial || (values[0] && values[0].value);
  }
  const step = asked.has("step") ? routingSteps.indexOf(Number(asked.get("step"))) : -1;
  state.step = step >= 0 ? step : routingSteps.length - 1;
}

function set(name, value) {
  state[name] = value;
  const address = new URLSearchParams();
  for (const [key, {values, initial}] of Object.entries(SWITCHES)) {
    if (values.length > 1 && state[key] !== (initial || values[0].value)) address.set(key, state[key]);
  }
  if (routingSteps.length && state.step !== routingSteps.length - 1) address.set("step", routingSteps[state.step]);
  history.replaceState(null, "", `#${address}`);
  draw();
}

function addSwitch(box, name) {
  const {label, values} = SWITCHES[name];
  if (values.length < 2) return;
  const control = element("div", "control", label), segments = element("div", "segments");
  segments.setAttribute("role", "group");
  segments.setAttribute("aria-label", label || name);
  for (const {value, label: text} of values) {
    const button = element("button", "", text);
    Object.assign(button.dataset, {switch: name, value});
    button.addEventListener("click", () => set(name, value));
    segments.append(button);
  }
  control.append(segments);
  box.append(control);
}

function addSlider(box) {
  if (routingSteps.length < 2) return;
  const control = element("label", "control", "Step"), slider = element("input"), output = element("output");
  Object.assign(slider, {type: "range", min: 0, max: routingSteps.length - 1, id: "step"});
  output.id = "step-output";
  slider.addEventListener("input", () => set("step", Number(slider.value)));
  control.append(slider, output);
  const ends = element("div", "segments");
  for (const [text, value] of [["first", 0], ["last", routingSteps.length - 1]]) {
    const button = element("button", "", text);
    Object.assign(button.dataset, {switch: "step", value});
    button.addEventListener("click", () => set("step", value));
    ends.append(button);
  }
  box.append(control, ends);
}

// A legend names the runs that its chart can show.
const measured = {
  perplexity: () => true,
  balance: (run) => DATA.balance.some(({key}) => run.curves[key]),
  health: (run) => DATA.health.some(({key}) => run.curves[key]),
};

function addLegends() {
  for (const legend of document.querySelectorAll(".legend")) {
    for (const run of DATA.runs) {
      const button = element("button");
      button.append(sample(run.style), run.name);
      button.dataset.run = run.name;
      button.hidden = !measured[legend.dataset.of](run);
      button.title = "show or hide this run";
      button.addEventListener("click", () => {
        if (!hidden.delete(run.name)) hidden.add(run.name);
        draw();
      });
      legend.append(button);
    }
  }
  for (const place of document.querySelectorAll("[data-sample]")) place.append(sample(DATA.runs[place.dataset.sample].style));
}

function drawPerplexity(shown) {
  const training = state.set === "training";
  const key = training ? "train/perplexity" : `validation/${state.set}/${state.capacity}`;
  const {series, title} = seriesOf(shown, key, state.x);
  lineChart(byId("perplexity"), series, {height: 460, xTitle: title, yTitle: "perplexity", unit: AXES[state.x].unit, log: state.y === "log",
    late: state.part === "late", cutStart: true, format: plain, value: twoDecimals, empty: "No validation was recorded yet for the runs that are shown."});
  const what = training ? "Perplexity of the text trained on, mean of the steps since the last record" :
    `Perplexity on ${state.set}, held-out text` + (droplessDiffers ? state.capacity === "perplexity" ? ", experts with the capacity of training" : ", no choice dropped" : "");
  byId("perplexity-caption").textContent = `${what}. Lower is better. Point at the chart for values; click a name to hide a run. ` +
    best(series) + (state.y === "linear" && state.part === "all" ? " What lies above the scale is cut off." : "");
}

function best(series) {
  if (series.length < 2) return "";
  const last = (one) => one.y[one.y.length - 1];
  const lowest = series.reduce((a, b) => last(b) < last(a) ? b : a);
  return `Lowest at its end: ${lowest.run.name} with ${twoDecimals(last(lowest))}.`;
}

function drawOption(id, table, shown) {
  const option = table.find(({key}) => key === state[id]);
  if (!option) return;
  const {series, title} = seriesOf(shown, option.key, state.x);
  const shares = /activation|fraction|mfu/.test(option.key);
  lineChart(byId(id), series, {height: 340, xTitle: title, yTitle: option.axis, unit: AXES[state.x].unit, fromZero: true,
    format: shares ? percent : plain, value: shares ? percent : plain});
  byId(`${id}-caption`).textContent = option.caption;
}

function drawRouting(shown) {
  const runs = shown.filter((run) => run.routing.length), step = routingSteps[state.step];
  const many = runs.some((run) => run.headCount > 1), diverse = runs.some((run) => run.choices > 1);
  byId("heads").hidden = !many;
  byId("different").hidden = !diverse;
  drawLoadMaps(byId("load-maps"), runs, step, DATA.loadStops);
  drawHeadMaps(byId("head-maps"), runs, step, state.layer, DATA.loadStops);
  drawDifferent(byId("different-bars"), runs, step, state.layer);
  if (byId("step")) {
    byId("step").value = state.step;
    byId("step-output").textContent = `${step.toLocaleString("en")}`;
  }
}

function draw() {
  const shown = DATA.runs.filter((run) => !hidden.has(run.name));
  for (const button of document.querySelectorAll("[data-switch]")) {
    button.setAttribute("aria-pressed", `${state[button.dataset.switch]}` === button.dataset.value);
  }
  for (const button of document.querySelectorAll(".legend button")) button.setAttribute("aria-pressed", !hidden.has(button.dataset.run));
  drawPerplexity(shown);
  if (routed.length) drawRouting(shown);
  drawOption("balance", DATA.balance, shown);
  drawOption("health", DATA.health, shown);
}

function start() {
  byId("routing").hidden = !routed.length;
  byId("balance-section").hidden = !DATA.balance.length;
  for (const name of ["set", "x", "y", "part"]) addSwitch(byId("perplexity-controls"), name);
  if (droplessDiffers) addSwitch(byId("perplexity-controls"), "capacity");
  addSlider(byId("routing-controls"));
  drawLoadScale(byId("load-scale"), DATA.loadStops);
  addSwitch(byId("layer-controls"), "layer");
  addSwitch(byId("balance-controls"), "balance");
  addSwitch(byId("health-controls"), "health");
  addLegends();
  readAddress();
  draw();
  window.addEventListener("hashchange", () => { readAddress(); draw(); });
  let width = document.documentElement.clientWidth;
  window.addEventListener("resize", () => {
    if (document.documentElement.clientWidth !== width) draw();
    width = document.documentElement.clientWidth;
  });
}

start();
