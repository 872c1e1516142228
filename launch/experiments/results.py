"""An experiment's runs, turned into what the report says about them."""

import dataclasses
import math
from statistics import fmean

from experiments.alarms import Alarms, alarms
from experiments.curves import AXES, Curve, Point, reach
from experiments.inference import Difference, PowerLaw, holm, mean_and_deviation, power_law, welch
from experiments.plan import Plan, PlannedArm
from experiments.run import ALARM, NOT_FINITE, Run

# What a run did that came to an end, but to no good one, by its state.
BAD = {"diverged": "diverged", "stopped": "was stopped by an alarm", "failed": "failed"}
STARVED = 0.1  # of an equal share: an expert that takes less at the end


@dataclasses.dataclass(frozen=True)
class RunResult:
    run: Run
    state: str  # done, one of BAD, cut or waiting
    reason: str  # why it came to no good end
    curve: Curve
    alarms: Alarms

    @property
    def good(self) -> bool:
        return self.state == "done"


@dataclasses.dataclass(frozen=True)
class Speedup:
    """What an arm took to get to the reference's final loss, beside the reference's whole run. By axis (AXES), a value for
    each run that got there."""

    reached: int  # runs that did
    runs: int
    took: dict[str, list[float]]
    ratios: dict[str, list[float]]  # the reference's whole run, over that: above 1 the arm took less


@dataclasses.dataclass(frozen=True)
class ArmResult:
    arm: PlannedArm
    runs: list[RunResult]
    speedup: Speedup | None = None  # none for the reference

    @property
    def good_runs(self) -> list[RunResult]:
        return [run for run in self.runs if run.good]

    @property
    def finals(self) -> list[float]:
        return [run.curve.final for run in self.good_runs]

    def final(self) -> tuple[float, float | None] | None:
        return mean_and_deviation(self.finals)

    def mean(self, name: str) -> float | None:
        """Of a metric, at the end."""
        values = [value for run in self.good_runs if (value := run.curve.at_end(name)) is not None]
        return fmean(values) if values else None

    def experts(self) -> int:
        loads = [load for run in self.good_runs if (load := run.curve.load_at_end())]
        return len(loads[0][0]) if loads and loads[0] else 0

    def starved(self) -> int:
        """Experts, over all blocks and runs, that take less than a tenth of an equal share at the end."""
        return sum(
            share < STARVED / len(block) for run in self.good_runs for block in run.curve.load_at_end() for share in block
        )


@dataclasses.dataclass(frozen=True)
class Comparison:
    a: ArmResult
    b: ArmResult
    difference: Difference | None  # of final losses, a less b; none where an arm has fewer than two good runs
    p: float  # Holm's, over all comparisons of the experiment


@dataclasses.dataclass(frozen=True)
class Results:
    plan: Plan
    arms: list[ArmResult]
    comparisons: list[Comparison]
    laws: dict[str, tuple[dict[float, list[float]], PowerLaw | None]]  # family -> points, fit

    def arm(self, name: str) -> ArmResult:
        return next(result for result in self.arms if result.arm.name == name)

    @property
    def reference(self) -> ArmResult:
        return self.arm(self.plan.reference)

    @property
    def runs(self) -> list[RunResult]:
        return [run for arm in self.arms for run in arm.runs]


def run_result(run: Run, plan: Plan) -> RunResult:
    curve, state = Curve(run, plan.arm(run.arm).sizes), run.state()
    fired = alarms(run, curve.metrics)
    reason, guess = run.reason() if state == "failed" else "", math.log(plan.vocab_size)
    if state == "failed":
        state = {ALARM: "stopped", NOT_FINITE: "diverged"}.get(run.exit_code(), state)
    elif state == "done" and not curve.final <= guess:
        state = "diverged"
        reason = f"its held-out loss, {curve.final:.3g}, is above ln {plan.vocab_size} = {guess:.2f}, that of a blind guess"
    return RunResult(run, state, reason, curve, fired)


def speedup(arm: ArmResult, reference: ArmResult) -> Speedup | None:
    if not reference.good_runs or not arm.good_runs:
        return None
    target = fmean(reference.finals)
    whole = Point(*(fmean(values) for values in zip(*(dataclasses.astuple(r.curve.points[-1]) for r in reference.good_runs))))
    reached = [point for run in arm.good_runs if (point := reach(run.curve.points, target))]
    took = {axis: [getattr(point, axis) for point in reached] for axis in AXES}
    ratios = {axis: [getattr(whole, axis) / value for value in took[axis]] for axis in AXES}
    return Speedup(len(reached), len(arm.good_runs), took, ratios)


def compared(arms: list[ArmResult], plan: Plan) -> list[Comparison]:
    by_name = {arm.arm.name: arm for arm in arms}
    pairs = [(arm.arm.name, plan.reference) for arm in arms if arm.arm.name != plan.reference] + list(plan.compare)
    differences = [welch(by_name[a].finals, by_name[b].finals) for a, b in pairs]
    adjusted = iter(holm([d.p for d in differences if d]))
    return [Comparison(by_name[a], by_name[b], d, next(adjusted) if d else math.nan) for (a, b), d in zip(pairs, differences)]


def laws(arms: list[ArmResult]) -> dict[str, tuple[dict[float, list[float]], PowerLaw | None]]:
    """Final loss by number of experts, of every family of arms that differ in nothing else. A dense arm among them, of 0
    experts, is on no power law."""
    families = {}
    for arm in arms:
        if list(arm.arm.axes) == ["moe.experts"] and arm.finals and float(arm.arm.axes["moe.experts"]) > 0:
            families.setdefault(arm.arm.family, {})[float(arm.arm.axes["moe.experts"])] = arm.finals
    return {family: (points, power_law(points)) for family, points in families.items() if len(points) > 1}


def collect(plan: Plan) -> Results:
    arms = []
    for arm in plan.arms:
        arms.append(ArmResult(arm, [run_result(run, plan) for run in plan.runs() if run.arm == arm.name]))
    reference = next(arm for arm in arms if arm.arm.name == plan.reference)
    arms = [arm if arm is reference else dataclasses.replace(arm, speedup=speedup(arm, reference)) for arm in arms]
    return Results(plan, arms, compared(arms, plan), laws(arms))
