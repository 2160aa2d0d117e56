"""The prose of an HTML page, a line a paragraph."""

import re
from html.parser import HTMLParser

BLOCKS = frozenset(
    "address article aside blockquote body br caption center dd div dl dt fieldset figcaption figure footer form h1 h2 h3 "
    "h4 h5 h6 header hr li main nav ol p pre section table tbody td tfoot th thead title tr ul".split()
)
VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())
VERBATIM_SPACE = "\ue000"  # stands for a space inside <pre> until the others are collapsed
ALWAYS_DROPPED = frozenset("head script style nav noscript svg".split())


class TextExtractor(HTMLParser):
    """Keeps what lies inside the element with `role` (the whole page if None), without dropped tags and classes."""

    def __init__(self, role=None, drop_tags=(), drop_classes=()):
        super().__init__(convert_charrefs=True)
        self.role, self.drop_classes = role, frozenset(drop_classes)
        self.drop_tags = ALWAYS_DROPPED | frozenset(drop_tags)
        self.parts = []
        self.dropping = None  # (tag, how many of it are open) of the dropped element we are in
        self.main = None  # the same for the element with the role
        self.verbatim = 0

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if self.dropping:
            if tag == self.dropping[0]:
                self.dropping[1] += 1
            return
        classes = (attributes.get("class") or "").split()
        if tag not in VOID and (tag in self.drop_tags or self.drop_classes.intersection(classes)):
            self.dropping = [tag, 1]
            return
        if self.main and tag == self.main[0]:
            self.main[1] += 1
        elif self.role and attributes.get("role") == self.role:
            self.main = [tag, 1]
        self.verbatim += tag == "pre"
        self.break_line(tag)

    def handle_endtag(self, tag):
        for open_element in ("dropping", "main"):
            element = getattr(self, open_element)
            if element and tag == element[0]:
                element[1] -= 1
                if element[1] == 0:
                    setattr(self, open_element, None)
            if open_element == "dropping" and element:
                return
        self.verbatim = max(0, self.verbatim - (tag == "pre"))
        self.break_line(tag)

    def break_line(self, tag):
        if tag in BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data):
        if self.dropping or (self.role and not self.main):
            return
        self.parts.append(data.replace(" ", VERBATIM_SPACE) if self.verbatim else re.sub(r"\s+", " ", data))

    def text(self):
        lines = (re.sub(r" +", " ", line).strip() for line in "".join(self.parts).split("\n"))
        lines = (line.replace(VERBATIM_SPACE, " ").rstrip() for line in lines)
        return "\n".join(line for line in lines if line)


def html_to_text(page, role=None, drop_tags=(), drop_classes=()):
    extractor = TextExtractor(role, drop_tags, drop_classes)
    extractor.feed(page)
    extractor.close()
    return extractor.text()
