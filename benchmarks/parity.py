#!/usr/bin/env python3
"""Whole runs of ours against PyTorch: equal initial weights, equal batches, 20 steps. See README.md."""

import argparse
import copy
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch
import yaml

import pytorch_model
from token_file import write_tokens

STEPS = 20

# Both fp32 runs differ from an fp64 run by rounding, which AdamW carries on from step to step: it divides each gradient
# by its own size, so that rounding in the small ones reaches the weights undiminished. PyTorch's fp32 run, printed as
# the yardstick, stays within 3e-6 (losses), 5e-5 (gradient norm) and 4e-4 (weights, of their change). The smallest
# faults tried, weight decay of 0.11 for 0.1 or clipping at 1.001 for 1, move the gradient norm by 4e-4 and 2e-4; most
# move the loss by more than 1e-2.
LOSS_TOLERANCE = 1e-4
WEIGHT_TOLERANCE = 1e-3
# Rounding may turn the choice between two experts whose logits are nearer than this, and then the runs part.
TIE = 1e-5
MOST_BLOCKS = 4  # of a model in a file

TINY = {
    "run": {"seed": 7, "precision": "fp32", "device": "cpu", "threads": 1},
    "model": {"vocab_size": 96, "d_model": 48, "n_layers": 4, "n_heads": 4, "n_kv_heads": 4, "head_dim": 12, "d_ff": 80,
              "activation": "swiglu", "qk_norm": True, "tied_embeddings": False, "norm_eps": 1e-6, "rope_theta": 10000,
              "init_std": 0.1},
    "moe": {"experts": 6, "d_ff": 56, "layers": [], "every": 2, "first_dense": 0},
    "router": {"top_k": 2, "renormalise": True, "capacity_factor": 0, "group_size": 0, "balance_loss": 0.01,
               "balance_counts": "first", "balance_scope": "group", "z_loss": 0.001, "init_scale": 1.0},
    "train": {"seq_len": 24, "global_batch": 4, "micro_batch": 0, "recompute": "none", "eval_every": 0},
    "optim": {"lr": 0.003, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "clip": 1.0,
              "schedule": {"kind": "cosine", "warmup_steps": 5, "min_ratio": 0.1}},
    "parallel": {"data": 0, "expert": 1},
}

# What each variant changes in TINY; "ranks" is how many mpirun starts.
VARIANTS = {
    "dropless": {},
    "capacity drops": {"router": {"capacity_factor": 1.0}},
    "groups shorter than a sequence": {"router": {"capacity_factor": 1.1, "group_size": 8}},
    "top-1, not renormalised": {"router": {"top_k": 1, "renormalise": False, "capacity_factor": 1.25}},
    "top-3, all choices balanced over the micro-batch": {
        "router": {"top_k": 3, "balance_counts": "all", "balance_scope": "micro_batch", "balance_loss": 0.1}},
    "tied embeddings": {"model": {"tied_embeddings": True}},
    "GEGLU": {"model": {"activation": "geglu"}},
    "GEGLU beside ungated experts": {"model": {"activation": "geglu"}, "moe": {"activation": "relu"}},
    "GELU, no QK-norm, MoE blocks listed": {
        "model": {"activation": "gelu", "qk_norm": False}, "moe": {"layers": [0, 3]}},
    "grouped-query attention": {"model": {"n_kv_heads": 2, "head_dim": 16}},
    "dense": {"moe": {"experts": 0}},
    "accumulated micro-batches, recomputed": {
        "train": {"micro_batch": 2, "recompute": "block"}, "router": {"capacity_factor": 1.0}},
    "two expert ranks": {"ranks": 2, "parallel": {"expert": 2}, "router": {"capacity_factor": 1.0}},
}


def merged(base, changes):
    result = copy.deepcopy(base)
    for section, values in changes.items():
        result[section].update(values)
    return result


def write_batch(directory, config):
    """Token files of which every global batch reads the same samples, in whatever order: one source a sample, of equal
    weights, that repeats its sample once a step. Returns the batch (samples, seq_len + 1) and the data section."""
    samples, seq = config["train"]["global_batch"], config["train"]["seq_len"]
    vocab = config["model"]["vocab_size"]
    draw = np.random.default_rng(config["run"]["seed"])
    sources, batch = [], []
    for i in range(samples):
        words = draw.integers(vocab, size=seq)
        repeated = np.concatenate([np.tile(words, STEPS), words[:1]])
        write_tokens(f"{directory}/tokens-{i}", repeated, vocab)
        sources.append({"path": f"{directory}/tokens-{i}"})
        batch.append(repeated[:seq + 1])
    return np.stack(batch), {"train": sources}


