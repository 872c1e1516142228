"""The alarms of a run's routers (docs/health.md): what fired, and whether anything could have."""

import dataclasses

import yaml

from experiments.run import Run


@dataclasses.dataclass(frozen=True)
class Alarm:
    """One alarm in one block of a run, as often as it fired."""

    layer: int
    watch: str
    limit: str  # "above 0.6"
    action: str  # log, raise_balance or stop
    first: int  # the step where it fired first
    times: int

    def __str__(self) -> str:
        return f"{self.watch} {self.limit} in block {self.layer}, first at step {self.first}, {self.times} time{'s' * (self.times != 1)}"


@dataclasses.dataclass(frozen=True)
class Alarms:
    readings: int  # of all routers together: steps where they were read
    wanted: int | None  # readings after which one can fire; none where the configuration has no alarm
    fired: list[Alarm]

    @property
    def times(self) -> int:
        return sum(alarm.times for alarm in self.fired)

    @property
    def can_fire(self) -> bool:
        return self.wanted is not None and self.readings >= self.wanted


def wanted(run: Run) -> int | None:
    try:
        configuration = yaml.safe_load((run.folder / "plan.yaml").read_text(encoding="utf-8"))
    except OSError:
        return None
    return min((alarm["readings"] for alarm in configuration.get("health", {}).get("alarms", [])), default=None)


def alarms(run: Run, metrics: list[dict]) -> Alarms:
    """Of a run, from its metrics."""
    steps = {}
    for m in metrics:
        for alarm in m.get("alarms", []):
            steps.setdefault((alarm["layer"], alarm["watch"], alarm["limit"], alarm["action"]), []).append(m["step"])
    fired = [Alarm(*key, places[0], len(places)) for key, places in steps.items()]
    return Alarms(sum("router" in m for m in metrics), wanted(run), fired)
