"""Reads what `ptxas -v` says of every kernel, as kernels/record_ptxas.sh keeps it in a build folder's ptxas.txt."""
import re
from dataclasses import dataclass


@dataclass
class Kernel:
    source: str
    name: str  # without parameters and our own namespaces
    architecture: str
    stack: int = 0
    spilled: int = 0  # bytes stored and loaded
    registers: int = -1
    shared: int = 0  # static


def short_name(signature):
    """`void mhmoe::cuda::(anonymous namespace)::f<4, float>(float*)` as `f<4, float>`."""
    name = re.sub(r"(mhmoe::)?(cuda::)?\(anonymous namespace\)::|mhmoe::cuda::|^void ", "", signature)
    name = re.sub(r"^void ", "", name)
    depth = 0
    for at, character in enumerate(name):
        if character == "(" and depth == 0:
            return name[:at]
        depth += {"<": 1, ">": -1}.get(character, 0)
    return name


def read(path):
    """Every kernel of the report, once an architecture; ValueError for a line of ptxas that is not understood."""
    kernels, source = [], "?"
    with open(path, encoding="utf-8") as report:
        for number, line in enumerate(report, 1):
            if found := re.match(r"== (.+)", line):
                source = found[1]
            elif found := re.search(r"Compiling entry function '(.+)' for '(\w+)'", line):
                kernels.append(Kernel(source, short_name(found[1]), found[2]))
            elif "bytes stack frame" in line:
                counts = re.findall(r"(\d+) bytes (?:cumulative )?(stack frame|spill stores|spill loads)", line)
                if not kernels or len(counts) != 3:
                    raise ValueError(f"{path}:{number}: not understood: {line.strip()}")
                kernels[-1].stack += int(counts[0][0])
                kernels[-1].spilled += int(counts[1][0]) + int(counts[2][0])
            elif found := re.search(r"Used (\d+) registers", line):
                kernels[-1].registers = int(found[1])
                shared = re.search(r"(\d+) bytes smem", line)
                kernels[-1].shared = int(shared[1]) if shared else 0
    return kernels
