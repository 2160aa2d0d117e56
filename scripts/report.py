#!/usr/bin/env python3
"""Draws the perplexity curves of training runs and sums them up in a table.

usage: report.py RUN... --output DIR [--x steps|tokens|flops|seconds] [--title TEXT]

Reads each run folder's config.json, perplexity.csv and model.safetensors (its header only). Leaves in DIR, for every
validation set, perplexity_NAME.png; and summary.md and index.html, one page without other files. The table is printed.
"""
import argparse
import base64
import csv
import html
import json
import math
import struct
import sys
from pathlib import Path

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito: colour-blind safe
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
AXES = {"steps": ("step", "training steps"), "tokens": ("tokens", "training tokens"),
        "flops": ("flops", "training FLOPs"), "seconds": ("seconds", "seconds of training")}


class Run:
    def __init__(self, folder):
        self.folder = Path(folder)
        config = json.loads(self.file("config.json").read_text())
        self.name = config["name"]
        self.moe = config["model"]["moe"]
        with open(self.file("perplexity.csv"), newline="") as file:
            self.rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
        if not self.rows:
            sys.exit(f"error: {self.folder}/perplexity.csv has no rows: has the run begun?")
        self.sets = [key.split("/")[1] for key in self.rows_keys()
                     if key.startswith("validation/") and key.endswith("/perplexity")]

    def file(self, name):
        path = self.folder / name
        if not path.is_file():
            sys.exit(f"error: {path} does not exist: {self.folder} is no run folder, or its run has not begun")
        return path

    def rows_keys(self):
        return dict.fromkeys(key for row in self.rows for key in row)

    def curve(self, x, y):
        points = [(row[x], row[y]) for row in self.rows if x in row and y in row]
        return [p[0] for p in points], [p[1] for p in points]

    def final(self, column):
        values = [row[column] for row in self.rows if column in row]
        return values[-1] if values else math.nan

    def parameters(self):
        """All, and those one token can use: of the routed experts at most heads x top_k. As `mhmoe plan` counts."""
        path = self.folder / "model.safetensors"
        if not path.is_file():
            return math.nan, math.nan
        with open(path, "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        counts = {name: math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
        routed = sum(count for name, count in counts.items() if ".moe.experts." in name)
        reached = min(self.moe["experts"], self.moe["heads"] * self.moe["top_k"]) / self.moe["experts"]
        return sum(counts.values()), sum(counts.values()) - routed + routed * reached

    def flops_per_token(self):
        return self.rows[-1]["flops"] / self.rows[-1]["tokens"]

    def tokens_per_second(self):
        """Of training alone, the first step left out."""
        first, last = self.rows[0], self.rows[-1]
        seconds = last["seconds"] - first["seconds"]
        return (last["tokens"] - first["tokens"]) / seconds if seconds > 0 else math.nan


def short(value):
    if math.isnan(value):
        return "-"
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f}"


def table(runs):
    sets = list(dict.fromkeys(name for run in runs for name in run.sets))
    # As trained first; dropless only where it differs.
    columns = [(name, suffix) for name in sets for suffix in ("perplexity", "perplexity_dropless")
               if suffix == "perplexity" or any(run.final(f"validation/{name}/perplexity") !=
                                                run.final(f"validation/{name}/{suffix}") for run in runs)]
    heads = {"perplexity": "perplexity", "perplexity_dropless": "dropless"}
    lines = [["model", "parameters", "active", "FLOPs/token", "steps"] + [f"{n} {heads[s]}" for n, s in columns] +
             ["tokens/s"]]
    for run in runs:
        total, active = run.parameters()
        finals = [run.final(f"validation/{name}/{suffix}") for name, suffix in columns]
        lines.append([run.name, short(total), short(active), short(run.flops_per_token()), f"{run.rows[-1]['step']:.0f}"] +
                     ["-" if math.isnan(f) else f"{f:.2f}" for f in finals] + [short(run.tokens_per_second())])
    return lines


def as_text(lines, markdown):
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rows = [[cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))] for line in lines]
    if not markdown:
        return "\n".join("  ".join(row) for row in rows)
    rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], rule] + rows[1:])


def spread(values, gap):
    """Moves sorted label positions apart to at least `gap`, as little as possible."""
    placed = list(values)
    for _ in range(100):
        for i in range(len(placed) - 1):
            overlap = gap - (placed[i + 1] - placed[i])
            if overlap > 1e-9:
                placed[i] -= overlap / 2
                placed[i + 1] += overlap / 2
    return placed


