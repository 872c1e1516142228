#!/usr/bin/env python3
"""launch/corpus.py against packages made here, with a stand-in for apt-get: no network. Run it as it is."""

import gzip
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "launch" / "corpus.py"
sys.dont_write_bytecode = True
sys.path.insert(0, str(SCRIPT.parent))

from corpora import document, folder, r_data, sources


# R's serialization, as its manual "R Internals", section 1.8, defines it.
def integer(*values):
    return struct.pack(f">{len(values)}i", *values)


def chars(text):
    return integer(9 | 8 << 12, len(text.encode())) + text.encode()


def strings(texts):
    return integer(16, len(texts)) + b"".join(map(chars, texts))


def named(values, first):
    """A list with names; the first mention of the symbol `names` spells it, later ones refer to it."""
    symbol = integer(1) + chars("names") if first else integer(1 << 8 | 255)
    names = integer(2 | 0x400) + symbol + strings(list(values)) + integer(254)
    return integer(19 | 0x200, len(values)) + b"".join(values.values()) + names


def saved(body):
    return b"X\n" + integer(3, 0x040201, 0x030500, 5) + b"UTF-8" + body


def austen_package(root, novels):
    data = root / "usr/lib/R/site-library/janeaustenr/data"
    data.mkdir(parents=True)
    records, places = b"", {}
    for name, lines in novels.items():
        raw = saved(strings(lines))
        record = struct.pack(">I", len(raw)) + zlib.compress(raw)
        places[name] = integer(13, 2, len(records), len(record))
        records += record
    top = {"variables": named(places, True), "references": integer(19, 0), "compressed": integer(10, 1, 1)}
    (data / "Rdata.rdb").write_bytes(records)
    (data / "Rdata.rdx").write_bytes(gzip.compress(saved(named(top, False))))


class Readers(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)

    def test_bytes_that_are_not_utf8_are_repaired(self):
        self.assertEqual(document.decode(b"caf\xc3\xa9 fa\xe7ade market\x92s\r\n"), "café façade market’s\n")
        self.assertEqual(document.decode(b"\n\na\x81\n\n"), "a\x81\n")

    def test_dictionary_entries_are_documents(self):
        folder = self.root / "usr/share/dictd"
        folder.mkdir(parents=True)
        text = b"About.\nA \\A\\, n.\n   First.\n\nB \\B\\, n.\n   Second.\n"
        (folder / "gcide.dict.dz").write_bytes(gzip.compress(text))
        (folder / "gcide.index").write_text("00-info\tA\tH\nA\tH\tU\nOther\tH\tU\nB\tc\tV\n")
        documents = [(d.title, d.text) for d in sources.gcide(self.root)]
        self.assertEqual(documents, [("A", "A \\A\\, n.\n   First.\n"), ("B", "B \\B\\, n.\n   Second.\n")])

    def test_a_psalm_is_a_document_without_markup(self):
        folder = self.root / "usr/share/sword/modules/comments/zcom/tdavid"
        folder.mkdir(parents=True)
        osis = (
            '<chapter n="1" osisID="Ps.1" sID="Ps.1"/> <title type="x-s">TITLE.</title> <div sID="g" type="x-p"/> '
            'One <hi type="bold">bold</hi>\n&amp; <div eID="g" type="x-p"/> <div sID="h" type="x-p"/>Two.'
        )
        packed = [zlib.compress(piece.encode()) for piece in ("<milestone/>", osis)]
        (folder / "ot.czz").write_bytes(b"".join(packed))
        (folder / "ot.czs").write_bytes(
            struct.pack("<6I", 0, len(packed[0]), 12, len(packed[0]), len(packed[1]), len(osis))
        )
        documents = [(d.title, d.text) for d in sources.spurgeon(self.root)]
        self.assertEqual(documents, [("Psalm 1", "TITLE.\n\nOne bold &\n\nTwo.\n")])

    def test_kernel_documents_leave_out_bindings_translations_and_links(self):
        base = self.root / "usr/share/doc/linux-doc-9.9/Documentation"
        for name in ("a/b.rst.gz", "c.txt.gz", "ABI/d.gz", "e.svg.gz", "devicetree/f.rst.gz", "translations/g.rst.gz"):
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            (base / name).write_bytes(gzip.compress(name.encode()))
        (base / "link.rst.gz").symlink_to("c.txt.gz")
        self.assertEqual([d.title for d in sources.kernel(self.root)], ["ABI/d", "a/b.rst", "c.txt"])

    def test_a_strange_r_file_is_an_error(self):
        for raw in (b"", saved(integer(16, 2)), saved(integer(14, 0)), b"A\n" + integer(3)):
            with self.assertRaises(document.CorpusError):
                r_data.RReader(raw).object()


