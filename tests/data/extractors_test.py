"""Tests of scripts/fetch_corpus.sh and its extractors on files made here. Run: python3 tests/data/extractors_test.py"""

import gzip
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.dont_write_bytecode = True
sys.path.insert(0, str(SCRIPTS / "corpus"))

import build  # noqa: E402
import sources  # noqa: E402
from html_text import html_to_text  # noqa: E402
from pod_text import pod_to_text, resolve  # noqa: E402
from r_data import read_lazy_load  # noqa: E402
from z_text import read_chapters  # noqa: E402


class Xdr:
    """Writes R's serialisation, format 3."""

    HEADER = b"X\n" + struct.pack(">iii", 3, 0x040201, 0x030500) + struct.pack(">i", 5) + b"UTF-8"

    @staticmethod
    def char(text):
        return struct.pack(">ii", 0x00040009, len(text.encode())) + text.encode()

    @staticmethod
    def strings(values):
        return struct.pack(">ii", 16, len(values)) + b"".join(map(Xdr.char, values))

    @staticmethod
    def integers(values):
        return struct.pack(f">ii{len(values)}i", 13, len(values), *values)

    @staticmethod
    def named_list(items, symbol):
        """`symbol`: the attribute's name, written out the first time and a reference later."""
        names = Xdr.strings(list(items))
        return (struct.pack(">ii", 0x213, len(items)) + b"".join(items.values()) + struct.pack(">i", 0x402) + symbol
                + names + struct.pack(">i", 0xFE))


NAMES = struct.pack(">i", 1) + Xdr.char("names")
NAMES_AGAIN = struct.pack(">i", 0x1FF)


def write_lazy_load(prefix, variables):
    chunks, index = b"", {}
    for name, lines in variables.items():
        data = Xdr.HEADER + Xdr.strings(lines)
        chunk = struct.pack(">I", len(data)) + zlib.compress(data)
        index[name] = Xdr.integers([len(chunks), len(chunk)])
        chunks += chunk
    rdx = Xdr.HEADER + Xdr.named_list(
        {"variables": Xdr.named_list(index, NAMES), "references": Xdr.named_list({}, NAMES_AGAIN),
         "compressed": struct.pack(">iii", 10, 1, 1)}, NAMES_AGAIN)
    Path(prefix + ".rdx").write_bytes(gzip.compress(rdx))
    Path(prefix + ".rdb").write_bytes(chunks)


class TemporaryFolderTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)


class RData(TemporaryFolderTest):
    def test_reads_every_variable(self):
        novels = {"emma": ["one", "", "two é"], "persuasion": []}
        write_lazy_load(str(self.folder / "Rdata"), novels)
        self.assertEqual(read_lazy_load(str(self.folder / "Rdata")), novels)

    def test_novels_are_cut_at_chapters_and_lines_joined(self):
        data = self.folder / "usr/lib/R/site-library/janeaustenr/data"
        data.mkdir(parents=True)
        write_lazy_load(str(data / "Rdata"), {
            "b": ["TITLE", "", "VOLUME I", "", "CHAPTER I", "", "First", "line.", "", "Second.", "", "", "Chapter 2", "", "Third."],
            "a": ["Chapter the First", "", "Chapter and verse are not a heading when the line is as long as this one."]})
        self.assertEqual(list(sources.austen(str(self.folder))), [
            ("a/00", "Chapter the First\n\nChapter and verse are not a heading when the line is as long as this one."),
            ("b/00", "TITLE"),
            ("b/01", "VOLUME I\n\nCHAPTER I\n\nFirst line.\n\nSecond."),
            ("b/02", "Chapter 2\n\nThird.")])

    def test_other_objects_and_other_files_are_refused(self):
        prefix = str(self.folder / "Rdata")
        Path(prefix + ".rdx").write_bytes(gzip.compress(Xdr.HEADER + struct.pack(">ii", 14, 1)))
        Path(prefix + ".rdb").write_bytes(b"")
        with self.assertRaisesRegex(ValueError, "kind 14"):
            read_lazy_load(prefix)
        Path(prefix + ".rdx").write_bytes(gzip.compress(b"RDX3"))
        with self.assertRaisesRegex(ValueError, "XDR"):
            read_lazy_load(prefix)


