"""The barriers and waits of the CUDA backend's sources, and those sources without one of them."""
import re
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What is deleted: a whole statement, or one of a list of calls.
STATEMENTS = re.compile(
    r"\b__sync(?:threads|warp)\([^()]*\);"
    r"|\bcp_async_(?:commit\(\)|wait<[^<>]*>\(\));"
    r"|\bMHMOE_CUDA_CHECK\(cuda(?:StreamWaitEvent|EventRecord|EventSynchronize|StreamSynchronize)\([^;]*\)\);"
    r"|\bctx_\.wait\([^;]*\);"
    r"|\bpeers_\.(?:wait\(stream_\)|check\(\));|(?<![\w.])check\(\);"
    r"|(?<=\{)cudaStreamSynchronize\([^;,{}]*\), "
    r"|(?<![\w.])synchronize\(\);", re.DOTALL)
# The emulator's twins of these files are compiled instead (tests/cuda/shadow).
NOT_COMPILED = ("kernels/ptx.cuh", "kernels/device.cuh")
# A copy that is waited for with one more still under way is as wrong as one that is not waited for.
WEAKER_WAIT = re.compile(r"cp_async_wait<([^<>]*)>\(\);")
# The line of a function's name, or of a member's body.
FUNCTION = re.compile(r"^(?:(?! |template|using|#)[\w:<>,&*~ ]*?\b(~?\w+)\(|  (?!if|for|while|switch|return)"
                      r"[\w:<>,&*~ ]*?\b(~?\w+)\([^;]*\{| +(\w+_kernel)\()")

# key: file, function, statement and its number there, stable while lines move; text: the whole file's, mutated.
Mutant = namedtuple("Mutant", "file key line text")


def mutants_of(path):
    """Every deletion in one file; comments are left alone."""
    text = path.read_text()
    code = re.sub(r"//[^\n]*", lambda m: " " * len(m[0]), text)
    name = str(path.relative_to(ROOT))
    counts, result = {}, []
    for match in STATEMENTS.finditer(code):
        function = "file"
        for line in code[:match.start()].split("\n"):
            found = FUNCTION.match(re.sub(r"__launch_bounds__\([^()]*\)", "", line))
            function = found[1] or found[2] or found[3] if found else function
        variants = [("", ";" if match[0].endswith(";") else "")]
        if weaker := WEAKER_WAIT.fullmatch(match[0]):
            variants.append((" weakened", f"cp_async_wait<{weaker[1]} + 1>();"))
        statement = re.sub(r"\s+", " ", match[0]).strip(", ")
        counts[function, statement] = counts.get((function, statement), 0) + 1
        for suffix, replacement in variants:
            key = f"{name} {function} {statement} #{counts[function, statement]}{suffix}"
            mutated = text[:match.start()] + replacement + text[match.end():]
            result.append(Mutant(name, key, text.count("\n", 0, match.start()) + 1, mutated))
    return result


def all_mutants():
    patterns = ("kernels/*.cu", "kernels/*.cuh", "src/cuda/*.cc", "src/device/*.cc")
    files = sorted(path for pattern in patterns for path in ROOT.glob(pattern))
    return [m for path in files if str(path.relative_to(ROOT)) not in NOT_COMPILED for m in mutants_of(path)]


def users_of(file):
    """The sources that include the file, directly or not; the file itself, if it is one."""
    found = {file}
    while True:
        names = {str(p.relative_to(ROOT)) for p in ROOT.glob("kernels/*.cu*")
                 if any(f'#include "{name}"' in p.read_text() for name in found)}
        if names <= found:
            return sorted(name for name in found if not name.endswith(".cuh"))
        found |= names
