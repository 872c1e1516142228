#!/usr/bin/env python3
"""launch/experiment.py with the real program and mpirun.  experiment_test.py PROGRAM ROOT [unittest's arguments]"""

import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "app"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "launch"))

import yaml
from switchyard_run import PROGRAM, ROOT, Result, Scenario, environment, main

from experiments.local import Local, shares
from experiments.plan import make_plan
from experiments.run import Run
from experiments.sizes import Program, Sizes, equalise
from experiments.spec import Arm, Experiment, ExperimentError, read_experiment

EXPERIMENT = """\
title: Tiny
base: tiny.yaml
set: {train.eval_every: 2, data.valid: [{path: tokens}, {path: other}]}
seeds: [1, 2]
reference: dense
equal: flops
arms:
  dense: {set: {moe.experts: 0}}
  top1:
    label: top-1 of {moe.experts}
    set: {router: {top_k: 1, renormalise: false}}
    over: {moe.experts: [2, 4]}
  top2: {set: {router.top_k: 2}}
compare: [[top1-4, top2]]
analyze: 100
"""
ARMS = ["dense", "top1-2", "top1-4", "top2"]
RUNS = [(arm, seed) for seed in (1, 2) for arm in ARMS]
# Two arms whose runs are trained and nothing else, and one arm on one seed.
TWO = re.sub(r"\n  top2:.*|\n(compare|analyze):.*|, data.valid: .*(?=})", "", EXPERIMENT).replace("[2, 4]", "[2]")
ONE = re.sub(r"\n  top1:(\n    .*)*", "", TWO).replace("[1, 2]", "[1]")

# The program, but for one arm on one seed, whose training fails.
FAILING = """\
#!/bin/sh
case "$1 $2" in train*/top1-2/seed-2/plan.yaml | train*/slurm/5.yaml) {how} ;; esac
exec {program} "$@"
"""


class InFolder(Scenario):
    """A folder with an experiment of four small arms on two seeds."""

    def setUp(self):
        super().setUp()
        for suffix in ("bin", "idx", "json"):
            shutil.copy(self.folder / f"tokens.{suffix}", self.folder / f"other.{suffix}")
        self.write(EXPERIMENT)
        self.out, self.runs = self.folder / "runs/experiments/try", RUNS

    def write(self, text):
        (self.folder / "try.yaml").write_text(text)

    def command(self, *arguments):
        return [sys.executable, "-B", str(ROOT / "launch/experiment.py"), "try.yaml", *arguments]

    def experiment(self, *arguments, **environ):
        done = subprocess.run(self.command(*arguments), cwd=self.folder, env={**environment(), **environ}, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=300)
        return Result(done.returncode, done.stdout, done.stderr, 0)

    def run_of(self, arm, seed):
        plan = json.loads((self.out / "plan.json").read_text())
        steps = next(each["sizes"]["steps"] for each in plan["arms"] if each["name"] == arm)
        return Run(arm, seed, steps, self.out / arm / f"seed-{seed}")

    def states(self):
        return {run: self.run_of(*run).state() for run in self.runs}

    def program(self, how):
        """A stand-in for the program."""
        path = self.folder / "program"
        path.write_text(FAILING.format(how=how, program=PROGRAM))
        path.chmod(0o755)
        return str(path)


