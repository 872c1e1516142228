#!/usr/bin/env python3
"""launch/report.py, on runs written here: the statistics, and the page. Run it as it is."""

import contextlib
import csv
import html.parser
import io
import json
import math
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

sys.dont_write_bytecode = True
LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch"
sys.path.insert(0, str(LAUNCH))

import report
from experiments import chart, heat
from experiments.curves import Point, reach
from experiments.inference import f_upper, holm, incomplete_beta, power_law, t_quantile, t_two_sided, welch
from experiments.plan import load_plan
from experiments.results import collect

EXPONENT, FIRST = 0.04, 1.60  # of the planted law: loss after the last step = FIRST experts^-EXPONENT
TOKENS, FLOPS = 4096, 7e6
DOMAINS = ("austen", "kernel")
LAYERS = (1, 3)  # the blocks with experts
# arm, family, axes, experts, steps, seeds
ARMS = [("dense", "dense", {}, 0, 100)]
ARMS += [(f"top1-{e}", "top1", {"moe.experts": str(e)}, e, 100) for e in (2, 4, 8, 16, 32)]
ARMS += [("top2", "top2", {}, 8, 75)]
FINAL = {"dense": FIRST, "top2": FIRST * 8**-EXPONENT} | {f"top1-{e}": FIRST * e**-EXPONENT for e in (2, 4, 8, 16, 32)}


def write_run(folder, name, experts, steps, final, last=None, code=0, every=5, seconds=0.1, read_every=10, alarms=()):
    """A run whose held-out loss falls as final + 2 exp(-step / 15), every step in so many seconds. `alarms` are (step,
    layer, watch, limit, action)."""
    noise = random.Random(str(folder))
    folder.mkdir(parents=True)
    lines = []
    for step in range(1, (last or steps) + 1):
        loss = final + 2 * math.exp(-step / 15)
        m = {"step": step, "tokens": step * TOKENS, "loss": loss + noise.gauss(0, 0.02), "balance_loss": 1.05, "z_loss": 1.0,
             "tokens_per_second": TOKENS / seconds, "drop_fraction": 0.05 + 0.3 * math.exp(-step / 12) if experts else 0,
             "router_entropy": math.log(experts) * (0.4 + 0.6 * math.exp(-step / 22)) if experts else 0,
             "expert_load": [[0.95 * (1 + 0.4 * math.sin(e + block)) / experts for e in range(experts)] for block in range(2)]
             if experts else []}  # fmt: skip
        if step % every == 0 or step == steps:
            m["val_loss"] = final + 2 * (math.exp(-step / 15) - math.exp(-steps / 15))
        if experts and read_every and step % read_every == 0:
            m["router"] = [{"layer": layer, "load": [1.0] * experts} for layer in LAYERS]
        fired = [{"layer": layer, "watch": watch, "value": 0.9, "limit": limit, "readings": 3, "action": action}
                 for at, layer, watch, limit, action in alarms if at == step]  # fmt: skip
        lines.append(json.dumps({**m, "alarms": fired} if fired else m))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    begin = "2026-11-22T10:00:00.000000+00:00"
    attempt = {"begin": begin, "seconds": steps * 0.1, "code": code, "command": "launch/local.sh plan.yaml", "host": "node",
               "commit": "0123456789ab", "program": "0.1.0"}  # fmt: skip
    (folder / "attempts.jsonl").write_text(json.dumps(attempt) + "\n")
    (folder / "plan.yaml").write_text(f"health: {{every: {read_every}, alarms: [{{watch: load_max, readings: 5}}, {{watch: evenness, readings: 3}}]}}\n")
    errors = {0: "", 5: "error: step 30: the loss is not finite: <nan>\n", 76: "error: an alarm stopped the run at step 30\n"}
    error = errors.get(code, "error: no memory left\n")
    (folder / "log.txt").write_text(f"# {begin}  launch/local.sh plan.yaml\n{error}# ended with exit code {code} after 10.0 s\n")
    if not last:
        (folder / "domains.json").write_text(json.dumps({domain: final + 0.1 * i for i, domain in enumerate(DOMAINS)}))


