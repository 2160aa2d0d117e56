#!/usr/bin/env python3
"""usage: check_ptxas.py PTXAS.TXT ALLOWED ARCHITECTURE...

Fails if a kernel keeps arrays in memory (a stack frame) or spills registers, but for those that ALLOWED names with a
reason, a line each: `KERNEL: reason`, where KERNEL is its name without parameters and template arguments. Fails also if
a line of ALLOWED is no longer needed, or if a kernel was not compiled for every architecture (sm_90).
"""
import sys

import ptxas


def read_allowed(path):
    allowed = {}
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            kernel, colon, reason = line.partition(":")
            if not colon or not reason.strip():
                sys.exit(f"{path}:{number}: expected `KERNEL: reason`, found: {line.strip()}")
            allowed[kernel.strip()] = reason.strip()
    return allowed


def complaints(kernels, allowed, architectures):
    unused = set(allowed)
    for kernel in kernels:
        plain = kernel.name.partition("<")[0]
        where = f"{kernel.source}: {kernel.name} on {kernel.architecture}"
        if kernel.registers < 0:
            yield f"{where}: ptxas does not tell its registers"
        if kernel.stack == 0 and kernel.spilled == 0:
            continue
        unused.discard(plain)
        if plain not in allowed:
            yield f"{where}: {kernel.stack} bytes of stack frame, {kernel.spilled} bytes spilled"
    for plain in sorted(unused):
        yield f"{plain}: allowed to use a stack frame or to spill, and does not (any more): take its line out"
    compiled = {}
    for kernel in kernels:
        compiled.setdefault((kernel.source, kernel.name), set()).add(kernel.architecture)
    for (source, name), known in sorted(compiled.items()):
        if missing := set(architectures) - known:
            yield f"{source}: {name}: not compiled for {', '.join(sorted(missing))}"


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    report, allowed_file, architectures = sys.argv[1], sys.argv[2], sys.argv[3:]
    try:
        kernels = ptxas.read(report)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    if not kernels:
        sys.exit(f"{report}: names no kernel")
    found = list(complaints(kernels, read_allowed(allowed_file), architectures))
    for line in found:
        print(line)
    most = max(kernels, key=lambda kernel: kernel.registers)
    print(f"note: {len(kernels)} kernels compiled ({', '.join(architectures)}), at most {most.registers} registers ({most.name})")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
