"""Tables of a Markdown document that a script writes anew, between <!-- begin NAME --> and <!-- end NAME -->."""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def write_tables(document, tables, check, command):
    """tables: by name. check: write nothing, and exit 1 if one is not what it would be."""
    name_of_document = document.relative_to(ROOT)
    before = text = document.read_text(encoding="utf-8")
    for name, lines in tables.items():
        marked = re.compile(rf"(<!-- begin {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)", re.DOTALL)
        if not marked.search(text):
            sys.exit(f"{name_of_document}: no markers <!-- begin {name} --> and <!-- end {name} -->")
        text = marked.sub(lambda found: f"{found[1]}{lines}\n{found[2]}", text)
    if check and text != before:
        sys.exit(f"{name_of_document}: tables are not up to date: run {command}")
    if not check:
        document.write_text(text, encoding="utf-8")
