#!/usr/bin/env python3
"""Makes a real training corpus out of Debian packages, without installing them.

  corpus.py austen --out DIR   Jane Austen's six novels, 4 MB; Persuasion is held out
  corpus.py five --out DIR     five domains, 90 MB: Austen, Spurgeon's commentary on the Psalms, the GCIDE dictionary,
                               the Linux kernel's documentation, Python's documentation

DIR gets train.jsonl and valid.jsonl (one document a line: text, domain, title), LICENSES.md, licenses/, corpus.json
(sources, versions, sizes and SHA-256 of everything) and, for austen, each novel as a text file. Running it again checks
the hashes and does nothing; a run that was interrupted starts over. No root needed; standard library only.
"""

import argparse
import codecs
import gzip
import hashlib
import html
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import zlib
from typing import Iterator, NamedTuple


class CorpusError(Exception):
    """What went wrong and what to do about it, for the user."""


class Document(NamedTuple):
    domain: str
    title: str
    text: str
    held_out: bool


# ---------------------------------------------------------------------------------------------------- text


def repair(error: UnicodeError) -> tuple[str, int]:
    """A byte that is not UTF-8 was written on a machine with Windows-1252, or else ISO-8859-1."""
    byte = error.object[error.start : error.start + 1]
    try:
        return byte.decode("cp1252"), error.start + 1
    except UnicodeDecodeError:
        return byte.decode("latin-1"), error.start + 1


codecs.register_error("repair", repair)


def decode(raw: bytes) -> str:
    return raw.decode("utf-8", errors="repair").replace("\r\n", "\n").strip("\n") + "\n"


def held_out(domain: str, title: str) -> bool:
    """One document in 64, by its name alone: the same documents whatever the version of the package."""
    return hashlib.sha256(f"{domain}/{title}".encode()).digest()[0] % 64 == 0


# ---------------------------------------------------------------------------------------------------- R's files


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


# ---------------------------------------------------------------------------------------------------- sources

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
    documents: object  # from the unpacked package's root to its documents


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


# ---------------------------------------------------------------------------------------------------- packages


class Apt:
    """Downloads packages without root, with package lists of its own where the system's are missing or old."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.options = ["-o", "APT::Sandbox::User=root"]  # else a warning, as _apt may not write into the folder
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            raise CorpusError("apt-get and dpkg-deb are missing: this corpus is made of Debian packages")

    def run(self, *command: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        return subprocess.run(
            [command[0], *self.options, *command[1:]], cwd=self.folder, env=environment, text=True, capture_output=True
        )

    def update(self) -> str:
        """Fetches package lists; returns what apt says against it."""
        print("  apt-get update, into package lists of its own", flush=True)
        for name in ("lists/partial", "cache/archives/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.options += ["-o", f"Dir::State::lists={self.folder}/lists", "-o", f"Dir::Cache={self.folder}/cache"]
        return self.run("apt-get", "update").stderr.strip()

    def name_of(self, source: Source) -> str:
        """The package's name in this release."""
        names = self.run("apt-cache", "pkgnames").stdout.split()
        if source.package in names or not source.otherwise:
            return source.package
        others = [name for name in names if re.fullmatch(source.otherwise, name)]
        return max(others, key=lambda name: [int(n) for n in re.findall(r"\d+", name)], default=source.package)

    def download(self, source: Source) -> pathlib.Path:
        complaints = ""
        for attempt in ("with the lists that are there", "with new ones"):
            if attempt == "with new ones":
                complaints = self.update() + "\n"
            name = self.name_of(source)
            result = self.run("apt-get", "download", name)
            packages = sorted(self.folder.glob(f"{name}_*.deb"))
            if result.returncode == 0 and packages:
                return packages[-1]
        raise CorpusError(
            f"apt-get cannot download {name}. It needs a Debian mirror (main) in reach; apt says:\n"
            + (complaints + result.stderr).strip()
        )

    def unpack(self, package: pathlib.Path) -> tuple[pathlib.Path, str, str]:
        """The root of the unpacked package, its name and its version."""
        root = self.folder / "root" / package.name.split("_")[0]
        root.mkdir(parents=True)
        result = subprocess.run(["dpkg-deb", "-x", package, root], text=True, capture_output=True)
        if result.returncode != 0:
            raise CorpusError(f"dpkg-deb cannot unpack {package.name}: {result.stderr.strip()}")
        fields = ["dpkg-deb", "-W", "--showformat=${Package}\n${Version}", package]
        name, version = subprocess.run(fields, text=True, capture_output=True, check=True).stdout.split("\n")
        return root, name, version


# ---------------------------------------------------------------------------------------------------- the corpus


