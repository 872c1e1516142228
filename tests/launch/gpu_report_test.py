#!/usr/bin/env python3
"""launch/gpu_report.py on results made here, and launch/gpu_check.sh with stand-ins for the GPU and the programs."""

import contextlib
import importlib.util
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("gpu_report", ROOT / "launch" / "gpu_report.py")
gpu_report = importlib.util.module_from_spec(spec)
sys.dont_write_bytecode = True
spec.loader.exec_module(gpu_report)

RUN = {"gpu": "NVIDIA H100 80GB HBM3", "program": "0.1.0 (abc)", "date": "2030-01-02"}


def kernel(row, variant, bound, share, rate=2.5e12):
    return {"row": row, "variant": variant, "shape": "R 8 D 4", "bound": bound, "work": 1e9, "formula": "4 R D",
            "calls": 3, "seconds": 4e-4, "low": 3.9e-4, "high": 4.1e-4, "rate": rate} | (
                {"share": share} if share is not None else {})


def kernels(memory=0.9, attention=0.5):
    rows = [kernel("rms_norm", "bf16", "memory", memory), kernel("clip_factor", "f32", "latency", None),
            kernel("attention", "bf16, S 4096, d 128", "bf16", attention, 4e14),
            kernel("attention_backward", "bf16, S 4096, d 128", "bf16", attention, 4e14),
            kernel("attention", "bf16, S 4096, d 64", "bf16", 0.1, 8e13)]
    return {"device": "cuda:0", "tokens": 131072, "repetitions": 11, "least_ms": 20.0, "rows": rows,
            "ceilings": {"memory": 3e12, "bf16": 8e14, "f32": 5e13}}


def model(tokens_per_second=240000.0):
    return {"version": "0.1.0 (abc)", "device": "cuda:0", "ranks": 1, "tokens_per_step": 65536.0,
            "step_seconds": [0.27, 0.273, 0.28], "tokens_per_second": tokens_per_second, "parameters": 620572672,
            "active_parameters": 257634304, "flops_per_token": 1.697e9,
            "model_flops_per_second": tokens_per_second * 1.697e9,
            "product": {"side": 8192, "flops_per_second": 8e14}, "share_of_product": 0.5,
            "kernels": [{"row": "weight_matmul", "device": "cuda", "calls": 98.0, "seconds": 0.1, "flops": 5e13},
                        {"row": "rms_norm", "device": "cuda", "calls": 100.0, "seconds": 0.01, "flops": 0.0},
                        {"row": "copy", "device": "cpu", "calls": 2.0, "seconds": 0.001, "flops": 0.0}],
            "memory": {"together": {"now": 1, "peak": 2**34, "held": 3}}}


def speed(ratio=1.5):
    steps = {"pytorch grouped": ratio, "pytorch compile": ratio, "switchyard": 1.0}
    return {"steps": {name: {"median_ms": 270 * r, "lower_quartile_ms": 269 * r, "tokens_per_second": 240000 / r}
                      for name, r in steps.items()},
            "ratios": {name: {"median": r, "low": r - 0.1, "high": r + 0.1}
                       for name, r in steps.items() if name != "switchyard"},
            "rounds": 20, "versions": {"torch": "2.99", "gpu": "NVIDIA H100 80GB HBM3"}}


