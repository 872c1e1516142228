#!/usr/bin/env python3
"""launch/dependencies.sh on machines that have apt and sudo, or do not, by stand-ins for them."""

import pathlib
import shutil
import subprocess
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "launch/dependencies.sh"


class Dependencies(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="switchyard-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        for tool in ("bash", "env", "grep"):
            (self.folder / tool).symlink_to(shutil.which(tool))
        self.stand_in("id", "echo 1000")
        self.stand_in("dpkg-query", 'for last; do :; done; [ "$last" = xz-utils ] || [ "$last" = libgtest-dev ] || '
                                    'echo "install ok installed"')
        self.log = self.folder / "log"

    def stand_in(self, name, line):
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def apt_get(self):
        self.stand_in("apt-get", f'echo "$DEBIAN_FRONTEND $*" >>{self.log}')

    def call(self, *arguments):
        return subprocess.run([SCRIPT, *arguments], env={"PATH": str(self.folder)}, text=True, capture_output=True)

    def test_nothing_is_missing(self):
        self.apt_get()
        done = self.call()
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertFalse(self.log.exists())

    def test_apt_asks_no_questions_though_sudo_drops_the_environment(self):
        self.apt_get()
        self.stand_in("sudo", f'exec env -i PATH={self.folder} "$@"')
        done = self.call("tests", "bundle")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(self.log.read_text().splitlines(),
                         [" update -qq",
                          "noninteractive install -y -qq --no-install-recommends libgtest-dev xz-utils"])

    def test_without_sudo_the_command_is_told(self):
        self.apt_get()
        done = self.call("tests")
        self.assertEqual(done.returncode, 1)
        self.assertIn("apt-get update && apt-get install --no-install-recommends libgtest-dev\n", done.stderr)
        self.assertFalse(self.log.exists())

    def test_without_apt_the_packages_are_named(self):
        done = self.call("tests")
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        self.assertIn("no apt-get", done.stderr)
        for package in ("g++", "libopenmpi-dev", "libgtest-dev"):
            self.assertIn(package, done.stderr)
        self.assertNotIn("xz-utils", done.stderr)

    def test_mistakes(self):
        self.assertEqual(self.call("test").returncode, 2)


if __name__ == "__main__":
    unittest.main()
