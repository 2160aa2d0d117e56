"""The documents of each Debian package: functions from the unpacked package's root to (id, text) pairs."""

import os
import re

from html_text import html_to_text
from pod_text import pod_to_text
from r_data import read_lazy_load
from z_text import read_chapters

CHAPTER = re.compile(r"(?:volume|chapter)\s+(?:[ivxlc]+|\d+|the \w+)\b\.?", re.I)


def files_under(root, folder, suffix):
    """(path relative to the folder, path) of every such file, sorted."""
    top = os.path.join(root, folder)
    for parent, folders, names in os.walk(top):
        folders.sort()
        for name in sorted(names):
            if name.endswith(suffix):
                path = os.path.join(parent, name)
                yield os.path.relpath(path, top), path


def read_text(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def unwrapped(lines):
    """Lines wrapped at a column, paragraphs apart by blank lines -> a line a paragraph."""
    paragraphs = re.split(r"\n\s*\n", "\n".join(line.rstrip() for line in lines))
    return [re.sub(r"\s*\n\s*", " ", paragraph).strip() for paragraph in paragraphs if paragraph.strip()]


def austen(root):
    """A document a chapter."""
    novels = read_lazy_load(os.path.join(root, "usr/lib/R/site-library/janeaustenr/data/Rdata"))
    for novel, lines in sorted(novels.items()):
        chapters = [[]]
        for paragraph in unwrapped(lines):
            heading = CHAPTER.match(paragraph) and len(paragraph) < 40
            # A volume's heading stands with the chapter's heading that follows it.
            if heading and any(not CHAPTER.match(before) for before in chapters[-1]):
                chapters.append([])
            chapters[-1].append(paragraph)
        for number, chapter in enumerate(chapters):
            yield f"{novel}/{number:02}", "\n\n".join(chapter)


def anarchism(root):
    link_lists = {name + ".html" for name in ("alinks", "arlinks", "contact", "index", "links", "new", "pdf", "translations")}
    for name, path in files_under(root, "usr/share/doc/anarchism/html", ".html"):
        if name not in link_lists:
            yield name, html_to_text(read_text(path))


def python_doc(root):
    for name, path in files_under(root, "usr/share/doc/python3.11/html", ".html"):
        if os.path.basename(name) in ("contents.html", "changelog.html", "search.html") or name.startswith("genindex"):
            continue
        yield name, html_to_text(read_text(path), role="main", drop_classes=("headerlink", "sphinxsidebar"))


def postgresql_doc(root):
    for name, path in files_under(root, "usr/share/doc/postgresql-doc-15/html", ".html"):
        if name != "bookindex.html":
            yield name, html_to_text(read_text(path), drop_tags=("pre",), drop_classes=("navheader", "navfooter", "toc"))


def perl_doc(root):
    for name, path in files_under(root, "usr/share/perl", ".pod"):
        if os.path.basename(name) not in ("perltoc.pod", "perluniprops.pod"):
            yield name.partition("/")[2], pod_to_text(read_text(path))


def sword_web(root):
    texts = os.path.join(root, "usr/share/sword/modules/texts/ztext")
    for module in sorted(os.listdir(texts)):
        yield from read_chapters(os.path.join(texts, module))