def run_ours(switchyard, config, directory, ranks):
    """Initial weights, final weights, and the metrics of each step."""
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    launcher = ["mpirun", "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
    env = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    for options in (["--init-only"], ["--progress", "none"]):
        command = [*launcher, switchyard, "train", str(path), *options]
        done = subprocess.run(command, env=env, text=True, capture_output=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    run = Path(config["run"]["dir"])
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return read_weights(run, 0), read_weights(run, STEPS), metrics


def read_weights(run, step):
    with h5py.File(run / "checkpoints" / f"step-{step:08d}" / "checkpoint.h5") as file:
        return {name: torch.from_numpy(dataset[()]) for name, dataset in file["tensors"].items()
                if not name.startswith("optimizer.")}


def run_pytorch(config, initial, batch, lrs, dtype):
    """Final weights, the same metrics of each step, and how near a token came to another choice of experts."""
    device = "cuda" if config.run.device == "cuda" else "cpu"
    model = pytorch_model.Transformer(config).to(device, dtype)
    model.load_state_dict(initial)
    gaps = watch_ties(model, config.router.top_k)
    training = pytorch_model.Training(model, config)
    tokens, targets = batch[:, :-1].to(device), batch[:, 1:].to(device)
    metrics = []
    for lr in lrs:
        for group in training.optimizer.param_groups:
            group["lr"] = lr
        losses, norm = training.step(tokens, targets)
        metrics.append({"loss": losses.cross_entropy.item(), "balance_loss": losses.balance.item(),
                        "z_loss": losses.z.item(), "drop_fraction": losses.dropped.item(), "grad_norm": norm.item()})
    weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    return weights, metrics, min(gaps, default=math.inf)


def watch_ties(model, top_k):
    """A list that each forward pass of a router adds to: the smallest gap between a token's neighbouring logits, down
    to the first that is not chosen."""
    gaps = []

    def note(module, inputs, logits_TE):
        ranked = logits_TE.detach().sort(dim=-1, descending=True).values[:, :top_k + 1]
        gaps.append(-ranked.diff(dim=-1).max().item())

    for name, module in model.named_modules():
        if name.endswith("mlp.gate"):
            module.register_forward_hook(note)
    return gaps


def worst_loss(metrics, reference):
    """The largest relative difference of any step, by metric."""
    return {name: max(abs(m[name] - r[name]) / max(abs(r[name]), 1e-3) for m, r in zip(metrics, reference, strict=True))
            for name in reference[0]}


def worst_weight(weights, reference, initial):
    """The largest difference of a tensor as a share of how far it has moved, and which."""
    def difference(name):
        moved = (reference[name].double() - initial[name].double()).norm()
        return ((weights[name].double() - reference[name].double()).norm() / moved.clamp(min=1e-12)).item()

    return max((difference(name), name) for name in reference)


def compare(name, ours, pytorch, exact, initial):
    """Prints one run's differences and says whether they are rounding; `exact` is PyTorch's fp64 run."""
    losses, yardstick = worst_loss(ours[1], exact[1]), worst_loss(pytorch[1], exact[1])
    weights, tensor = worst_weight(ours[0], exact[0], initial)
    good = max(losses.values()) <= LOSS_TOLERANCE and weights <= WEIGHT_TOLERANCE
    print(f"{'ok  ' if good else 'FAIL'} {name}: loss {ours[1][0]['loss']:.4f} to {ours[1][-1]['loss']:.4f}, "
          f"dropped at most {max(m['drop_fraction'] for m in ours[1]):.1%}")
    for metric, value in losses.items():
        print(f"       {metric:14} {value:.1e}   (PyTorch fp32: {yardstick[metric]:.1e})")
    print(f"       {'weights':14} {weights:.1e}   (PyTorch fp32: {worst_weight(pytorch[0], exact[0], initial)[0]:.1e})"
          f"   worst in {tensor}")
    if not good and exact[2] < TIE:
        print(f"       a router came within {exact[2]:.0e} of a tie: rounding may turn it; try another run.seed")
    sys.stdout.flush()
    return good


def check(switchyard, name, settings, ranks=1):
    """Trains `settings` here and there from our initial weights; whether the two agree."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        batch, data = write_batch(directory, settings)
        settings = merged(settings, {"run": {"dir": f"{directory}/run"}, "train": {"steps": STEPS}}) | {
            "data": data, "checkpoint": {"every": STEPS, "keep": 2}}
        initial, final, metrics = run_ours(switchyard, settings, directory, ranks)
        config = pytorch_model.load_config(directory / "run" / "config.yaml")  # as the program resolved it
        torch.set_num_threads(config.run.threads or len(os.sched_getaffinity(0)))
        batch, lrs = torch.from_numpy(batch), [m["lr"] for m in metrics]
        pytorch = run_pytorch(config, initial, batch, lrs, torch.float32)
        exact = run_pytorch(config, initial, batch, lrs, torch.float64)
        return compare(name, (final, metrics), pytorch, exact, initial)


def check_model(switchyard, path, device):
    """The same for a configuration file's model in fp32, its first blocks, on 128 tokens and with a tenth of its learning
    rate: of many tokens some come near a tie, and the faster weights move, the more rounding they carry on. It also
    keeps fp64 and the checkpoints small."""
    settings = pytorch_model.resolved(switchyard, path)
    pytorch_model.refuse_what_is_not_here(path, settings)
    settings["run"] |= {"precision": "fp32", "device": device}
    settings["model"]["n_layers"] = min(settings["model"]["n_layers"], MOST_BLOCKS)
    settings["train"].update(seq_len=64, global_batch=2, micro_batch=2)
    settings["router"]["group_size"] = 0
    settings["optim"]["lr"] /= 10
    return check(switchyard, f"{path} in fp32 on 128 tokens", settings)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--switchyard", required=True, metavar="PROGRAM")
    parser.add_argument("--only", metavar="TEXT", default="", help="variants whose name contains this")
    parser.add_argument("--config", type=Path, help="this configuration's model instead of the tiny variants")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="of both (default: %(default)s)")
    args = parser.parse_args()

    if args.config:
        return 0 if check_model(args.switchyard, args.config, args.device) else 1
    good = []
    for name, changes in VARIANTS.items():
        ranks = changes.get("ranks", 1)
        if args.only not in name:
            continue
        if ranks > 1 and not shutil.which("mpirun"):
            print(f"left out {name}: no mpirun here")
            continue
        settings = merged(TINY, {k: v for k, v in changes.items() if k != "ranks"})
        good.append(check(args.switchyard, name, merged(settings, {"run": {"device": args.device}}), ranks))
    print(f"{sum(good)} of {len(good)} agree")
    return 0 if good and all(good) else 1


if __name__ == "__main__":
    raise SystemExit(main())
