"""One HTML page that needs nothing else: the data as JSON, the drawing as a script, both inside it."""
import datetime
import html
import itertools
import json
import math
import re
from pathlib import Path

from report.paper import paper_figures
from report.run import sets_of
from report.style import LOAD_STOPS, style_of
from report.tables import config_differences, final_columns, flatten, as_json

HERE = Path(__file__).parent
CURVE_POINTS = 1000  # of a curve; more are averaged
ROUTING_STEPS = 48   # that the slider knows

# What the chart of training can show: key, button, axis, caption.
HEALTH = (
    ("train/tokens_per_second", "Tokens/s", "tokens a second",
     "Training speed, validation left out. Higher is better; runs that shared a machine are not comparable."),
    ("train/mfu", "Share of peak", "share of the measured peak",
     "Model FLOPs a second over the best matrix product timed at the start of the run. Higher is better."),
    ("train/grad_norm", "Gradient norm", "gradient norm", "Euclidean norm over all parameters, before clipping."),
    ("train/learning_rate", "Learning rate", "learning rate", "The schedule as it was followed."),
    ("train/refused_steps", "Refused steps", "steps refused so far",
     "Steps that changed no weight, because loss or gradient norm was not finite or above the spike guard's limit. 0 is best."),
)
BALANCE = (
    ("moe/expert_activation", "Experts active", "share of experts active",
     "Share of experts that get more than a tenth of the mean load. 100 % is best: below it experts lie idle."),
    ("moe/load_max_over_mean", "Busiest expert", "largest load / mean load",
     "Load of the busiest expert over the mean, mean over MoE layers. 1 is best: perfectly even."),
    ("moe/dropped_fraction", "Dropped", "share of choices dropped",
     "Choices beyond an expert's capacity. 0 is best, and what dropless routing gives."),
    ("train/balance_loss", "Balance loss", "balance loss", "1 when perfectly even, before its weight is applied."),
    ("different_experts", "Sub-token diversity", "different experts a token",
     "Mean number of different experts that the sub-tokens of a token choose, over tokens and MoE layers. "
     "Higher means that the sub-tokens of a token are treated more differently."),
)


def rounded(value, digits=6):
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def thinned(points):
    """At most CURVE_POINTS of (step, seconds, value): neighbours become one at the last one's step, of their mean."""
    size = math.ceil(len(points) / CURVE_POINTS)
    if size <= 1:
        return points
    chunks = [points[i:i + size] for i in range(0, len(points), size)]
    return [(*chunk[-1][:2], sum(value for *_, value in chunk) / len(chunk)) for chunk in chunks]


def as_columns(points):
    return [[rounded(value) for value in column] for column in zip(*points)]


def curves_of(run):
    """{key: [steps, seconds, values]} of every number that was measured. Perplexities are averaged as losses."""
    out = {}
    for key in dict.fromkeys(key for record in run.records for key in record if "/" in key):
        logarithmic = "perplexity" in key
        points = [(r["step"], r["seconds"], math.log(r[key]) if logarithmic else r[key])
                  for r in run.records if r.get(key) is not None]
        points = thinned(points)
        if logarithmic:
            points = [(step, seconds, math.exp(value)) for step, seconds, value in points]
        if points:
            out[key] = as_columns(points)
    if run.routing and run.moe["heads"] * run.moe["top_k"] > 1:
        seconds = {record["step"]: record["seconds"] for record in run.records}
        last = run.records[-1]["seconds"]
        points = [(r["step"], seconds.get(r["step"], last * r["step"] / run.steps),
                   sum(layer["different_experts_mean"] for layer in r["layers"]) / len(r["layers"])) for r in run.routing]
        out["different_experts"] = as_columns(thinned(points))
    return out


def routing_of(run):
    """The records that the slider shows: evenly chosen, first and last always."""
    records = run.routing
    if len(records) > ROUTING_STEPS:
        wanted = {round(i * (len(records) - 1) / (ROUTING_STEPS - 1)) for i in range(ROUTING_STEPS)}
        records = [record for i, record in enumerate(records) if i in wanted]
    return [{"step": record["step"],
             "layers": [{"layer": layer["layer"], "heads": layer["head_load"], "dropped": sum(layer["dropped"]),
                         "different": layer["different_experts"]} for layer in record["layers"]]} for record in records]


