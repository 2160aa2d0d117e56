"""Where sub-tokens went at the last routing record, as pictures."""
import matplotlib

matplotlib.use("Agg")
from matplotlib import colors, pyplot  # noqa: E402: the backend is chosen first

from report.pictures import save, title_of  # noqa: E402
from report.style import LOAD_STOPS, style_of  # noqa: E402

LIMIT = LOAD_STOPS[-1][0]
LOAD_COLOURS = colors.LinearSegmentedColormap.from_list("load", [(at / LIMIT, colour) for at, colour in LOAD_STOPS])


def over_mean(counts):
    mean = sum(counts) / len(counts)
    return [count / mean if mean else 0.0 for count in counts]


def draw_heat_maps(panels, title, path):
    """panels: (title, row labels, rows of load over mean)."""
    heights = [0.28 * len(rows) + 0.75 for _, _, rows in panels]
    figure, all_axes = pyplot.subplots(len(panels), 1, figsize=(10, sum(heights)), dpi=130, squeeze=False,
                                       gridspec_kw={"height_ratios": heights, "hspace": 0.45})
    for axes, (caption, labels, rows) in zip(all_axes[:, 0], panels):
        image = axes.imshow(rows, cmap=LOAD_COLOURS, vmin=0, vmax=LIMIT, aspect="auto", interpolation="nearest")
        axes.set_title(caption, loc="left", fontsize=10, color="#333333")
        axes.set_yticks(range(len(labels)), labels, fontsize=8.5)
        axes.tick_params(length=0, labelsize=8.5)
        axes.spines[:].set_visible(False)
    all_axes[-1, 0].set_xlabel("expert")
    bar = figure.colorbar(image, ax=all_axes[:, 0].tolist(), shrink=min(1.0, 2.2 / sum(heights)), pad=0.02, extend="max")
    bar.set_label("load / mean load", fontsize=9)
    bar.outline.set_visible(False)
    title_of(figure, title)
    save(figure, path)


def draw_load(runs, title, path):
    panels = []
    for run in runs:
        if run.routing:
            record = run.routing[-1]
            panels.append((f"{run.label}: load of each expert, step {record['step']:,}",
                           [f"layer {layer['layer']}" for layer in record["layers"]],
                           [over_mean(layer["load"]) for layer in record["layers"]]))
    if panels:
        draw_heat_maps(panels, title, path)
    return bool(panels)


def draw_heads(runs, title, path):
    panels = []
    for run in runs:
        if run.routing and run.moe["heads"] > 1:
            record = run.routing[-1]
            labels = [f"layer {layer['layer']}, sub-token {head}" for layer in record["layers"]
                      for head in range(run.moe["heads"])]
            rows = [over_mean(head) for layer in record["layers"] for head in layer["head_load"]]
            panels.append((f"{run.label}: load from each sub-token position, step {record['step']:,}", labels, rows))
    if panels:
        draw_heat_maps(panels, title, path)
    return bool(panels)


def draw_different_experts(runs, title, path):
    """Share of tokens by the number of different experts, all layers together."""
    drawn = [(i, run) for i, run in enumerate(runs) if run.routing and run.moe["heads"] * run.moe["top_k"] > 1]
    if not drawn:
        return False
    figure, all_axes = pyplot.subplots(1, len(drawn), figsize=(min(14, 2.9 * len(drawn) + 0.6), 3), dpi=130, sharey=True,
                                       squeeze=False, gridspec_kw={"wspace": 0.15})
    for axes, (i, run) in zip(all_axes[0], drawn):
        tokens = [sum(counts) for counts in zip(*(layer["different_experts"] for layer in run.routing[-1]["layers"]))]
        total = sum(tokens)
        mean = sum(n * count for n, count in enumerate(tokens, 1)) / total
        axes.bar(range(1, len(tokens) + 1), [100 * count / total for count in tokens], color=style_of(i)["colour"], width=0.8)
        axes.set_title(f"{run.label}\nmean {mean:.2f} of {len(tokens)}", loc="left", fontsize=10, color="#333333")
        axes.set_xticks(range(1, len(tokens) + 1))
        axes.set_xlabel("different experts a token")
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0][0].set_ylabel("% of tokens")
    title_of(figure, title)
    save(figure, path)
    return True
