#!/usr/bin/env python3
"""Wrong command lines and configurations: one clear error, exit code 2, on any number of ranks."""

import json
import os
import resource

from switchyard_run import CONFIG, ROOT, Scenario, main

COMMANDS = (
    "train", "eval", "generate", "tokenize", "inspect", "verify", "bench", "layouts", "analyze", "record", "replay", "upcycle",
    "plan", "config",
)

# One override of the tiny configuration each, and words of the answer.
WRONG_VALUES = {
    "model.n_head=2": ("unknown key", "n_heads"),
    "n_heads=2": ("unknown key", "model"),
    "moe.lr=1": ("unknown key", "optim"),
    "mode.d_model=32": ("unknown key", "model"),
    "model.n_heads.x=2": ("model.n_heads",),
    "model=2": ("model", "section"),
    "train.steps=many": ("train.steps", "integer"),
    "train.steps=1.5": ("train.steps", "integer"),
    "train.steps=1e3": ("train.steps", "integer"),
    "train.steps=0x10": ("train.steps", "integer"),
    "train.steps='10'": ("train.steps", "integer"),
    "train.steps=": ("train.steps",),
    "train.steps=[1]": ("train.steps", "integer"),
    "train.steps=99999999999999999999": ("train.steps",),
    "model.tied_embeddings=yes": ("model.tied_embeddings", "true or false"),
    "optim.lr=fast": ("optim.lr", "number"),
    "optim.lr=nan": ("optim.lr",),
    "optim.lr=-1": ("optim.lr",),
    "optim.lr=.inf": ("optim.lr",),
    "optim.beta1=1": ("optim.beta1",),
    "run.seed=-1": ("run.seed",),
    "run.precision=fp16": ("run.precision", "fp32", "bf16"),
    "run.device=gpu": ("run.device", "cpu"),
    "run.dir=": ("run.dir",),
    "optim.schedule.kind=cosin": ("optim.schedule.kind", "cosine"),
    "model.activation=swish": ("model.activation", "swiglu"),
    "model.vocab_size=1": ("model.vocab_size",),
    "model.n_heads=3": ("model.n_heads", "d_model", "nearest"),
    "model.n_heads=16": ("model.d_model", "even"),
    "model.n_kv_heads=3": ("model.n_kv_heads",),
    "model.d_model=1048576 model.d_ff=16777216 moe.experts=65536": ("parameters", "at most"),
    "router.top_k=5": ("router.top_k", "4 experts"),
    "router.top_k=-1": ("router.top_k",),
    "router.top_k=1": ("router.renormalise", "Switch"),
    "moe.layers=[2]": ("moe.layers[0]", "0 to 1"),
    "moe.layers=[1,1]": ("moe.layers[1]", "twice"),
    "moe.layers=[a]": ("moe.layers[0]", "integer"),
    "moe.layers=[1": ("command line",),
    "router.group_size=3": ("router.group_size", "train.seq_len"),
    "router.capacity_factor=-1": ("router.capacity_factor",),
    "moe.experts=0 parallel.expert=2": ("dense", "parallel.expert"),
    "parallel.expert=3": ("parallel.expert", "4 experts"),
    "parallel.data=4 parallel.expert=3 moe.experts=6": ("parallel.expert", "4 data ranks"),
    "parallel.data=3": ("parallel.data", "3 data ranks", "6 or 9"),
    "train.micro_batch=3": ("train.micro_batch", "nearest"),
    "data.train=tokens": ("data.train", "list"),
    "data.train=[tokens]": ("data.train[0]", "path"),
    "data.train=[{weight: 1}]": ("data.train[0].path", "missing"),
    "data.train=[{path: tokens, weight: 0}]": ("data.train", "weight"),
    "data.train=[{path: ''}]": ("data.train[0].path", "empty"),
    "checkpoint.keep=0": ("checkpoint.keep",),
    "steps": ("section.key=value",),
    "train..steps=1": ("section.key=value",),
}

