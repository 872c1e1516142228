"""Which pictures a report has, and what is in each."""

import dataclasses
import math
from statistics import fmean, stdev

from experiments.chart import INK, Axis, Chart, Row, Style, rows_chart
from experiments.curves import Curve, together
from experiments.heat import heat_map
from experiments.inference import mean_and_deviation
from experiments.results import ArmResult, Results
from experiments.sentences import plus_minus
from experiments.specialisation import by_domain

LOSS = "held-out loss, nats a token"
# Okabe and Ito's colours, which the colour-blind can tell apart, for arms on their own; and scales of one hue, light to
# dark, for arms that differ in an amount. Dashes and markers repeat the distinction for print.
SINGLE = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
SCALES = (((158, 202, 225), (8, 48, 107)), ((253, 190, 112), (127, 39, 4)), ((161, 217, 155), (0, 68, 27)))
MARKERS = ("circle", "square", "diamond", "up", "down")
BINS = 60  # of a curve that is told step by step


@dataclasses.dataclass(frozen=True)
class Figure:
    pictures: list[str]  # SVG
    caption: str


def styles(results: Results) -> dict[str, Style]:
    """Of each arm: black for the reference, a scale for a family of several, a colour for one alone."""
    chosen = {results.plan.reference: Style(INK, "7 4", "circle")}
    families = {}
    for arm in results.plan.arms:
        if arm.name != results.plan.reference:
            families.setdefault(arm.family, []).append(arm.name)
    singles = scales = 0
    for names in families.values():
        if len(names) == 1:
            chosen[names[0]] = Style(SINGLE[singles % len(SINGLE)], "10 3 2 3", MARKERS[(2 + singles) % len(MARKERS)])
            singles += 1
            continue
        light, dark = SCALES[scales % len(SCALES)]
        for i, name in enumerate(names):
            mix = [round(a + (b - a) * i / (len(names) - 1)) for a, b in zip(light, dark)]
            chosen[name] = Style("#" + "".join(f"{part:02x}" for part in mix), "", MARKERS[i % len(MARKERS)])
        scales += 1
    return chosen


