"""A run's folder, read: config.json, metrics.jsonl and, where they are, routing.jsonl and status.json."""
import json
import math
import sys
from pathlib import Path

from report.size import count_parameters


def read_lines(path):
    """The objects of a .jsonl file, each of a step. A last line without its end is still being written: it is left out."""
    records = []
    for number, line in enumerate(path.read_text().split("\n")[:-1], 1):
        try:
            record = json.loads(line)
            record["step"] = int(record["step"])
            records.append(record)
        except (ValueError, KeyError, TypeError) as error:
            sys.exit(f"error: {path}:{number}: no record of a run ({error!r}); is the file damaged?")
    return records


def in_order(records):
    """A run that was resumed may have gone back: of a step that comes twice the later record counts."""
    out = []
    for record in records:
        while out and out[-1]["step"] >= record["step"]:
            out.pop()
        out.append(record)
    return out


class Run:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.config = self.read_json("config.json")
        self.model = self.config["model"]
        self.moe = self.model["moe"]
        self.name = self.label = self.config["name"]
        lines = read_lines(self.file("metrics.jsonl"))
        self.records = in_order(line for line in lines if "refused" not in line)
        self.refusals = in_order(line for line in lines if "refused" in line)
        if not self.records:
            sys.exit(f"error: {self.folder}/metrics.jsonl has no records: has the run begun?")
        routing = self.folder / "routing.jsonl"
        self.routing = in_order(read_lines(routing)) if routing.is_file() else []
        status = self.folder / "status.json"
        self.status = self.read_json("status.json") if status.is_file() else {}
        keys = dict.fromkeys(key for record in self.records for key in record)
        self.sets = [key.split("/")[1] for key in keys if key.startswith("validation/") and key.endswith("/perplexity")]
        self.parameters, self.active_parameters = count_parameters(self.model)

    def file(self, name):
        path = self.folder / name
        if not path.is_file():
            sys.exit(f"error: {path} does not exist: {self.folder} is no run folder, or its run has not begun")
        return path

    def read_json(self, name):
        path = self.file(name)
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            sys.exit(f"error: {path}: not valid JSON ({error}); is the file damaged?")

    def curve(self, x, y):
        points = [(r[x], r[y]) for r in self.records if r.get(x) is not None and r.get(y) is not None]
        return [p[0] for p in points], [p[1] for p in points]

    def final(self, key):
        values = self.curve("step", key)[1]
        return values[-1] if values else math.nan

    @property
    def is_moe(self):
        return self.moe["every_n_layers"] > 0

    @property
    def steps(self):
        return self.records[-1]["step"]

    def state(self):
        """"finished", or how far the run has come and why it went no further."""
        planned = self.config["train"]["steps"]
        state = self.status.get("state", "finished" if self.steps >= planned else "unfinished")
        if state == "finished":
            return "finished"
        message = self.status.get("message")
        return f"{state} at step {self.steps:,} of {planned:,}" + (f": {message}" if message else "")

    def notes(self):
        """What a person must know before comparing this run."""
        out = [] if self.state() == "finished" else [self.state()]
        if self.refusals:
            reasons = " or ".join(sorted({refusal["refused"] for refusal in self.refusals}))
            count = "1 step was" if len(self.refusals) == 1 else f"{len(self.refusals)} steps were"
            out.append(f"{count} refused ({reasons}), the last one step {self.refusals[-1]['step']:,}")
        return out

    def flops_per_token(self):
        return self.records[-1]["flops"] / self.records[-1]["tokens"]

    def tokens_per_second(self):
        """Of training alone, the first step left out."""
        first, last = self.records[0], self.records[-1]
        seconds = last["seconds"] - first["seconds"]
        return (last["tokens"] - first["tokens"]) / seconds if seconds > 0 else math.nan


def read_runs(folders):
    """Runs of equal names are told apart by their folders."""
    runs = [Run(folder) for folder in folders]
    for run in runs:
        if sum(other.name == run.name for other in runs) > 1:
            run.label = f"{run.name} ({run.folder})"
    return runs


def sets_of(runs):
    return list(dict.fromkeys(name for run in runs for name in run.sets))
