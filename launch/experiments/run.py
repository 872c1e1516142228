"""One run of an experiment: a folder, and what it tells about how far the run is.

  plan.yaml       the configuration that it is started with, whole
  config.yaml     the same as the program resolved it for its ranks
  metrics.jsonl, checkpoints/                           as every run
  log.txt         what was printed, of every attempt
  attempts.jsonl  an object an attempt on this machine: begin, seconds, exit code, command, host, commit, program
  submitted.jsonl an object a submission to SLURM: when, job, commit, program; log.txt tells of the attempts
  domains.json    held-out loss by domain, nats a token, from eval.txt
  analysis/       which experts tokens go to, from `switchyard analyze`, which said analyze.txt
"""

import dataclasses
import datetime
import json
import pathlib
import re

STOPPED = 75
# These exit codes come again whatever one does: a fault of the program, usage, data, a checkpoint, a loss that is not
# finite, memory, an alarm that stops. All others are interruptions: a signal, a lost rank, a machine that went down.
FINAL = (1, 2, 3, 4, 5, 6, 76)
NOT_FINITE, ALARM = 5, 76
# What slurm.sbatch says when a job begins, and what local.py and slurm.sbatch say alike when one has ended.
BEGIN = re.compile(r"slurm\.sbatch: (\S+) (job \d+) on (.*), requeued \d+ times")
END = re.compile(r"(?:#|slurm\.sbatch: (\S+)) ended with exit code (\d+)")


@dataclasses.dataclass(frozen=True)
class Run:
    arm: str
    seed: int
    steps: int
    folder: pathlib.Path

    @property
    def title(self) -> str:
        return f"{self.arm}, seed {self.seed}"

    def metrics(self) -> list[dict]:
        """A step each, as far as they were written whole."""
        return read_lines(self.folder / "metrics.jsonl")

    def last_metrics(self) -> dict:
        """Of the last step that was written whole; empty where there is none. Reads the end of the file only."""
        try:
            with open(self.folder / "metrics.jsonl", "rb") as file:
                size = file.seek(0, 2)
                for length in (1 << 16, size):
                    file.seek(max(0, size - length))
                    lines = file.read().rpartition(b"\n")[0].rpartition(b"\n")
                    if lines[1] or length >= size:
                        return json.loads(lines[2]) if lines[2] else {}
        except (OSError, ValueError):
            pass
        return {}

    def attempts(self) -> list[dict]:
        """In order of time: those on this machine, and those under SLURM."""
        recorded = read_lines(self.folder / "attempts.jsonl")
        return sorted([*recorded, *self.jobs()], key=lambda attempt: datetime.datetime.fromisoformat(attempt["begin"]))

    def jobs(self) -> list[dict]:
        """Attempts under SLURM, by what slurm.sbatch said of them; each is of the last submission before it."""
        jobs, submissions = [], read_lines(self.folder / "submitted.jsonl")
        for line in self.log_lines():
            if found := BEGIN.match(line):
                begin, job, host = found.groups()
                moment = datetime.datetime.fromisoformat(begin)
                before = [each for each in submissions if datetime.datetime.fromisoformat(each["begin"]) <= moment]
                by = before[-1] if before else {}
                jobs.append({"begin": begin, "command": job, "host": host, "commit": by.get("commit", ""), "program": by.get("program", "")})
            elif (found := END.match(line)) and found[1] and jobs:
                seconds = datetime.datetime.fromisoformat(found[1]) - datetime.datetime.fromisoformat(jobs[-1]["begin"])
                jobs[-1] |= {"seconds": seconds.total_seconds(), "code": int(found[2])}
        return jobs

    def log_lines(self) -> list[str]:
        try:
            return (self.folder / "log.txt").read_text(errors="backslashreplace").splitlines()
        except OSError:
            return []

    def exit_code(self) -> int | None:
        """Of the last attempt, by the log; none where there was none, where it still goes on, or where it was cut off
        together with whoever watched it."""
        for line in reversed(self.log_lines()):
            if end := END.match(line):
                return int(end[2])
            if line.startswith("# ") or BEGIN.match(line):
                return None
        return None

    def saved(self) -> bool:
        """Whether the end is in a checkpoint, as far as one can tell: a run that came to its end saved, even where its
        checkpoints have been removed since."""
        try:
            newest = (self.folder / "checkpoints/latest").read_text().split()[:1]
        except OSError:
            newest = []
        return newest == [f"step-{self.steps:08d}"] or self.exit_code() == 0

    def state(self) -> str:
        """waiting, cut, failed or done."""
        if self.exit_code() in FINAL:
            return "failed"
        last = self.last_metrics()
        if last.get("step") == self.steps and "val_loss" in last and self.saved():
            return "done"
        return "cut" if last or self.attempts() or self.log_lines() else "waiting"

    def reason(self) -> str:
        """Why a run that failed did: its last error."""
        errors = [line for line in self.log_lines() if line.startswith("error: ")]
        said = errors[-1].removeprefix("error: ") if errors else "no message"
        return f"exit code {self.exit_code()}: {said}"

    def domains(self) -> dict[str, float]:
        try:
            return json.loads((self.folder / "domains.json").read_text())
        except (OSError, ValueError):
            return {}

    def has_experts(self) -> bool:
        return bool(self.last_metrics().get("expert_load"))

    def analysed(self) -> bool:
        """Whether the last file that `switchyard analyze` writes is there."""
        return (self.folder / "analysis/analysis.html").exists()

    def record(self, attempt: dict):
        """Adds an attempt, or replaces the last by what is known now that it has ended."""
        path = self.folder / "attempts.jsonl"
        attempts = [each for each in read_lines(path) if each["begin"] != attempt["begin"]]
        write_lines(path, [*attempts, attempt])

    def record_submission(self, submission: dict):
        path = self.folder / "submitted.jsonl"
        write_lines(path, [*read_lines(path), submission])


def read_lines(path: pathlib.Path) -> list[dict]:
    """The objects of a JSON-lines file; a line cut off in the middle, which only the last can be, is left out."""
    objects = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return objects
    for line in lines:
        try:
            objects.append(json.loads(line))
        except ValueError:
            break
    return objects


def write_lines(path: pathlib.Path, objects: list[dict]):
    write_whole(path, "".join(json.dumps(each) + "\n" for each in objects))


def write_whole(path: pathlib.Path, text: str):
    """Never leaves half a file behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
