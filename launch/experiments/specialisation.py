"""Reads what `switchyard analyze RUN` left in RUN/analysis, where it was run."""

import csv
import dataclasses
import pathlib


def lines(path: pathlib.Path) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError:
        return []


def by_domain(run: pathlib.Path) -> list[tuple[str, list[tuple[str, list[float]]]]]:
    """(MoE block, rows) with a row (domain, values) and a value an expert: the expert's share of the domain's choices, in
    multiples of an equal share. The file has the columns block, domain, expert and share; empty where there is none."""
    blocks = {}
    for line in lines(run / "analysis/domains.csv"):
        domains = blocks.setdefault(line["block"], {})
        domains.setdefault(line["domain"], {})[int(line["expert"])] = float(line["share"])
    return [
        (f"block {block}", [(name, [shares[e] * len(shares) for e in sorted(shares)]) for name, shares in domains.items()])
        for block, domains in blocks.items()
    ]


@dataclasses.dataclass(frozen=True)
class Information:
    """What the choice of an expert tells about its token, nats; and the most that it told where labels were shuffled."""

    block: int
    nats: float
    bound: float  # the most that could be
    shuffled_max: float
    shuffles: int

    @property
    def margin(self) -> float:
        """By which it is above every shuffle."""
        return self.nats - self.shuffled_max


def information(run: pathlib.Path, of: str = "domain") -> list[Information]:
    """By MoE block; `of` is domain, class, token or "domain given token". Without blocks where nothing could be told, as of a
    single domain."""
    return [
        Information(int(line["block"]), float(line["nats"]), float(line["bound"]), float(line["shuffled_max"]), int(line["shuffles"]))
        for line in lines(run / "analysis/information.csv")
        if line["of"] == of and float(line["bound"]) > 0
    ]
