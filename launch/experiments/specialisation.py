"""Reads what `switchyard analyze RUN` left in RUN/analysis/domains.csv, where it was run."""

import csv
import pathlib


def by_domain(run: pathlib.Path) -> list[tuple[str, list[tuple[str, list[float]]]]]:
    """(MoE block, rows) with a row (domain, values) and a value an expert: the expert's share of the domain's choices, in
    multiples of an equal share. The file has the columns block, domain, expert and share; empty where there is none."""
    blocks = {}
    try:
        with open(run / "analysis/domains.csv", newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                domains = blocks.setdefault(line["block"], {})
                domains.setdefault(line["domain"], {})[int(line["expert"])] = float(line["share"])
    except OSError:
        return []
    return [
        (f"MoE block {block}", [(name, [shares[e] * len(shares) for e in sorted(shares)]) for name, shares in domains.items()])
        for block, domains in blocks.items()
    ]