def label_ends(axes, ends):
    """Writes each curve's label beside its last point. ends: (x, y, text, colour)."""
    ends = sorted(ends, key=lambda end: end[1])
    to_pixels, to_data = axes.transData, axes.transData.inverted()
    pixels = [to_pixels.transform((x, y))[1] for x, y, _, _ in ends]
    for (x, _, text, colour), at in zip(ends, spread(pixels, 15 * axes.figure.dpi / 100)):
        y = to_data.transform((0, at))[1]
        axes.annotate(text, (x, y), xytext=(10, 0), textcoords="offset points", va="center", color=colour, fontsize=9.5,
                      fontweight="bold", annotation_clip=False)


def tidy(axes, title, x_label):
    from matplotlib import ticker
    axes.set_title(title, loc="left", fontsize=10.5, color="#333333")
    axes.set_xlabel(x_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6, which="both")
    axes.set_axisbelow(True)
    plain = ticker.FuncFormatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: short(value) if value else "0"))


def log_ticks(axes):
    """1, 2, 5 a decade; over less than a factor of three a linear axis reads better."""
    from matplotlib import ticker
    low, high = axes.get_ylim()
    if high / low > 3:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(ticker.LogLocator(10, (1, 2, 5)))


def draw(runs, name, x, title, path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    column, x_label = AXES[x]
    y = f"validation/{name}/perplexity"
    figure, (whole, late) = pyplot.subplots(1, 2, figsize=(11, 4.4), dpi=130, gridspec_kw={"wspace": 0.45})
    curves = [(run, *run.curve(column, y), COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
              for i, run in enumerate(runs)]
    curves = [curve for curve in curves if curve[1]]
    for run, xs, ys, colour, marker in curves:
        tx, ty = run.curve(column, "train/perplexity")
        whole.plot(tx, ty, color=colour, linewidth=0.8, alpha=0.3)
        for axes in (whole, late):
            axes.plot(xs, ys, color=colour, linewidth=1.8, marker=marker, markersize=4 if axes is late else 3)
    end = max(xs[-1] for _, xs, *_ in curves)
    shown = [[(a, b) for a, b in zip(xs, ys) if a >= end / 2] or [(xs[-1], ys[-1])] for _, xs, ys, *_ in curves]
    low, high = min(b for s in shown for _, b in s), max(b for s in shown for _, b in s)
    margin = 0.08 * (high - low) or 0.05 * high
    late.set_xlim(end / 2 * 0.98, end * 1.01)
    late.set_ylim(low - margin, high + margin)
    # The first training steps stand near the size of the vocabulary and would flatten everything else.
    whole.set_ylim(0.85 * min(min(ys) for _, _, ys, *_ in curves), 1.3 * max(max(ys) for _, _, ys, *_ in curves))
    log_ticks(whole)
    tidy(whole, f"Perplexity on {name} (thin: training)", x_label)
    tidy(late, "Its second half, last value at the end", x_label)
    label_ends(whole, [(xs[-1], ys[-1], run.name, colour) for run, xs, ys, colour, _ in curves])
    label_ends(late, [(xs[-1], ys[-1], f"{run.name} {ys[-1]:.1f}", colour) for run, xs, ys, colour, _ in curves])
    if title:
        figure.suptitle(title, x=0.125, ha="left", fontsize=13, fontweight="bold", y=1.0)
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)


def page(lines, pictures, title):
    rows = "".join("<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line) + "</tr>\n"
                   for line, tag in zip(lines, ["th"] + ["td"] * (len(lines) - 1)))
    images = "".join(f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,'
                     f'{base64.b64encode(path.read_bytes()).decode()}">\n' for path in pictures)
    style = ("body{font:15px sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}img{max-width:100%}"
             "table{border-collapse:collapse;margin:1em 0}td,th{padding:.3em .8em;border-bottom:1px solid #ddd;"
             "text-align:right}td:first-child,th:first-child{text-align:left}")
    return (f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
            f"<style>{style}</style>\n<h1>{html.escape(title)}</h1>\n<table>\n{rows}</table>\n{images}</html>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--x", choices=AXES, default="tokens", help="what the curves are drawn against")
    parser.add_argument("--title", default="", help="above the curves")
    args = parser.parse_args()
    runs = [Run(folder) for folder in args.runs]
    lines = table(runs)
    args.output.mkdir(parents=True, exist_ok=True)
    pictures = []
    for name in dict.fromkeys(name for run in runs for name in run.sets):
        pictures.append(args.output / f"perplexity_{name}.png")
        draw(runs, name, args.x, args.title, pictures[-1])
    (args.output / "summary.md").write_text(as_text(lines, markdown=True) + "\n")
    (args.output / "index.html").write_text(page(lines, pictures, args.title or "Training runs"))
    print(as_text(lines, markdown=False))
    for path in [args.output / "index.html"] + pictures:
        print(path)


if __name__ == "__main__":
    main()
