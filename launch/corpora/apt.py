"""Debian packages, downloaded and unpacked without being installed."""

import os
import pathlib
import re
import shutil
import subprocess

from corpora.document import CorpusError
from corpora.sources import Source


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