@unittest.skipUnless(shutil.which("dpkg-deb"), "packages are made with dpkg-deb")
class Program(unittest.TestCase):
    """The whole program, from package to corpus."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.out = self.folder / "out"
        self.make_package({name: [title.upper(), "", "It is a truth — ever."] for name, title in sources.NOVELS.items()})

    def make_package(self, novels):
        root = self.folder / "root"
        shutil.rmtree(root, ignore_errors=True)
        austen_package(root, novels)
        notice = root / "usr/share/doc/r-cran-janeaustenr/copyright"
        notice.parent.mkdir(parents=True)
        notice.write_text("free\n")
        (root / "DEBIAN").mkdir()
        (root / "DEBIAN/control").write_text(
            "Package: r-cran-janeaustenr\nVersion: 1-2\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n"
        )
        deb = self.folder / "r-cran-janeaustenr_1-2_all.deb"
        subprocess.run(["dpkg-deb", "-Znone", "--build", "--root-owner-group", root, deb], check=True, capture_output=True)
        programs = self.folder / "bin"
        programs.mkdir(exist_ok=True)
        # The first download fails, as with old package lists, and update helps.
        (programs / "apt-get").write_text(
            f'#!/bin/sh\ncase "$*" in *update*) touch {self.folder}/updated ;; *)\n'
            f'test -e {self.folder}/updated || {{ echo "E: no such package" >&2; exit 100; }}\ncp {deb} . ;; esac\n'
        )
        (programs / "apt-cache").write_text("#!/bin/sh\necho r-cran-janeaustenr\n")
        for program in programs.iterdir():
            program.chmod(0o755)

    def run_corpus(self, *arguments):
        environment = {**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
        command = [sys.executable, SCRIPT, *(arguments or ["austen", "--out", self.out])]
        result = subprocess.run(command, env=environment, text=True, capture_output=True)
        self.assertFalse((self.folder / "out.partial").exists())
        return result

    def test_makes_the_corpus_once(self):
        (self.folder / "out.partial/junk").mkdir(parents=True)
        first = self.run_corpus()
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertIn("interrupted", first.stdout)
        read = lambda name: [json.loads(line) for line in (self.out / name).read_text().splitlines()]
        self.assertEqual([d["title"] for d in read("train.jsonl")], [t for t in sources.NOVELS.values() if t != "Persuasion"])
        self.assertEqual(read("valid.jsonl"), [
            {"text": "PERSUASION\n\nIt is a truth — ever.\n", "domain": "austen", "title": "Persuasion"}
        ])
        self.assertEqual((self.out / "emma.txt").read_text(), "EMMA\n\nIt is a truth — ever.\n")
        self.assertIn("| austen | r-cran-janeaustenr | 1-2 |", (self.out / "LICENSES.md").read_text())
        before = (self.out / "train.jsonl").stat().st_mtime_ns
        self.assertIn("nothing to do", self.run_corpus().stdout)
        self.assertEqual((self.out / "train.jsonl").stat().st_mtime_ns, before)

        (self.out / "valid.jsonl").write_text("changed")
        changed = self.run_corpus()
        self.assertEqual(changed.returncode, 1)
        self.assertIn("valid.jsonl has changed", changed.stderr)
        self.assertIn("holds the corpus austen, wanted five", self.run_corpus("five", "--out", self.out).stderr)

    def test_several_domains_have_files_of_their_own(self):
        """Of packages that look like the real ones, as unpacked; what they hold is the readers' affair."""
        made = self.folder / "made"
        made.mkdir()
        writer = folder.CorpusWriter(made, "five", by_domain=True)
        for domain in ("python", "kernel"):
            notice = self.folder / f"usr/share/doc/{domain}-doc/copyright"
            notice.parent.mkdir(parents=True)
            notice.write_text("free\n")
            texts = [document.Document(domain, title, f"{domain} {title}\n", title == "b") for title in "abc"]
            source = sources.Source(domain, f"{domain}-doc", "", "free", lambda root, texts=texts: iter(texts))
            writer.add_source(source, self.folder, f"{domain}-doc", "1", as_files=False)
        writer.finish()
        read = lambda name: [json.loads(line)["text"] for line in (made / name).read_text().splitlines()]
        self.assertEqual((read("train/python.jsonl"), read("valid/python.jsonl")), (["python a\n", "python c\n"], ["python b\n"]))
        self.assertEqual((read("train/kernel.jsonl"), read("valid/kernel.jsonl")), (["kernel a\n", "kernel c\n"], ["kernel b\n"]))
        self.assertFalse((made / "train.jsonl").exists())
        self.assertIn("valid/kernel.jsonl", json.loads((made / "corpus.json").read_text())["files"])
        folder.check(made, "five")

    def test_leaves_other_folders_alone(self):
        self.out.mkdir()
        (self.out / "mine").write_text("mine")
        result = self.run_corpus()
        self.assertEqual(result.returncode, 1)
        self.assertIn("is no corpus", result.stderr)
        self.assertEqual(os.listdir(self.out), ["mine"])

    def test_missing_novel_and_missing_package(self):
        self.make_package({"emma": ["x"]})
        self.assertIn("wanted the six novels", self.run_corpus().stderr)
        (self.folder / "bin/apt-get").write_text('#!/bin/sh\necho "E: no such package" >&2; exit 100\n')
        result = self.run_corpus()
        self.assertEqual(result.returncode, 1)
        self.assertIn("cannot download r-cran-janeaustenr", result.stderr)
        self.assertIn("E: no such package", result.stderr)
        self.assertFalse(self.out.exists())


if __name__ == "__main__":
    unittest.main()
