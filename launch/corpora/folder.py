"""The folder that a corpus becomes: written once, and checked by its hashes afterwards."""

import hashlib
import json
import os
import pathlib
import shutil

from corpora.document import CorpusError
from corpora.sources import Source


def sha256_of(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


class CorpusWriter:
    def __init__(self, folder: pathlib.Path, corpus: str, by_domain: bool):
        self.folder, self.by_domain = folder, by_domain
        self.description = {"corpus": corpus, "sources": [], "texts": [], "files": {}}

    def open_splits(self, domain: str):
        """The files that a domain's documents go to: SPLIT.jsonl, or SPLIT/DOMAIN.jsonl where there are several domains."""
        paths = {split: f"{split}/{domain}.jsonl" if self.by_domain else f"{split}.jsonl" for split in ("train", "valid")}
        for path in paths.values():
            (self.folder / path).parent.mkdir(exist_ok=True)
        return {split: open(self.folder / path, "w", encoding="utf-8", newline="\n") for split, path in paths.items()}

    def add_text(self, name: str, size: int, sha256: str):
        self.description["texts"].append({"name": name, "bytes": size, "sha256": sha256})
        print(f"  {name}: {size:,} bytes, sha256 {sha256}", flush=True)

    def add_source(self, source: Source, root: pathlib.Path, package: str, version: str, as_files: bool):
        counts = {"train": [0, 0], "valid": [0, 0]}
        digest = hashlib.sha256()
        files = self.open_splits(source.domain)
        for document in source.documents(root):
            raw = document.text.encode("utf-8")
            digest.update(raw)
            split = "valid" if document.held_out else "train"
            counts[split][0] += 1
            counts[split][1] += len(raw)
            line = {"text": document.text, "domain": document.domain, "title": document.title}
            files[split].write(json.dumps(line, ensure_ascii=False) + "\n")
            if as_files:
                (self.folder / f"{document.title.replace(' ', '_').lower()}.txt").write_bytes(raw)
                self.add_text(document.title, len(raw), hashlib.sha256(raw).hexdigest())
        for file in files.values():
            file.close()
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
