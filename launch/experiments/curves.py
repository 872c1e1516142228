"""What metrics.jsonl of a run says over time."""

import dataclasses
import math
from statistics import fmean, median

from experiments.run import Run
from experiments.sizes import Sizes

AXES = ("step", "flops", "tokens", "seconds")
END = 0.1  # the share of a run, at its end, that "at the end" means


@dataclasses.dataclass(frozen=True)
class Point:
    """Held-out loss, and what it had taken to get there. Seconds are those of training steps alone, without evaluations,
    checkpoints, and whatever lay between two attempts."""

    step: float
    tokens: float
    flops: float
    seconds: float
    loss: float


class Curve:
    def __init__(self, run: Run, sizes: Sizes):
        self.run, self.sizes = run, sizes
        self.metrics = run.metrics()
        self.seconds, self.points = 0.0, []
        for m in self.metrics:
            self.seconds += sizes.tokens_per_step / m["tokens_per_second"]
            loss = m.get("val_loss", math.nan)
            if "val_loss" in m:
                flops = m["tokens"] * sizes.flops_per_token
                self.points.append(Point(m["step"], m["tokens"], flops, self.seconds, math.nan if loss is None else loss))

    @property
    def final(self) -> float:
        """The last held-out loss; not a number where there is none."""
        return self.points[-1].loss if self.points else math.nan

    def series(self, name: str, bins: int) -> list[tuple[float, float]]:
        """A metric as (step, mean) of so many stretches of equal length."""
        values = [(m["step"], m[name]) for m in self.metrics if isinstance(m.get(name), (int, float))]
        width = max(1, math.ceil(len(values) / bins))
        pieces = [values[i : i + width] for i in range(0, len(values), width)]
        return [(fmean(step for step, _ in piece), fmean(value for _, value in piece)) for piece in pieces]

    def at_end(self, name: str) -> float | None:
        tail = self.metrics[-max(1, round(END * len(self.metrics))) :]
        values = [m[name] for m in tail if isinstance(m.get(name), (int, float))]
        return fmean(values) if values else None

    def routed(self) -> bool:
        """Whether the model has experts, as far as one can tell: before its first step none can."""
        return bool(self.metrics and self.metrics[-1].get("expert_load"))

    def load_at_end(self) -> list[list[float]]:
        """By MoE block and expert: the share of all choices that the expert took."""
        tail = [m["expert_load"] for m in self.metrics[-max(1, round(END * len(self.metrics))) :]]
        return [[fmean(shares) for shares in zip(*(blocks[i] for blocks in tail))] for i in range(len(tail[0]))] if tail else []

    def blocks(self) -> list[str]:
        """Names of the blocks of expert_load. By the model's numbers, which readings of routers have; without any, in order."""
        layers = next((m["router"] for m in self.metrics if "router" in m), [])
        count = len(self.metrics[-1]["expert_load"]) if self.routed() else 0
        return [f"block {each['layer']}" for each in layers] or [f"MoE block {i + 1} of {count}" for i in range(count)]

    def tokens_per_second(self) -> float | None:
        return median(m["tokens_per_second"] for m in self.metrics) if self.metrics else None


def reach(points: list[Point], target: float) -> Point | None:
    """Where the held-out loss falls to the target for good: between the last evaluation above it and the next, on the
    straight line. None where it ends above."""
    above = [i for i, point in enumerate(points) if not point.loss <= target]
    if not points or (above and above[-1] == len(points) - 1):
        return None
    if not above:
        return points[0]
    a, b = points[above[-1]], points[above[-1] + 1]
    share = (a.loss - target) / (a.loss - b.loss) if math.isfinite(a.loss) else 1.0
    return Point(*(x + share * (y - x) for x, y in zip(dataclasses.astuple(a), dataclasses.astuple(b)))) if share < 1 else b


def together(curves: list[list[tuple[float, float]]]) -> list[tuple[float, list[float]]]:
    """(x, y) lists that have the same number of places, as (mean x, all y) of each place; cut to the shortest, and without
    places where a y is not finite."""
    places = [place for place in zip(*curves) if all(math.isfinite(y) for _, y in place)]
    return [(fmean(x for x, _ in place), [y for _, y in place]) for place in places]
