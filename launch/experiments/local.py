"""Runs the runs of an experiment on this machine: some at a time, each under launch/local.sh."""

import datetime
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import time

from experiments.plan import Plan
from experiments.run import STOPPED, Run, write_whole

LOCAL = pathlib.Path(__file__).resolve().parents[1] / "local.sh"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu and not gpu.startswith("-")]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], text=True, capture_output=True).stdout
    return [str(i) for i in range(len(re.findall(r"^GPU", listed, re.MULTILINE)))]


def shares(whole: list, jobs: int) -> list[list]:
    """Cut into `jobs` parts, side by side and as equal as can be; with fewer things than jobs, these are shared."""
    if len(whole) < jobs:
        return [[whole[i % len(whole)]] if whole else [] for i in range(jobs)]
    ends = [len(whole) * i // jobs for i in range(jobs + 1)]
    return [whole[begin:end] for begin, end in zip(ends, ends[1:])]


class Slot:
    """A share of the machine's cores and GPUs, in which one run at a time goes on."""

    def __init__(self, cores: list[int], gpus: list[str], alone: bool):
        # A run that has the machine for itself is bound to cores by local.sh, which is finer.
        self.head = [] if alone else ["taskset", "--cpu-list", ",".join(map(str, cores))]
        self.environment = {} if alone or not gpus else {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        self.run = self.process = self.attempt = None
        self.wanted = []  # measurements of the run: the one that goes on, and those after it

    def launch(self, run: Run, command: list[str], output: pathlib.Path, lock: int):
        self.run = run
        with open(output, "a") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,  # Ctrl-C comes here alone, and is passed on once
                pass_fds=[lock],  # which stays taken while the run goes on, whatever becomes of this process
            )


class Local:
    """Works through runs: each is trained, and then its checkpoint measured."""

    def __init__(self, plan: Plan, jobs: int, ranks: int, lock: int, say):
        self.plan, self.ranks, self.lock, self.say = plan, ranks, lock, say
        parts = zip(shares(sorted(os.sched_getaffinity(0)), jobs), shares(gpus(), jobs))
        self.slots = [Slot(cores, own_gpus, jobs == 1) for cores, own_gpus in parts]
        self.asked = 0
        self.begin, self.flops_done, self.flops_waiting = time.monotonic(), 0.0, 0.0

    def hear(self, *_):
        """The first signal lets every run save and stop; the second ends them at once."""
        self.asked += 1
        if self.asked == 1:
            self.say("Saving what runs; once more ends it at once.")
        for slot in self.slots:
            if slot.process:
                slot.process.send_signal(signal.SIGTERM if self.asked == 1 else signal.SIGINT)

    def work(self, waiting: list[Run]) -> bool:
        """Brings every run of the list to its end; false where it was stopped before."""
        before = {name: signal.signal(name, self.hear) for name in STOP_SIGNALS}
        waiting, self.flops_waiting = list(waiting), sum(map(self.plan.flops, waiting))
        try:
            while waiting and not self.asked or any(slot.process for slot in self.slots):
                for slot in self.slots:
                    if slot.process and slot.process.poll() is not None:
                        self.end(slot)
                    if not slot.process and waiting and not self.asked:
                        self.begin_with(slot, waiting.pop(0))
                time.sleep(0.05)
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)
        return not self.asked

    def begin_with(self, slot: Slot, run: Run):
        wanted = self.plan.unmeasured(run)
        if wanted:
            self.measure(slot, run, wanted)
        else:
            self.train(slot, run)

    def train(self, slot: Slot, run: Run):
        command = [*slot.head, str(LOCAL), str(run.folder / "plan.yaml"), "-n", str(self.ranks), "--progress", "lines"]
        slot.attempt = {
            "begin": datetime.datetime.now().astimezone().isoformat(timespec="microseconds"),
            "command": " ".join(command),
            "host": platform.node(),
            "commit": self.plan.commit,
            "program": self.plan.version,
        }
        run.record(slot.attempt)
        done = len(run.metrics())
        self.say(f"{run.title}: " + (f"goes on after step {done} of {run.steps}" if done else f"starts, {run.steps} steps"))
        with open(run.folder / "log.txt", "a") as log:
            log.write(f"# {slot.attempt['begin']}  {slot.attempt['command']}\n")
        slot.launch(run, command, run.folder / "log.txt", self.lock)

    def measure(self, slot: Slot, run: Run, wanted: list[str]):
        """`wanted` of the program's commands, one after another."""
        how = {"eval": ["-n", str(self.ranks)], "analyze": ["--tokens", str(self.plan.analyze), "-n", "1"]}
        output = run.folder / f"{wanted[0]}.txt"
        output.unlink(missing_ok=True)
        slot.attempt, slot.wanted = None, wanted
        slot.launch(run, [*slot.head, str(LOCAL), wanted[0], str(run.folder), *how[wanted[0]]], output, self.lock)

    def end(self, slot: Slot):
        run, code, attempt = slot.run, slot.process.returncode, slot.attempt
        slot.process = None
        if not attempt:
            self.end_measurement(slot, code)
            return
        seconds = (datetime.datetime.now().astimezone() - datetime.datetime.fromisoformat(attempt["begin"])).total_seconds()
        code = code if code >= 0 else 128 - code  # as a shell tells of a signal
        run.record({**attempt, "seconds": round(seconds, 1), "code": code})
        with open(run.folder / "log.txt", "a") as log:
            log.write(f"# ended with exit code {code} after {seconds:.1f} s\n")
        state = run.state()
        self.flops_done += self.plan.flops(run) if state in ("done", "failed") else 0
        if state == "done":
            self.say(f"{run.title}: done in {seconds:.0f} s, held-out loss {run.metrics()[-1]['val_loss']:.4f}{self.left()}")
            wanted = self.plan.unmeasured(run)
            if wanted and not self.asked:
                self.measure(slot, run, wanted)
        elif state == "failed":
            self.say(f"{run.title}: FAILED, {run.reason()}")
        else:
            why = "stopped and saved" if code == STOPPED else f"cut off with exit code {code}"
            self.say(f"{run.title}: {why} after step {len(run.metrics())} of {run.steps}")

    def end_measurement(self, slot: Slot, code: int):
        run, (what, *further) = slot.run, slot.wanted
        if code == 0 and what == "eval":
            self.keep_domains(run)
        if what in self.plan.unmeasured(run) and not self.asked:
            self.say(f"{run.title}: {what} came to no end, exit code {code}: see {run.folder}/{what}.txt")
        if further and not self.asked:
            self.measure(slot, run, further)

    def keep_domains(self, run: Run):
        said = (run.folder / "eval.txt").read_text(errors="backslashreplace")
        lines = re.findall(rf"^(\S+): ([0-9.]+) nats a token,.* \(step {run.steps}\)$", said, re.MULTILINE)
        losses = {path: float(loss) for path, loss in lines}
        if losses.keys() == set(self.plan.held_out):
            domains = {pathlib.Path(path).name: losses[path] for path in self.plan.held_out}
            write_whole(run.folder / "domains.json", json.dumps(domains, indent=1) + "\n")

    def left(self) -> str:
        share = self.flops_done / self.flops_waiting
        if not 0 < share < 1:
            return ""
        return f"; about {(time.monotonic() - self.begin) * (1 / share - 1) / 60:.0f} min left"
