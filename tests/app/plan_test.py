#!/usr/bin/env python3
"""`switchyard plan`: what it refuses, what it tells programs, and its predictions beside what real runs count."""

import json
import resource

from switchyard_run import ROOT, Scenario, main

GLAM = ROOT / "configs/glam/64b-64e.yaml"

MODEL = """\
run: {threads: 1, precision: bf16}
model: {vocab_size: 1024, d_model: 128, n_layers: 4, n_heads: 4, d_ff: 320}
moe: {experts: 8, dispatch: padded}
train: {seq_len: 64, global_batch: 32}
checkpoint: {async: false}
"""

# Ranks, and what they do.
LAYOUTS = (
    (1, "train.micro_batch=16"),
    (2, "parallel.expert=2", "parallel.shard_optimizer=true"),
    (2, "parallel.tensor=2", "parallel.expert=2", "train.recompute=block", "run.precision=fp32"),
    (2, "parallel.pipeline=2", "train.micro_batch=8", "optim.kind=adafactor"),
    (2, "parallel.tensor=2", "parallel.expert_tensor=2", "train.recompute=ffn", "parallel.shard_optimizer=true",
     "optim.kind=adafactor", "optim.beta1=0.9"),
    (4, "parallel.tensor=2", "parallel.expert=2", "train.recompute=attention", "train.micro_batch=8"),
)

DEVICE = """\
type: cuda
peak: 100
matmul: 60
matmul_fp32: 5
memory: 40
memory_bandwidth: 1000
node_devices: 4
node_bandwidth: 100
node_latency: 3
network_bandwidth: 10
network_latency: 8
"""


class Plan(Scenario):
    def plan(self, *arguments, device="cpu", ranks=1, **options):
        return self.run_here("plan", *arguments, "--device", device, "--ranks", ranks, **options)

    def told(self, *arguments, **options):
        result = self.plan(*arguments, "--json", **options)
        self.assertDone(result)
        return json.loads(result.out)

    def test_memory_and_bytes_are_those_of_real_runs(self):
        (self.folder / "model.yaml").write_text(MODEL)
        for ranks, *overrides in LAYOUTS:
            with self.subTest(overrides, ranks=ranks):
                planned = self.told("model.yaml", *overrides, ranks=ranks)["configured"]
                run = self.run_here("bench", "model.yaml", *overrides, "--json", "--steps", 2, ranks=ranks)
                self.assertDone(run)
                run = json.loads(run.out)
                # The first rank's account; in a pipeline the first stage has the most activations, as planned.
                for kind in ("parameters", "gradients", "optimizer", "activations", "together"):
                    peak = run["memory"][kind]["peak"]
                    self.assertLess(abs(planned["memory"][kind] / peak - 1), 0.05, (kind, planned["memory"][kind], peak))
                if "parallel.pipeline=2" in overrides:
                    continue  # the slowest stage is told, the first one counted
                sent = {}
                for row in planned["traffic"]:
                    key = row["group"], row["collective"]
                    sent[key] = sent.get(key, 0) + row["bytes"]
                counted = {(row["group"], row["collective"]): row["bytes"] for row in run.get("traffic", [])}
                self.assertEqual({k: v for k, v in sent.items() if v}, {k: v for k, v in counted.items() if v})

    def test_for_programs(self):
        told = self.told("tiny.yaml", "--top", 3, device="h100", ranks=4)
        self.assertEqual(len(told["layouts"]), 3)
        self.assertGreaterEqual(told["legal"], told["fitting"])
        times = [layout["step_seconds"] for layout in told["layouts"]]
        self.assertEqual(times, sorted(times))
        for layout in (told["configured"], *told["layouts"]):
            self.assertEqual(layout["data"] * layout["pipeline"] * layout["tensor"], 4)
            self.assertEqual(8 % (layout["data"] * layout["micro_batch"]), 0)
            self.assertAlmostEqual(sum(layout["seconds"].values()), layout["step_seconds"])
            self.assertTrue(0 < layout["utilisation"] < 1)
            self.assertAlmostEqual(layout["utilisation"] * layout["step_seconds"] * 4 * 989.4e12,
                                   told["flops_per_step"], delta=told["flops_per_step"] * 1e-9)

    def test_for_people(self):
        result = self.plan("tiny.yaml", device="a100", ranks=2)
        self.assertDone(result)
        for words in ("as configured", "legal layouts", "MFU", "memory, GiB", "not measurements"):
            self.assertIn(words, result.out)
        result = self.plan("tiny.yaml", "parallel.data=1", device="a100", ranks=2)
        self.assertDone(result)
        self.assertIn("as configured: parallel.data: wanted 1 ranks", result.out)

    def test_imbalance_fills_memory_where_dispatch_is_exact(self):
        def activations(dispatch, imbalance):
            told = self.told("tiny.yaml", "parallel.expert=2", "router.capacity_factor=0", f"moe.dispatch={dispatch}",
                             "--imbalance", imbalance, ranks=2)
            return told["configured"]["memory"]["activations"]
        self.assertGreater(activations("exact", 2), activations("exact", 1))

    def test_devices_of_one_s_own(self):
        (self.folder / "device.yaml").write_text(DEVICE)
        self.assertDone(self.plan("tiny.yaml", device="device.yaml"))
        (self.folder / "device.yaml").write_text(DEVICE + "nod_devices: 3\n")
        self.assertRefused(self.plan("tiny.yaml", device="device.yaml"), 2, "device.yaml:12:1", "nod_devices",
                           "did you mean node_devices?")
        (self.folder / "device.yaml").write_text(DEVICE.replace("peak: 100\n", ""))
        self.assertRefused(self.plan("tiny.yaml", device="device.yaml"), 2, "peak", "is missing")

    def test_mistakes(self):
        self.assertRefused(self.plan("tiny.yaml", device="h1000"), 2, "h1000", "h100, h200, a100 or cpu")
        self.assertRefused(self.plan("tiny.yaml", ranks=0), 2, "--ranks")
        self.assertRefused(self.plan("tiny.yaml", ranks=3), 2, "train.global_batch", "3 data ranks")
        self.assertRefused(self.plan(GLAM, "optim.kind=adamw", device="h100", ranks=8), 2, "none of", "GiB a rank", "shard_optimizer")
        self.assertRefused(self.plan("nowhere.yaml"), 2, "cannot read")

    def test_a_hundred_thousand_ranks_take_less_than_a_second(self):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        told = self.told(GLAM, "train.global_batch=100000", device="h100", ranks=100000)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.assertGreater(told["fitting"], 100)
        self.assertAlmostEqual(told["parameters"] / 1.162e12, 1, delta=0.002)
        # Processor time: others may use the machine too.
        self.assertLess(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)


if __name__ == "__main__":
    main()
