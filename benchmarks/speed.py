#!/usr/bin/env python3
"""Train steps of one model here and in PyTorch, side by side on the same cores or GPU: see README.md."""

import argparse
import contextlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import numpy as np
import yaml

import parity
import pytorch_model
from token_file import read_tokens, write_tokens

HERE = Path(__file__).resolve().parent
OURS = "switchyard"
SETTLE_SECONDS = 0.05  # idle threads of the other worker spin for some milliseconds before they sleep


class Worker:
    """A process that makes one train step for each line "step" and answers with its seconds."""

    def __init__(self, name, command, env, log):
        self.name, self.log = name, log
        self.process = subprocess.Popen(command, env=env, text=True, bufsize=1, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=open(log, "w"))

    def step(self):
        """Seconds of the step, and the share of the cores' time that went to others than this worker."""
        time.sleep(SETTLE_SECONDS)
        own, busy, start = cpu_seconds(self.process.pid), busy_seconds(), time.perf_counter()
        try:
            self.process.stdin.write("step\n")
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SystemExit(f"{self.name} stopped: {Path(self.log).read_text()[-2000:]}")
        wall = time.perf_counter() - start
        others = (busy_seconds() - busy) - (cpu_seconds(self.process.pid) - own)
        return float(answer), max(0.0, others) / (wall * len(os.sched_getaffinity(0)))

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system


def busy_seconds():
    """Time that the cores we may use did not idle, stolen time included."""
    cores = os.sched_getaffinity(0)
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
            total += user + nice + system + irq + softirq + steal
    return total / os.sysconf("SC_CLK_TCK")


def pytorch_worker(config_path, compiled, grouped):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    torch.manual_seed(0)
    config = pytorch_model.load_config(config_path)
    torch.set_num_threads(config.run.threads)
    on_gpu = config.run.device == "cuda"
    device = torch.device("cuda" if on_gpu else "cpu")
    with device:
        model = pytorch_model.Transformer(config, grouped)
    training = pytorch_model.Training(model, config, compiled)
    tokens = read_tokens(config.data.train[0]["path"])
    batch, seq = config.train.global_batch, config.train.seq_len
    draw = np.random.default_rng(config.run.seed)

    def step():
        starts = draw.integers(len(tokens) - seq, size=batch)
        window = torch.from_numpy(np.stack([tokens[s:s + seq + 1] for s in starts]).astype(np.int64)).to(device)
        losses, _ = training.step(window[:, :-1], window[:, 1:], config.train.micro_batch)
        if on_gpu:
            torch.cuda.synchronize()
        return losses.cross_entropy.item()

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION) if on_gpu else contextlib.nullcontext():
        for _ in sys.stdin:
            start = time.perf_counter()
            step()
            print(time.perf_counter() - start, flush=True)


def measure(workers, warmup, rounds):
    """Per worker, (seconds, others' share) of each round; the order rotates so that none always comes first."""
    for worker in workers:
        for _ in range(warmup):
            worker.step()
        print(f"{worker.name} is warm", file=sys.stderr)
    steps = {worker.name: [] for worker in workers}
    for i in range(rounds):
        for j in range(len(workers)):
            worker = workers[(i + j) % len(workers)]
            steps[worker.name].append(worker.step())
        print(f"round {i + 1}/{rounds}: " + ", ".join(f"{name} {s[-1][0] * 1e3:.0f} ms" for name, s in steps.items()),
              file=sys.stderr)
    return steps


