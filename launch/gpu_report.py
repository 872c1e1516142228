#!/usr/bin/env python3
"""What launch/gpu_check.sh measured, judged and written down.

gpu_report.py losses RESULTS      compares the losses of RESULTS/train/{cpu,cuda}-{fp32,bf16} and writes losses.json
gpu_report.py page RESULTS FILE   writes docs/gpu.md from the files in RESULTS, whichever are there
"""

import argparse
import json
import pathlib
import re
import sys

# Dense bf16 TFLOP/s and GB/s of memory, from the makers' data sheets.
DATASHEET = (
    (r"H200", 989, 4800),
    (r"H100.*NVL", 835, 3900),
    (r"H100.*PCIe", 756, 2000),
    (r"H100", 989, 3350),
    (r"GH200", 989, 4000),
    (r"A100.*80GB", 312, 2039),
    (r"A100", 312, 1555),
)
MEMORY_GOAL, ATTENTION_GOAL, MFU_GOAL = 0.80, 0.45, 0.40
ATTENTION_SHAPE = "S 4096, d 128"  # that its goal names
STAGES = "tests memcheck racecheck train parity kernels model pytorch".split()  # of gpu_check.sh

# Largest relative difference of a loss from the CPU's. The first step knows no update yet: only the order of sums differs,
# 1e-7 in fp32, and now and then a token whose second and third expert are nearer than that, 2e-6 of the mean over 4096.
# bf16 beside fp32 moves that mean by 2e-5; ten times that is allowed.
FIRST_STEP = {"fp32": 1e-5, "bf16": 2e-4}
# The next updates are small (the learning rate still warms up): a wrong gradient shows here, and rounding hardly does. Two
# fp32 runs of the quickstart with sums in another order were 3e-7 apart after ten steps, bf16 and fp32 4e-5.
EARLY_STEPS = 10
EARLY = {"fp32": 1e-4, "bf16": 1e-3}
# Then AdamW, which divides each gradient by its own size, carries rounding in small ones on undiminished, and rounding
# turns the choice between two experts: runs of equal arithmetic part. How far is measured beside them: the CPU's bf16 run
# beside its fp32 run, the same batches from the same weights. The GPU's run may be as far from the CPU's, times this, for
# a mean over the steps has luck in it (in 120 steps of the quickstart, of 1024 tokens: 8e-3 between bf16 and fp32, 8e-3
# between two bf16 runs with sums in another order, 2e-3 between two such fp32 runs).
LUCK = 2.0


class ReportError(Exception):
    pass


def load(results, name):
    path = results / name
    try:
        return json.loads(path.read_text()) if path.is_file() else None
    except ValueError as error:  # cut off: as if it were not there
        print(f"gpu_report.py: {path}: {error}", file=sys.stderr)
        return None


# ---------------------------------------------------------------------------------------------------- losses


def losses_of(results, run):
    path = results / "train" / run / "metrics.jsonl"
    try:
        return [json.loads(line)["loss"] for line in path.read_text().splitlines()]
    except (OSError, ValueError, KeyError) as error:
        raise ReportError(f"{run} left no losses: {error}") from error


