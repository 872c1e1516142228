#!/usr/bin/env python3
"""Writes report.html and report.csv of an experiment from what its runs left.  report.py runs/experiments/NAME

The page is one file without scripts, links or fonts from elsewhere: mail it, print it. launch/experiment.py ends with this;
run it at any time to see how far the runs are. Standard library and PyYAML only.
"""

import argparse
import csv
import io
import pathlib
import sys

from experiments.curves import reach
from experiments.page import page
from experiments.plan import load_plan
from experiments.results import Results, RunResult, collect
from experiments.run import write_whole
from experiments.spec import ExperimentError


def row(result: RunResult, results: Results) -> dict:
    """Of report.csv: everything about a run. What there is not is empty."""
    run, curve = result.run, result.curve
    arm, attempts = results.plan.arm(run.arm), run.attempts()
    reference = results.reference.final()
    reached = reach(curve.points, reference[0]) if reference and result.good else None
    last = attempts[-1] if attempts else {}
    described = {
        "arm": run.arm,
        "seed": run.seed,
        "state": result.state,
        "steps_done": len(curve.metrics),
        "steps": run.steps,
        "tokens": curve.metrics[-1]["tokens"] if curve.metrics else 0,
        "flops_per_token": arm.sizes.flops_per_token,
        "flops": arm.sizes.flops_per_token * (curve.metrics[-1]["tokens"] if curve.metrics else 0),
        "parameters": arm.sizes.parameters,
        "active_parameters": arm.sizes.active_parameters,
        f"{results.plan.equal}_ratio": arm.ratio,
        "held_out_loss": curve.final if curve.points else None,
        "training_loss": curve.at_end("loss"),
        "drop_fraction": curve.at_end("drop_fraction"),
        "router_entropy": curve.at_end("router_entropy"),
        "balance_loss": curve.at_end("balance_loss"),
        "router_readings": result.alarms.readings,
        "alarms": result.alarms.times,
        "seconds": round(curve.seconds, 3),
        "tokens_per_second": curve.tokens_per_second(),
        "step_at_reference_loss": reached.step if reached else None,
        "flops_at_reference_loss": reached.flops if reached else None,
        "seconds_at_reference_loss": reached.seconds if reached else None,
    }
    losses = run.domains()
    described |= {f"held_out_loss_{pathlib.Path(path).name}": losses.get(pathlib.Path(path).name) for path in results.plan.held_out}
    described |= {"attempts": len(attempts), "commit": last.get("commit"), "program": last.get("program"), "host": last.get("host")}
    return described | {"folder": str(run.folder), "reason": result.reason}


def csv_of(results: Results) -> str:
    rows = [row(result, results) for result in results.runs]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=pathlib.Path, help="an experiment's folder")
    folder = parser.parse_args().experiment
    try:
        results = collect(load_plan(folder))
    except ExperimentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_whole(folder / "report.csv", csv_of(results))
    write_whole(folder / "report.html", page(results))
    print(f"wrote {folder}/report.html and report.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