class ZText(TemporaryFolderTest):
    def write_testament(self, name, blocks):
        index, verses, data = b"", b"", b""
        for number, entries in enumerate(blocks):
            encoded = [entry.encode() for entry in entries]
            packed = zlib.compress(b"".join(encoded))
            index += struct.pack("<III", len(data), len(packed), sum(map(len, encoded)))
            data += packed
            start = 0
            for entry in encoded:
                verses += struct.pack("<IIH", number, start, len(entry))
                start += len(entry)
            verses += struct.pack("<IIH", 0, 0, 0)
        for suffix, content in ((".bzs", index), (".bzv", verses), (".bzz", data)):
            (self.folder / (name + suffix)).write_bytes(content)

    def test_chapters_without_tags_notes_and_front_matter(self):
        self.write_testament("ot", [
            ["<milestone/>", "Preface", '<chapter n="1" osisID="Gen.1" sID="Gen.1"/>',
             '<w lemma="x">In</w> the <w>beginning</w><note placement="foot"><reference>1:1</reference> Elohim</note>,',
             '<title>A heading</title>God&amp;co.<div sID="g1" type="x-p"/>New paragraph. <chapter eID="Gen.1"/>',
             '<chapter n="2" osisID="Gen.2" sID="Gen.2"/>', '<lg sID="g2"/><l level="1" sID="g3"/>A line <l level="1" sID="g4"/>and one']],
        )
        self.write_testament("nt", [['<chapter n="1" osisID="Matt.1" sID="Matt.1"/>', "“Behold”"],
                                    ['<chapter n="1" osisID="Mark.1" sID="Mark.1"/>', "Two blocks"]])
        self.assertEqual(list(read_chapters(str(self.folder))), [
            ("Gen.1", "In the beginning,\nGod&co.\nNew paragraph."), ("Gen.2", "A line\nand one"),
            ("Matt.1", "“Behold”"), ("Mark.1", "Two blocks")])

    def test_a_block_of_the_wrong_length_is_refused(self):
        self.write_testament("ot", [["verse"]])
        (self.folder / "ot.bzs").write_bytes(struct.pack("<III", 0, 100, 9))
        with self.assertRaisesRegex(ValueError, "expected 9"):
            list(read_chapters(str(self.folder)))


class Html(unittest.TestCase):
    def test_paragraphs_are_lines_and_space_collapses(self):
        page = "<html><head><title>no</title></head><body><p>One\n  <b>two</b> <i>three</i><p>four &amp; f&#233;<br>six</body>"
        self.assertEqual(html_to_text(page), "One two three\nfour & fé\nsix")

    def test_dropped_elements_end_where_they_end(self):
        page = ('<div>a<div class="x toc"><div>no</div>no<p>no</div>b<script>if (a < b) "</p>"</script>'
                '<pre>no</pre>c<img class="toc">d</div>')
        self.assertEqual(html_to_text(page, drop_tags=("pre",), drop_classes=("toc",)), "abcd")

    def test_role_selects_one_element_and_pre_keeps_its_spaces(self):
        page = '<div>no</div><div role="main"><div>yes</div><pre>def f():\n    return 1\n</pre>end</div><div>no</div>'
        self.assertEqual(html_to_text(page, role="main"), "yes\ndef f():\n    return 1\nend")


class Pod(unittest.TestCase):
    def test_formatting_codes(self):
        self.assertEqual(resolve("I<a B<b>> C<< x->y >> E<lt>E<eacute> L<text|perlfunc/x> L<perlop> X<gone>F<f>"),
                         "a b x->y <é text perlop f")

    def test_verbatim_and_commands_are_dropped(self):
        pod = "=head1 NAME\n\nperl - a\nlanguage\n\n    code\n\n=over 4\n\n=item *\n\n=item One\n\nText.\n\n=begin html\n\n<b>no</b>\n\n=end html\n\n=cut\n\nmy $code;\n\n=pod\n\nEnd."
        self.assertEqual(pod_to_text(pod), "NAME\nperl - a language\nOne\nText.\nEnd.")