# Whole files, and words of the answer beside the file's name.
WRONG_FILES = {
    "empty": ("", "empty"),
    "only a comment": ("# nothing\n", "empty"),
    "a list": ("- run\n- model\n", ":1:1", "list"),
    "a word": ("hello\n", ":1:1", "hello"),
    "a tab": ("run:\n\tdir: x\n", ":2:"),
    "an open bracket": (CONFIG + "extra: [1, 2\n", ":9:1"),
    "a repeated section": (CONFIG + "moe: {top_k: 1}\n", ":8:1", "repeated", "line 3"),
    "a repeated key": ("run: {seed: 1, seed: 2}\n", ":1:16", "run.seed", "repeated"),
    "an unknown section": (CONFIG + "dropout: 0.1\n", ":8:1", "dropout", "unknown"),
    "an empty section": ("run:\n", "run", "nothing below it"),
    "two documents": (CONFIG + "---\n" + CONFIG, "document"),
    "binary": ("\0\1\2\xff" * 100, "wrong.yaml"),
    "endless nesting": ("[" * 100000, "wrong.yaml"),
    "an alias of itself": ("run: &a {dir: *a}\n", "wrong.yaml"),
}


class CommandLine(Scenario):
    def test_help(self):
        top = self.run_here("--help")
        self.assertDone(top)
        self.assertLessEqual(len(top.out.splitlines()), 12 + len(COMMANDS), "a line for each")
        self.assertLessEqual(max(len(line) for line in top.out.splitlines()), 120)
        for command in COMMANDS:
            self.assertIn(command, top.out)
            answer = self.run_here(command, "--help")
            self.assertDone(answer)
            self.assertLessEqual(len(answer.out.splitlines()), 24)
        self.assertDone(self.run_here("--version"))

    def test_wrong_usage(self):
        for arguments, *words in (([],), (["trian", "tiny.yaml"], "trian"), (["train"], "config"),
                                  (["train", "--steps=3", "tiny.yaml"], "--steps"), (["generate"], "checkpoint"),
                                  (["tokenize", "text.txt"], "--out"),
                                  (["inspect", "tiny.yaml", "--ranks", "0"], "--ranks"),
                                  (["generate", "run", "--temperature", "hot"], "--temperature")):
            with self.subTest(arguments):
                self.assertRefused(self.run_here(*arguments), 2, *words)

    def test_two_ranks_speak_once_of_wrong_usage(self):
        self.assertRefused(self.run_here("trian", "tiny.yaml", ranks=2), 2, "trian")