def write_experiment(folder, seeds=(1, 2, 3), spread=0.004):
    """All arms on all seeds; the first seeds lie `spread` above, on and below the planted final loss."""
    folder.mkdir(parents=True, exist_ok=True)
    arms = []
    for name, family, axes, experts, steps in ARMS:
        per_token = FLOPS * 100 / steps
        sizes = {"parameters": 10**6 * (1 + experts), "active_parameters": 10**6, "flops_per_token": per_token,
                 "tokens_per_step": TOKENS, "steps": steps}  # fmt: skip
        label = {"dense": "dense", "top1": f"top-1, {experts} experts", "top2": "top-2, 8 experts"}[family]
        arms.append({"name": name, "label": label, "family": family, "axes": axes, "values": {}, "adjusted": {}, "ratio": 1.0, "sizes": sizes})
        for i, seed in enumerate(seeds):
            write_run(folder / name / f"seed-{seed}", name, experts, steps, FINAL[name] + spread * (1 - i))
    plan = {"name": "planted", "title": "A <planted> experiment", "commit": "0123456789ab", "version": "0.1.0", "file": "planted.yaml", "command": "launch/experiment.py planted.yaml",
            "base": "base.yaml", "equal": "flops", "adjust": "train.steps", "multiple": 1, "reference": "dense", "vocab_size": 258,
            "held_out": [f"data/{domain}" for domain in DOMAINS], "seeds": list(seeds), "compare": [["top1-8", "top2"]], "arms": arms}  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))


def replace_run(folder, arm, seed, **options):
    shutil.rmtree(folder / arm / f"seed-{seed}")
    steps, experts = next((a[4], a[3]) for a in ARMS if a[0] == arm)
    write_run(folder / arm / f"seed-{seed}", arm, experts, steps, **{"final": FINAL[arm], **options})