def measure_apart(start, names, warmup, rounds, passes=2):
    """The same on a GPU, whose memory does not hold all of them at once: one after the other, and again in the same
    order, so that a drift of the clocks shows."""
    steps = {name: [] for name in names}
    for i in range(passes):
        for name in names:
            worker = start(name)
            for _ in range(warmup):
                worker.step()
            mine = [worker.step() for _ in range(rounds // passes)]
            worker.close()
            steps[name] += mine
            print(f"pass {i + 1}/{passes}: {name} {median(s for s, _ in mine) * 1e3:.1f} ms", file=sys.stderr)
    return steps


def quiet_rounds(steps, most):
    """The rounds in which nobody else took more than that share of the cores during any step."""
    return [i for i, shares in enumerate(zip(*steps.values())) if all(share <= most for _, share in shares)]


def bootstrap_interval(draw_one, samples=10000):
    """95 % interval of what draw_one(random) gives."""
    draw = random.Random(0)
    drawn = sorted(draw_one(draw) for _ in range(samples))
    return drawn[int(0.025 * samples)], drawn[int(0.975 * samples) - 1]


def ratio_of(theirs, ours, paired):
    """Median ratio of the steps of each round; where rounds do not pair them, the ratio of the medians."""
    def again(draw, values):
        return median(draw.choices(values, k=len(values)))

    if paired:
        ratios = [t / o for t, o in zip(theirs, ours)]
        middle, (low, high) = median(ratios), bootstrap_interval(lambda draw: again(draw, ratios))
    else:
        middle = median(theirs) / median(ours)
        low, high = bootstrap_interval(lambda draw: again(draw, theirs) / again(draw, ours))
    return {"median": middle, "low": low, "high": high}


def summarise(seconds, tokens, paired):
    """seconds: per contestant, of the rounds that count."""
    result = {"steps": {}, "ratios": {}}
    for name, s in seconds.items():
        result["steps"][name] = {"median_ms": median(s) * 1e3, "lower_quartile_ms": quantiles(s, n=4)[0] * 1e3,
                                 "tokens_per_second": tokens / median(s)}
    for name, s in seconds.items():
        if name != OURS and OURS in seconds:
            result["ratios"][name] = ratio_of(s, seconds[OURS], paired)
    return result


def machine():
    lines = subprocess.check_output(["lscpu"], text=True).splitlines()
    info = dict(line.split(":", 1) for line in lines if ":" in line)
    flags = info.get("Flags", "").split()
    return {"cpu": info["Model name"].strip(), "cores": sorted(os.sched_getaffinity(0)),
            "bf16": [f for f in ("avx512_bf16", "amx_bf16") if f in flags], "kernel": platform.release(),
            "system": platform.freedesktop_os_release()["PRETTY_NAME"]}


def versions(switchyard, on_gpu):
    import torch

    found = {"torch": torch.__version__, "python": platform.python_version()}
    if on_gpu:
        found |= {"cuda": torch.version.cuda, "gpu": torch.cuda.get_device_name()}
    else:
        found["torch_onednn"] = next(line.split(" v")[1].split()[0] for line in torch.__config__.show().splitlines()
                                     if "MKL-DNN" in line)
    if switchyard:
        found[OURS] = subprocess.check_output([switchyard, "--version"], text=True).strip()
    return found


def report(result):
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    print(f"\n{result['machine']['cpu']}, cores {result['machine']['cores']}; {versions}")
    print(f"{result['rounds']} rounds, {result['dropped']} dropped because others used the cores\n"
          if result["paired"] else f"{result['rounds']} steps each, in two passes one after the other\n")
    print(f"{'':20} {'median ms':>10} {'quartile ms':>12} {'tokens/s':>10}")
    for name, s in result["steps"].items():
        print(f"{name:20} {s['median_ms']:10.1f} {s['lower_quartile_ms']:12.1f} {s['tokens_per_second']:10.0f}")
    for name, r in result["ratios"].items():
        print(f"{name} / {OURS}: {r['median']:.2f} (95 % interval {r['low']:.2f} to {r['high']:.2f})")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--switchyard", metavar="PROGRAM", help="our program; without it only PyTorch is timed")
    parser.add_argument("--config", default=HERE / "c1.yaml", type=Path)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="(default: %(default)s)")
    parser.add_argument("--contestants", help="PyTorch as eager, grouped or compile "
                        "(default: eager,compile; on a GPU grouped,compile)")
    parser.add_argument("--cores", help="(default: 0,1; with a GPU all)")
    parser.add_argument("--rounds", default=40, type=int)
    parser.add_argument("--warmup", default=5, type=int, help="steps of each that are not counted")
    parser.add_argument("--most-others", default=0.05, type=float,
                        help="share of the cores that others may use in a round that counts (default: %(default)s)")
    parser.add_argument("--no-parity", action="store_true", help="do not compare losses first")
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    parser.add_argument("--worker", choices=["eager", "grouped", "compile"], help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    args = parse_arguments()
    if args.worker:
        return pytorch_worker(args.config, args.worker == "compile", args.worker != "eager")

    on_gpu = args.device == "cuda"
    contestants = (args.contestants or ("grouped,compile" if on_gpu else "eager,compile")).split(",")
    if args.cores or not on_gpu:
        os.sched_setaffinity(0, {int(core) for core in (args.cores or "0,1").split(",")})
    cores = os.sched_getaffinity(0)
    if args.switchyard and not args.no_parity and not parity.check_model(args.switchyard, args.config, args.device):
        raise SystemExit("the losses differ: times would compare different work")

    with tempfile.TemporaryDirectory() as directory:
        config = (pytorch_model.resolved(args.switchyard, args.config) if args.switchyard
                  else yaml.safe_load(args.config.read_text()))
        pytorch_model.refuse_what_is_not_here(args.config, config)
        config["run"] |= {"dir": f"{directory}/run", "threads": len(cores), "device": args.device}
        config["data"] = {"train": [{"path": f"{directory}/tokens"}]}
        random_bytes = np.random.default_rng(0).integers(256, size=1 << 20)  # as `switchyard bench` makes its own
        write_tokens(f"{directory}/tokens", random_bytes, config["model"]["vocab_size"])
        path = Path(directory, "config.yaml")
        path.write_text(yaml.safe_dump(config))

        env = os.environ | {"OMP_NUM_THREADS": str(len(cores))}
        commands = {f"pytorch {kind}": [sys.executable, __file__, "--worker", kind, "--config", path]
                    for kind in contestants}
        if args.switchyard:
            commands[OURS] = [args.switchyard, "bench", "--worker", path]

        def start(name):
            return Worker(name, commands[name], env, f"{directory}/{name}.log")

        if on_gpu:
            steps = measure_apart(start, list(commands), args.warmup, args.rounds)
        else:
            workers = [start(name) for name in commands]
            steps = measure(workers, args.warmup, args.rounds)
            for worker in workers:
                worker.close()

    kept = list(range(len(steps[next(iter(steps))]))) if on_gpu else quiet_rounds(steps, args.most_others)
    if len(kept) < 2:
        raise SystemExit(f"others used the cores in all but {len(kept)} of {args.rounds} rounds: nothing to report")
    result = {"machine": machine(), "versions": versions(args.switchyard, on_gpu), "config": config,
              "rounds": len(kept), "dropped": 0 if on_gpu else args.rounds - len(kept), "paired": not on_gpu,
              **summarise({name: [s[i][0] for i in kept] for name, s in steps.items()},
                         config["train"]["global_batch"] * config["train"]["seq_len"], not on_gpu),
              "raw_seconds_and_others_share": steps}
    report(result)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
