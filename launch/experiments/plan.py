"""The runs of an experiment, as they are written down in its folder before the first one starts.

  plan.json            what the experiment is: its arms, what is equal and how exactly, its seeds
  ARM/seed-N/          a run (run.py)
  report.html, report.csv
"""

import dataclasses
import json
import pathlib
import shlex
import shutil
import subprocess

import yaml

from experiments.run import Run, write_whole
from experiments.sizes import Program, Sizes, equalise
from experiments.spec import Experiment, ExperimentError


@dataclasses.dataclass(frozen=True)
class PlannedArm:
    name: str
    label: str
    family: str
    axes: dict[str, str]
    values: dict[str, str]
    adjusted: dict[str, str]
    ratio: float  # of the quantity held equal, to the reference's
    sizes: Sizes


@dataclasses.dataclass(frozen=True)
class Plan:
    folder: pathlib.Path
    name: str
    title: str
    commit: str  # of this working tree
    version: str  # of the program
    command: str
    file: str
    base: str
    equal: str
    adjust: str
    multiple: int
    reference: str
    vocab_size: int
    held_out: list[str]  # prefixes of the token files that loss is measured on; named after domains
    seeds: list[int]
    compare: list[tuple[str, str]]
    arms: list[PlannedArm]
    analyze: int = 0  # tokens of each held-out domain whose experts are looked at; 0: none

    def arm(self, name: str) -> PlannedArm:
        return next(arm for arm in self.arms if arm.name == name)

    def runs(self) -> list[Run]:
        """Seed by seed, so that what is there when the experiment is cut short has every arm, and so that the machine's
        better and worse hours fall on all arms alike."""
        return [
            Run(arm.name, seed, arm.sizes.steps, self.folder / arm.name / f"seed-{seed}")
            for seed in self.seeds
            for arm in self.arms
        ]

    def flops(self, run: Run) -> float:
        return self.arm(run.arm).sizes.flops

    def unmeasured(self, run: Run) -> list[str]:
        """The program's commands that are still to measure a run that is done: its loss by domain, and its experts."""
        if run.state() != "done":
            return []
        wanted = ["eval"] if len(self.held_out) > 1 and not run.domains() else []
        return wanted + (["analyze"] if self.analyze and run.has_experts() and not run.analysed() else [])

    def save(self):
        described = dataclasses.asdict(self)
        del described["folder"]
        write_whole(self.folder / "plan.json", json.dumps(described, indent=1, ensure_ascii=False) + "\n")


def load_plan(folder: pathlib.Path) -> Plan:
    try:
        described = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        arms = [PlannedArm(**{**arm, "sizes": Sizes(**arm["sizes"])}) for arm in described.pop("arms")]
        compare = [tuple(pair) for pair in described.pop("compare")]
        return Plan(folder=folder, arms=arms, compare=compare, **described)
    except OSError as error:
        raise ExperimentError(f"{folder} holds no experiment: {error.strerror}: {error.filename}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ExperimentError(f"{folder}/plan.json is not as experiment.py writes it: {error!r}") from error


def commit() -> str:
    """Of the working tree that this script is in; empty where it is in none, or without git."""
    if not shutil.which("git"):
        return ""
    git = ["git", "-C", str(pathlib.Path(__file__).parent)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], text=True, capture_output=True)
    if head.returncode != 0:
        return ""
    changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], text=True, capture_output=True)
    return head.stdout.strip() + ("-dirty" if changed.stdout else "")


def held_out_of(experiment: Experiment, configuration: dict) -> list[str]:
    """Prefixes of the token files that loss is measured on. Each is a domain, named after its file."""
    paths = [source["path"] for source in configuration["data"]["valid"]]
    if not paths:
        raise ExperimentError(f"{experiment.base}: data.valid is empty: an experiment compares held-out losses")
    names = [pathlib.Path(path).name for path in paths]
    for name in sorted({name for name in names if names.count(name) > 1}):
        same = ", ".join(path for path in paths if pathlib.Path(path).name == name)
        raise ExperimentError(f"{experiment.base}: data.valid: domains are named after their files, and {name} is there twice: {same}")
    return paths


def make_plan(experiment: Experiment, program: Program, folder: pathlib.Path, command: list[str]) -> tuple[Plan, dict[Run, str]]:
    """The plan, and the whole configuration of each of its runs. `command` is the one that all this was asked by."""
    equalised = equalise(experiment, lambda arm, extra: program.sizes(experiment.base, arm, extra))
    arms = [
        PlannedArm(e.arm.name, e.arm.label, e.arm.family, e.arm.axes, e.arm.values, e.adjusted, e.ratio, e.sizes)
        for e in equalised
    ]
    resolved = {e.arm.name: yaml.safe_load(program.configuration(experiment.base, e.arm, e.adjusted)) for e in equalised}
    first = resolved[experiment.reference]
    plan = Plan(
        folder=folder,
        name=experiment.name,
        title=experiment.title,
        commit=commit(),
        version=program.version,
        command=shlex.join(["launch/experiment.py", *command]),
        file=str(experiment.path),
        base=str(experiment.base),
        equal=experiment.equal,
        adjust=experiment.adjust,
        multiple=experiment.multiple,
        reference=experiment.reference,
        vocab_size=first["model"]["vocab_size"],
        held_out=held_out_of(experiment, first),
        seeds=experiment.seeds,
        compare=experiment.compare,
        arms=arms,
        analyze=experiment.analyze,
    )
    configurations = {}
    for run in plan.runs():
        configuration = resolved[run.arm]
        own = configuration | {"run": configuration["run"] | {"seed": run.seed, "dir": str(run.folder)}}
        configurations[run] = yaml.safe_dump(own, sort_keys=False, width=1000)
    return plan, configurations


def flat(tree, prefix="") -> dict[str, object]:
    if not isinstance(tree, dict):
        return {prefix.removesuffix("."): tree}
    return {key: value for name, part in tree.items() for key, value in flat(part, f"{prefix}{name}.").items()}


def write_down(plan: Plan, configurations: dict[Run, str]):
    """Writes plan.json and every run's plan.yaml. A run that was begun otherwise is an error, and nothing is written."""
    complaints = []
    for run, text in configurations.items():
        path = run.folder / "plan.yaml"
        if not path.exists() or path.read_text(encoding="utf-8") == text:
            continue
        before, now = flat(yaml.safe_load(path.read_text(encoding="utf-8"))), flat(yaml.safe_load(text))
        keys = [key for key in before.keys() | now.keys() if before.get(key) != now.get(key)]
        if run.state() == "waiting" or not keys:
            continue
        changes = ", ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in sorted(keys))
        complaints.append(f"{run.folder} was begun with another configuration: {changes}")
    if complaints:
        raise ExperimentError("\n".join([*complaints, "Remove what is to be run again, or choose another --out"]))
    for run, text in configurations.items():
        write_whole(run.folder / "plan.yaml", text)
    dataclasses.replace(plan, command=begun_by(plan)).save()


def begun_by(plan: Plan) -> str:
    """The command that began the experiment, which one that goes on with it does not replace."""
    try:
        before = load_plan(plan.folder)
    except ExperimentError:
        return plan.command
    now = dataclasses.replace(before, command=plan.command, commit=plan.commit, version=plan.version)
    return before.command if now == plan else plan.command