class Numbers(unittest.TestCase):
    """Against values worked out by hand, or printed in statistical tables."""

    def test_the_t_and_f_tables(self):
        for df, t in ((1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (30, 2.042)):
            self.assertAlmostEqual(t_quantile(df), t, delta=5e-4)
            self.assertAlmostEqual(t_two_sided(t, df), 0.05, delta=1e-4)  # the table has three digits
        # With 2 degrees of freedom, P(|T| > t) = 1 - t / sqrt(t^2 + 2).
        for t in (0.1, 1.0, 7.5):
            self.assertAlmostEqual(t_two_sided(t, 2), 1 - t / math.sqrt(t * t + 2), delta=1e-14)
        for df1, df2, f in ((1, 4, 7.709), (2, 9, 4.256), (3, 10, 3.708), (5, 20, 2.711)):
            self.assertAlmostEqual(f_upper(f, df1, df2), 0.05, delta=1e-4)

    def test_the_incomplete_beta_function(self):
        self.assertEqual((incomplete_beta(0, 2, 3), incomplete_beta(1, 2, 3)), (0, 1))
        for x in (0.05, 0.3, 0.7, 0.99):  # I_x(2, 2) = 3x^2 - 2x^3
            self.assertAlmostEqual(incomplete_beta(x, 2, 2), 3 * x**2 - 2 * x**3, delta=1e-14)

    def test_welch_by_hand(self):
        """a = 1 2 3: mean 2, variance 1. b = 2 4 7: mean 13/3, variance 19/3. Error^2 = (1 + 19/3) / 3 = 22/9;
        df = (22/9)^2 / ((1/3)^2 / 2 + (19/9)^2 / 2) = 968/370."""
        d = welch([1, 2, 3], [2, 4, 7])
        self.assertAlmostEqual(d.mean, -7 / 3)
        self.assertAlmostEqual(d.df, 968 / 370)
        self.assertAlmostEqual(d.p, t_two_sided(7 / 3 / math.sqrt(22 / 9), 968 / 370))
        self.assertAlmostEqual((d.low + d.high) / 2, d.mean)
        self.assertLess(d.low, 0)
        self.assertGreater(d.high, 0)
        self.assertEqual(d.n, (3, 3))
        self.assertIsNone(welch([1], [2, 3]))
        self.assertEqual(welch([1, 1], [2, 2]).p, 0)
        self.assertEqual(welch([1, 1], [1, 1]).p, 1)

    def test_holm_by_hand(self):
        self.assertEqual(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
        self.assertEqual(holm([0.9, 0.8]), [1.0, 1.0])
        self.assertEqual(holm([]), [])

    def test_a_planted_power_law_is_found(self):
        noise = random.Random(3)
        law = lambda e: 1.7 * e**-0.05
        exact = power_law({e: [law(e)] for e in (2.0, 4.0, 8.0, 16.0)})
        self.assertAlmostEqual(exact.exponent, 0.05)
        self.assertAlmostEqual(exact.scale, 1.7)
        noisy = power_law({e: [law(e) * math.exp(noise.gauss(0, 0.002)) for _ in range(3)] for e in (2.0, 4.0, 8.0, 16.0, 32.0)})
        self.assertTrue(noisy.low < 0.05 < noisy.high, noisy)
        self.assertLess(noisy.high - noisy.low, 0.01)
        self.assertEqual(noisy.objection, "")
        low, high = noisy.band(8.0)
        self.assertTrue(low < law(8.0) < high and high - low < 0.01, (low, high))

    def test_the_slope_s_error_by_hand(self):
        """log y = 0, 1, 1 at log x = 0, 1, 2: slope 1/2, residuals -1/6, 1/3, -1/6, so s^2 = 1/6 with 1 degree of freedom."""
        law = power_law({math.exp(x): [math.exp(y)] for x, y in ((0, 0), (1, 1), (2, 1))})
        self.assertAlmostEqual(law.exponent, -0.5)
        self.assertAlmostEqual(law.error, math.sqrt(1 / 6 / 2))
        self.assertAlmostEqual(law.r2, 0.75)
        self.assertIn("includes 0", law.objection)

    def test_a_fit_that_means_nothing_is_said_to(self):
        self.assertIsNone(power_law({2.0: [1, 1.1], 4.0: [1, 1.1]}))
        flat = power_law({e: [1.5 + 0.01 * d for d in (-1, 0, 1)] for e in (2.0, 4.0, 8.0)})
        self.assertIn("includes 0", flat.objection)
        bent = power_law({e: [y + 0.001 * d for d in (-1, 0, 1)] for e, y in ((2.0, 2.0), (4.0, 1.5), (8.0, 1.45), (16.0, 1.44))})
        self.assertIn("bend", bent.objection)
        self.assertLess(bent.misfit_p, 0.05)

    def test_where_a_curve_reaches_a_loss_for_good(self):
        points = [Point(s, 10 * s, 100 * s, s / 2, loss) for s, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 1.2), (5, 1.0))]
        self.assertEqual(reach(points, 1.6), Point(3.5, 35, 350, 1.75, 1.6))  # not at 1.7, which it leaves again
        self.assertEqual(reach(points, 1.0).step, 5)
        self.assertEqual(reach(points, 4.0).step, 1)
        self.assertIsNone(reach(points, 0.9))
        self.assertIsNone(reach([*points, Point(6, 60, 600, 3, math.nan)], 1.6))
        self.assertIsNone(reach([], 1.0))


