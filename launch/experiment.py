#!/usr/bin/env python3
"""Trains the arms of an experiment on several seeds, equal in FLOPs, parameters or tokens, and reports on them.

  experiment.py EXPERIMENT [section.key=value ...]             all runs on this machine, one after another
  experiment.py EXPERIMENT --jobs 2 --ranks 1                  two at a time, each with its share of the cores
  experiment.py EXPERIMENT --slurm                             one SLURM array over launch/slurm.sbatch, then the report
  experiment.py EXPERIMENT --dry-run                           what would run, and how equal the arms are

Run it again and it skips what is done and goes on with what was cut off; the report takes in what is there. Everything
lies in runs/experiments/NAME: each run with its configuration, commit and log, report.html and report.csv. A run that
failed is kept and named; --retry runs it again. docs/experiments.md says more.
Exit codes: 0 all runs are done, 1 some failed, 2 usage or the experiment file, 75 stopped by a signal after saving.
"""

import argparse
import contextlib
import fcntl
import os
import pathlib
import subprocess
import sys

from experiments.data import prepare
from experiments.local import Local
from experiments.plan import Plan, load_plan, make_plan, write_down
from experiments.run import STOPPED, Run
from experiments.sizes import Program
from experiments.slurm import refuse_if_queued, submit
from experiments.spec import ExperimentError, read_experiment

LAUNCH = pathlib.Path(__file__).resolve().parent


def say(text: str):
    print(text, flush=True)


def table(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [[row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))] for row in rows]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def show(plan: Plan):
    """The arms, and how exactly they are equal."""
    rows = [["arm", "parameters", "active", "GFLOPs/token", "steps", "Mtokens", "PFLOPs", plan.equal, "runs done"]]
    for arm in plan.arms:
        sizes, runs = arm.sizes, [run for run in plan.runs() if run.arm == arm.name]
        done = sum(run.state() == "done" for run in runs)
        rows.append([arm.name, f"{sizes.parameters:,}", f"{sizes.active_parameters:,}",
                     f"{sizes.flops_per_token / 1e9:.5f}", f"{sizes.steps:,}", f"{sizes.tokens / 1e6:.2f}",
                     f"{sizes.flops / 1e15:.4g}", f"{arm.ratio:.5f}", f"{done} of {len(runs)}"])  # fmt: skip
    say(table(rows))
    say(f"Equal {plan.equal.replace('_', ' ')} by {plan.adjust}; the column gives the ratio to {plan.reference}.")


def unfinished(plan: Plan, retry: bool) -> list[Run]:
    """The runs to train. Failed ones only with --retry: the same would come of them."""
    wanted = {"waiting", "cut", "failed"} if retry else {"waiting", "cut"}
    return [run for run in plan.runs() if run.state() in wanted]


def unmeasured(plan: Plan) -> list[Run]:
    return [run for run in plan.runs() if plan.unmeasured(run)]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=pathlib.Path, help="a file of configs/experiments")
    parser.add_argument("overrides", nargs="*", help="section.key=value, in every arm")
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", help="default: runs/experiments/NAME")
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="runs at a time; default 1, under SLURM all")
    parser.add_argument("--ranks", type=int, default=1, metavar="N", help="ranks of a run on this machine; default 1")
    parser.add_argument("--slurm", action="store_true", help="submit the runs to SLURM; SBATCH_* sets nodes and the like")
    parser.add_argument("--retry", action="store_true", help="run again what failed")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and do nothing")
    parser.add_argument("--report-only", action="store_true", help="train nothing; measure what is done, and report")
    given = parser.parse_intermixed_args()
    if given.jobs < 0 or given.ranks < 1:
        parser.error("--jobs and --ranks want numbers from 1 on")
    return given


@contextlib.contextmanager
def alone(folder: pathlib.Path):
    """The lock of an experiment's folder: one at a time works in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExperimentError(f"another experiment.py, or a run that one started, is at work in {folder}") from None
        yield lock.fileno()


def finish(plan: Plan, runs: list[Run], given, lock: int) -> int:
    """Brings these runs to their end and writes the report."""
    finished = Local(plan, given.jobs or 1, given.ranks, lock, say).work(runs)
    if any(run.last_metrics() for run in plan.runs()):
        subprocess.run([sys.executable, "-B", LAUNCH / "report.py", plan.folder], check=True)
    return outcome(plan) if finished else STOPPED


def work(given) -> int:
    folder = given.out or pathlib.Path("runs/experiments") / given.experiment.stem
    if given.report_only:
        plan = load_plan(folder)
        with alone(folder) as lock:
            return finish(plan, unmeasured(plan), given, lock)

    program = Program(pathlib.Path(os.environ.get("SWITCHYARD", LAUNCH.parent / "build/switchyard")))
    experiment = read_experiment(given.experiment, given.overrides)
    plan, configurations = make_plan(experiment, program, folder, sys.argv[1:])
    waiting = unfinished(plan, given.retry)
    report = [sys.executable, "-B", LAUNCH / "experiment.py", given.experiment, "--out", folder, "--report-only"]
    if given.dry_run:
        show(plan)
        say("\n".join(f"{run.state():<8} {run.folder}" for run in plan.runs()))
        if given.slurm and waiting:
            say("\n".join(submit(plan, waiting, given.jobs, report, dry_run=True)))
        return 0
    for corpus, place in experiment.corpus.items():
        prepare(corpus, pathlib.Path(place), program, say)
    with alone(folder) as lock:
        refuse_if_queued(folder)
        write_down(plan, configurations)
        show(plan)
        if not given.slurm or not waiting:
            return finish(plan, [*unmeasured(plan), *waiting], given, lock)
        submit(plan, waiting, given.jobs, report, dry_run=False)
        say(f"submitted {len(waiting)} runs; {folder}/report.html is written when they have ended")
        return 0


def outcome(plan: Plan) -> int:
    states = [run.state() for run in plan.runs()]
    for state, remark in (("failed", "failed; --retry runs them again"), ("cut", "are not at their end"), ("waiting", "wait")):
        if state in states:
            say(f"{states.count(state)} of {len(states)} runs {remark}")
    return 0 if set(states) == {"done"} else 1


def main() -> int:
    try:
        return work(arguments())
    except ExperimentError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
