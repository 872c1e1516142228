"""Runs the program as a user does, on a corpus and a model so small that a run takes a second.

Every test here is called as  <name>_test.py PROGRAM ROOT [unittest's arguments]; ROOT is the source directory.
"""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from typing import NamedTuple

PROGRAM, ROOT = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])

CONFIG = """\
run: {dir: run, precision: fp32, threads: 1}
model: {d_model: 16, n_layers: 2, n_heads: 2, d_ff: 32}
moe: {experts: 4}
data: {train: [{path: tokens}], valid: [{path: tokens}]}
train: {steps: 6, seq_len: 16, global_batch: 8, eval_every: 3, eval_batches: 2, log_every: 1}
optim: {schedule: {kind: constant, warmup_steps: 2}}
checkpoint: {every: 2, keep: 3}
"""

# What only a program that lost control, or a launcher that explains it, prints.
NOISE = ("terminate called", "core dumped", "Segmentation", "HDF5-DIAG", "MPI_ABORT", "mpirun", "PMIX", "-----", "#0 ")

LIMIT = 120  # seconds that no run may take even on a busy machine; all but a hang take about one


class Result(NamedTuple):
    code: int
    out: str
    err: str
    seconds: float


def command_of(arguments, ranks):
    """The command line: the program itself, or a job of `ranks` ranks as launch/local.sh starts it."""
    head = [PROGRAM] if ranks is None else [ROOT / "launch/local.sh", "-n", ranks]
    return [str(part) for part in (*head, *arguments)]


def environment():
    # Tests share their cores: an idle rank gives way.
    return {**os.environ, "SWITCHYARD": str(PROGRAM), "OMP_NUM_THREADS": "1", "OMPI_MCA_mpi_yield_when_idle": "1",
            "ASAN_OPTIONS": "detect_leaks=0"}  # MPI_Init leaks


class Running:
    """A job that a test sends signals to; stopped, if it still runs, at the end of the `with`."""

    def __init__(self, folder, arguments, ranks=None, **options):
        self.begin = time.monotonic()
        self.process = subprocess.Popen(command_of(arguments, ranks), cwd=folder, env=environment(), text=True,
                                        errors="backslashreplace",  # an untrained model writes any bytes
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.communicate()

    def finish(self, timeout=LIMIT):
        out, err = self.process.communicate(timeout=timeout)
        return Result(self.process.returncode, out, err, time.monotonic() - self.begin)

    def wait_for(self, condition):
        """Until condition() is true; an ended job or a long wait is a failure."""
        end = time.monotonic() + LIMIT
        while not condition():
            if self.process.poll() is not None:
                raise AssertionError(f"the run ended before the test reached it: {self.finish()}")
            if time.monotonic() > end:
                raise AssertionError("waited in vain")
            time.sleep(0.01)

    def ranks(self):
        """The processes of a job's ranks, by rank: mpirun's children, itself a child of local.sh."""
        found = {}
        for status in pathlib.Path("/proc").glob("[0-9]*/status"):
            try:
                fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
                parent = pathlib.Path("/proc", fields["PPid"].strip(), "status").read_text()
                if f"PPid:\t{self.process.pid}\n" in parent and (status.parent / "exe").resolve() == PROGRAM:
                    variables = (status.parent / "environ").read_text().split("\0")
                    rank = next(v for v in variables if v.startswith("OMPI_COMM_WORLD_RANK="))
                    found[int(rank.partition("=")[2])] = int(fields["Pid"])
            except (OSError, KeyError, StopIteration):
                continue  # it ended meanwhile
        return [found[rank] for rank in sorted(found)]


def run(folder, *arguments, ranks=None, **options):
    with Running(folder, arguments, ranks, **options) as running:
        return running.finish()


class Scenario(unittest.TestCase):
    """A test in a folder of its own, which holds tokens.{bin,idx,json} and tiny.yaml."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.home = pathlib.Path(tempfile.mkdtemp(prefix="switchyard-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.home)
        words = random.Random(1)
        text = " ".join("".join(words.choices("abcdef", k=words.randint(1, 6))) for _ in range(600))
        (cls.home / "text.txt").write_text(text)
        (cls.home / "tiny.yaml").write_text(CONFIG)
        made = run(cls.home, "tokenize", "text.txt", "--out", "tokens")
        assert made.code == 0, made

    def setUp(self):
        self.folder = self.home / self.id().rsplit(".", 1)[-1]
        self.folder.mkdir()
        self.addCleanup(shutil.rmtree, self.folder)
        for path in self.home.iterdir():
            if path.is_file():
                shutil.copy(path, self.folder)

    def run_here(self, *arguments, **options):
        return run(self.folder, *arguments, **options)

    def start(self, *arguments, **options):
        return Running(self.folder, arguments, **options)

    def train(self, *overrides, **options):
        return self.run_here("train", "tiny.yaml", *overrides, **options)

    def finished(self, *overrides, **options):
        result = self.train(*overrides, **options)
        self.assertDone(result)
        return result

    def metrics(self, directory="run"):
        lines = (self.folder / directory / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def losses(self, directory="run"):
        """The metrics without what depends on the clock."""
        return [{k: v for k, v in each.items() if k != "tokens_per_second"} for each in self.metrics(directory)]

    def checkpoints(self, directory="run"):
        return sorted(path.name for path in (self.folder / directory / "checkpoints").glob("step-*"))

    def latest(self, directory="run"):
        """The newest checkpoint's name; empty before there is one."""
        try:
            return (self.folder / directory / "checkpoints/latest").read_text().split("\n")[0]
        except OSError:
            return ""

    def assertQuiet(self, result):
        for noise in NOISE:
            self.assertNotIn(noise, result.err, result)

    def assertDone(self, result):
        self.assertEqual(result.code, 0, result)
        self.assertNotIn("error", result.err, result)
        self.assertQuiet(result)

    def assertRefused(self, result, code, *words):
        """One `error: ...` on standard error with these words in it, and this exit code."""
        self.assertEqual(result.code, code, result)
        spoken = [line for line in result.err.splitlines() if not line.startswith("warning: ")]
        self.assertEqual([line.startswith("error: ") for line in spoken].count(True), 1, result)
        self.assertTrue(spoken[0].startswith("error: "), result)
        self.assertQuiet(result)
        for word in words:
            self.assertIn(word, result.err)



def main():
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
