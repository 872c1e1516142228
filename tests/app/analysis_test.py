#!/usr/bin/env python3
"""Which experts tokens go to, and what else routers would have decided: analyze, record and replay."""

import csv
import html.parser
import json
import shutil

from switchyard_run import Scenario, main


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Page(html.parser.HTMLParser):
    """Counts what a page shows, and refuses what would reach beyond it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "link", "img", "iframe"), tag
        assert not any(name in ("src", "href") for name, _ in attributes), attributes
        self.tags.append(tag)
        if tag not in ("meta", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag != "rect":
            assert self.open.pop() == tag, tag


class Analyze(Scenario):
    def setUp(self):
        super().setUp()
        (self.folder / "digits.txt").write_text("".join(f"{i * i} " for i in range(900)))
        self.assertDone(self.run_here("tokenize", "digits.txt", "--out", "digits"))

    def test_a_run(self):
        for suffix in ("bin", "idx", "json"):
            shutil.copy(self.folder / f"digits.{suffix}", self.folder / f"n=digits.{suffix}")
        self.finished("data.valid=[{path: tokens}, {path: n=digits}]")
        done = self.run_here("analyze", "run", "--tokens", "600")
        self.assertDone(done)
        self.assertRegex(done.out, r"block 1: an expert tells 0\.\d+ nats about the domain of its token, of at most 0\.69")
        folder = self.folder / "run/analysis"
        self.assertEqual({path.name for path in folder.iterdir()},
                         {"domains.csv", "classes.csv", "tokens.csv", "information.csv", "coactivation.csv", "analysis.html"})
        shares = {}
        for row in rows(folder / "domains.csv"):
            self.assertEqual(list(row), ["block", "domain", "expert", "share"])
            shares.setdefault((row["block"], row["domain"]), []).append(float(row["share"]))
        self.assertEqual(set(shares), {("1", "tokens"), ("1", "n=digits")})
        for of_experts in shares.values():
            self.assertEqual(len(of_experts), 4)
            self.assertAlmostEqual(sum(of_experts), 1, 4)
        self.assertEqual({row["class"] for row in rows(folder / "classes.csv")}, {"lower", "space", "digit"})
        told = {row["of"]: row for row in rows(folder / "information.csv")}
        self.assertEqual(set(told), {"domain", "class", "token", "domain given token"})
        for row in told.values():
            self.assertLessEqual(float(row["nats"]), float(row["bound"]) + 1e-6)
            self.assertEqual((row["shuffles"], row["choices"]), ("20", str(2 * 2 * 608)))  # whole sequences of 16
        self.assertGreater(float(told["domain"]["nats"]), float(told["domain"]["shuffled_max"]), "digits and letters")
        self.assertEqual(len(rows(folder / "coactivation.csv")), 4 * 3)
        page = Page((folder / "analysis.html").read_text())
        self.assertEqual(page.open, [])
        self.assertEqual(page.tags.count("svg"), 3)

        first = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.assertDone(self.run_here("analyze", f"run/checkpoints/{self.latest()}", "--tokens", "600"))
        self.assertEqual({path.name: path.read_bytes() for path in folder.iterdir()}, first)

    def test_named_domains_and_another_place(self):
        self.finished("checkpoint.every=6", ranks=2)
        shutil.move(self.folder / f"run/checkpoints/{self.latest()}", self.folder / "saved")
        named = ("--data", "letters=tokens", "--data", "digits", "--tokens", "64")
        self.assertRefused(self.run_here("analyze", "saved", *named), 2, "saved lies in no run", "--out")
        self.assertDone(self.run_here("analyze", "saved", *named, "--out", "told/here"))
        self.assertEqual({row["domain"] for row in rows(self.folder / "told/here/domains.csv")}, {"letters", "digits"})

    def test_every_router_tells_or_is_refused(self):
        for kind, extra in (("hash", ()), ("expert_choice", ("router.allow_future_tokens=true",)), ("switch", ())):
            self.finished(f"router.kind={kind}", "train.steps=1", "train.eval_every=0", f"run.dir={kind}", *extra)
            self.assertDone(self.run_here("analyze", kind, "--data", "tokens", "--data", "digits", "--tokens", "400"))
        taken = rows(self.folder / "expert_choice/analysis/information.csv")[0]["choices"]
        self.assertEqual(taken, str(2 * 800), "what experts take: two a token on average")
        told = {row["of"]: row for row in rows(self.folder / "hash/analysis/information.csv")}
        self.assertEqual(float(told["domain given token"]["nats"]), 0, "a hash sees the token alone")
        self.assertEqual(told["token"]["nats"], told["token"]["bound"])

        for overrides, words in ((("router.kind=soft",), ("every token goes to all 4 experts",)),
                                 (("moe.experts=0",), ("the model has no experts",))):
            self.finished("train.steps=1", "train.eval_every=0", "run.dir=refused", *overrides)
            self.assertRefused(self.run_here("analyze", "refused"), 2, *words)
            shutil.rmtree(self.folder / "refused")

    def test_mistakes(self):
        self.finished("train.steps=2", "data.valid=[]")
        self.assertRefused(self.run_here("analyze", "run"), 2, "data.valid is empty", "--data")
        self.assertRefused(self.run_here("analyze", "run", "--data", "a=tokens", "--data", "a=digits"), 2, "two sources are called a")
        self.assertRefused(self.run_here("analyze", "run", "--data", "nowhere"), 3, "nowhere")
        self.assertRefused(self.run_here("analyze", "nowhere", "--data", "tokens"), 4, "nowhere")
        self.assertRefused(self.run_here("analyze", "run", "--data", "tokens", ranks=2), 2, "one rank", "with -n 1")
        self.assertFalse((self.folder / "run/analysis").exists())


class Replay(Scenario):
    def replayed(self, *arguments):
        told = self.run_here("replay", *arguments, "--json")
        self.assertDone(told)
        return json.loads(told.out)

    def test_the_next_step_of_training_and_what_it_might_have_been(self):
        """Recorded on one rank and on two, from the checkpoint after step 2 of a run that went on."""
        self.finished("router.capacity_factor=1.0", "checkpoint.keep=5", ranks=2)
        third = self.metrics()[2]
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                out = f"decisions-{ranks}"
                done = self.run_here("record", "run/checkpoints/step-00000002", "--out", out, ranks=ranks)
                self.assertDone(done)
                self.assertIn("step 3", done.out)
                self.assertDone(self.run_here("verify", out))
                told = self.replayed(out, "--policy", "capacity_factor=0", "--policy", "top_k=1 renormalise=false")
                self.assertEqual((told["tokens"], told["steps"], told["step"]), (128, 1, 2))
                recorded, dropless, first = (policy["router"][0] for policy in told["policies"])
                self.assertEqual([policy["policy"] for policy in told["policies"]],
                                 ["as recorded", "capacity_factor=0", "top_k=1 renormalise=false"])
                self.assertEqual(recorded["layer"], 1)
                self.assertAlmostEqual(recorded["drop_fraction"], third["drop_fraction"], 6)
                self.assertEqual(dropless["drop_fraction"], 0)
                self.assertEqual(dropless["load"], recorded["load"])
                self.assertEqual((len(recorded["dropped"]), len(first["dropped"])), (2, 1))
        self.assertEqual(self.replayed("decisions-1"), self.replayed("decisions-2"))
        table = self.run_here("replay", "decisions-1", "--policy", "top_k=1 renormalise=false")
        self.assertDone(table)
        self.assertEqual([line.split("  ")[0] for line in table.out.splitlines()[3:]], ["as recorded", "top_k=1 renormalise=false"])

    def test_mistakes(self):
        self.finished("train.steps=1", "train.eval_every=0")
        self.assertDone(self.run_here("record", "run", "--steps", "2", "--data", "tokens"))
        self.assertEqual(self.replayed("run/decisions")["tokens"], 2 * 128)
        self.assertRefused(self.run_here("record", "run"), 2, "run/decisions is there already", "--out")
        self.assertRefused(self.run_here("record", "run", "--out", "x", ranks=3), 2, "3 ranks do not divide")
        self.assertRefused(self.run_here("replay", "run"), 4, "holds no routing decisions")
        self.assertRefused(self.run_here("replay", "nowhere"), 4, "nowhere")
        for policy, words in (("top_k=9", ("a token cannot go to 9 of 4 experts",)), ("topk=1", ("topk", "did you mean top_k?")),
                              ("bias=true", ("router.bias: the recorded router has none",)),
                              ("kind=swich", ("swich", "switch"))):  # fmt: skip
            self.assertRefused(self.run_here("replay", "run/decisions", "--policy", policy), 2, *words)
        self.finished("router.kind=hash", "train.steps=1", "train.eval_every=0", "run.dir=hash")
        self.assertRefused(self.run_here("record", "hash"), 2, "no logits")


if __name__ == "__main__":
    main()