class Drawing(unittest.TestCase):
    def test_round_ticks(self):
        self.assertEqual(chart.round_ticks(0.3, 5.2, 5), [1, 2, 3, 4, 5])
        self.assertEqual([round(t, 9) for t in chart.round_ticks(1.61, 1.74, 4)], [1.65, 1.7])
        self.assertEqual(chart.round_ticks(-1, 1, 4), [-1, -0.5, 0, 0.5, 1])
        self.assertEqual([chart.number(x) for x in (0, 0.05, 1200, 30000, 3e12, 2e-5)], ["0", "0.05", "1200", "30,000", "3×10¹²", "2×10⁻⁵"])

    def test_a_value_s_place(self):
        c = chart.Chart("t", chart.Axis("x", "log2", low=1.0, high=16.0), chart.Axis("y", low=0.0, high=2.0))
        c.line([1, 4, 16], [0, 1, 2], chart.Style("#000"))
        points = re.search(r'polyline points="([^"]*)"', c.svg())[1].split()
        (x0, y0), (x1, y1), (x2, y2) = (map(float, p.split(",")) for p in points)
        self.assertAlmostEqual(y1, (y0 + y2) / 2)
        self.assertGreater(y0, y2)  # SVG counts down
        self.assertAlmostEqual(x1, (x0 + x2) / 2, delta=0.2)

    def test_names_in_the_legend_keep_apart(self):
        c = chart.Chart("t", chart.Axis("x"), chart.Axis("y", low=0.0, high=100.0))
        for i in range(8):
            c.line([0, 1], [5, 1 + 0.1 * i], chart.Style("#000"), f"name {i}")
        places = sorted(float(y) for y in re.findall(r'y="([0-9.]+)"[^>]*>name', c.svg()))
        self.assertEqual(len(places), 8)
        self.assertTrue(all(b - a >= 15.9 for a, b in zip(places, places[1:])), places)

    def test_heat_runs_from_white_to_dark(self):
        light = [sum(int(heat.colour(v)[i : i + 2], 16) for i in (1, 3, 5)) for v in (0, 0.3, 0.9, 1.4, 2, 9)]
        self.assertEqual(light, sorted(light, reverse=True))
        self.assertEqual((heat.colour(0), heat.colour(2)), ("#ffffff", heat.colour(50)))


