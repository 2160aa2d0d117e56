#!/usr/bin/env python3
"""Draws training runs side by side: a page for the browser, pictures, and a table.

usage: report.py RUN... --output DIR [--x steps|tokens|flops|seconds] [--title TEXT]

RUN is a run's folder; the run may be going on. Leaves in DIR: index.html, one page without other files; summary.md; for
every validation set perplexity_NAME.png; throughput.png; and for mixtures of experts with routing records
load_experts.png, load_heads.png, different_experts.png, experts_active.png. The table is printed. The pictures need
matplotlib, the rest nothing but Python.
"""
import argparse
import sys
from pathlib import Path

from report.page import page
from report.run import read_runs, sets_of
from report.style import AXES
from report.tables import as_text, final_lines


def draw_all(runs, output, x, title):
    """The paths of what there was something to draw for; none without matplotlib."""
    try:
        from report.pictures import draw_over_steps, draw_perplexity
        from report.routing_pictures import draw_different_experts, draw_heads, draw_load
    except ImportError as error:
        print(f"note: no pictures, only the page and the table: {error} (Debian: python3-matplotlib)", file=sys.stderr)
        return []
    drawn = []
    for name in sets_of(runs):
        drawn.append(output / f"perplexity_{name}.png")
        draw_perplexity(runs, name, x, title, drawn[-1])
    for name, draw in (("load_experts", draw_load), ("load_heads", draw_heads), ("different_experts", draw_different_experts)):
        if draw(runs, title, output / f"{name}.png"):
            drawn.append(output / f"{name}.png")
    for name, key, caption in (("experts_active", "moe/expert_activation", "Share of experts with over a tenth of the mean load"),
                               ("throughput", "train/tokens_per_second", "Training tokens a second")):
        if draw_over_steps(runs, key, caption, title, output / f"{name}.png"):
            drawn.append(output / f"{name}.png")
    return drawn


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--x", choices=AXES, default="tokens", help="what the curves are drawn against at first")
    parser.add_argument("--title", default="", help="above the curves")
    args = parser.parse_args()
    runs = read_runs(args.runs)
    args.output.mkdir(parents=True, exist_ok=True)
    lines = final_lines(runs)
    (args.output / "summary.md").write_text(as_text(lines, markdown=True) + "\n")
    (args.output / "index.html").write_text(page(runs, args.title or "Training runs", args.x))
    drawn = draw_all(runs, args.output, args.x, args.title)
    print(as_text(lines, markdown=False))
    for path in [args.output / "index.html"] + drawn:
        print(path)


if __name__ == "__main__":
    main()
