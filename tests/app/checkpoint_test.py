#!/usr/bin/env python3
"""Damaged checkpoints are named, never read and never cost a good one; a full disk neither."""

import hashlib
import json
import resource
import shutil

from switchyard_run import Scenario, main

WAYS = {
    "first bit flipped": lambda b: bytes([b[0] ^ 1]) + b[1:],
    "middle bit flipped": lambda b: b[: len(b) // 2] + bytes([b[len(b) // 2] ^ 16]) + b[len(b) // 2 + 1:],
    "last bit flipped": lambda b: b[:-1] + bytes([b[-1] ^ 128]),
    "cut in half": lambda b: b[: len(b) // 2],
    "cut by a byte": lambda b: b[:-1],
    "a byte longer": lambda b: b + b"\n",
    "empty": lambda b: b"",
    "deleted": lambda b: None,
}


def change(path, way):
    content = WAYS[way](path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def hashes(directory):
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(directory.rglob("*")) if p.is_file()}


class Checkpoints(Scenario):
    """A finished run of six steps with checkpoints of steps 2, 4 and 6."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.good = cls.home / "good"
        cls.good.mkdir()
        for name in ("tiny.yaml", "tokens.bin", "tokens.idx", "tokens.json"):
            shutil.copy(cls.home / name, cls.good)
        scenario = cls("setUp")
        scenario.folder = cls.good
        scenario.finished(ranks=2, *["parallel.expert=2"])

    def setUp(self):
        super().setUp()
        self.restore()

    def restore(self):
        self.run = self.folder / "run"
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(self.good / "run", self.run)
        self.saved = self.run / "checkpoints"
        self.newest = self.saved / "step-00000006"

    def files(self):
        return sorted(path.name for path in self.newest.iterdir())

    def train_on(self, *overrides, **options):
        return self.train("parallel.expert=1", *overrides, **options)

    def test_inspect_and_verify_a_good_one(self):
        self.assertEqual(self.files(),
                         ["SHA256SUMS", "checkpoint.h5", "manifest.json", "rank-00000.h5", "rank-00001.h5"])
        for path in ("run", "run/checkpoints", "run/checkpoints/step-00000006"):
            told = self.run_here("inspect", path, "--json")
            self.assertDone(told)
            report = json.loads(told.out)
            self.assertEqual((report["step"], report["world_size"], report["tokens"]), (6, 2, 6 * 8 * 16))
            self.assertIn("model.norm.weight", [tensor["name"] for tensor in report["tensors"]])
            for file in report["files"]:
                content = (self.newest / file["name"]).read_bytes()
                self.assertEqual((len(content), hashlib.sha256(content).hexdigest()), (file["bytes"], file["sha256"]))
            told = self.run_here("verify", path, "--json")
            self.assertDone(told)
            report = json.loads(told.out)
            self.assertEqual((report["good"], report["problems"], report["step"]), (True, [], 6))

    def test_digests_compare_checkpoints_of_any_layout(self):
        """The initial weights, saved from one rank and from two."""
        for directory, ranks in (("one", None), ("two", 2)):
            self.assertDone(self.train("--init-only", f"run.dir={directory}", ranks=ranks))
        told = [json.loads(self.run_here("verify", path, "--json").out) for path in ("one", "two", "run")]
        self.assertEqual(told[0]["digests"], told[1]["digests"])
        self.assertEqual(told[0]["digest"], told[1]["digest"])
        self.assertNotEqual(told[0]["digest"], told[2]["digest"])
        listed = self.run_here("verify", "two", "--digests").out.splitlines()
        self.assertEqual(listed[1], "digest " + told[0]["digest"])
        self.assertEqual({name: digest for digest, name in map(str.split, listed[2:])}, told[0]["digests"])
        self.assertDone(self.run_here("verify", "one", "--against", "two"))
        other = self.run_here("verify", "one", "--against", "run")
        self.assertEqual(other.code, 4, other)
        self.assertIn("model.norm.weight: its elements in one", other.out)
        self.assertEqual(self.run_here("verify", "one", "--against", "nothing").code, 4)
        self.assertRefused(self.run_here("verify", "tokens", "--digests"), 2, "--digests")

    def test_verify_names_every_damaged_file(self):
        for name in self.files():
            for way in WAYS:
                with self.subTest(f"{name} {way}"):
                    self.restore()
                    change(self.newest / name, way)
                    told = self.run_here("verify", "run")
                    self.assertEqual(told.code, 4, told)
                    self.assertIn(name, told.out + told.err)
                    self.assertQuiet(told)
        report = json.loads(self.run_here("verify", "run", "--json").out)
        self.assertFalse(report["good"])

    def test_train_falls_back_and_goes_on(self):
        """To the same end as if nothing had happened, bit for bit, though on one rank and not two."""
        older = [self.saved / "step-00000002", self.saved / "step-00000004"]
        before = [hashes(path) for path in older]
        want = None
        for number, name in enumerate(self.files()):
            for way in list(WAYS)[number % 2::2]:
                with self.subTest(f"{name} {way}"):
                    self.restore()
                    change(self.newest / name, way)
                    result = self.train_on()
                    self.assertDone(result)
                    spoken = result.out + result.err
                    self.assertIn("warning: ", spoken)
                    self.assertIn(name, spoken)
                    self.assertIn("at step 4", spoken)
                    self.assertEqual([hashes(path) for path in older], before)
                    want = want or self.losses()
                    self.assertEqual(self.losses(), want)
                    self.assertDone(self.run_here("verify", "run"))

    def test_two_ranks_fall_back_together(self):
        change(self.newest / "rank-00001.h5", "middle bit flipped")
        result = self.train("parallel.expert=2", ranks=2)
        self.assertDone(result)
        self.assertEqual((result.out + result.err).count("warning: "), 1, result)
        self.assertEqual(self.latest(), "step-00000006")

    def test_a_damaged_pointer_to_the_latest_costs_nothing(self):
        for way in WAYS:
            with self.subTest(way):
                self.restore()
                before = hashes(self.newest)
                change(self.saved / "latest", way)
                result = self.train_on()
                self.assertDone(result)
                self.assertIn("at step 6", result.out)
                self.assertEqual(hashes(self.newest), before)

    def test_all_damaged(self):
        for path in self.saved.glob("step-*"):
            change(path / "rank-00000.h5", "middle bit flipped")
        before = hashes(self.run)
        for ranks in (None, 2):
            for command in (("train", "tiny.yaml"), ("eval", "run"), ("generate", "run")):
                with self.subTest(f"{command} on {ranks} ranks"):
                    result = self.run_here(*command, ranks=ranks)
                    self.assertRefused(result, 4, "step-00000002", "step-00000004", "step-00000006")
                    self.assertEqual(hashes(self.run), before)

    def test_commands_without_a_checkpoint(self):
        for command in ("eval", "generate", "verify", "inspect"):
            (self.folder / "nothing").mkdir(exist_ok=True)
            with self.subTest(command):
                self.assertEqual(self.run_here(command, "nothing").code, 4)
        self.assertRefused(self.run_here("eval", "nowhere"), 4, "nowhere")
        self.assertRefused(self.run_here("generate", "nowhere", ranks=2), 4, "nowhere")

    def test_a_named_checkpoint_is_not_replaced_by_another(self):
        change(self.newest / "rank-00000.h5", "middle bit flipped")
        self.assertRefused(self.run_here("eval", "run/checkpoints/step-00000006"), 4, "rank-00000.h5")
        self.assertDone(self.run_here("eval", "run/checkpoints/step-00000004"))

    def test_another_shape_of_model_is_refused(self):
        result = self.train_on("model.d_ff=48")
        self.assertRefused(result, 4, "d_ff" if "d_ff" in result.err else "shape")
        before = hashes(self.run)
        self.assertRefused(self.train_on("train.global_batch=16"), 2, "train.global_batch")
        self.assertEqual(hashes(self.run), before)

    def fill_the_disk(self, limit, *overrides):
        """A run for which, from its next step on, files longer than `limit` bytes cannot be written. It begins without,
        for MPI needs larger ones; Python ignores SIGXFSZ, and the run inherits that and sees EFBIG."""
        begin = len(self.metrics())
        arguments = ("train", "tiny.yaml", "--progress=none", "train.steps=1000000", "train.eval_every=0", *overrides)
        with self.start(*arguments, restore_signals=False) as job:
            job.wait_for(lambda: (self.run / "metrics.jsonl").read_bytes().count(b"\n") > begin)
            resource.prlimit(job.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
            return job.finish()

    def test_experts_from_a_dense_model(self):
        dense, sparse = ("moe.experts=0", "run.dir=dense"), ("run.dir=sparse", "router.capacity_factor=0", "optim.lr=0")
        self.finished(*dense)
        told = self.run_here("upcycle", "dense", "tiny.yaml", *sparse, "run.threads=1", "parallel.expert=2", ranks=2)
        self.assertDone(told)
        self.assertIn("step 6 of dense/checkpoints/step-00000006 is now step 0 of sparse", told.out)
        self.finished(*sparse)
        first = self.metrics("sparse")[0]
        again = self.finished(*dense, "train.steps=7", "optim.lr=0") and self.metrics("dense")[-1]
        self.assertEqual((first["step"], again["step"]), (1, 7))
        self.assertAlmostEqual(self.metrics("sparse")[-1]["val_loss"], again["val_loss"], delta=1e-5)

        refuse = lambda *arguments: self.run_here("upcycle", *arguments)
        self.assertRefused(refuse("dense", "tiny.yaml", *sparse), 2, "sparse/checkpoints", "another run.dir")
        self.assertRefused(refuse("nowhere", "tiny.yaml", "run.dir=other"), 4, "nowhere")
        self.assertRefused(refuse("dense", "tiny.yaml", "run.dir=other", "moe.experts=0"), 2, "wanted experts")
        self.assertRefused(refuse("sparse", "tiny.yaml", "run.dir=other"), 2, "has experts already")
        self.assertRefused(refuse("dense", "tiny.yaml", "run.dir=other", "model.n_layers=4"), 2, "model.n_layers is 2")
        self.assertFalse((self.folder / "other").exists())

    def test_a_full_disk_while_saving(self):
        self.assertRefused(self.fill_the_disk(65536, "checkpoint.every=100"), 4, "rank-00000.h5")
        for path in self.saved.glob("step-*"):
            self.assertDone(self.run_here("verify", path))
        self.assertEqual(list(self.saved.glob(".tmp-*")), [])
        step = int(self.latest().removeprefix("step-"))
        self.assertIn(f"at step {step}", self.finished(f"train.steps={step + 2}").out)

    def test_a_full_disk_while_logging(self):
        size = (self.run / "metrics.jsonl").stat().st_size
        self.assertRefused(self.fill_the_disk(size + 4000, "checkpoint.every=0"), 3, "metrics.jsonl")
        self.finished("train.steps=8")
        self.assertEqual([line["step"] for line in self.metrics()], list(range(1, 9)))


if __name__ == "__main__":
    main()
