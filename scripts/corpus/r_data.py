"""R's lazy-load databases (NAME.rdx, NAME.rdb): the character vectors of a package's data folder."""

import gzip
import struct
import zlib

SYMBOL, PAIRLIST, CHARSXP, LOGICAL, INTEGER, STRING, VECTOR = 1, 2, 9, 10, 13, 16, 19
NULL_VALUE, REFERENCE = 254, 255
HAS_ATTRIBUTES, HAS_TAG = 1 << 9, 1 << 10


class XdrReader:
    """Reads R's XDR serialisation of lists, vectors and strings; R objects of other kinds are an error."""

    def __init__(self, data):
        if data[:2] != b"X\n":
            raise ValueError("not an XDR serialisation of R")
        self.data, self.at, self.references = data, 2, []
        version, _, _ = self.integers(3)
        if version == 3:  # names the encoding it was written in
            self.at += 4 + struct.unpack_from(">i", data, self.at)[0]

    def integers(self, count):
        values = struct.unpack_from(f">{count}i", self.data, self.at)
        self.at += 4 * count
        return values

    def read(self):
        flags = self.integers(1)[0]
        kind = flags & 0xFF
        if kind == NULL_VALUE:
            return None
        if kind == REFERENCE:
            return self.references[(flags >> 8) - 1]
        if kind == SYMBOL:
            self.references.append(self.read())
            return self.references[-1]
        if kind == CHARSXP:
            return self.string()
        if kind == PAIRLIST:
            return self.pairs(flags)
        value = self.vector(kind)
        if flags & HAS_ATTRIBUTES:
            names = (self.read() or {}).get("names")
            if names:
                return dict(zip(names, value))
        return value

    def string(self):
        length = self.integers(1)[0]
        if length < 0:
            return ""  # NA
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8", errors="replace")

    def pairs(self, flags):
        result = {}
        while flags & 0xFF == PAIRLIST:
            if flags & HAS_ATTRIBUTES:
                self.read()
            tag = self.read() if flags & HAS_TAG else len(result)
            result[tag] = self.read()
            flags = self.integers(1)[0]
        return result

    def vector(self, kind):
        length = self.integers(1)[0]
        if kind in (LOGICAL, INTEGER):
            return list(self.integers(length))
        if kind in (STRING, VECTOR):
            return [self.read() for _ in range(length)]
        raise ValueError(f"R object of kind {kind} at byte {self.at}")


def inflate(data):
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else zlib.decompress(data)


def read_lazy_load(prefix):
    """Name -> object for every variable in PREFIX.rdx and PREFIX.rdb."""
    with open(prefix + ".rdx", "rb") as file:
        index = XdrReader(inflate(file.read())).read()
    with open(prefix + ".rdb", "rb") as file:
        chunks = file.read()
    # A chunk is its length when inflated, four bytes big endian, and a zlib stream.
    return {
        name: XdrReader(zlib.decompress(chunks[offset + 4 : offset + length])).read()
        for name, (offset, length) in index["variables"].items()
    }