class Page(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.results = pathlib.Path(self.folder.name)

    def tearDown(self):
        self.folder.cleanup()

    def write(self, **files):
        for name, value in files.items():
            (self.results / f"{name}.json").write_text(json.dumps(value))

    def states(self):
        """The state column of the goals."""
        page = gpu_report.page(self.results)
        lines = page.split("## Goals")[1].split("##")[0].strip().splitlines()[2:]
        return [line.split("|")[3].strip() for line in lines]

    def test_without_results_says_so(self):
        page = gpu_report.page(self.results)
        self.assertIn("Nothing on this page has been measured yet", page)
        self.assertIn("launch/gpu_check.sh", page)
        self.assertEqual(self.states(), ["open"] * 4)

    def test_the_page_in_docs_is_this_one_until_something_was_measured(self):
        written = (ROOT / "docs" / "gpu.md").read_text()
        if "has been measured yet" in written:
            self.assertEqual(written, gpu_report.page(self.results))

    def test_all_results(self):
        self.write(run=RUN, kernels=kernels(), model=model(), speed=speed())
        (self.results / "stages.jsonl").write_text(
            '{"stage": "tests", "status": "failed", "seconds": 3, "note": "old"}\n'
            '{"stage": "tests", "status": "passed", "seconds": 5, "note": "[  PASSED  ] 7 tests."}\n')
        page = gpu_report.page(self.results)
        self.assertNotIn("measured yet", page)
        self.assertIn("| tests | passed | 5 s | [  PASSED  ] 7 tests. |", page)
        self.assertNotIn("old", page)
        self.assertIn("| racecheck | not run |  |  |", page)
        self.assertIn("| `rms_norm` | bf16 | R 8 D 4 | 4 R D | 400 us | 5.0 % | 2500 GB/s | 90.0 % |", page)
        self.assertIn("| `clip_factor` | f32 | R 8 D 4 | 4 R D | 400 us | 5.0 % |  |  |", page)
        self.assertIn("400.0 TFLOP/s | 50.0 % |", page)
        self.assertIn("**41.2 %** of 989 TFLOP/s", page)  # 240000 * 1.697e9 / 989e12
        self.assertIn("| `copy` (host) | 2 |", page)
        self.assertIn("1.50 (1.40 to 1.60)", page)
        self.assertEqual(self.states(), ["met"] * 4)
        for line in page.splitlines():
            self.assertLess(line.count("NVIDIA H100"), 2)

    def test_missed_goals_are_named(self):
        self.write(run=RUN, kernels=kernels(memory=0.79, attention=0.44), model=model(220000.0), speed=speed(1.05))
        self.assertEqual(self.states(), ["**missed**"] * 4)  # the interval of 1.05 begins at 0.95
        self.assertIn("below it: `rms_norm` bf16 79.0 %", gpu_report.page(self.results))

    def test_a_gpu_that_is_not_known_leaves_its_goal_open(self):
        self.write(run=RUN | {"gpu": "NVIDIA X999"}, model=model())
        self.assertEqual(self.states()[2], "open")

    def test_a_result_that_was_cut_off_is_none(self):
        self.write(run=RUN, kernels=kernels())
        (self.results / "model.json").write_text('{"version": "0.1')
        with contextlib.redirect_stderr(io.StringIO()) as told:
            self.assertEqual(self.states(), ["met", "met", "open", "open"])
        self.assertIn("model.json", told.getvalue())

    def test_data_sheets(self):
        for name, teraflops in (("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H200", 989),
                                ("NVIDIA A100-SXM4-80GB", 312)):
            self.assertEqual(gpu_report.datasheet(name)[0], teraflops * 1e12)


class Losses(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.results = pathlib.Path(self.folder.name)
        self.base = [5.0 - 0.01 * i for i in range(100)]

    def tearDown(self):
        self.folder.cleanup()

    def write(self, run, factors):
        folder = self.results / "train" / run
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"step": i + 1, "loss": loss * f}) for i, (loss, f) in enumerate(zip(self.base, factors))]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")

    def run_all(self, **changes):
        parted = [1 + 2e-5] * 20 + [1 + 4e-3] * 80
        runs = {"cpu-fp32": [1.0] * 100, "cpu-bf16": parted, "cuda-fp32": [1 + 1e-6] * 20 + [1 + 3e-3] * 80,
                "cuda-bf16": [f * (1 + 1e-4) for f in parted]} | changes
        for run, factors in runs.items():
            self.write(run, factors)
        return gpu_report.compare_losses(self.results)

    def test_rounding_agrees(self):
        result = self.run_all()
        self.assertTrue(result["good"])
        self.assertAlmostEqual(result["yardstick"]["mean"], 0.8 * 4e-3, delta=1e-4)
        (self.results / "losses.json").write_text(json.dumps(result))
        self.assertIn("GPU beside CPU, bf16: agrees", gpu_report.page(self.results))

    def test_a_first_step_that_differs_is_no_rounding(self):
        self.assertFalse(self.run_all(**{"cuda-fp32": [1 + 5e-5] + [1.0] * 99})["good"])

    def test_early_steps_that_differ_are_no_rounding(self):
        self.assertFalse(self.run_all(**{"cuda-fp32": [1.0] + [1 + 2e-4] * 9 + [1.0] * 90})["good"])

    def test_farther_than_rounding_goes(self):
        result = self.run_all(**{"cuda-bf16": [1.0] * 20 + [1 + 1.5e-2] * 80})
        self.assertEqual([d["good"] for d in result["pairs"].values()], [True, False])

    def test_a_run_that_stopped_early_is_an_error(self):
        self.run_all()
        path = self.results / "train" / "cuda-bf16" / "metrics.jsonl"
        path.write_text("\n".join(path.read_text().splitlines()[:50]) + "\n")
        with self.assertRaises(gpu_report.ReportError):
            gpu_report.compare_losses(self.results)
        shutil.rmtree(self.results / "train" / "cpu-fp32")
        with self.assertRaises(gpu_report.ReportError):
            gpu_report.compare_losses(self.results)


