"""Runs the runs of an experiment as one SLURM array over launch/slurm.sbatch, and a job that writes the report."""

import datetime
import os
import pathlib
import shlex
import subprocess

from experiments.plan import Plan
from experiments.run import Run, write_whole
from experiments.spec import ExperimentError

LAUNCH = pathlib.Path(__file__).resolve().parents[1]


def ask(*command) -> str:
    try:
        answer = subprocess.run([str(part) for part in command], text=True, capture_output=True)
    except OSError as error:
        raise ExperimentError(f"cannot run {command[0]}: {error.strerror}; is this a SLURM cluster?") from error
    if answer.returncode != 0:
        raise ExperimentError(f"{command[0]} refused: {answer.stderr.strip()}")
    return answer.stdout.strip()


def in_queue(folder: pathlib.Path) -> str:
    """The array that was submitted for this experiment, if SLURM still knows it."""
    try:
        job = (folder / "slurm/job").read_text().strip()
        return job if ask("squeue", "--noheader", "--jobs", job) else ""
    except (OSError, ExperimentError):  # squeue refuses numbers that it has forgotten
        return ""


def refuse_if_queued(folder: pathlib.Path):
    """Two trainers must not meet in a run's folder. The lock does not tell: tasks of an array hold none."""
    job = in_queue(folder)
    if job:
        raise ExperimentError(f"job {job} of this experiment is still in the queue; scancel it, or wait")


def submit(plan: Plan, waiting: list[Run], jobs: int, report: list, dry_run: bool) -> list[str]:
    """The commands that submit the runs, at most `jobs` at a time (0: any number), each array task one of `waiting`, and
    then `report`; carried out unless it is a dry run. SBATCH_* variables set the machine's side: nodes, ranks, time."""
    folder = plan.folder / "slurm"
    tasks = f"0-{len(waiting) - 1}" + (f"%{jobs}" if jobs else "")
    array = ["sbatch", "--parsable", f"--job-name={plan.name}", f"--array={tasks}", f"--output={folder}/%a.log",
             LAUNCH / "slurm.sbatch", f"{folder}/%a.yaml", "--progress", "lines"]  # fmt: skip
    last = ["sbatch", "--parsable", f"--job-name={plan.name}-report", f"--output={folder}/report.log", "--ntasks=1",
            "--dependency=afterany:JOB", f"--wrap={shlex.join(map(str, report))}"]  # fmt: skip
    commands = [shlex.join(map(str, command)) for command in (array, last)]
    if dry_run:
        return commands
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for task, run in enumerate(waiting):
        os.symlink(os.path.relpath(run.folder / "plan.yaml", folder), folder / f"{task}.yaml")
        (run.folder / "log.txt").touch()
        os.symlink(os.path.relpath(run.folder / "log.txt", folder), folder / f"{task}.log")
    begin = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    job = ask(*array).partition(";")[0]
    write_whole(folder / "job", job + "\n")
    for run in waiting:
        run.record_submission({"begin": begin, "job": job, "commit": plan.commit, "program": plan.version})
    ask(*(str(part).replace("afterany:JOB", f"afterany:{job}") for part in last))
    return commands