class Figures:
    def __init__(self, results: Results):
        self.results, self.style = results, styles(results)
        self.arms = [arm for arm in results.arms if arm.good_runs]

    def all(self) -> dict[str, Figure]:
        """By name; without those that these runs give no data for."""
        figures = {
            "curves": self.curves(),
            "training": self.training(),
            "final": self.final(),
            "speedup": self.speedup(),
            "experts": self.experts(),
            "health": self.health(),
            "load": self.load(),
            "domains": self.domains(),
        }
        return {name: figure for name, figure in figures.items() if figure and figure.pictures}

    def banded(self, chart: Chart, arm: ArmResult, places: list[tuple[float, list[float]]]):
        style = self.style[arm.arm.name]
        xs, means = [x for x, _ in places], [fmean(ys) for _, ys in places]
        if places and len(places[0][1]) > 1:
            spreads = [stdev(ys) for _, ys in places]
            chart.band(xs, [m - s for m, s in zip(means, spreads)], [m + s for m, s in zip(means, spreads)], style)
        chart.line(xs, means, style, arm.arm.label, markers=5)

    def curves(self) -> Figure:
        labels = {
            "step": ("by step", "optimizer steps"),
            "flops": ("by training FLOPs", "model FLOPs, forward and backward"),
            "tokens": ("by tokens", "tokens trained on"),
            "seconds": ("by wall time", "seconds of training steps"),
        }
        pictures = []
        for axis, (title, label) in labels.items():
            chart = Chart(f"Held-out loss {title}", Axis(label), Axis(LOSS))
            for arm in self.arms:
                late = lambda curve: [p for p in curve.points if p.step >= 0.1 * arm.arm.sizes.steps]
                runs = [[(getattr(p, axis), p.loss) for p in late(run.curve)] for run in arm.good_runs]
                self.banded(chart, arm, together(runs))
            pictures.append(chart.svg())
        return Figure(pictures, "Mean over the seeds, with a band of one standard deviation to either side. The first tenth of each run is left out.")

    def by_step(self, title: str, unit: str, arms: list[ArmResult], values) -> str:
        """A metric of every step; `values(arm, curve)` are its places."""
        chart = Chart(title, Axis("optimizer steps"), Axis(unit))
        for arm in arms:
            self.banded(chart, arm, together([values(arm, run.curve) for run in arm.good_runs]))
        return chart.svg()

    def training(self) -> Figure:
        def late(arm, curve: Curve):
            places = curve.series("loss", BINS)
            return [place for place in places if place[0] >= 0.1 * arm.arm.sizes.steps]

        picture = self.by_step("Training loss by step", "training loss, nats a token", self.arms, late)
        return Figure([picture], f"Means of stretches of a {BINS}th of each run, over the seeds; the band is one standard deviation.")

    def row(self, arm: ArmResult, values: list[float], digits: int) -> Row:
        mean, deviation = mean_and_deviation(values)
        return Row(arm.arm.label, values, mean, deviation, self.style[arm.arm.name], plus_minus((mean, deviation), digits))

    def final(self) -> Figure:
        rows = []
        for arm in self.arms:
            rows.append(self.row(arm, arm.finals, 4))
        reference = self.results.reference.final()
        rule = (reference[0], f"{self.results.reference.arm.label}, mean") if reference else None
        return Figure([rows_chart("Final held-out loss", Axis(LOSS), rows, rule)] if rows else [],
                      "A mark a seed; the upright stroke is their mean, the bar one standard deviation to either side.")  # fmt: skip

    def speedup(self) -> Figure:
        pictures, short = [], []
        for arm in self.arms:
            if arm.speedup and arm.speedup.reached < arm.speedup.runs:
                short.append(f"{arm.arm.label} ({arm.speedup.reached} of {arm.speedup.runs})")
        for axis, title in (("step", "Speed-up in steps"), ("flops", "Speed-up in FLOPs"), ("seconds", "Speed-up in wall time")):
            rows = []
            for arm in self.arms:
                ratios = arm.speedup.ratios[axis] if arm.speedup else []
                if ratios:
                    rows.append(self.row(arm, ratios, 2))
            if rows:
                label = f"{self.results.reference.arm.label}'s whole run, over what it took to reach its loss (ratio)"
                rule = (1.0, self.results.reference.arm.label)
                pictures.append(rows_chart(title, Axis(label, low=0.0), rows, rule, width=540))
        caption = (
            "A mark a seed that reached that loss, their mean, and one standard deviation to either side. Above 1 the arm took less "
            "than the reference's whole run, below 1 more."
        )
        if short:
            caption += f" Runs that never reached it are in no mean; of these arms not all did: {', '.join(short)}."
        return Figure(pictures, caption)

    def experts(self) -> Figure:
        pictures = []
        reference = self.results.reference.final()
        for family, (points, law) in self.results.laws.items():
            chart = Chart(f"Loss and number of experts: {family}", Axis("experts of a block", "log2", tuple(points)), Axis(LOSS), 640, 360)
            dark = Style("#08519c", "", "circle")
            xs = list(points)
            if law:
                grid = [min(xs) * (max(xs) / min(xs)) ** (i / 40) for i in range(41)]
                chart.band(grid, *zip(*(law.band(x) for x in grid)), dark)
                name = "power law" if not law.objection else "power law, doubtful"
                chart.line(grid, [law.at(x) for x in grid], dataclasses.replace(dark, dash="" if not law.objection else "3 3"), name)
            seeds = [(x, y) for x, ys in points.items() for y in ys]
            chart.dots(*zip(*seeds), Style("#6baed6", "", "circle"), "a seed", 3)
            chart.dots(xs, [fmean(ys) for ys in points.values()], Style("#08306b", "", "diamond"), "mean", 4.5)
            if reference:
                chart.rule(reference[0], self.style[self.results.plan.reference], self.results.reference.arm.label)
            pictures.append(chart.svg())
        return Figure(pictures, "The band is the 95 % confidence band of the fitted law.")

    def health(self) -> Figure:
        arms = [arm for arm in self.arms if arm.experts()]
        if not arms:
            return Figure([], "")

        def entropy(arm, curve: Curve):
            most = math.log(arm.experts()) or 1.0
            return [(step, value / most) for step, value in curve.series("router_entropy", BINS)]

        def dropped(arm, curve: Curve):
            return [(step, 100 * value) for step, value in curve.series("drop_fraction", BINS)]

        return Figure(
            [
                self.by_step("Dropped choices", "choices dropped, % of all", arms, dropped),
                self.by_step("Router entropy", "mean entropy, share of ln(experts)", arms, entropy),
            ],
            "Training; means over all MoE blocks and seeds. A router that cannot tell its experts apart has entropy 1; one "
            "that is sure of each token has 0.",
        )

    def load(self) -> Figure:
        groups = []
        for arm in self.arms:
            first = arm.good_runs[0]
            loads = zip(first.curve.blocks(), first.curve.load_at_end())
            rows = [(block, [share * len(shares) for share in shares]) for block, shares in loads]
            groups += [(f"{arm.arm.label}, seed {first.run.seed}", rows)] if rows else []
        return Figure([heat_map("Load of each expert", groups, "share of choices, in equal shares", "MoE block")] if groups else [],
                      "The first good run of each arm, mean of the last tenth of training: the share of all choices that the expert took, "
                      "times the number of experts. Dropped choices are missing, so a block's mean is below 1. Blocks are the model's, "
                      "counted from 0.")  # fmt: skip

    def domains(self) -> Figure:
        pictures = []
        for arm in self.arms:
            analysed = next(((run.run.seed, groups) for run in arm.good_runs if (groups := by_domain(run.run.folder))), None)
            if analysed:
                title = f"Experts by domain: {arm.arm.label}, seed {analysed[0]}"
                pictures.append(heat_map(title, analysed[1], "share of the domain's choices, in equal shares", "domain"))
        return Figure(pictures, "The last checkpoint of each arm's first run that was analysed, on held-out text: which experts the tokens "
                      "of each domain go to. Blocks are the model's, counted from 0.")  # fmt: skip