def distance(a, b):
    """Relative differences: of the first step, the most of the early steps, the mean over all, of the mean loss of the
    last quarter."""
    if len(a) != len(b):
        raise ReportError(f"one run has {len(a)} steps, the other {len(b)}")
    relative = [abs(x - y) / abs(y) for x, y in zip(a, b)]
    tail = max(1, len(a) // 4)
    end_a, end_b = sum(a[-tail:]) / tail, sum(b[-tail:]) / tail
    return {"first": relative[0], "early": max(relative[:EARLY_STEPS]), "mean": sum(relative) / len(relative), "end": abs(end_a - end_b) / abs(end_b)}


def compare_losses(results):
    """Judges the four runs; a ReportError where one is missing."""
    runs = {f"{d}-{p}": losses_of(results, f"{d}-{p}") for d in ("cpu", "cuda") for p in ("fp32", "bf16")}
    rounding = distance(runs["cpu-bf16"], runs["cpu-fp32"])
    bound = LUCK * rounding["mean"]
    result = {"steps": len(runs["cpu-fp32"]), "yardstick": rounding, "bound": bound, "pairs": {}}
    for precision in ("fp32", "bf16"):
        d = distance(runs[f"cuda-{precision}"], runs[f"cpu-{precision}"])
        d["bounds"] = {"first": FIRST_STEP[precision], "early": EARLY[precision], "mean": bound}
        d["good"] = all(d[key] <= most for key, most in d["bounds"].items())
        result["pairs"][precision] = d
    result["losses"] = {name: [losses[0], losses[-1]] for name, losses in runs.items()}
    result["good"] = all(d["good"] for d in result["pairs"].values())
    return result


def print_losses(result):
    y = result["yardstick"]
    print(f"CPU, bf16 beside fp32: first step {y['first']:.1e}, mean of {result['steps']} steps {y['mean']:.1e}")
    for precision, d in result["pairs"].items():
        parts = ", ".join(f"{key} {d[key]:.1e} (at most {most:.1e})" for key, most in d["bounds"].items())
        print(f"{'ok  ' if d['good'] else 'FAIL'} GPU beside CPU, {precision}: {parts}")


# ---------------------------------------------------------------------------------------------------- the page


def table(head, rows):
    """Markdown; numbers right-aligned by a leading '>' in the head."""
    rule = ["---:" if cell.startswith(">") else "---" for cell in head]
    lines = [[cell.lstrip(">") for cell in head], rule, *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def percent(share):
    return f"{100 * share:.1f} %"


def datasheet(gpu):
    """(bf16 FLOP/s, bytes a second), or None for a GPU that is not known here."""
    for pattern, teraflops, gigabytes in DATASHEET:
        if re.search(pattern, gpu or ""):
            return teraflops * 1e12, gigabytes * 1e9
    return None


def duration(seconds):
    return f"{seconds * 1e6:.3g} us" if seconds < 1e-3 else f"{seconds * 1e3:.4g} ms"


def rate(row):
    if row["bound"] == "latency":
        return ""
    return f"{row['rate'] / 1e9:.0f} GB/s" if row["bound"] == "memory" else f"{row['rate'] / 1e12:.1f} TFLOP/s"


def spread(row):
    return percent((row["high"] - row["low"]) / row["seconds"])


def machine_part(run):
    rows = [[key.replace("_", " "), value] for key, value in run.items() if value]
    return "## Where and what\n\n" + table(["", ""], rows)


def stages_part(stages):
    rows = []
    for name in STAGES:
        s = stages.get(name)
        rows.append([name, s["status"], f"{s['seconds']} s", s.get("note", "")] if s else [name, "not run", "", ""])
    return "## Stages\n\n" + table(["stage", "result", ">time", "remark"], rows)


def losses_part(result):
    y = result["yardstick"]
    rows = [["CPU, bf16 beside fp32 (the yardstick)", *(f"{y[key]:.1e}" for key in ("first", "early", "mean", "end"))]]
    for precision, d in result["pairs"].items():
        rows.append([f"GPU beside CPU, {precision}: {'agrees' if d['good'] else '**differs**'}",
                     *(f"{d[key]:.1e} of {most:.1e}" for key, most in d["bounds"].items()), f"{d['end']:.1e}"])
    ends = ", ".join(f"{name} {first:.4f} to {last:.4f}" for name, (first, last) in result["losses"].items())
    return f"""## The same losses as on the CPU

The model of `configs/quickstart.yaml`, {result['steps']} steps of 4096 tokens from the same weights on the same batches;
relative differences of the loss, of how much is allowed. In the first step only the order of sums differs; the first
{EARLY_STEPS} would show a wrong gradient. Then runs part, also those of one device in two precisions: AdamW carries rounding in
small gradients on undiminished, and rounding turns a token's choice of experts now and then. How far bf16 rounding alone
takes a run is measured beside them, and {LUCK:g} times that is allowed in the mean.

{table(["", ">first step", f">first {EARLY_STEPS}", ">mean", ">last quarter"], rows)}
Losses, first and last: {ends}.
"""


def kernels_part(result):
    ceilings = result["ceilings"]
    rows = [[f"`{r['row']}`", r["variant"], r["shape"], r["formula"], duration(r["seconds"]), spread(r), rate(r),
             percent(r["share"]) if "share" in r else ""] for r in result["rows"]]
    return f"""## Kernels

Every row of the kernel table (`src/tensor/kernels.h`), on random data, by `kernel_bench`. Work is the least that a call
must do: bytes with every input read and every output written once, rows that an index names as often as it names them;
FLOPs of the products alone, of attention the causal half. Times are medians of {result['repetitions']} repetitions of as
many calls, one behind the other, as take {result['least_ms']:g} ms; the spread is from the shortest to the longest. Shares
are of the ceilings, measured before and after in the same run, the better one counting: a device-to-device copy
**{ceilings['memory'] / 1e9:.0f} GB/s** (read and written bytes), a square product **{ceilings['bf16'] / 1e12:.0f} TFLOP/s** in
bf16 and **{ceilings['f32'] / 1e12:.1f} TFLOP/s** in f32.

{table(["row", "", "shape", "work", ">time", ">spread", ">rate", ">share"], rows)}"""


def mfu(model, tokens_per_second, peak):
    return tokens_per_second * model["flops_per_token"] / peak


def model_part(model, gpu):
    peak = datasheet(gpu)
    steps = model["step_seconds"]
    rows = [["parameters", f"{model['parameters'] / 1e6:.0f} M, {model['active_parameters'] / 1e6:.0f} M of them active"],
            ["step", f"{steps[len(steps) // 2] * 1e3:.1f} ms, median of {len(steps)}, {model['tokens_per_step']:.0f} tokens"],
            ["tokens a second", f"{model['tokens_per_second']:.0f}"],
            ["model FLOP/s", f"{model['model_flops_per_second'] / 1e12:.0f} T ({model['flops_per_token']:.4g} a token)"],
            [f"share of the {model['product']['side']}-cubed bf16 product in the same process",
             f"{percent(model['share_of_product'])} of {model['product']['flops_per_second'] / 1e12:.0f} TFLOP/s"]]
    if peak:
        share = mfu(model, model["tokens_per_second"], peak[0])
        rows.append(["model FLOP utilisation", f"**{percent(share)}** of {peak[0] / 1e12:.0f} TFLOP/s (data sheet)"])
    rows.append(["memory at the peak", f"{model['memory']['together']['peak'] / 2**30:.1f} GiB"])
    kernels = model.get("kernels", [])
    all_seconds = sum(k["seconds"] for k in kernels)
    shown = [[f"`{k['row']}`" + (" (host)" if k["device"] == "cpu" else ""), f"{k['calls']:.0f}", duration(k["seconds"]),
              percent(k["seconds"] / all_seconds), f"{k['flops'] / k['seconds'] / 1e12:.0f}" if k["flops"] else ""]
             for k in kernels if k["seconds"] > 0.002 * all_seconds]
    return f"""## A model end to end

`benchmarks/g1.yaml` by `switchyard bench`. Model FLOPs are 6 for each active weight and 6 L S A for causal attention
(`src/model/count.h`); recomputation and padding do not count.

{table(["", ""], rows)}
Where a step's time goes, kernel by kernel, each waited for (so that together they take longer than the step):

{table(["kernel", ">calls", ">time", ">share", ">TFLOP/s"], shown)}"""


def speed_part(speed, model, gpu):
    peak = datasheet(gpu)
    rows = []
    for name, s in speed["steps"].items():
        ratio = speed["ratios"].get(name)
        share = percent(mfu(model, s["tokens_per_second"], peak[0])) if peak and model else ""
        rows.append([name, f"{s['median_ms']:.1f} ms", f"{s['tokens_per_second']:.0f}", share,
                     f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else ""])
    versions = ", ".join(f"{name} {version}" for name, version in speed["versions"].items())
    return f"""## Beside PyTorch

The same model in PyTorch (`benchmarks/speed.py --device cuda`): bf16 weights with fp32 masters, experts by `grouped_mm`,
flash attention, fused AdamW, eager and through `torch.compile`; whole steps, {speed['rounds']} of each in two passes one
after the other. {versions}.

{table(["", ">median step", ">tokens/s", ">MFU", ">their time over ours (95 % interval)"], rows)}"""


def goals(kernels, model, speed, gpu):
    """(what is wanted, what was measured or None, whether it is met)"""
    found = []
    slow = near = None
    if kernels:
        memory = [r for r in kernels["rows"] if r["bound"] == "memory"]
        slow = [f"`{r['row']}` {r['variant']} {percent(r['share'])}" for r in memory if r["share"] < MEMORY_GOAL]
        near = [r["share"] for r in kernels["rows"] if r["row"].startswith("attention") and
                r["variant"] == f"bf16, {ATTENTION_SHAPE}"]
    found.append((f"memory-bound kernels at {MEMORY_GOAL:.0%} of the copy bandwidth or more",
                  None if slow is None else f"below it: {', '.join(slow)}" if slow else "all of them", slow == []))
    found.append((f"attention at {ATTENTION_GOAL:.0%} of the bf16 product or more ({ATTENTION_SHAPE}, causal)",
                  f"forward {percent(near[0])}, backward {percent(near[1])}" if near and len(near) == 2 else None,
                  bool(near) and min(near) >= ATTENTION_GOAL))
    peak = datasheet(gpu)
    share = mfu(model, model["tokens_per_second"], peak[0]) if model and peak else None
    found.append((f"{MFU_GOAL:.0%} model FLOP utilisation or more on one H100-class GPU, `benchmarks/g1.yaml`",
                  percent(share) if share is not None else None, share is not None and share >= MFU_GOAL))
    ratios = speed["ratios"] if speed else {}
    found.append(("ahead of PyTorch, eager and compiled",
                  ", ".join(f"{name} takes {r['median']:.2f} times as long" for name, r in ratios.items()) or None,
                  bool(ratios) and all(r["low"] > 1 for r in ratios.values())))
    return found


def goals_part(found):
    rows = [[wanted, measured or "not measured", "open" if measured is None else "met" if met else "**missed**"]
            for wanted, measured, met in found]
    return "## Goals\n\n" + table(["goal", "measured", "state"], rows)


HOW = """## How to measure it

On a machine with a GPU, its driver, nvcc on the PATH and, for several GPUs, NCCL (libnccl-dev), `launch/gpu_check.sh`
installs with apt what building and testing need besides (`launch/dependencies.sh tests`), builds, checks, measures and
writes this page. Where the GPU's machine has no network, no MPI, HDF5, yaml-cpp or spdlog, build a bundle elsewhere and
carry it over; CUDA's own libraries are taken from the GPU's machine, where PyTorch's wheels will do:

    launch/gpu_bundle.sh                       # here: build-bundle/switchyard-gpu.tar.xz
    tar xf switchyard-gpu.tar.xz               # there
    switchyard-gpu/launch/gpu_check.sh         # there: results in switchyard-gpu/results, this page as gpu.md among them

`--stages "tests kernels"` runs some of the stages, and the page is then made of the results that are there.

| stage | what it does |
|---|---|
| `tests` | every kernel test of `tests/cuda`, CPU beside GPU |
| `memcheck`, `racecheck` | the same under compute-sanitizer |
| `train` | the quickstart's model on the GPU and on the CPU, in fp32 and bf16: the losses must agree |
| `parity` | the tiny models of `benchmarks/parity.py` in fp32 beside PyTorch in fp64 |
| `kernels` | time, bandwidth or FLOP/s of every row of the kernel table beside the ceilings of the same run |
| `model` | tokens a second and model FLOP utilisation of `benchmarks/g1.yaml` |
| `pytorch` | the same model in PyTorch, eager and compiled |
"""


def page(results):
    run, kernels, model, speed, losses = (
        load(results, f"{name}.json") for name in ("run", "kernels", "model", "speed", "losses"))
    parts = ["# On a GPU\n", "<!-- Written by launch/gpu_report.py; launch/gpu_check.sh runs it. -->\n"]
    stages = {}
    if (results / "stages.jsonl").is_file():
        for line in (results / "stages.jsonl").read_text().splitlines():
            stage = json.loads(line)
            stages[stage["stage"]] = stage  # the last run of each
    gpu = run and run.get("gpu")
    if run:
        parts.append(machine_part(run))
    else:
        parts.append("**Nothing on this page has been measured yet: no GPU was at hand.** The kernels are tested on the "
                     "CPU by\nemulation (`tests/simt`), which says that they are right and nothing about their speed. "
                     "The goals below are open.\n")
    parts.append(goals_part(goals(kernels, model, speed, gpu)))
    if stages:
        parts.append(stages_part(stages))
    if losses:
        parts.append(losses_part(losses))
    if kernels:
        parts.append(kernels_part(kernels))
    if model:
        parts.append(model_part(model, gpu))
    if speed:
        parts.append(speed_part(speed, model, gpu))
    parts.append(HOW)
    return "\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, arguments in (("losses", ["results"]), ("page", ["results", "file"])):
        command = commands.add_parser(name)
        for argument in arguments:
            command.add_argument(argument, type=pathlib.Path)
    arguments = parser.parse_args()
    try:
        if arguments.command == "losses":
            result = compare_losses(arguments.results)
            (arguments.results / "losses.json").write_text(json.dumps(result, indent=1) + "\n")
            print_losses(result)
            return 0 if result["good"] else 1
        arguments.file.write_text(page(arguments.results))
        print(f"wrote {arguments.file}")
    except (ReportError, OSError) as error:
        print(f"gpu_report.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