class Build(TemporaryFolderTest):
    def test_hash_is_fnv1a(self):  # published test vectors
        for text, value in (("", 0xCBF29CE484222325), ("a", 0xAF63DC4C8601EC8C), ("foobar", 0x85944171F73967E8)):
            self.assertEqual(build.fnv1a64(text), value)

    def test_split_gives_each_part_its_share(self):
        parts = [build.part_of("s", str(i), 20) for i in range(20000)]
        self.assertAlmostEqual(parts.count("validation") / 20000, 0.05, delta=0.005)
        self.assertAlmostEqual(parts.count("test") / 20000, 0.05, delta=0.005)

    def test_sections_are_short_and_join_to_the_document(self):
        text = "\n".join(f"line {i} é" * (i % 40 + 1) for i in range(2000))
        pieces = list(build.sections("d", text))
        self.assertEqual("\n".join(piece for _, piece in pieces), text)
        self.assertEqual([name for name, _ in pieces], [f"d#{i}" for i in range(len(pieces))])
        self.assertLess(max(len(piece.encode()) for _, piece in pieces), build.SECTION_BYTES * 1.02)
        self.assertEqual(list(build.sections("d", "short")), [("d", "short")])

    def build_with(self, documents, expected):
        source = build.Source(lambda root: documents, expected)
        build.SOURCES["made-up"] = source
        self.addCleanup(build.SOURCES.pop, "made-up")
        build.build(build.Corpus(("made-up",), 3), str(self.folder), str(self.folder))
        lines = []
        for part in ("train", "validation", "test"):
            lines += [json.loads(line) for line in (self.folder / (part + ".jsonl")).read_text().splitlines()]
        return lines

    def test_documents_are_deduplicated_and_counted(self):
        long = ["x" * 300 + str(i) for i in range(3)]
        documents = [("a", long[0]), ("b", long[0]), ("c", long[1] + "\nshort\n" + long[0]), ("d", "tiny"), ("e", long[2])]
        lines = sorted(self.build_with(documents, 3), key=lambda line: line["id"])
        self.assertEqual(lines, [{"text": text + "\n", "source": "made-up", "id": name} for name, text in
                                 (("a", long[0]), ("c", long[1] + "\nshort"), ("e", long[2]))])

    def test_an_unexpected_count_ends_it(self):
        with self.assertRaisesRegex(SystemExit, "1 documents, expected 2"):
            self.build_with([("a", "x" * 300)], 2)


class FetchCorpus(TemporaryFolderTest):
    def fetch(self, *arguments, tools=None):
        environment = dict(os.environ)
        if tools:
            for name, body in tools.items():
                (self.folder / name).write_text("#!/bin/sh\n" + body)
                (self.folder / name).chmod(0o755)
            environment["PATH"] = f"{self.folder}:{environment['PATH']}"
        return subprocess.run([SCRIPTS / "fetch_corpus.sh", *arguments], env=environment, capture_output=True, text=True)

    TOOLS = {"apt-get": "exit 100\n", "apt-cache": "exit 0\n", "dpkg": "exit 1\n"}

    def test_usage_is_one_line(self):
        for arguments in ((), ("de",), ("en", "--out"), ("en", "--output")):
            result = self.fetch(*arguments)
            self.assertEqual(result.returncode, 1)
            self.assertRegex(result.stderr, r"\Afetch_corpus.sh: .*usage.*\n\Z")

    def test_without_package_lists_it_says_what_to_do(self):
        result = self.fetch("en-tiny", "--output", self.folder / "out", tools={**self.TOOLS, "apt-cache": "exit 100\n"})
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"\A.*run apt-get update.*\n\Z")
        self.assertFalse((self.folder / "out").exists())

    def test_a_failed_download_leaves_nothing(self):
        result = self.fetch("en-tiny", "--output", self.folder / "out", tools=self.TOOLS)
        self.assertEqual(result.returncode, 1)
        self.assertIn("download failed", result.stderr)
        self.assertEqual(list((self.folder / "out").iterdir()), [])


if __name__ == "__main__":
    unittest.main()
