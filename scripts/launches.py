"""How kernels are launched, as the sources in kernels/ say: threads a block and dynamic shared memory."""
import re
from pathlib import Path
from typing import NamedTuple, Optional

ROOT = Path(__file__).resolve().parents[1]
WARP, FLOAT, BF16 = 32, 4, 2
# The papers' models, with the most experts that any of them has.
WIDTH, HEAD_SIZE, EXPERTS = 768, 64, 96


class Launch(NamedTuple):
    threads: Optional[int] = None  # a block
    shared: Optional[int] = None  # dynamic bytes
    instance: str = ""  # template arguments of those that the papers' models run; all, if empty


def constants_of(text):
    """Integer constants of a source and of the headers of kernels/ that it includes."""
    found = {}
    for header in re.findall(r'#include "kernels/(\w+\.(?:cuh|h))"', text):
        found.update(constants_of((ROOT / "kernels" / header).read_text()))
    for declaration in re.findall(r"constexpr (?:int|int64_t|unsigned|size_t)\s+(k\w+ =[^;]+);", text):
        for name, value in re.findall(r"(k\w+) =\s+([^,]+)", declaration):
            if (number := evaluated(value, found)) is not None:
                found[name] = number
    return found


def evaluated(expression, constants):
    expression = re.sub(r"\b(?:int64_t|size_t)\{(\w+)\}", r"\1", expression)
    expression = re.sub(r"^dim3\((.+), (.+)\)$", r"(\1) * (\2)", expression)
    expression = re.sub(r"\bk[A-Z]\w*", lambda name: str(constants.get(name[0], name[0])), expression)
    expression = re.sub(r"\bsizeof\((\w+)\)", lambda type: "2" if "bfloat16" in type[1] else "4", expression)
    expression = re.sub(r"\s+", " ", expression).replace("/", "//")
    return eval(expression) if re.fullmatch(r"[\d+*/()<> -]+", expression) else None


def from_sources():
    """Of (source, kernel), and of kernels that headers start by their name alone: its Launch, with None for what is known
    only at run time."""
    found = {}
    for source in sorted((ROOT / "kernels").glob("*.cu*")):
        text = source.read_text()
        constants = constants_of(text)
        for start in re.finditer(r"\blaunch\(\s*\{", text):
            call = text[start.start():start.start() + 700]
            kernels = re.findall(r"\b(\w+_kernel)\b", call)
            if not re.search(r"\},\s*kernel,", call):  # else a parameter, and what follows names its arguments
                kernels = kernels[:1]
            block = re.search(r"\.block = (.+?),\s*\.s", call, re.DOTALL)
            shared = re.search(r"\.shared_bytes = (.+?),\s*\.stream", call, re.DOTALL)
            for kernel in kernels if block else ():
                key = (source.name, kernel) if source.suffix == ".cu" else kernel
                found[key] = Launch(evaluated(block[1], constants), evaluated(shared[1], constants) if shared else 0)
    return found


def attention_on_tensor_cores():
    """kernels/attention_forward.cu and attention_backward.cu at heads of 64: own rows, and two stages of two tiles."""
    def tiles(own, stream):
        return BF16 * HEAD_SIZE * (own + 4 * stream)

    instance = f"<{HEAD_SIZE}"
    return {("attention_forward.cu", "flash_forward_kernel"): Launch(4 * WARP, tiles(128, 64), instance),
            ("attention_backward.cu", "flash_grad_query_kernel"): Launch(4 * WARP, tiles(2 * 128, 32), instance),
            ("attention_backward.cu", "flash_grad_key_kernel"): Launch(4 * WARP, tiles(2 * 64, 32) + 2 * 32 * 2 * FLOAT,
                                                                       instance)}


def plain_attention():
    """kernels/attention_plain.cu: rows of a head, and of 32 lanes, that each of 4 warps keeps."""
    rows = {"plain_forward_kernel": (2, 1), "cached_kernel": (2, 1), "plain_grad_query_kernel": (3, 1),
            "plain_grad_key_kernel": (4, 2), "append_kernel": (0, 0)}
    return {("attention_plain.cu", kernel): Launch(4 * WARP, 4 * FLOAT * (of_head * HEAD_SIZE + of_lanes * WARP))
            for kernel, (of_head, of_lanes) in rows.items()}


def at_the_papers_sizes():
    """What depends on the model. Rows are shared out to 8 warps, and of partial sums there are more than 16 chunks."""
    warps, experts, segments = 8, FLOAT * EXPERTS, 16 * WARP
    return {**attention_on_tensor_cores(), **plain_attention(),
            ("rms_norm.cu", "rms_norm_backward_kernel"): Launch(warps * WARP, warps * FLOAT * WIDTH),
            ("router.cu", "route_kernel"): Launch(warps * WARP, (2 * warps + 1) * experts),
            ("router.cu", "router_backward_kernel"): Launch(warps * WARP, warps * experts),
            ("router.cu", "share_kernel"): Launch(segments, 0),
            ("assign_slots.cu", "add_chunks_kernel"): Launch(segments, 0),
            ("partials.cu", "add_partials_kernel"): Launch(segments, 0)}


def read():
    known = from_sources()
    for key, launch in at_the_papers_sizes().items():
        found = known.get(key, Launch())
        if None not in found[:2]:
            raise ValueError(f"scripts/launches.py: {key}: its launch no longer depends on the model's sizes")
        known[key] = launch._replace(threads=found.threads or launch.threads)
    return known
