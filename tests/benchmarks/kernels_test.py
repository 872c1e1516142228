#!/usr/bin/env python3
"""kernel_bench on the CPU, at sizes that take a second: kernels_test.py PROGRAM"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM = None


def run(*arguments):
    return subprocess.run([PROGRAM, *arguments], text=True, capture_output=True)


class KernelBench(unittest.TestCase):
    def test_every_row_and_its_share(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "kernels.json"
            done = run("--device", "cpu", "--tokens", "64", "--repetitions", "3", "--least-ms", "0.1", "--out", str(path))
            self.assertEqual(done.returncode, 0, done.stderr)
            result = json.loads(path.read_text())
        rows = result["rows"]
        self.assertGreater(len({r["row"] for r in rows}), 30)  # the program itself refuses to leave one out
        names = [(r["row"], r["variant"]) for r in rows if "attention" not in r["row"]]  # whose sequences all shrink to 64
        self.assertEqual(len(set(names)), len(names), "two cases have one name")
        self.assertEqual([r["when"] for r in result["ceiling_rows"]], ["before"] * 3 + ["after"] * 3)
        for r in rows:
            self.assertGreater(r["seconds"], 0)
            self.assertLessEqual(r["low"], r["seconds"])
            self.assertLessEqual(r["seconds"], r["high"])
            self.assertAlmostEqual(r["rate"] * r["seconds"] / r["work"], 1)
            if r["bound"] == "latency":
                self.assertNotIn("share", r)
            else:
                self.assertAlmostEqual(r["share"] * result["ceilings"][r["bound"]] / r["rate"], 1)
        for bound, rate in result["ceilings"].items():
            self.assertEqual(rate, max(r["rate"] for r in result["ceiling_rows"] if r["bound"] == bound))

    def test_work_is_what_the_formula_says(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "kernels.json"
            run("--device", "cpu", "--tokens", "64", "--repetitions", "1", "--least-ms", "0.1", "--only", "rms_norm",
                "--out", str(path))
            work = {(r["row"], r["variant"]): r["work"] for r in json.loads(path.read_text())["rows"]}
        self.assertEqual(work, {("rms_norm", "bf16"): 4 * 64 * 1024 + 4 * 64,
                                ("rms_norm", "f32"): 8 * 64 * 1024 + 4 * 64,
                                ("rms_norm_backward", "bf16"): 6 * 64 * 1024 + 4 * 64,
                                ("rms_norm_backward", "f32"): 12 * 64 * 1024 + 4 * 64,
                                ("add_rms_norm", "bf16"): 8 * 64 * 1024 + 4 * 64,
                                ("add_rms_norm", "f32"): 16 * 64 * 1024 + 4 * 64,
                                ("add_rms_norm_backward", "bf16"): 8 * 64 * 1024 + 4 * 64,
                                ("add_rms_norm_backward", "f32"): 16 * 64 * 1024 + 4 * 64})

    def test_a_file_that_cannot_be_written(self):
        done = run("--device", "cpu", "--tokens", "64", "--repetitions", "1", "--least-ms", "0.1", "--only", "sum_squares",
                   "--out", "/nowhere/kernels.json")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("/nowhere/kernels.json", done.stderr)


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main()
