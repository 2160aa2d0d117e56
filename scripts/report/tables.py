"""The final table, and what differs between the configurations."""
import json
import math

from report.paper import paper_figures
from report.run import sets_of


def short(value, zeros=""):
    """"1.5 M", of three digits; zeros "#": "1.50 M"."""
    if math.isnan(value):
        return "-"
    for limit, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * limit:
            return f"{value / limit:{zeros}.3g}".rstrip(".") + f" {unit}"
    return f"{value:.0f}"


def three_digits(value):
    return short(value, "#")


def dropless_differs(runs, name):
    return any(run.final(f"validation/{name}/perplexity") != run.final(f"validation/{name}/perplexity_dropless")
               for run in runs if name in run.sets)


class Column:
    """title, within a group ("" for none); values: one a run, NaN where there is none; best: min, or None."""

    def __init__(self, group, title, values, form, best=None):
        known = [value for value in values if not math.isnan(value)]
        self.group, self.title = group, title
        self.cells = ["-" if math.isnan(value) else form(value) for value in values]
        self.is_best = [best is not None and len(known) > 1 and value == best(known) for value in values]


def set_columns(runs, name):
    """Of one validation set; dropless only where it differs, and the paper's figures where there are any."""
    def finals(key):
        return [run.final(f"validation/{name}/{key}") for run in runs]
    columns = [Column(name, "perplexity", finals("perplexity"), "{:.2f}".format, min)]
    if dropless_differs(runs, name):
        columns.append(Column(name, "dropless", finals("perplexity_dropless"), "{:.2f}".format, min))
    paper = [paper_figures(run).get("perplexity", {}).get(name, math.nan) for run in runs]
    if not all(math.isnan(value) for value in paper):
        columns.append(Column(name, "paper", paper, "{:.2f}".format))
    return columns + [Column(name, "bits/byte", finals("bits_per_byte"), "{:.4f}".format, min)]


def final_columns(runs):
    return [Column("", "parameters", [run.parameters for run in runs], three_digits),
            Column("", "active", [run.active_parameters for run in runs], three_digits),
            Column("", "FLOPs/token", [run.flops_per_token() for run in runs], three_digits),
            Column("", "steps", [run.steps for run in runs], "{:.0f}".format),
            *(column for name in sets_of(runs) for column in set_columns(runs, name)),
            Column("", "tokens/s", [run.tokens_per_second() for run in runs], three_digits)]


def final_lines(runs):
    """As text: a header, and a line a run."""
    columns = final_columns(runs)
    lines = [["run"] + [f"{column.group} {column.title}".strip() for column in columns]]
    for i, run in enumerate(runs):
        lines.append([run.label] + [column.cells[i] for column in columns])
    return lines


def as_text(lines, markdown):
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rows = [[cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))] for line in lines]
    if not markdown:
        return "\n".join("  ".join(row) for row in rows)
    rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], rule] + rows[1:])


def flatten(value, prefix=""):
    """{"train.steps": 100, ...}; lists of objects by number."""
    if isinstance(value, dict) and value:
        items = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = enumerate(value)
    else:
        return {prefix: value}
    out = {}
    for key, item in items:
        out.update(flatten(item, f"{prefix}.{key}" if prefix else str(key)))
    return out


ABSENT = object()


def settings(run):
    """Of a dense model without what would hold for experts."""
    return {key: value for key, value in flatten(run.config).items()
            if run.is_moe or not key.startswith("model.moe.") or key == "model.moe.every_n_layers"}


def config_differences(runs):
    """(key, one text a run) of every key that the runs do not agree on; dense runs have no say in keys of experts, unless
    one run alone has any. Names and comments say nothing."""
    configs = [settings(run) for run in runs]
    rows = []
    for key in dict.fromkeys(key for config in configs for key in config):
        if key in ("name", "output_dir") or key.endswith("comment"):
            continue
        values = [config.get(key, ABSENT) for config in configs]
        voters = [value for run, value in zip(runs, values) if value is not ABSENT or run.is_moe]
        if len(voters) < 2:
            voters = values
        if any(value != voters[0] for value in voters):
            rows.append((key, [as_json(value) for value in values]))
    return rows


def as_json(value):
    if value is ABSENT:
        return "-"
    return value if isinstance(value, str) else json.dumps(value)