SWITCHYARD = f"""#!{sys.executable}
import json, os, sys
if sys.argv[1] == "--version":
    print("0.1.0 (abc)")
elif sys.argv[1] == "bench":
    print(json.dumps(json.loads(os.environ["STUB_MODEL"])))
else:
    options = dict(a.split("=", 1) for a in sys.argv[3:] if "=" in a)
    os.makedirs(options["run.dir"])
    factor = 1.001 if options["run.precision"] == "bf16" else 1
    with open(options["run.dir"] + "/metrics.jsonl", "w") as file:
        for step in range(int(options["train.steps"])):
            print(json.dumps({{"step": step + 1, "loss": (5 - 0.01 * step) * factor}}), file=file)
"""
KERNEL_BENCH = f"""#!{sys.executable}
import os, sys
open(sys.argv[sys.argv.index("--out") + 1], "w").write(os.environ["STUB_KERNELS"])
"""
TESTS = "#!/bin/sh\necho '[  PASSED  ] 3 tests.'\nexit ${STUB_TESTS:-0}\n"


class Check(unittest.TestCase):
    """gpu_check.sh in a bundle of stand-ins."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.bundle = pathlib.Path(self.folder.name) / "bundle"
        for name in ("gpu_check.sh", "gpu_report.py"):
            (self.bundle / "launch").mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / "launch" / name, self.bundle / "launch" / name)
        (self.bundle / "bundle.json").write_text("{}\n")
        (self.bundle / "data/austen").mkdir(parents=True)
        (self.bundle / "data/austen/train.idx").touch()
        self.tools = pathlib.Path(self.folder.name) / "tools"
        for path, text in ((self.bundle / "bin/switchyard", SWITCHYARD), (self.bundle / "bin/cuda_tests", TESTS),
                           (self.bundle / "bin/kernel_bench", KERNEL_BENCH),
                           (self.tools / "nvidia-smi", "#!/bin/sh\necho NVIDIA H100 80GB HBM3\n")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        # A plain python3 before any that has PyTorch.
        (self.tools / "python3").symlink_to("/usr/bin/python3")
        self.environment = {**os.environ, "PATH": f"{self.tools}:/usr/bin:/bin", "STUB_MODEL": json.dumps(model()),
                            "STUB_KERNELS": json.dumps(kernels()), "TRAIN_STEPS": "20"}

    def tearDown(self):
        self.folder.cleanup()

    def check(self, *arguments, **environment):
        return subprocess.run([self.bundle / "launch/gpu_check.sh", *arguments], env=self.environment | environment,
                              text=True, capture_output=True)

    def stages(self):
        lines = (self.bundle / "results/stages.jsonl").read_text().splitlines()
        return {s["stage"]: s["status"] for s in map(json.loads, lines)}

    def test_everything(self):
        done = self.check()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(self.stages(), {"tests": "passed", "memcheck": "left out", "racecheck": "left out",
                                         "train": "passed", "parity": "left out", "kernels": "passed",
                                         "model": "passed", "pytorch": "left out"})
        page = (self.bundle / "results/gpu.md").read_text()
        for word in ("NVIDIA H100 80GB HBM3", "0.1.0 (abc)", "| tests | passed |", "`rms_norm`", "41.2 %",
                     "GPU beside CPU, fp32: agrees", "left out: no compute-sanitizer here"):
            self.assertIn(word, page)

    def test_a_failure_is_told_and_the_rest_goes_on(self):
        done = self.check(STUB_TESTS="1", STUB_MODEL="nonsense")
        self.assertEqual(done.returncode, 1)
        self.assertIn("failed: tests model", done.stderr)
        self.assertEqual(self.stages()["train"], "passed")
        page = (self.bundle / "results/gpu.md").read_text()
        self.assertIn("| tests | failed |", page)
        self.assertIn("`rms_norm`", page)
        self.assertNotIn("## A model end to end", page)

    def test_some_stages_add_to_the_results_of_others(self):
        self.assertEqual(self.check("--stages", "kernels").returncode, 0)
        self.assertEqual(self.check("--stages", "tests model").returncode, 0)
        self.assertEqual(self.stages(), {"kernels": "passed", "tests": "passed", "model": "passed"})
        page = (self.bundle / "results/gpu.md").read_text()
        self.assertIn("`rms_norm`", page)
        self.assertIn("41.2 %", page)

    def test_a_stage_that_fails_leaves_no_earlier_result(self):
        self.assertEqual(self.check("--stages", "kernels model").returncode, 0)
        self.assertEqual(self.check("--stages", "model", STUB_MODEL="nonsense").returncode, 1)
        page = (self.bundle / "results/gpu.md").read_text()
        self.assertIn("| model | failed |", page)
        self.assertIn("`rms_norm`", page)
        self.assertNotIn("## A model end to end", page)

    def test_the_remark_is_the_error_and_names_no_folder_of_the_machine(self):
        (self.bundle / "bin/kernel_bench").write_text(f"#!/bin/sh\necho error: {self.bundle}/x is wrong >&2\necho more\n"
                                                      "exit 1\n")
        self.assertEqual(self.check("--stages", "kernels").returncode, 1)
        page = (self.bundle / "results/gpu.md").read_text()
        self.assertRegex(page, r"\| kernels \| failed \| \d+ s \| error: x is wrong \|")

    def test_a_python_without_its_library(self):
        (self.tools / "python3").unlink()
        (self.tools / "python3").write_text("#!/bin/sh\nexit 1\n")
        (self.tools / "python3").chmod(0o755)
        done = self.check()
        self.assertEqual(done.returncode, 2)
        self.assertIn("python3 with its standard library is missing", done.stderr)

    def test_no_gpu(self):
        (self.tools / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
        done = self.check()
        self.assertEqual(done.returncode, 2)
        self.assertIn("no NVIDIA GPU here", done.stderr)

    def test_wrong_arguments(self):
        for arguments in (["--stages", "dance"], ["--bundle", "/nowhere"], ["--what", "ever"], ["--out"]):
            self.assertEqual(self.check(*arguments).returncode, 2, arguments)


if __name__ == "__main__":
    unittest.main()
