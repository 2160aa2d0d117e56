#!/usr/bin/env python3
"""clang-tidy over changed sources, in parallel, within a time limit, remembering what it has already passed.

usage: run_clang_tidy.py BUILD [--all | --since COMMIT] [--minutes M]

A file is passed over if it, every project header it includes, its compile command and .clang-tidy are what they were
when it last passed. What the time did not suffice for is counted and said. Exit code 1: a file has findings.
"""
import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
HEADER_FOLDERS = ("src", "kernels", "tests", "")


def project_headers(path, seen):
    """The headers of this project that `path` includes, directly or not."""
    for name in INCLUDE.findall(path.read_text(errors="replace")):
        candidates = [path.parent / name] + [ROOT / folder / name for folder in HEADER_FOLDERS]
        header = next((c.resolve() for c in candidates if c.is_file()), None)
        if header and header not in seen:
            seen.add(header)
            project_headers(header, seen)
    return seen


def fingerprint(path, command):
    digest = hashlib.sha256(command.encode() + (ROOT / ".clang-tidy").read_bytes())
    for file in [path] + sorted(project_headers(path, set())):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def changed_since(commit):
    out = subprocess.run(["git", "diff", "--name-only", commit, "--"], cwd=ROOT, capture_output=True, text=True, check=True)
    new = subprocess.run(["git", "ls-files", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    return {ROOT / name for name in (out.stdout + new.stdout).split("\n") if name}


def selected(path, changed):
    """A source is checked if it changed, or its own header did."""
    return path in changed or path.with_suffix(".h") in changed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--all", action="store_true")
    what.add_argument("--since", metavar="COMMIT")
    parser.add_argument("--minutes", type=float, default=4)
    args = parser.parse_args()

    database = json.loads(Path(args.build, "compile_commands.json").read_text())
    for entry in database:  # an option of g++ that clang refuses
        entry["command"] = entry["command"].replace(" -fno-gnu-unique", "")
    commands = {Path(entry["file"]): entry["command"] for entry in database}
    files = sorted(p for p in commands if p.is_relative_to(ROOT) and p.suffix == ".cc" and p.exists())
    if args.since:
        changed = changed_since(args.since)
        files = [path for path in files if selected(path, changed)]

    passed_folder = Path(args.build, "clang-tidy")
    passed_folder.mkdir(exist_ok=True)
    (passed_folder / "compile_commands.json").write_text(json.dumps(database))
    deadline = time.monotonic() + 60 * args.minutes

    def check(path):
        mark = passed_folder / fingerprint(path, commands[path])
        if mark.exists():
            return "known", ""
        if time.monotonic() > deadline:
            return "late", ""
        tool = subprocess.run(["clang-tidy", "-p", str(passed_folder), "--quiet", str(path)], capture_output=True, text=True)
        if tool.returncode == 0:
            mark.touch()
            return "passed", ""
        return "failed", tool.stdout or tool.stderr

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip(files, pool.map(check, files)))
    states = [state for state, _ in results.values()]
    for state, output in results.values():
        if state == "failed":
            print(output)
    print(f"clang-tidy: {states.count('passed')} files passed, {states.count('known')} unchanged since they passed, "
          f"{states.count('failed')} with findings")
    if "late" in states:
        print(f"skipped: clang-tidy on {states.count('late')} of {len(files)} files: its {args.minutes:g} minutes were "
              "over (run it again: what passed is not repeated)")
    return 1 if "failed" in states else 0


if __name__ == "__main__":
    sys.exit(main())