def run_data(index, run):
    return {"name": run.label, "style": style_of(index), "state": run.state(), "sets": run.sets,
            "tokensPerStep": run.records[-1]["tokens"] / run.steps, "flopsPerToken": run.flops_per_token(),
            "steps": run.steps, "experts": run.moe["experts"] if run.is_moe else 0,
            "choices": run.moe["heads"] * run.moe["top_k"], "headCount": run.moe["heads"],
            "curves": curves_of(run), "routing": routing_of(run)}


def options(runs, table):
    """Of HEALTH or BALANCE those that some run has measured; of refused steps only if there were any."""
    keys = {key for run in runs for key, curve in run["curves"].items() if key != "train/refused_steps" or any(curve[2])}
    return [{"key": key, "label": label, "axis": axis, "caption": caption}
            for key, label, axis, caption in table if key in keys]


def page_data(runs, x):
    data = [run_data(i, run) for i, run in enumerate(runs)]
    return {"runs": data, "sets": sets_of(runs), "x": x, "loadStops": LOAD_STOPS,
            "health": options(data, HEALTH), "balance": options(data, BALANCE)}


def cell(tag, text, best=False, left=False):
    classes = " ".join(name for name, on in (("best", best), ("left", left)) if on)
    attribute = f' class="{classes}"' if classes else ""
    return f"<{tag}{attribute}>{html.escape(text)}</{tag}>"


def final_table(runs):
    """Two lines of header: the columns of one validation set stand under its name."""
    columns = final_columns(runs)
    top = ['<th class="left" rowspan="2">run</th>']
    for group, members in itertools.groupby(columns, lambda column: column.group):
        members = list(members)
        if group:
            top.append(f'<th class="group" colspan="{len(members)}"><span>{html.escape(group)}</span></th>')
        else:
            top += [f'<th rowspan="2">{html.escape(column.title)}</th>' for column in members]
    below = "".join(cell("th", column.title) for column in columns if column.group)
    rows = []
    for i, run in enumerate(runs):
        name = f'<td class="left"><span data-sample="{i}"></span>{html.escape(run.label)}</td>'
        rows.append(name + "".join(cell("td", column.cells[i], column.is_best[i]) for column in columns))
    return table("".join(top) + (f"</tr><tr>{below}" if below else ""), rows) + paper_note(runs)


def paper_note(runs):
    entries = [entry for entry in map(paper_figures, runs) if entry]
    if not entries:
        return ""
    sources = "; ".join(dict.fromkeys(entry["source"] for entry in entries))
    return (f'<p class="caption below">Paper: what {html.escape(sources)} reports for the model of this configuration, on its own '
            "data. Only the order of the models can be compared with runs on other data or of fewer steps.</p>")


def table(head, rows):
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def differences_table(runs):
    differences = config_differences(runs)
    if not differences:
        return "<p>None." + (" There is one run." if len(runs) == 1 else "") + "</p>"
    head = cell("th", "key", left=True) + "".join(cell("th", run.label) for run in runs)
    return table(head, [cell("td", key, left=True) + "".join(cell("td", value) for value in values)
                        for key, values in differences])


def whole_configs(runs):
    parts = []
    for run in runs:
        lines = "\n".join(f"{key}: {as_json(value)}" for key, value in flatten(run.config).items())
        parts.append(f"<details><summary>All of {html.escape(run.label)}</summary><pre>{html.escape(lines)}</pre></details>")
    return "\n".join(parts)


def subtitle(runs):
    tokens = max(run.records[-1]["tokens"] for run in runs)
    lines = [f"{run.label}: {note}" for run in runs for note in run.notes()]
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    text = f"{count}, up to {tokens:,} training tokens. Drawn {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC."
    notes = "".join(f'<p class="note">{html.escape(line)}</p>' for line in lines)
    return f"<p>{html.escape(text)}</p>{notes}"


def page(runs, title, x):
    # "</" would end the script element early.
    data = json.dumps(page_data(runs, x), separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    parts = {"TITLE": html.escape(title), "STYLE": (HERE / "page.css").read_text(), "SUBTITLE": subtitle(runs),
             "TABLE": final_table(runs), "DIFFERENCES": differences_table(runs), "CONFIGS": whole_configs(runs),
             "SCRIPT": "\n".join((HERE / name).read_text() for name in ("draw.js", "charts.js", "routing.js", "page.js")),
             "DATA": data}
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: parts[match[1]], (HERE / "page.html").read_text())