class Experiments(InFolder):
    def test_from_the_file_to_the_report(self):
        done = self.experiment("--jobs", "2")
        self.assertEqual((done.code, done.err), (0, ""), done)
        self.assertEqual(set(self.states().values()), {"done"})
        page = (self.out / "report.html").read_text()
        self.assertIn("8 of 8 came to a good end", page)
        self.assertIn("launch/experiment.py try.yaml --jobs 2", page)
        self.assertIn("shuffles in every block of every run that was analysed", page)
        self.assertIn("Experts by domain: top-1 of 4", page)
        self.assertEqual((self.out / "report.csv").read_text().count("\n"), 9)
        for arm, seed in RUNS:
            run = self.run_of(arm, seed)
            self.assertEqual([m["step"] for m in run.metrics()], list(range(1, run.steps + 1)))
            self.assertEqual(run.exit_code(), 0)
            (attempt,) = run.attempts()
            self.assertEqual(attempt["code"], 0)
            self.assertIn("taskset", attempt["command"])
            self.assertEqual(set(attempt), {"begin", "seconds", "code", "command", "host", "commit", "program"})
            self.assertEqual(set(run.domains()), {"tokens", "other"})
            self.assertEqual(run.analysed(), arm != "dense")
            self.assertIn(f"seed: {seed}\n", (run.folder / "config.yaml").read_text())
            plan = (run.folder / "plan.yaml").read_text()
            self.assertIn(f"steps: {run.steps}\n", plan)
            resolved = self.run_here("config", run.folder / "plan.yaml").out
            self.assertEqual(yaml.safe_load(plan), yaml.safe_load(resolved), "whole, and as the program understands it")
        first = {run: self.run_of(*run).metrics() for run in RUNS}
        self.assertNotEqual(first["dense", 1], first["dense", 2])

        again = self.experiment()
        self.assertEqual(again.code, 0, again)
        self.assertNotIn("starts", again.out)
        self.assertEqual({run: self.run_of(*run).metrics() for run in RUNS}, first)
        self.assertEqual(self.experiment("--report-only").code, 0)

        changed = self.experiment("optim.lr=1e-4")
        self.assertEqual(changed.code, 2)
        self.assertIn("dense/seed-1 was begun with another configuration: optim.lr was 0.003, is 0.0001", changed.err)
        self.assertEqual((self.out / "report.html").read_text(), page)

    def test_a_dry_run_leaves_nothing(self):
        done = self.experiment("--dry-run")
        self.assertEqual(done.code, 0, done)
        self.assertFalse((self.folder / "runs").exists())
        ratios = [float(line.split()[-4]) for line in done.out.splitlines() if line.split()[0] in ARMS]
        self.assertEqual(len(ratios), 4)
        self.assertEqual(ratios[0], 1)
        self.assertTrue(all(abs(ratio - 1) < 0.5 / 5 for ratio in ratios), ratios)  # half a step of 5 or 6
        self.assertEqual(done.out.count("waiting "), 8)

    def test_the_experiments_that_come_with_the_program(self):
        """Their keys are the configuration's, and their arms equal to half a step, or 1 %."""
        program = Program(PROGRAM)
        for path in sorted((ROOT / "configs/experiments").glob("*.yaml")):
            experiment = read_experiment(path)
            arms = equalise(experiment, lambda arm, extra: program.sizes(experiment.base, arm, extra))
            self.assertGreater(len(arms), 3)
            for arm in arms:
                self.assertLess(abs(arm.ratio - 1), 0.01, (path, arm))

    def test_stopped_and_resumed(self):
        self.write(TWO.replace("[1, 2]", "[1]"))
        self.runs = RUNS[:2]
        steps = ["train.steps=500", "train.eval_every=500", "checkpoint.every=500"]
        with subprocess.Popen(self.command(*steps), cwd=self.folder, env=environment(), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as job:  # fmt: skip
            metrics = self.out / "dense/seed-1/metrics.jsonl"
            while not metrics.exists() or metrics.read_bytes().count(b"\n") < 3:
                self.assertIsNone(job.poll(), "ended before it was stopped")
                time.sleep(0.02)
            job.send_signal(signal.SIGTERM)
            out, err = job.communicate(timeout=120)
        self.assertEqual(job.returncode, 75, (out, err))
        stopped = self.run_of("dense", 1)
        self.assertEqual((stopped.state(), stopped.exit_code()), ("cut", 75))
        before = stopped.metrics()
        self.assertLess(len(before), 500)
        self.assertEqual(self.states()["top1-2", 1], "waiting")

        # Here only this run goes on: the other is there already, so to say.
        other = self.run_of("top1-2", 1)
        (other.folder / "metrics.jsonl").write_text(json.dumps({**before[-1], "step": other.steps, "val_loss": 3.0}) + "\n")
        (other.folder / "log.txt").write_text("# ended with exit code 0 after 1.0 s\n")
        resumed = self.experiment(*steps)
        self.assertEqual(resumed.code, 0, resumed)
        self.assertIn(f"dense, seed 1: goes on after step {len(before)} of 500", resumed.out)
        self.assertEqual([m["step"] for m in stopped.metrics()], list(range(1, 501)))
        self.assertEqual(stopped.metrics()[: len(before)], before)
        self.assertEqual([attempt["code"] for attempt in stopped.attempts()], [75, 0])

    def test_one_at_a_time(self):
        self.write(ONE)
        self.out.mkdir(parents=True)
        with open(self.out / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            second = self.experiment()
        self.assertEqual(second.code, 2, second)
        self.assertIn("is at work in runs/experiments/try", second.err)

    def test_a_run_that_fails_is_named_and_kept(self):
        self.write(TWO)
        self.runs = [(arm, seed) for arm, seed in RUNS if arm in ("dense", "top1-2")]
        broken = self.program("echo 'error: step 4: the loss is not finite' >&2; exit 5")
        failed = self.experiment("--jobs", "2", SWITCHYARD=broken)
        self.assertEqual(failed.code, 1, failed)
        self.assertIn("top1-2, seed 2: FAILED, exit code 5: step 4: the loss is not finite", failed.out)
        states = self.states()
        self.assertEqual(states.pop(("top1-2", 2)), "failed")
        self.assertEqual(set(states.values()), {"done"})
        self.assertIn("top1-2, seed 2 diverged and is in no mean", (self.out / "report.html").read_text())

        same = self.experiment(SWITCHYARD=broken)
        self.assertEqual(same.code, 1)
        self.assertNotIn("starts", same.out)
        lost = self.program("kill -KILL $$")
        cut = self.experiment("--retry", SWITCHYARD=lost)
        self.assertEqual((cut.code, self.states()["top1-2", 2]), (1, "cut"), cut)
        mended = self.experiment()
        self.assertEqual((mended.code, mended.out.count(": starts, ")), (0, 1), mended)
        self.assertEqual([attempt["code"] for attempt in self.run_of("top1-2", 2).attempts()], [5, 137, 0])

    def test_mistakes_are_told_with_their_place_and_the_nearest_key(self):
        program = Program(PROGRAM)
        for old, new, *words in (
            ("equal: flops", "eqaul: flops", "try.yaml:6:1: eqaul: unknown key; did you mean equal?", "equal: is missing"),
            ("equal: flops", "equal: flop", "try.yaml:6:8: equal: flop: did you mean flops?"),
            ("reference: dense", "reference: dens", "did you mean dense?"),
            ("[top1-4, top2]", "[top1-4, top3]", "did you mean top2?"),
            ("{set: {router.top_k: 2}}", "{sett: {router.top_k: 2}}", "try.yaml:13:10: sett: unknown key; did you mean set?"),
            ("router.top_k: 2", "router.top_kk: 2", "try.yaml:13:9: arm top2:", "router.top_kk: unknown key; did you mean top_k?"),
            ("label: top-1 of {moe.experts}", "label: top-1 of {experts}", "{experts} is no key that the arm sets"),
            ("seeds: [1, 2]", "seeds: [1, 1]", "1 is there twice"),
            ("seeds: [1, 2]", "seeds: [1, -2]", "a whole number"),
            ("base: tiny.yaml", "base: tinny.yaml", "try.yaml:2:7: base: there is no", "tinny.yaml"),
            ("router.top_k: 2", "run.seed: 2", "run.seed: the experiment gives every run its own"),
            ("seeds: [1, 2]", "seeds: [1, 2", "try.yaml:5:"),
            ("equal: flops", "equal: flops\nequal: tokens", "equal: the key is there twice"),
            ("equal: flops", "equal: active_parameters\nadjust: train.steps", "train.steps does not change its active_parameters"),
            ("{path: tokens}, {path: other}", "", "data.valid is empty"),
            ("{path: other}", "{path: more/tokens}", "domains are named after their files, and tokens is there twice: tokens, more/tokens"),
        ):
            self.write(EXPERIMENT.replace(old, new))
            with self.assertRaises(ExperimentError, msg=new) as told:
                make_plan(read_experiment(self.folder / "try.yaml"), program, self.out, [])
            for word in words:
                self.assertIn(word, str(told.exception))
        self.write(EXPERIMENT.replace("equal: flops", "eqaul: flops"))
        told = self.experiment("--dry-run")
        self.assertEqual(told.code, 2, told)
        self.assertEqual([line.startswith("error: ") for line in told.err.splitlines()], [True, True], told)
        self.assertFalse((self.folder / "runs").exists())

    def test_equal_active_parameters(self):
        """Each choice of top-2 is as wide as leaves the sum the dense model's."""
        self.write(EXPERIMENT.replace("equal: flops", "equal: active_parameters\nmultiple: 2"))
        experiment, program = read_experiment(self.folder / "try.yaml", ["model.d_ff=64"]), Program(PROGRAM)
        equalised = equalise(experiment, lambda arm, extra: program.sizes(experiment.base, arm, extra))
        by_name = {e.arm.name: e for e in equalised}
        # The block's 3 x 16 x 64 weights, less the router's 16 x experts, over 3 x 16 a column, and choices.
        self.assertEqual(by_name["top1-4"].adjusted, {"moe.d_ff": str(2 * round((64 - 4 / 3) / 2))})
        self.assertEqual(by_name["top2"].adjusted, {"moe.d_ff": str(2 * round((64 - 4 / 3) / 2 / 2))})
        self.assertEqual(by_name["top2"].sizes.steps, by_name["dense"].sizes.steps)
        self.assertTrue(all(abs(e.ratio - 1) < 0.02 for e in by_name.values()))


class Slurm(InFolder):
    """With stand-ins for SLURM's commands: sbatch writes down what it is asked, squeue knows what the test says."""

    def setUp(self):
        super().setUp()
        for name, body in (("sbatch", 'printf "%s\\n" "$*" >>asked; echo "4$(wc -l <asked);cluster"'),
                           ("squeue", 'test ! -e queued || cat queued'),
                           ("srun", 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"')):  # fmt: skip
            path = self.folder / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/usr/bin/env bash\n{body}\n")
            path.chmod(0o755)
        self.path = f"{self.folder / 'bin'}:{os.environ['PATH']}"

    def task(self, number, **environ):
        """An array task as SLURM would run it."""
        log = self.out / f"slurm/{number}.log"
        slurm = {"SLURM_JOB_ID": "50", "SLURM_JOB_NODELIST": "n1", "SLURM_CPUS_PER_TASK": "1", "SLURM_NTASKS_PER_NODE": "1",
                 "SLURM_ARRAY_TASK_ID": str(number), "PATH": self.path}  # fmt: skip
        arguments = ["runs/experiments/try/slurm/%a.yaml", "--progress", "lines"]
        with open(log, "a") as output:
            subprocess.run([ROOT / "launch/slurm.sbatch", *arguments], cwd=self.folder, env={**environment(), **slurm, **environ},
                           stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=120)  # fmt: skip

    def test_one_array_and_then_the_report(self):
        submitted = self.experiment("--slurm", "--jobs", "3", PATH=self.path)
        self.assertEqual((submitted.code, submitted.err), (0, ""), submitted)
        array, report = (self.folder / "asked").read_text().splitlines()
        self.assertIn("--array=0-7%3", array)
        self.assertTrue(array.endswith(f"{ROOT}/launch/slurm.sbatch runs/experiments/try/slurm/%a.yaml --progress lines"), array)
        self.assertIn("--output=runs/experiments/try/slurm/%a.log", array)
        self.assertIn("--dependency=afterany:41", report)
        self.assertRegex(report, r"--wrap=.*launch/experiment.py try.yaml --out runs/experiments/try --report-only")

        (self.folder / "queued").write_text("41 PENDING\n")
        for way in (["--slurm"], []):
            refused = self.experiment(*way, PATH=self.path)
            self.assertEqual(refused.code, 2, way)
            self.assertIn("job 41 of this experiment is still in the queue", refused.err)
        self.assertEqual(set(self.states().values()), {"waiting"})
        (self.folder / "queued").unlink()

        self.task(2)
        self.task(5, SWITCHYARD=self.program("echo 'error: no memory left' >&2; exit 6"))
        states = self.states()
        self.assertEqual((states.pop(RUNS[2]), states.pop(RUNS[5])), ("done", "failed"))
        self.assertEqual(set(states.values()), {"waiting"})
        self.assertEqual(self.run_of(*RUNS[5]).reason(), "exit code 6: no memory left")
        for run, code in ((RUNS[2], 0), (RUNS[5], 6)):
            (attempt,) = self.run_of(*run).attempts()
            self.assertEqual((attempt["command"], attempt["host"], attempt["code"]), ("job 50", "n1", code))
            plan = json.loads((self.out / "plan.json").read_text())
            self.assertEqual((attempt["commit"], attempt["program"]), (plan["commit"], plan["version"]))
            self.assertLess(attempt["seconds"], 120)

        reported = self.experiment("--report-only")
        self.assertEqual(reported.code, 1, reported)
        self.assertEqual(set(self.run_of(*RUNS[2]).domains()), {"tokens", "other"})
        page = (self.out / "report.html").read_text()
        self.assertIn("1 of 8 came to a good end", page)
        self.assertIn("Wall time is of training steps on n1,", page)

        self.experiment("--slurm", PATH=self.path)
        self.assertIn("--array=0-5 ", (self.folder / "asked").read_text().splitlines()[2])
        for number, run in enumerate([run for run in RUNS if run not in (RUNS[2], RUNS[5])]):
            plan = (self.out / f"slurm/{number}.yaml").resolve()
            self.assertEqual(plan, (self.out / run[0] / f"seed-{run[1]}" / "plan.yaml").resolve())

    def test_without_slurm(self):
        self.write(ONE)
        told = self.experiment("--slurm", PATH=f"{pathlib.Path(sys.executable).parent}")
        self.assertEqual(told.code, 2, told)


class RunFolder(unittest.TestCase):
    """What a run's folder tells, without the program."""

    def setUp(self):
        self.one = Run("top1", 1, 100, pathlib.Path(tempfile.mkdtemp()))
        self.addCleanup(shutil.rmtree, self.one.folder)

    def write(self, name, text):
        path = self.one.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def test_done_is_saved(self):
        """The last step's loss is written before its checkpoint is."""
        self.assertEqual(self.one.state(), "waiting")
        self.write("metrics.jsonl", '{"step": 100, "val_loss": 3.0}\n')
        self.write("log.txt", "# 2026-11-22T10:00:00+00:00  launch/local.sh plan.yaml\n")
        self.assertEqual(self.one.state(), "cut")
        self.write("checkpoints/latest", "step-00000050\n0123\n")
        self.assertEqual(self.one.state(), "cut")
        for code, state in ((137, "cut"), (75, "cut"), (3, "failed"), (76, "failed"), (0, "done")):
            self.write("log.txt", f"# ended with exit code {code} after 10.0 s\n")
            self.assertEqual(self.one.state(), state, code)
        self.write("log.txt", "# ended with exit code 137 after 10.0 s\n")
        self.write("checkpoints/latest", "step-00000100\n0123\n")
        self.assertEqual(self.one.state(), "done")
        self.write("metrics.jsonl", '{"step": 99}\n')
        self.assertEqual(self.one.state(), "cut")

    def test_losses_by_domain_are_of_the_last_step(self):
        local = types.SimpleNamespace(plan=types.SimpleNamespace(held_out=["data/a", "data/b"]))
        line = "data/{}: {} nats a token, perplexity 4.482, 100 tokens (step {})\n"
        self.write("eval.txt", line.format("a", "1.5000", 100) + line.format("b", "1.2500", 50))
        Local.keep_domains(local, self.one)
        self.assertEqual(self.one.domains(), {}, "b is of an older checkpoint")
        self.write("eval.txt", line.format("a", "1.5000", 100) + line.format("b", "1.2500", 100))
        Local.keep_domains(local, self.one)
        self.assertEqual(self.one.domains(), {"a": 1.5, "b": 1.25})

    def test_attempts_under_slurm(self):
        self.one.record_submission({"begin": "2026-11-22T09:00:00+00:00", "job": "41", "commit": "aaa", "program": "1"})
        self.one.record_submission({"begin": "2026-11-22T11:00:00+00:00", "job": "42", "commit": "bbb", "program": "2"})
        self.one.record({"begin": "2026-11-22T11:30:00.500000+01:00", "commit": "ccc", "host": "here", "code": 75})
        job = "slurm.sbatch: 2026-11-22T{}:00+00:00 job {} on {}, requeued {} times\n"
        end = "slurm.sbatch: 2026-11-22T{}:00+00:00 ended with exit code {}\n"
        log = job.format("10:00", 50, "n[1-2]", 0) + "step 1/100\n" + end.format("10:10", 6)
        self.write("log.txt", log)
        self.assertEqual((self.one.exit_code(), self.one.state()), (6, "failed"))
        self.write("log.txt", log + job.format("12:00", 60, "n7", 1))
        self.assertEqual((self.one.exit_code(), self.one.state()), (None, "cut"), "it goes on again")
        first, here, last = self.one.attempts()
        self.assertEqual((first["commit"], first["host"], first["code"], first["seconds"]), ("aaa", "n[1-2]", 6, 600))
        self.assertEqual(here["commit"], "ccc")
        self.assertEqual((last["commit"], last["program"], last["command"], last["host"]), ("bbb", "2", "job 60", "n7"))
        self.assertNotIn("code", last)


class Arithmetic(unittest.TestCase):
    def equalised(self, equal, arms, adjust, multiple=1):
        """`arms`: name -> FLOPs a token, tokens a step, active parameters a unit of width."""
        path = pathlib.Path("x.yaml")
        made = [Arm(name, name, name, "x.yaml:1:1", {}, {}) for name in arms]
        experiment = Experiment("x", "x", path, [], path, {}, [1], next(iter(arms)), equal, adjust, multiple, made, [])

        def sizes_of(arm, extra):
            flops, tokens, active = arms[arm.name]
            steps, width = int(extra.get("train.steps", 1000)), int(extra.get("moe.d_ff", 512))
            return Sizes(1, 100 + active * width, flops, tokens, steps)

        return {e.arm.name: e for e in equalise(experiment, sizes_of)}

    def test_steps_for_equal_flops(self):
        done = self.equalised("flops", {"a": (6.0, 10, 1), "b": (9.0, 10, 1), "c": (6.0, 5, 1), "d": (7.0, 10, 1)}, "train.steps")
        self.assertEqual([e.sizes.steps for e in done.values()], [1000, 667, 2000, 857])
        self.assertAlmostEqual(done["b"].ratio, 9 * 667 / 6000)
        self.assertAlmostEqual(done["c"].ratio, 1)
        self.assertAlmostEqual(done["d"].ratio, 7 * 857 / 6000)

    def test_steps_for_equal_tokens(self):
        done = self.equalised("tokens", {"a": (6.0, 10, 1), "b": (9.0, 10, 1), "c": (6.0, 4, 1)}, "train.steps")
        self.assertEqual([e.sizes.steps for e in done.values()], [1000, 1000, 2500])

    def test_widths_for_equal_active_parameters(self):
        done = self.equalised("active_parameters", {"a": (6.0, 10, 3), "b": (6.0, 10, 6)}, "moe.d_ff", 32)
        self.assertEqual(done["b"].adjusted, {"moe.d_ff": "256"})
        self.assertEqual(done["b"].ratio, 1)

    def test_what_cannot_be_made_equal(self):
        for equal, arms, adjust, word in (
            ("tokens", {"a": (6.0, 10, 1), "b": (6.0, 10, 1)}, "moe.d_ff", "does not change"),
            ("active_parameters", {"a": (6.0, 10, 1), "b": (6.0, 10, 6000)}, "moe.d_ff", "no multiple of 1 above 0"),
        ):
            with self.assertRaisesRegex(ExperimentError, word):
                self.equalised(equal, arms, adjust)

    def test_cores_are_shared_out_side_by_side(self):
        self.assertEqual(shares([0, 1, 2, 3, 4], 2), [[0, 1], [2, 3, 4]])
        self.assertEqual(shares([4, 5], 3), [[4], [5], [4]])
        self.assertEqual(shares([], 2), [[], []])


if __name__ == "__main__":
    main()