class Configurations(Scenario):
    def test_wrong_values(self):
        for overrides, words in WRONG_VALUES.items():
            with self.subTest(overrides):
                arguments = overrides.split(" ") if "{" not in overrides else [overrides]
                self.assertRefused(self.run_here("config", "tiny.yaml", *arguments), 2, *words)

    def test_wrong_files(self):
        path = self.folder / "wrong.yaml"
        for name, (text, *words) in WRONG_FILES.items():
            with self.subTest(name):
                path.write_bytes(text.encode("latin-1"))
                self.assertRefused(self.run_here("config", "wrong.yaml"), 2, "wrong.yaml", *words)

    def test_unreadable_files(self):
        self.assertRefused(self.run_here("config", "nowhere.yaml"), 2, "nowhere.yaml: No such file or directory")
        self.assertRefused(self.run_here("config", "."), 2, "cannot read", "Is a directory")
        if os.geteuid() != 0:
            (self.folder / "tiny.yaml").chmod(0)
            self.assertRefused(self.run_here("config", "tiny.yaml"), 2, "cannot read", "Permission denied")

    def test_every_mistake_is_told_at_once(self):
        text = CONFIG.replace("n_heads: 2", "n_head: 2").replace("steps: 6", "steps: six")
        (self.folder / "tiny.yaml").write_text(text)
        answer = self.run_here("config", "tiny.yaml", "optim.lr=-1")
        self.assertRefused(answer, 2, "tiny.yaml:2:35: model.n_head", "tiny.yaml:5:16: train.steps", "optim.lr=-1")
        self.assertEqual(len(answer.err.splitlines()), 3)

    def test_train_refuses_alike_and_leaves_nothing(self):
        before = sorted(os.listdir(self.folder))
        for ranks, override, *words in ((None, "model.n_head=2", "n_heads"),
                                        (None, "parallel.data=2", "wanted 2 ranks", "has 1"),
                                        (None, "data.train=[]", "data.train"),
                                        (None, "run.device=cuda", "CUDA", "cpu"),
                                        (2, "model.n_head=2", "n_heads"),
                                        (2, "parallel.expert=4", "parallel.expert", "run's 2"),
                                        (3, "train.steps=6", "train.global_batch", "3 data ranks")):
            with self.subTest(f"{override} on {ranks} ranks"):
                answer = self.train(override, ranks=ranks)
                self.assertRefused(answer, 2, *words)
        self.assertEqual(sorted(os.listdir(self.folder)), before)

    def test_two_ranks_refuse_a_missing_file_once(self):
        self.assertRefused(self.run_here("train", "nowhere.yaml", ranks=2), 2, "nowhere.yaml")

    def test_a_run_directory_that_cannot_be(self):
        (self.folder / "file").write_text("")
        self.assertRefused(self.train("run.dir=file/run"), 2, "file/run")
        self.assertRefused(self.train("run.dir=file/run", ranks=2), 2, "file/run")

    def test_what_config_prints_is_a_configuration(self):
        first = self.run_here("config", "tiny.yaml", "optim.lr=1e-4")
        self.assertDone(first)
        (self.folder / "again.yaml").write_text(first.out)
        second = self.run_here("config", "again.yaml")
        self.assertDone(second)
        self.assertEqual(first.out, second.out)
        (self.folder / "defaults.yaml").write_text(self.run_here("config").out)
        self.assertDone(self.run_here("config", "defaults.yaml"))

    def test_schema_and_reference(self):
        schema = json.loads(self.run_here("config", "--schema").out)
        self.assertIn("moe", schema["properties"])
        self.assertIn("router.top_k", self.run_here("config", "--reference").out)

    def test_inspect_takes_as_few_ranks_as_the_layout_allows(self):
        for ranks, *overrides in ((1,), (4, "parallel.data=4"), (4, "parallel.expert=4", "parallel.tensor=2"),
                                  (8, "parallel.pipeline=2", "parallel.data=2", "parallel.tensor=2")):
            with self.subTest(overrides):
                told = self.run_here("inspect", "tiny.yaml", *overrides, "--json")
                self.assertDone(told)
                self.assertEqual(json.loads(told.out)["ranks"], ranks)

    def test_the_configurations_that_come_along(self):
        for path in sorted((ROOT / "configs").glob("*.yaml")):
            with self.subTest(path.name):
                self.assertDone(self.run_here("config", path))
                plan = self.run_here("inspect", path, "--ranks", "2", "--json")
                self.assertDone(plan)
                plan = json.loads(plan.out)
                parameters = plan["parameters"]
                self.assertLessEqual(parameters["experts"], parameters["total"])
                self.assertLessEqual(parameters["active"], parameters["total"])
                self.assertGreater(sum(plan["memory_bytes_per_rank"].values()), 0)


class Memory(Scenario):
    def test_what_takes_less_is_told_where_there_is_none(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

        told = self.train("model.vocab_size=16000000", "model.d_model=4096", preexec_fn=limit)
        self.assertRefused(told, 6, "no memory", "train.micro_batch", "train.recompute", "parallel.shard_optimizer", "plan")

    def test_the_account_is_told_at_the_start_and_at_its_peak(self):
        lines = self.finished(ranks=2).out.splitlines()
        self.assertTrue(lines[0].startswith("2 ranks on "), lines)
        self.assertEqual([line.startswith("memory, MiB") for line in lines].count(True), 2)
        planned, start, peak = ([float(number) for number in line.split()[-7:]] for line in lines
                                if line.startswith("a rank, as planned") or ", at " in line and line.startswith("rank "))
        parameters, gradients, optimizer = 0, 1, 2
        self.assertEqual(start[gradients], 0)
        for kind in (parameters, gradients, optimizer):  # of some tenths of a MiB, to a tenth
            self.assertAlmostEqual(peak[kind], planned[kind], delta=0.11)
        self.assertEqual(self.train("--progress", "none").out, "")


if __name__ == "__main__":
    main()
