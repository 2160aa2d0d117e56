"""build.py CORPUS UNPACKED OUTPUT: unpacked Debian packages -> train.jsonl, validation.jsonl and test.jsonl in OUTPUT.

UNPACKED holds a folder a package, as `dpkg -x` leaves it. A line is {"text", "source", "id"}. Which file a document
goes to depends on its source and id alone; repeated documents and long paragraphs are dropped before.
"""

import hashlib
import json
import os
import sys
from contextlib import ExitStack
from typing import Callable, NamedTuple

import sources


class Source(NamedTuple):
    documents: Callable
    expected: int  # sections after de-duplication, as measured on Debian 12


class Corpus(NamedTuple):
    packages: tuple
    split: int  # one document in so many is for validation, another for test


SOURCES = {
    "r-cran-janeaustenr": Source(sources.austen, 270),
    "anarchism": Source(sources.anarchism, 254),
    "python3.11-doc": Source(sources.python_doc, 530),
    "postgresql-doc-15": Source(sources.postgresql_doc, 1142),
    "perl-doc": Source(sources.perl_doc, 236),
    "sword-text-web": Source(sources.sword_web, 1393),
}
# en-tiny holds back more, so that its few documents give a validation set that speaks for all six novels.
CORPORA = {"en-tiny": Corpus(("r-cran-janeaustenr",), 20), "en": Corpus(tuple(SOURCES), 100)}

SECTION_BYTES = 64000
SHORTEST_DOCUMENT = 200  # bytes; below it are redirects and empty pages
LONG_PARAGRAPH = 200  # bytes; a shorter one may well occur twice
TOLERANCE = 0.02


def fnv1a64(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def part_of(source, identifier, split):
    return {0: "validation", 1: "test"}.get(fnv1a64(f"{source}/{identifier}") % split, "train")


def sections(identifier, text):
    """A document longer than SECTION_BYTES in about equal parts, cut between lines."""
    count = -(-len(text.encode()) // SECTION_BYTES)
    if count <= 1:
        yield identifier, text
        return
    size, target, section, number = 0, len(text.encode()) / count, [], 0
    for line in text.split("\n"):
        section.append(line)
        size += len(line.encode()) + 1
        if size >= target * (number + 1) and number + 1 < count:
            yield f"{identifier}#{number}", "\n".join(section)
            section, number = [], number + 1
    yield f"{identifier}#{number}", "\n".join(section)


class Deduplicator:
    """Drops long paragraphs that a document of the same source held before, and with them repeated documents."""

    def __init__(self):
        self.seen = set()

    def __call__(self, text):
        return "\n".join(line for line in text.split("\n") if len(line.encode()) < LONG_PARAGRAPH or self.is_new(line))

    def is_new(self, line):
        digest = hashlib.blake2b(line.encode(), digest_size=16).digest()
        new = digest not in self.seen
        self.seen.add(digest)
        return new


def distinct_sections(source, root):
    deduplicate = Deduplicator()
    for identifier, text in source.documents(root):
        text = deduplicate(text).strip()
        if len(text.encode()) >= SHORTEST_DOCUMENT:
            yield from sections(identifier, text)


def check_count(package, count, expected):
    if abs(count - expected) > TOLERANCE * expected:
        sys.exit(f"{package}: {count} documents, expected {expected} within 2 %: the package has changed or was not read "
                 "whole; if the new count is right, set it in scripts/corpus/build.py")


def build(corpus, unpacked, output):
    with ExitStack() as stack:
        files = {part: stack.enter_context(open(os.path.join(output, part + ".jsonl"), "w", encoding="utf-8"))
                 for part in ("train", "validation", "test")}
        for package in corpus.packages:
            count = size = 0
            for name, text in distinct_sections(SOURCES[package], os.path.join(unpacked, package)):
                line = json.dumps({"text": text + "\n", "source": package, "id": name}, ensure_ascii=False)
                files[part_of(package, name, corpus.split)].write(line + "\n")
                count += 1
                size += len(text.encode()) + 1
            print(f"  {package}: {count} documents, {size / 1e6:.2f} MB", flush=True)
            check_count(package, count, SOURCES[package].expected)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in CORPORA:
        sys.exit(f"usage: build.py {'|'.join(CORPORA)} UNPACKED OUTPUT")
    build(CORPORA[sys.argv[1]], sys.argv[2], sys.argv[3])
