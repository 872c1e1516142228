#!/usr/bin/env python3
"""Makes a real training corpus out of Debian packages, without installing them.

  corpus.py austen --out DIR   Jane Austen's six novels, 4 MB; Persuasion is held out
  corpus.py five --out DIR     five domains, 90 MB: Austen, Spurgeon's commentary on the Psalms, the GCIDE dictionary,
                               the Linux kernel's documentation, Python's documentation

DIR gets train.jsonl and valid.jsonl (one document a line: text, domain, title), or with several domains
train/DOMAIN.jsonl and valid/DOMAIN.jsonl; LICENSES.md, licenses/, corpus.json (sources, versions, sizes and SHA-256 of
everything) and, for austen, each novel as a text file. Running it again checks the hashes and does nothing; a run that
was interrupted starts over. No root needed; standard library only.
"""

import argparse
import os
import pathlib
import shutil
import struct
import sys
import zlib

from corpora.apt import Apt
from corpora.document import CorpusError
from corpora.folder import CorpusWriter, check, sync
from corpora.sources import CORPORA, SOURCES


def make(out: pathlib.Path, corpus: str):
    partial = out.with_name(out.name + ".partial")
    if partial.exists():
        print(f"{partial} is left from an interrupted run: starting over")
        shutil.rmtree(partial)
    work = partial / "work"
    work.mkdir(parents=True)
    try:
        apt = Apt(work)
        writer = CorpusWriter(partial, corpus, by_domain=len(CORPORA[corpus]) > 1)
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
