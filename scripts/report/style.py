"""How each run is drawn: never by colour alone. Shared by the page and the pictures."""

# Okabe and Ito's colours, safe for the colour-blind; their yellow is left out, being invisible on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("circle", "square", "triangle", "diamond", "triangle-down", "plus", "cross")
DASHES = ("", "7 3", "2 2.5", "9 3 2 3", "14 4")

MATPLOTLIB_MARKERS = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D", "triangle-down": "v", "plus": "P",
                      "cross": "X"}


def style_of(index):
    """Of up to 35 runs no two share all of colour, marker and dash; of up to 5, none of them."""
    return {"colour": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)],
            "dash": DASHES[index % len(DASHES)]}


def matplotlib_dash(dash):
    return (0, tuple(float(part) for part in dash.split())) if dash else "-"


# Load over mean load: blue below, white at 1 (even), orange above; at 0 and from 3 on the ends.
LOAD_STOPS = ((0.0, "#0b3c6f"), (0.5, "#7fb0d6"), (1.0, "#f7f6f2"), (2.0, "#f0a35e"), (3.0, "#a63603"))

# What curves can be drawn against: key of a record, and the axis' title.
AXES = {"steps": ("step", "training steps"), "tokens": ("tokens", "training tokens"),
        "flops": ("flops", "training FLOPs"), "seconds": ("seconds", "seconds of training")}
