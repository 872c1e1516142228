#!/usr/bin/env python3
"""cmake/version.cmake: the commit of the sources, written only where it changed."""

import os
import pathlib
import subprocess
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "cmake/version.cmake"


class Version(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="switchyard-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.out = self.folder / "build/version.cpp"

    def git(self, *arguments, folder):
        settings = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main")
        return subprocess.run(["git", *settings, "-C", folder, *arguments], check=True, text=True, capture_output=True).stdout

    def repository(self, folder):
        folder.mkdir(exist_ok=True)
        self.git("init", folder=folder)
        (folder / "file").write_text("a")
        self.git("add", "file", folder=folder)
        self.git("commit", "-m", "a", folder=folder)
        return self.git("rev-parse", "--short", "HEAD", folder=folder).strip()

    def version(self, source):
        subprocess.run(["cmake", "-D", f"SOURCE={source}", "-D", "VERSION=1.2.3", "-D", f"OUT={self.out}", "-P", SCRIPT],
                       check=True, capture_output=True)
        return self.out.read_text().split('"')[3]

    def test_the_commit_is_named_and_what_was_changed_since(self):
        source = self.folder / "source"
        commit = self.repository(source)
        self.assertEqual(self.version(source), f"1.2.3 ({commit})")
        (source / "file").write_text("b")
        self.assertEqual(self.version(source), f"1.2.3 ({commit}-dirty)")

    def test_nothing_is_written_where_nothing_changed(self):
        self.repository(self.folder)
        self.version(self.folder)
        os.utime(self.out, ns=(1, 1))
        self.version(self.folder)
        self.assertEqual(self.out.stat().st_mtime_ns, 1)

    def test_sources_that_are_no_repository_name_none(self):
        self.repository(self.folder)
        (self.folder / "unpacked").mkdir()
        self.assertEqual(self.version(self.folder / "unpacked"), "1.2.3")


if __name__ == "__main__":
    unittest.main()