class Page(html.parser.HTMLParser):
    """What is on the page; complains of tags that are not closed in order."""

    VOID = {"meta", "link", "img", "br", "hr", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words, self.ids = [], [], [], [], []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> in {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        self.words.append(data)

    def text(self):
        return " ".join(" ".join(self.words).split())


class Report(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.home = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.home)
        write_experiment(cls.home / "whole")

    def setUp(self):
        self.folder = self.home / "planted"
        shutil.copytree(self.home / "whole", self.folder)
        self.addCleanup(shutil.rmtree, self.folder)

    def report(self):
        with unittest.mock.patch("sys.argv", ["report.py", str(self.folder)]), contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(report.main(), 0)
        text = (self.folder / "report.html").read_text()
        self.assertNotIn("nan", text.split("</style>")[1].replace("<nan>", "").replace("&lt;nan&gt;", "").lower())
        return Page(text)

    def rows(self):
        with open(self.folder / "report.csv", newline="") as file:
            return list(csv.DictReader(file))

    def test_every_figure_is_there_and_says_what_it_shows(self):
        page = self.report()
        self.assertEqual(page.ids, ["final", "curves", "training", "speedup", "experts", "health", "load"])
        self.assertEqual(page.tags.count("svg"), 1 + 4 + 1 + 3 + 1 + 2 + 1)
        for words in ("optimizer steps", "model FLOPs, forward and backward", "tokens trained on", "seconds of training steps",
                      "held-out loss, nats a token", "experts of a block", "choices dropped, % of all",
                      "mean entropy, share of ln(experts)", "share of choices, in equal shares", "MoE block", "expert"):  # fmt: skip
            self.assertIn(words, page.text())
        self.assertIn("A <planted> experiment", page.text())
        self.assertGreaterEqual(page.text().count("top-1, 32 experts"), 10)  # legends, rows and tables

    def test_nothing_comes_from_elsewhere(self):
        self.report()
        text = (self.folder / "report.html").read_text()
        rest = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
        for sign in ("http", "//", "<script", "<link", "<img", "<iframe", "@import", "url(", "src=", "href="):
            self.assertNotIn(sign, rest)

    def test_the_planted_numbers_are_told(self):
        results = collect(load_plan(self.folder))
        points, law = results.laws["top1"]
        self.assertAlmostEqual(law.exponent, EXPONENT, delta=3 * law.error)
        self.assertEqual(law.objection, "")
        self.assertEqual(sorted(points), [2, 4, 8, 16, 32])
        # dense ends at FIRST; an arm that ends at F is there when 2 exp(-s/15) - 2 exp(-steps/15) = FIRST - F.
        for arm in results.arms[1:]:
            steps, final = arm.arm.sizes.steps, FINAL[arm.arm.name]
            exact = -15 * math.log((FIRST - final) / 2 + math.exp(-steps / 15))
            self.assertAlmostEqual(sum(arm.speedup.took["step"]) / 3, exact, delta=1, msg=arm.arm.name)  # straight lines over 5 steps
            self.assertAlmostEqual(arm.speedup.ratios["step"][1], 100 / exact, delta=0.05)
            self.assertAlmostEqual(arm.speedup.ratios["flops"][1], steps / exact, delta=0.05)
            self.assertAlmostEqual(arm.speedup.ratios["seconds"][1], 100 / exact, delta=0.05)
        said = self.report().text()
        self.assertIn("6 of 6 arms end below dense by more than the seeds explain", said)
        self.assertIn("top-1, 8 experts and top-2, 8 experts are not distinguishable", said)
        self.assertIn("top-1, 32 experts reaches dense's final loss in all 3 runs", said)
        self.assertIn("n = 3 and 3", said)

    def test_an_arm_that_takes_longer_is_told_to(self):
        for seed in (1, 2, 3):
            replace_run(self.folder, "top2", seed, seconds=0.4)
        said = self.report().text()
        steps = 15 * -math.log((FIRST - FINAL["top2"]) / 2 + math.exp(-75 / 15))  # as above: about 45
        self.assertIn(f"dense's whole run takes {100 / steps:.1f}", said)
        self.assertIn(f"times those FLOPs and {100 * 0.1 / (steps * 0.4):.2f} ± 0.00 times that time.", said)
        self.assertNotRegex(said, "times (fewer|less)")

    def test_runs_that_never_reach_the_loss_are_in_no_speed_up(self):
        replace_run(self.folder, "top1-2", 2, final=FIRST + 0.05)
        said = self.report().text()
        self.assertIn("top-1, 2 experts reaches dense's final loss in 2 of 3 runs; over the 2 of 3 runs that reached it, after", said)
        self.assertIn("Runs that never reached it are in no mean; of these arms not all did: top-1, 2 experts (2 of 3).", said)
        for seed in (1, 2, 3):
            replace_run(self.folder, "top1-2", seed, final=FIRST + 0.05)
        said = self.report().text()
        self.assertIn("top-1, 2 experts does not reach dense's final loss in any of 3 runs.", said)
        self.assertIn("of these arms not all did: top-1, 2 experts (0 of 3).", said)

    def test_differences_within_the_seeds_spread_are_not_called_any(self):
        shutil.rmtree(self.folder)
        write_experiment(self.folder, spread=0.2)
        said = self.report().text()
        self.assertIn("0 of 6 arms end below dense by more than the seeds explain, 0 above, and 6 cannot be told from it", said)
        self.assertIn("This fit is not meaningful: the 95 % interval of its exponent includes 0", said)

    def test_a_law_that_rises_is_not_told_as_a_gain(self):
        for e in (2, 4, 8, 16, 32):
            for i, seed in enumerate((1, 2, 3)):
                replace_run(self.folder, f"top1-{e}", seed, final=FIRST * e**EXPONENT + 0.004 * (1 - i))
        said = self.report().text()
        self.assertRegex(said, r"loss = 1\.\d+ · experts to the power \+0\.0\d+")
        self.assertRegex(said, r"each doubling of the experts adds 2\.8\d % to the loss")
        self.assertIn("1 of 6 arms end below dense by more than the seeds explain, 5 above", said)

    def test_an_axis_that_begins_with_no_experts(self):
        plan = json.loads((self.folder / "plan.json").read_text())
        plan["arms"][0] |= {"family": "top1", "axes": {"moe.experts": "0"}}
        (self.folder / "plan.json").write_text(json.dumps(plan))
        self.assertIn("experts", self.report().ids)
        points, law = collect(load_plan(self.folder)).laws["top1"]
        self.assertEqual(sorted(points), [2, 4, 8, 16, 32])
        self.assertAlmostEqual(law.exponent, EXPONENT, delta=3 * law.error)

    def test_an_evaluation_midway_that_is_not_finite(self):
        path = self.folder / "top1-4" / "seed-2" / "metrics.jsonl"
        lines = path.read_text().splitlines()
        lines[39] = json.dumps({**json.loads(lines[39]), "val_loss": None})
        path.write_text("\n".join(lines) + "\n")
        self.assertIn("curves", self.report().ids)

    def test_failed_diverged_and_missing_runs_are_named(self):
        replace_run(self.folder, "top1-8", 2, last=30, code=5)
        replace_run(self.folder, "top1-16", 1, last=8, code=6)
        replace_run(self.folder, "dense", 3, final=7.0)
        shutil.rmtree(self.folder / "top2" / "seed-3")
        page = self.report()
        said = page.text()
        self.assertIn("top1-8, seed 2 diverged and is in no mean: exit code 5: step 30: the loss is not finite: <nan>", said)
        self.assertIn("top1-16, seed 1 failed and is in no mean: exit code 6: no memory left", said)
        self.assertIn("dense, seed 3 diverged and is in no mean: its held-out loss, 7, is above ln 258 = 5.55", said)
        self.assertIn("1 of 21 runs are not at their end and in no mean: top2, seed 3", said)
        states = [(row["arm"], row["seed"], row["state"]) for row in self.rows() if row["state"] != "done"]
        self.assertEqual(states, [("dense", "3", "diverged"), ("top1-8", "2", "diverged"), ("top1-16", "1", "failed"), ("top2", "3", "waiting")])
        self.assertEqual(page.text().count("2 of 3"), 4)
        results = collect(load_plan(self.folder))
        self.assertAlmostEqual(results.reference.final()[0], FIRST + 0.002)  # of seeds 1 and 2

    def test_alarms_of_every_run_are_told(self):
        routed = (5 * 3 * 10 + 3 * 7, 18)  # every tenth of 100 steps, or of 75
        self.assertIn(f"No alarm fired in {routed[0]} readings of {routed[1]} runs.", self.report().text())
        drops = [(step, 1, "drop_fraction", "above 0.6", "log") for step in (50, 80)]
        replace_run(self.folder, "top1-32", 2, alarms=[*drops, (80, 3, "evenness", "below 0.25", "raise_balance")])
        replace_run(self.folder, "top1-16", 1, last=30, code=76, alarms=[(30, 3, "load_max", "above 4.0 or below 0.5", "stop")])
        said = self.report().text()
        self.assertIn("Alarms: top1-16, seed 1: load_max above 4.0 or below 0.5 in block 3, first at step 30, 1 time; top1-32, seed 2: "
                      "drop_fraction above 0.6 in block 1, first at step 50, 2 times; top1-32, seed 2: evenness below 0.25 in block 3, "
                      "first at step 80, 1 time.", said)  # fmt: skip
        self.assertIn("An alarm raised the coefficients of its router's losses (raise_balance) in top1-32, seed 2: from there on such a run "
                      "trained on another loss", said)  # fmt: skip
        self.assertIn("top1-16, seed 1 was stopped by an alarm and is in no mean: exit code 76: an alarm stopped the run at step 30", said)
        self.assertNotIn("No alarm", said)
        told = {(row["arm"], row["seed"]): (row["state"], row["router_readings"], row["alarms"]) for row in self.rows()}
        self.assertEqual(told["top1-32", "2"], ("done", "10", "3"))
        self.assertEqual(told["top1-16", "1"], ("stopped", "3", "1"))
        self.assertEqual(told["dense", "1"], ("done", "0", "0"))

    def test_alarms_that_could_not_have_fired(self):
        for seed, every in ((1, 0), (2, 40), (3, 33)):  # no reading, two and three
            replace_run(self.folder, "top1-8", seed, read_every=every)
        said = self.report().text()
        self.assertIn(f"No alarm fired in {4 * 3 * 10 + 3 * 7 + 3} readings of 16 runs.", said)
        self.assertIn("No alarm could have fired in 2 of 18 runs with experts, which have no alarm, or fewer readings than one wants: "
                      "top1-8, seed 1; top1-8, seed 2.", said)  # fmt: skip

    def test_a_report_midway(self):
        for name, *_ in ARMS:
            for seed in (1, 2, 3):
                if (name, seed) != ("top2", 1):
                    shutil.rmtree(self.folder / name / f"seed-{seed}")
        said = self.report().text()
        self.assertIn("top-2, 8 experts and dense cannot be compared: a test takes two good runs of each, and there are 1 and 0.", said)
        self.assertIn("At equal training FLOPs, no arm could be tested, which takes two good runs of it and of dense: dense has 0 of 3, "
                      "top-1, 2 experts has 0 of 3", said)  # fmt: skip
        self.assertNotIn("cannot be told from it", said)
        shutil.rmtree(self.folder / "top2")
        self.assertIn("No run has come to its end", self.report().text())

    def test_arms_that_were_not_tested_are_not_called_alike(self):
        for seed in (1, 2):
            replace_run(self.folder, "top1-8", seed, last=30, code=6)
        said = self.report().text()
        self.assertIn("5 of 6 arms end below dense by more than the seeds explain, 0 above, and 0 cannot be told from it. 1 arm could not be "
                      "tested, which takes two good runs of it and of dense: top-1, 8 experts has 1 of 3.", said)  # fmt: skip
        self.assertIn("top-1, 8 experts reaches dense's final loss in its one run", said)

    def test_nothing_but_runs_that_ended_badly(self):
        for name, *_ in ARMS:
            for seed in (1, 2, 3):
                replace_run(self.folder, name, seed, last=30, code=5 if name == "dense" else 6)
        self.assertIn("No run of 21 has come to a good end (3 diverged, 18 failed)", self.report().text())

    def test_a_reference_without_a_good_run(self):
        for seed in (1, 2, 3):
            replace_run(self.folder, "dense", seed, last=30, code=6)
        said = self.report().text()
        self.assertIn("no arm could be tested, which takes two good runs of it and of dense: dense has 0 of 3. The lowest", said)
        self.assertNotIn("no good run to compare", said)

    def test_the_csv_has_every_run_in_full(self):
        self.report()
        rows = self.rows()
        self.assertEqual(len(rows), 21)
        row = next(row for row in rows if (row["arm"], row["seed"]) == ("top1-4", "2"))
        self.assertEqual((row["steps"], row["tokens"], row["state"], row["commit"]), ("100", str(100 * TOKENS), "done", "0123456789ab"))
        self.assertAlmostEqual(float(row["held_out_loss"]), FINAL["top1-4"])
        self.assertAlmostEqual(float(row["seconds"]), 10, delta=0.1)
        self.assertAlmostEqual(float(row["flops"]), FLOPS * 100 * TOKENS)
        self.assertAlmostEqual(float(row["held_out_loss_kernel"]), FINAL["top1-4"] + 0.1)

    def load_map(self):
        """The words of the map of loads, by group."""
        self.report()
        figure = (self.folder / "report.html").read_text().split('<figure id="load">')[1].split("</figure>")[0]
        return re.findall(r">([^<]+)</text>", figure)

    def test_loads_are_of_the_model_s_blocks_and_of_a_run_that_is_named(self):
        words = self.load_map()
        at = words.index("top-1, 8 experts, seed 1")
        self.assertEqual([word for word in words[at:] if "block" in word][:3], ["MoE block", "block 1", "block 3"])
        replace_run(self.folder, "top1-8", 1, last=30, code=6)
        replace_run(self.folder, "top1-8", 2, read_every=0)
        words = self.load_map()
        at = words.index("top-1, 8 experts, seed 2")
        rows = [word for word in words[at:] if "block" in word][:3]
        self.assertEqual(rows, ["MoE block", "MoE block 1 of 2", "MoE block 2 of 2"])

    def test_a_long_name_of_a_row_has_room(self):
        svg = heat.heat_map("t", [("g", [("a name of very many letters " * 3, [1.0, 1.0])])], "shares", "domain")
        x = float(re.search(r'<text x="([0-9.]+)"[^>]*text-anchor="end"[^>]*>a name', svg)[1])
        self.assertGreater(x, 84 * 5.5)  # letters of 11 px, about half as wide

    def test_experts_by_domain_where_they_were_analysed(self):
        folder = self.folder / "top1-2" / "seed-3" / "analysis"
        folder.mkdir()
        (folder / "domains.csv").write_text("block,domain,expert,share\n1,austen,0,0.9\n1,austen,1,0.1\n1,kernel,0,0.2\n1,kernel,1,0.8\n")
        page = self.report()
        self.assertIn("domains", page.ids)
        self.assertIn("Experts by domain: top-1, 2 experts, seed 3", page.text())
        self.assertIn("1.80", page.text())
        self.assertNotIn("tells about its token", page.text())

    def analysed(self, arm, seed, *nats):
        """Leaves what was told about the domain in each block, beside 0.02 nats in the largest of ten shuffles."""
        folder = self.folder / arm / f"seed-{seed}" / "analysis"
        folder.mkdir()
        lines = ["block,of,nats,bound,shuffled_mean,shuffled_sd,shuffled_max,shuffles,choices"]
        for block, value in enumerate(nats):
            lines += [f"{2 * block + 1},{of},{value * part},{1.6 - 0.1 * seed + 0.05 * block},0.01,0.001,0.02,10,900"
                      for of, part in (("domain", 1), ("class", 2), ("token", 3), ("domain given token", 0.5))]  # fmt: skip
        (folder / "information.csv").write_text("\n".join(lines) + "\n")

    def test_what_experts_tell_about_domains(self):
        self.analysed("top1-2", 1, 0.30, 0.12)
        self.analysed("top1-2", 3, 0.32, 0.14)
        self.analysed("top2", 2, 0.50, 0.40)
        text = self.report().text()
        self.assertIn("top-1, 2 experts: which expert a token goes to tells 0.3100 ± 0.0141 nats in block 1, 0.1300 ± 0.0141 nats in block 3 "
                      "about its domain, of at most 1.550 that could be told; with labels dealt to other tokens, at most 0.0200.", text)  # fmt: skip
        self.assertIn("is above the largest of 10 shuffles in every block of every run that was analysed; the least margin is 0.1000 nats, "
                      "in block 3 of top-1, 2 experts.", text)  # fmt: skip
        self.assertIn("0.1550 ± 0.0071", text, "given the token")
        self.assertIn("1.5000 0.02000", text, "the larger bound of seeds 1 and 3 in block 1")

    def test_experts_that_tell_no_more_than_chance(self):
        self.analysed("top2", 2, 0.50, 0.015)
        self.assertIn("is NOT above the largest of 10 shuffles", self.report().text())

    def test_a_folder_that_is_no_experiment(self):
        done = subprocess.run([sys.executable, "-B", LAUNCH / "report.py", self.folder.parent], text=True, capture_output=True)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1))
        self.assertIn("holds no experiment", done.stderr)


if __name__ == "__main__":
    unittest.main()
