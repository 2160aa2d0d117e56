"""SWORD's zText modules: OSIS text in zlib blocks, cut here at its chapter marks."""

import html
import os
import re
import struct
import zlib

NOTE = re.compile(r"<note\b.*?</note>", re.S)
TITLE = re.compile(r"<title\b.*?</title>", re.S)
CHAPTER = re.compile(r'<chapter\b[^>]*\bosisID="([^"]+)"[^>]*\bsID=[^>]*>')
BREAK = re.compile(r'<(?:div\b[^>]*\bsID=[^>]*type="x-p"|lg\b[^>]*\bsID=|l\b[^>]*\bsID=)[^>]*>')
TAG = re.compile(r"<[^>]*>")


def read_entries(prefix):
    """The entries (verses, and what stands between them) of PREFIX.bzs, .bzv and .bzz in order."""
    parts = {}
    for suffix in (".bzs", ".bzv", ".bzz"):
        with open(prefix + suffix, "rb") as file:
            parts[suffix] = file.read()
    blocks = []
    for offset, length, inflated in struct.iter_unpack("<III", parts[".bzs"]):
        block = zlib.decompress(parts[".bzz"][offset : offset + length])
        if len(block) != inflated:
            raise ValueError(f"{prefix}.bzz: block at {offset} has {len(block)} bytes, expected {inflated}")
        blocks.append(block)
    for block, start, length in struct.iter_unpack("<IIH", parts[".bzv"]):
        if length:
            yield blocks[block][start : start + length].decode("utf-8", errors="replace")


def plain_text(osis):
    text = NOTE.sub("", osis)
    text = TITLE.sub("\n", text)
    text = BREAK.sub("\n", text)
    text = html.unescape(TAG.sub("", text))
    lines = (re.sub(r"\s+", " ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def read_chapters(folder):
    """(osisID, text) of every chapter of the module in `folder`; what stands before a book's first is left out."""
    for testament in ("ot", "nt"):
        osis = " ".join(read_entries(os.path.join(folder, testament)))
        marks = list(CHAPTER.finditer(osis))
        for mark, following in zip(marks, marks[1:] + [None]):
            text = plain_text(osis[mark.end() : following.start() if following else len(osis)])
            if text:
                yield mark.group(1), text
