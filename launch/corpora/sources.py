"""Which Debian packages hold text, and how each is laid out inside."""

import gzip
import html
import pathlib
import re
import struct
import zlib
from typing import Callable, Iterator, NamedTuple

from corpora.document import CorpusError, Document, decode, held_out
from corpora.r_data import lazy_load

NOVELS = {
    "sensesensibility": "Sense and Sensibility",
    "prideprejudice": "Pride and Prejudice",
    "mansfieldpark": "Mansfield Park",
    "emma": "Emma",
    "northangerabbey": "Northanger Abbey",
    "persuasion": "Persuasion",
}


def austen(root: pathlib.Path) -> Iterator[Document]:
    novels = lazy_load(root / "usr/lib/R/site-library/janeaustenr/data/Rdata")
    if sorted(novels) != sorted(NOVELS):
        raise CorpusError(f"wanted the six novels, the package has {', '.join(sorted(novels))}")
    for name, title in NOVELS.items():
        text = "\n".join(novels[name]).strip("\n") + "\n"
        yield Document("austen", title, text, name == "persuasion")


def spurgeon(root: pathlib.Path) -> Iterator[Document]:
    """A SWORD zCom4 module: .czs has a record (offset, size, unpacked size) a chapter of the zlib streams in .czz."""
    prefix = root / "usr/share/sword/modules/comments/zcom/tdavid/ot"
    packed = prefix.with_suffix(".czz").read_bytes()
    for offset, size, unpacked in struct.iter_unpack("<3I", prefix.with_suffix(".czs").read_bytes()):
        osis = zlib.decompress(packed[offset : offset + size]).decode("utf-8")
        chapter = re.search(r'<chapter [^>]*osisID="Ps\.(\d+)"', osis)
        if not chapter:
            continue
        text = re.sub(r"\s+", " ", osis)
        text = re.sub(r"<title[^>]*>|</title>|<div [^>]*x-p[^>]*>|</?(?:list|item|lg|l)\b[^>]*>", "\n\n", text)
        text = html.unescape(re.sub(r"<[^>]*>", "", text))
        text = re.sub(r" *\n\s*", "\n\n", re.sub(r" +", " ", text)).strip() + "\n"
        title = f"Psalm {chapter[1]}"
        yield Document("spurgeon", title, text, held_out("spurgeon", title))


def gcide(root: pathlib.Path) -> Iterator[Document]:
    """A DICT database: the index has headword, offset and size, the numbers in base 64."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    value = {digit: i for i, digit in enumerate(digits)}

    def number(word: str) -> int:
        n = 0
        for digit in word:
            n = 64 * n + value[digit]
        return n

    folder = root / "usr/share/dictd"
    entries = {}
    for line in decode((folder / "gcide.index").read_bytes()).splitlines():
        headword, offset, size = line.split("\t")
        if not headword.startswith("00-"):
            entries.setdefault((number(offset), number(size)), headword)
    raw = gzip.decompress((folder / "gcide.dict.dz").read_bytes())
    for (offset, size), headword in sorted(entries.items()):
        text = decode(raw[offset : offset + size])
        yield Document("gcide", headword, text, held_out("gcide", headword))


def files_below(domain: str, base: pathlib.Path, wanted: str, skipped: str = "(?!)") -> Iterator[Document]:
    if not base.is_dir():
        raise CorpusError(f"the package has no {base.name}")
    for path in sorted(base.rglob("*")):
        title = path.relative_to(base).as_posix()
        if path.is_symlink() or not path.is_file() or not re.search(wanted, title) or re.match(skipped, title):
            continue
        raw = path.read_bytes()
        text = decode(gzip.decompress(raw) if path.suffix == ".gz" else raw)
        title = title.removesuffix(".gz")
        if text.strip():
            yield Document(domain, title, text, held_out(domain, title))


def kernel(root: pathlib.Path) -> Iterator[Document]:
    base = next(iter(sorted(root.glob("usr/share/doc/linux-doc-*/Documentation"))), root / "Documentation")
    return files_below("kernel", base, r"\.(rst|txt)(\.gz)?$|^ABI/", r"devicetree/|translations/")


def python(root: pathlib.Path) -> Iterator[Document]:
    base = next(iter(sorted(root.glob("usr/share/doc/python3*/html/_sources"))), root / "_sources")
    return files_below("python", base, r"\.rst\.txt(\.gz)?$")


class Source(NamedTuple):
    domain: str
    package: str  # the one of Debian 12
    otherwise: str  # names of the same package in other releases; empty: none
    licence: str
    documents: Callable[[pathlib.Path], Iterator[Document]]  # from the unpacked package's root to its documents


SOURCES = {
    source.domain: source
    for source in (
        Source("austen", "r-cran-janeaustenr", "", "text: public domain; package: MIT", austen),
        Source("spurgeon", "sword-comm-tdavid", "", "public domain", spurgeon),
        Source("gcide", "dict-gcide", "", "GPL-2.0-or-later", gcide),
        Source("kernel", "linux-doc-6.1", r"linux-doc-\d+\.\d+", "GPL-2.0-only", kernel),
        Source("python", "python3.11-doc", r"python3\.\d+-doc", "PSF-2.0", python),
    )
}
CORPORA = {"austen": ["austen"], "five": list(SOURCES)}
