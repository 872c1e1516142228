"""What is held equal among the arms of an experiment, worked out by `switchyard inspect`."""

import concurrent.futures
import dataclasses
import json
import pathlib
import subprocess

from experiments.spec import Arm, Experiment, ExperimentError


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of an arm's model and run."""

    parameters: int
    active_parameters: int  # that a token meets
    flops_per_token: float  # model FLOPs, forward and backward
    tokens_per_step: int
    steps: int

    @classmethod
    def of(cls, inspected: dict) -> "Sizes":
        """What `switchyard inspect --json` says of a configuration."""
        parameters = inspected["parameters"]
        per_token, per_step = inspected["flops_per_token"], inspected["tokens_per_step"]
        return cls(parameters["total"], parameters["active"], per_token, per_step, inspected["steps"])

    @property
    def tokens(self) -> int:
        return self.tokens_per_step * self.steps

    @property
    def flops(self) -> float:
        """Of the whole run."""
        return self.flops_per_token * self.tokens


class Program:
    """The switchyard program, as far as an experiment asks it about configurations."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.version = self.ask("--version").stdout.strip()

    def ask(self, *arguments) -> subprocess.CompletedProcess:
        try:
            return subprocess.run([self.path, *arguments], text=True, capture_output=True)
        except OSError as error:
            raise ExperimentError(
                f"cannot run {self.path}: {error.strerror}; build it (README.md), or name it with SWITCHYARD=..."
            ) from error

    def ask_about(self, command: str, base: pathlib.Path, arm: Arm, extra: dict, *options) -> str:
        overrides = [f"{key}={value}" for key, value in (arm.values | extra).items()]
        answer = self.ask(command, base, *overrides, *options)
        if answer.returncode != 0:
            lines = answer.stderr.strip().removeprefix("error: ").splitlines()
            raise ExperimentError("\n".join(f"{arm.place}: arm {arm.name}: {line.strip()}" for line in lines))
        return answer.stdout

    def sizes(self, base: pathlib.Path, arm: Arm, extra: dict) -> Sizes:
        return Sizes.of(json.loads(self.ask_about("inspect", base, arm, extra, "--json")))

    def configuration(self, base: pathlib.Path, arm: Arm, extra: dict) -> str:
        """The whole configuration of a run: every key, with its value."""
        return self.ask_about("config", base, arm, extra)


@dataclasses.dataclass(frozen=True)
class Equalised:
    """An arm made equal to the reference: the value that `adjust` got, and how near that comes."""

    arm: Arm
    adjusted: dict[str, str]
    sizes: Sizes
    ratio: float  # of the quantity held equal, to the reference's


def equalise(experiment: Experiment, sizes_of) -> list[Equalised]:
    """All arms, with the experiment's quantity the reference's. `sizes_of(arm, extra)` gives an arm's Sizes with further
    values. FLOPs and tokens are those of the whole run.

    Each quantity is an affine function of the keys that can be adjusted (steps, widths), so two probes give the value
    that matches; rounded to the multiple asked for, it is inspected again. What the rounding leaves is `ratio`."""
    key, multiple = experiment.adjust, experiment.multiple
    quantity = lambda sizes: getattr(sizes, experiment.equal)
    reference = experiment.arm(experiment.reference)
    wanted_sizes = sizes_of(reference, {})
    wanted = quantity(wanted_sizes)

    def made_equal(arm: Arm) -> Equalised:
        if arm == reference:
            return Equalised(arm, {}, wanted_sizes, 1.0)
        probes = [1024 * multiple, 2048 * multiple]
        at = [quantity(sizes_of(arm, {key: str(value)})) for value in probes]
        slope = (at[1] - at[0]) / (probes[1] - probes[0])
        if slope <= 0:
            raise ExperimentError(f"{arm.place}: arm {arm.name}: {key} does not change its {experiment.equal}")
        exact = probes[0] + (wanted - at[0]) / slope
        value = round(exact / multiple) * multiple
        if value < 1:
            raise ExperimentError(
                f"{arm.place}: arm {arm.name}: its {experiment.equal} would equal {reference.name}'s with "
                f"{key} = {exact:.3g}, which is no multiple of {multiple} above 0"
            )
        adjusted = {key: str(value)}
        sizes = sizes_of(arm, adjusted)
        return Equalised(arm, adjusted, sizes, quantity(sizes) / wanted)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(made_equal, experiment.arms))
