"""The perplexity curves and the throughput as pictures, for papers and READMEs. The page draws its own."""
import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot, ticker  # noqa: E402: the backend is chosen first

from report.style import AXES, MATPLOTLIB_MARKERS, matplotlib_dash, style_of  # noqa: E402
from report.tables import short  # noqa: E402


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
    """Writes each curve's label, with its marker, at the right edge beside its last point. ends: (run's index, y, text)."""
    ends = sorted(ends, key=lambda end: end[1])
    pixels = [axes.transData.transform((axes.get_xlim()[0], y))[1] for _, y, _ in ends]
    for (i, _, text), at in zip(ends, spread(pixels, 15 * axes.figure.dpi / 100)):
        _, height = axes.transAxes.inverted().transform((0, at))
        axes.plot([1.03], [height], transform=axes.transAxes, clip_on=False, markersize=6, **line_style(i))
        axes.annotate(text, (1.03, height), xycoords="axes fraction", xytext=(9, 0), textcoords="offset points", va="center",
                      color="#222222", fontsize=9.5, annotation_clip=False)


def tidy(axes, title, x_label):
    axes.set_title(title, loc="left", fontsize=10.5, color="#333333")
    axes.set_xlabel(x_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6, which="major")
    axes.set_axisbelow(True)
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: short(value) if value >= 1000 else f"{value:g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5))  # more run into one another
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: short(value) if value else "0"))


def log_ticks(axes):
    """1, 2, 5 a decade; over less than a factor of three a linear axis reads better."""
    low, high = axes.get_ylim()
    if high / low > 3:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(ticker.LogLocator(10, (1, 2, 5)))


def line_style(index):
    style = style_of(index)
    return {"color": style["colour"], "linestyle": matplotlib_dash(style["dash"]),
            "marker": MATPLOTLIB_MARKERS[style["marker"]]}


def title_of(figure, title, x=0.125):
    """Above everything that is drawn, at the left edge of the axes."""
    if title:
        top = figure.subplotpars.top + 0.5 / figure.get_figheight()
        figure.text(x, top, title, ha="left", va="bottom", fontsize=13, fontweight="bold")


def save(figure, path):
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)


def draw_late(axes, curves):
    """The second half, large enough to tell the ends apart."""
    end = max(xs[-1] for _, _, xs, _ in curves)
    shown = [[(a, b) for a, b in zip(xs, ys) if a >= end / 2] or [(xs[-1], ys[-1])] for _, _, xs, ys in curves]
    low, high = min(b for s in shown for _, b in s), max(b for s in shown for _, b in s)
    margin = 0.08 * (high - low) or 0.05 * high
    axes.set_xlim(end / 2 * 0.98, end * 1.01)
    axes.set_ylim(low - margin, high + margin)


def draw_perplexity(runs, name, x, title, path):
    column, x_label = AXES[x]
    figure, (whole, late) = pyplot.subplots(1, 2, figsize=(11, 4.4), dpi=130, gridspec_kw={"wspace": 0.2})
    curves = [(i, run, *run.curve(column, f"validation/{name}/perplexity")) for i, run in enumerate(runs)]
    curves = [curve for curve in curves if curve[2]]
    for i, run, xs, ys in curves:
        whole.plot(*run.curve(column, "train/perplexity"), color=style_of(i)["colour"], linewidth=0.8, alpha=0.3)
        for axes in (whole, late):
            axes.plot(xs, ys, linewidth=1.8, markersize=4 if axes is late else 3, **line_style(i))
    # The first training steps stand near the size of the vocabulary and would flatten everything else.
    whole.set_ylim(0.85 * min(min(ys) for *_, ys in curves), 1.3 * max(max(ys) for *_, ys in curves))
    log_ticks(whole)
    draw_late(late, curves)
    tidy(whole, f"Perplexity on {name} (thin: training)", x_label)
    tidy(late, "Its second half, last value at the end", x_label)
    label_ends(late, [(i, ys[-1], f"{run.label}  {ys[-1]:.2f}") for i, run, xs, ys in curves])
    title_of(figure, title)
    save(figure, path)


def draw_over_steps(runs, key, caption, title, path):
    """One number of metrics.jsonl against the steps, every run that has it. False if none has."""
    curves = [(i, run, *run.curve("step", key)) for i, run in enumerate(runs)]
    curves = [curve for curve in curves if curve[2]]
    if not curves:
        return False
    figure, axes = pyplot.subplots(figsize=(8, 3.6), dpi=130)
    for i, run, xs, ys in curves:
        axes.plot(xs, ys, linewidth=1.5, markersize=3.5, markevery=max(1, len(xs) // 12), **line_style(i))
    axes.set_ylim(0, 1.1 * max(max(ys) for *_, ys in curves))
    tidy(axes, caption, "training steps")
    label_ends(axes, [(i, ys[-1], run.label) for i, run, xs, ys in curves])
    title_of(figure, title)
    save(figure, path)
    return True