def sha256_of(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


class CorpusWriter:
    def __init__(self, folder: pathlib.Path, corpus: str):
        self.folder = folder
        self.description = {"corpus": corpus, "sources": [], "texts": [], "files": {}}
        self.files = {
            split: open(folder / f"{split}.jsonl", "w", encoding="utf-8", newline="\n") for split in ("train", "valid")
        }

    def add_text(self, name: str, size: int, sha256: str):
        self.description["texts"].append({"name": name, "bytes": size, "sha256": sha256})
        print(f"  {name}: {size:,} bytes, sha256 {sha256}", flush=True)

    def add_source(self, source: Source, root: pathlib.Path, package: str, version: str, as_files: bool):
        counts = {"train": [0, 0], "valid": [0, 0]}
        digest = hashlib.sha256()
        for document in source.documents(root):
            raw = document.text.encode("utf-8")
            digest.update(raw)
            split = "valid" if document.held_out else "train"
            counts[split][0] += 1
            counts[split][1] += len(raw)
            line = {"text": document.text, "domain": document.domain, "title": document.title}
            self.files[split].write(json.dumps(line, ensure_ascii=False) + "\n")
            if as_files:
                (self.folder / f"{document.title.replace(' ', '_').lower()}.txt").write_bytes(raw)
                self.add_text(document.title, len(raw), hashlib.sha256(raw).hexdigest())
        if not counts["train"][0] or not counts["valid"][0]:
            raise CorpusError(f"{package} {version} has no text where it is looked for")
        self.add_text(source.domain, counts["train"][1] + counts["valid"][1], digest.hexdigest())
        for split, (documents, size) in counts.items():
            print(f"    {split}: {documents:,} documents, {size:,} bytes", flush=True)

        notice = f"licenses/{package}.txt"
        (self.folder / "licenses").mkdir(exist_ok=True)
        shutil.copyfile(root / "usr/share/doc" / package / "copyright", self.folder / notice)
        description = {"domain": source.domain, "package": package, "version": version, "licence": source.licence}
        for split, (documents, size) in counts.items():
            description[split] = {"documents": documents, "bytes": size}
        self.description["sources"].append(description)

    def finish(self):
        for file in self.files.values():
            file.close()
        lines = ["# Where this text comes from", ""]
        lines += ["| domain | Debian package | version | licence | full notice |", "|---|---|---|---|---|"]
        for s in self.description["sources"]:
            notice = f"licenses/{s['package']}.txt"
            lines.append(f"| {s['domain']} | {s['package']} | {s['version']} | {s['licence']} | [{notice}]({notice}) |")
        (self.folder / "LICENSES.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                name = path.relative_to(self.folder).as_posix()
                self.description["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        text = json.dumps(self.description, indent=1, ensure_ascii=False) + "\n"
        (self.folder / "corpus.json").write_text(text, encoding="utf-8")


def check(out: pathlib.Path, corpus: str):
    """Throws unless `out` holds this corpus, whole and unchanged."""
    try:
        description = json.loads((out / "corpus.json").read_text(encoding="utf-8"))
        made, files = description["corpus"], description["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{out} is there, but is no corpus: {error}\nRemove it, or choose another --out") from error
    if made != corpus:
        raise CorpusError(f"{out} holds the corpus {made}, wanted {corpus}\nRemove it, or choose another --out")
    for name, wanted in files.items():
        path = out / name
        if not path.is_file() or sha256_of(path) != wanted["sha256"]:
            state = "has changed" if path.is_file() else "is gone"
            raise CorpusError(f"{path} {state} since the corpus was made\nRemove {out} to make it again")


def sync(folder: pathlib.Path):
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def make(out: pathlib.Path, corpus: str):
    partial = out.with_name(out.name + ".partial")
    if partial.exists():
        print(f"{partial} is left from an interrupted run: starting over")
        shutil.rmtree(partial)
    work = partial / "work"
    work.mkdir(parents=True)
    try:
        apt = Apt(work)
        writer = CorpusWriter(partial, corpus)
        for domain in CORPORA[corpus]:
            source = SOURCES[domain]
            print(f"{domain}: {source.package}", flush=True)
            package = apt.download(source)
            root, name, version = apt.unpack(package)
            print(f"  {name} {version}, {package.stat().st_size:,} bytes", flush=True)
            try:
                writer.add_source(source, root, name, version, as_files=corpus == "austen")
            except (ValueError, LookupError, EOFError, struct.error, zlib.error) as error:
                raise CorpusError(f"{name} {version} is not laid out as this script knows it: {error!r}") from error
        shutil.rmtree(work)
        writer.finish()
        sync(partial)
        os.rename(partial, out)  # also over an empty folder
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", choices=CORPORA, help="which corpus")
    parser.add_argument("--out", required=True, type=pathlib.Path, metavar="DIR", help="the folder to make")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    try:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            check(out, arguments.corpus)
            print(f"{out} holds the corpus {arguments.corpus}, whole: nothing to do")
            return 0
        make(out, arguments.corpus)
    except (CorpusError, OSError) as error:
        print(f"corpus.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("corpus.py: interrupted; nothing is left behind", file=sys.stderr)
        return 130
    print(f"made {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
