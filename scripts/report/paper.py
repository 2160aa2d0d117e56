"""What the papers report, for configurations that reproduce them (paper.json, by the configuration's name)."""
import json
from pathlib import Path

FIGURES = json.loads((Path(__file__).parent / "paper.json").read_text())


def paper_figures(run):
    """{"source": text, "perplexity": {set: value}}, or {} where the papers have no such model."""
    return FIGURES.get(run.name, {})
