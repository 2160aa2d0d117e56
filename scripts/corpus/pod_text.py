"""The prose of Perl's POD: verbatim paragraphs and commands are dropped, formatting codes resolved."""

import html
import re

CODE = re.compile(r"([A-Z])(<<+\s|<)")
ESCAPES = {"lt": "<", "gt": ">", "verbar": "|", "sol": "/"}


def resolve(text):
    """I<italic>, C<< code >>, L<text|target>, E<lt> ... as a reader sees them."""
    out, at = [], 0
    while mark := CODE.search(text, at):
        out.append(text[at : mark.start()])
        inner, at = take_code(text, mark)
        out.append(show(mark.group(1), inner))
    return "".join(out) + text[at:]


def take_code(text, mark):
    """What stands between a code's brackets, and where it ends."""
    brackets = mark.group(2).strip()
    if len(brackets) > 1:
        end = re.compile(r"\s" + ">" * len(brackets)).search(text, mark.end() - 1)
        return (text[mark.end() : end.start()].strip(), end.end()) if end else (text[mark.end() :], len(text))
    depth, at = 1, mark.end()
    while at < len(text) and depth:
        inner = CODE.match(text, at)
        if inner:
            if len(inner.group(2).strip()) > 1:
                at = take_code(text, inner)[1]
                continue
            depth, at = depth + 1, inner.end()
            continue
        depth -= text[at] == ">"
        at += 1
    return text[mark.end() : at - 1 if depth == 0 else at], at


def show(code, inner):
    if code in "XZ":
        return ""
    if code == "E":
        return ESCAPES.get(inner) or html.unescape(f"&{inner};")
    if code == "L":
        shown, bar, _ = inner.partition("|")
        return resolve(shown if bar else inner.replace("/", " ").replace('"', "").strip())
    return resolve(inner)


def pod_to_text(pod):
    """Paragraphs, one a line. Text of `=begin FORMAT` and `=for FORMAT` is meant for other programs: dropped."""
    lines, in_format, in_pod = [], False, True
    for paragraph in re.split(r"\n[ \t]*\n", pod.replace("\r\n", "\n")):
        paragraph = paragraph.strip("\n")
        if command := re.match(r"=(\w+)\s*(.*)", paragraph, re.S):
            name, rest = command.groups()
            in_pod = name != "cut"
            in_format = name == "begin" or (in_format and name != "end")
            paragraph = rest if name.startswith("head") or name == "item" else ""
        elif not in_pod or paragraph[:1] in (" ", "\t"):
            continue
        text = re.sub(r"\s+", " ", resolve(paragraph)).strip()
        if text and not in_format and text not in ("*", "-"):
            lines.append(text)
    return "\n".join(lines)
