#!/usr/bin/env python3
"""Prints the first tensor that differs between two dumps of a training step.

    scripts/compare_dumps.py A/step-1.jsonl B/step-1.jsonl
    scripts/compare_dumps.py A B            (folders with one dumped step each)

A dump is made by `mhmoe train CONFIG --dump A --dump-step 1`. Tensors are compared in the order in which they were
computed, so the first difference is nearest to its cause. Exit status: 0 equal, 1 different, 2 cannot be read.
"""
import argparse
import array
import json
import pathlib
import struct
import sys

TYPECODE = {"F32": "f", "F64": "d", "I32": "i", "I64": "q", "U8": "B"}


def fail(message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def index_path(argument):
    path = pathlib.Path(argument)
    if not path.is_dir():
        return path
    found = sorted(path.glob("step-*.jsonl"))
    if len(found) != 1:
        fail(f"{path}: expected one step-N.jsonl, found {len(found)}; name the file")
    return found[0]


def read_index(path):
    try:
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except (OSError, ValueError) as problem:
        fail(f"{path}: {problem}")


def read_values(index, name):
    """The tensor's values as floats, from the safetensors file beside the index; None where there is none."""
    path = index.with_suffix(".safetensors")
    if not path.exists():
        return None
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entry = json.loads(file.read(length))[name]
        begin, end = entry["data_offsets"]
        file.seek(8 + length + begin)
        data = file.read(end - begin)
    if entry["dtype"] == "BF16":
        halves = array.array("H", data)
        return array.array("f", b"".join(struct.pack("<I", half << 16) for half in halves))
    return array.array(TYPECODE[entry["dtype"]], data)


def summary(entry):
    return (f"{entry['dtype']}{entry['shape']} min {entry['min']} max {entry['max']} mean {entry['mean']} "
            f"nan {entry['nan']}")


def position(index, shape):
    out = []
    for size in reversed(shape):
        out.append(index % size)
        index //= size
    return list(reversed(out))


def describe_difference(a_index, b_index, a, b):
    print(f"first difference: {a['name']}")
    print(f"  A {summary(a)}")
    print(f"  B {summary(b)}")
    if (a["dtype"], a["shape"]) != (b["dtype"], b["shape"]):
        return
    a_values, b_values = read_values(a_index, a["name"]), read_values(b_index, b["name"])
    if a_values is None or b_values is None:
        return
    differing = [i for i, (x, y) in enumerate(zip(a_values, b_values)) if x != y and not (x != x and y != y)]
    if not differing:
        print("  the values are equal; only bits of NaN or the sign of zero differ")
        return
    worst = max(differing, key=lambda i: abs(a_values[i] - b_values[i]))
    first = differing[0]
    print(f"  {len(differing)} of {len(a_values)} elements differ")
    print(f"  first at {position(first, a['shape'])}: {a_values[first]!r} and {b_values[first]!r}")
    print(f"  worst at {position(worst, a['shape'])}: {a_values[worst]!r} and {b_values[worst]!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("A")
    parser.add_argument("B")
    arguments = parser.parse_args()
    a_index, b_index = index_path(arguments.A), index_path(arguments.B)
    a_entries, b_entries = read_index(a_index), read_index(b_index)
    for a, b in zip(a_entries, b_entries):
        if a["name"] != b["name"]:
            print(f"the order differs: A has {a['name']} where B has {b['name']}")
            return 1
        if (a["dtype"], a["shape"], a["xxh3"]) != (b["dtype"], b["shape"], b["xxh3"]):
            describe_difference(a_index, b_index, a, b)
            return 1
    if len(a_entries) != len(b_entries):
        longer = a_entries if len(a_entries) > len(b_entries) else b_entries
        extra = longer[min(len(a_entries), len(b_entries))]["name"]
        print(f"one dump ends early: A has {len(a_entries)} tensors, B has {len(b_entries)}; the next is {extra}")
        return 1
    print(f"all {len(a_entries)} tensors are equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
