"""Reads the strings that an R package carries, without R."""

import gzip
import pathlib
import struct
import zlib

from corpora.document import CorpusError


class RReader:
    """R's serialization, XDR format, version 3: as much of it as a lazy-load database of strings needs."""

    NIL, REFERENCE, SYMBOL, PAIRS, CHARS, LOGICALS, INTEGERS, STRINGS, LIST = 254, 255, 1, 2, 9, 10, 13, 16, 19

    def __init__(self, raw: bytes):
        self.raw, self.at, self.references = raw, 0, []
        if self.take(2) != b"X\n" or self.integer() != 3:
            raise CorpusError("not an R object of serialization version 3")
        self.take(8)  # the versions that wrote it and that can read it
        self.take(self.integer())  # the native encoding

    def take(self, count: int) -> bytes:
        piece = self.raw[self.at : self.at + count]
        if count < 0 or len(piece) < count:
            raise CorpusError("an R object ends too early")
        self.at += count
        return piece

    def integer(self) -> int:
        return struct.unpack(">i", self.take(4))[0]

    def object(self):
        flags = self.integer()
        kind, has_attributes, has_tag = flags & 255, flags & 0x200, flags & 0x400
        if kind == self.NIL:
            return None
        if kind == self.REFERENCE:
            return self.references[(flags >> 8) - 1]
        if kind == self.SYMBOL:
            self.references.append(self.object())
            return self.references[-1]
        if kind == self.CHARS:
            size = self.integer()
            latin1 = flags >> 12 & 4
            return "" if size < 0 else self.take(size).decode("latin-1" if latin1 else "utf-8")
        if kind == self.PAIRS:
            pairs = {}
            while kind == self.PAIRS:
                if has_attributes:
                    raise CorpusError("an R pairlist has attributes")
                tag = self.object() if has_tag else None
                pairs[tag] = self.object()
                flags = self.integer()
                kind, has_attributes, has_tag = flags & 255, flags & 0x200, flags & 0x400
            return pairs
        if kind in (self.LOGICALS, self.INTEGERS):
            count = self.integer()
            value = list(struct.unpack(f">{count}i", self.take(4 * count)))
        elif kind in (self.STRINGS, self.LIST):
            value = [self.object() for _ in range(self.integer())]
        else:
            raise CorpusError(f"an R object of type {kind}")
        names = (self.object() if has_attributes else {}).get("names")
        return dict(zip(names, value)) if names else value


def lazy_load(prefix: pathlib.Path) -> dict:
    """All objects of an R lazy-load database PREFIX.rdx and .rdb, by name."""
    index = RReader(gzip.decompress(prefix.with_suffix(".rdx").read_bytes())).object()
    records = prefix.with_suffix(".rdb").read_bytes()
    if index["compressed"] != [1]:
        raise CorpusError(f"{prefix}.rdb is not compressed with zlib")
    objects = {}
    for name, (offset, length) in index["variables"].items():
        raw = zlib.decompress(records[offset + 4 : offset + length])
        if len(raw) != struct.unpack(">I", records[offset : offset + 4])[0]:
            raise CorpusError(f"{prefix}.rdb: {name} has not the size that it names")
        objects[name] = RReader(raw).object()
    return objects
