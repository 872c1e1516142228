"""Charts as SVG text: lines with bands, dots, and heat maps. No dependency, so a report is one file that any browser shows
and any printer prints. Lengths are CSS pixels."""

import dataclasses
import math
from html import escape

INK, MUTED, GRID = "#1b1f24", "#57606a", "#e3e6ea"
FONT = 12
CHARACTER = 6.4  # a sans-serif letter of that size is about so wide


@dataclasses.dataclass(frozen=True)
class Style:
    colour: str
    dash: str = ""  # SVG's stroke-dasharray
    marker: str = "circle"


@dataclasses.dataclass(frozen=True)
class Axis:
    label: str  # with its unit
    scale: str = "linear"  # or log2
    ticks: tuple[float, ...] = ()  # none: round numbers
    low: float | None = None
    high: float | None = None


def number(value: float) -> str:
    """As an axis shows it."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    exponent = math.floor(math.log10(abs(value)))
    if 3 <= exponent < 6:
        return f"{value:,.0f}"
    digits = f"{value / 10**exponent:.3g}"
    return f"{digits}×10{str(exponent).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def round_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At 1, 2 or 5 times a power of ten, inside [low, high]."""
    rough = (high - low) / most
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def text(x, y, content, anchor="start", size=FONT, colour=INK, weight="normal", extra="") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}" '
        f'font-weight="{weight}"{extra}>{escape(content)}</text>'
    )


def line(x1, y1, x2, y2, colour=GRID, width=1.0, dash="") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"{dashed}/>'


def marker(x: float, y: float, style: Style, r: float = 3.5) -> str:
    shapes = {
        "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "diamond": [(0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)],
        "up": [(0, -1.3), (1.25, 0.95), (-1.25, 0.95)],
        "down": [(0, 1.3), (1.25, -0.95), (-1.25, -0.95)],
    }
    paint = f'fill="{style.colour}" stroke="#fff" stroke-width="0.8"'
    if style.marker == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" {paint}/>'
    points = " ".join(f"{x + r * dx:.1f},{y + r * dy:.1f}" for dx, dy in shapes[style.marker])
    return f'<polygon points="{points}" {paint}/>'


def drawing(width: float, height: float, title: str, body: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}" style="max-width:{width:.0f}px">' + "\n".join(["", *body]) + "\n</svg>"
    )


@dataclasses.dataclass(frozen=True)
class Entry:
    """Of a legend: where what it names ends, and whether that has a line and markers."""

    x: float
    y: float
    style: Style
    label: str
    line: bool
    marker: bool


class Chart:
    """Marks are given in the units of the data; what is named with `label` gets into the legend at the right, each name
    beside the end of its line as far as there is room."""

    def __init__(self, title: str, x: Axis, y: Axis, width: float = 540, height: float = 330):
        self.title, self.x, self.y, self.width, self.height = title, x, y, width, height
        self.marks = []  # functions that draw, once the scales are known
        self.xs, self.ys, self.legend = [], [], []

    def see(self, xs, ys):
        self.xs += [x for x in xs if math.isfinite(x)]
        self.ys += [y for y in ys if math.isfinite(y)]

    def band(self, xs, lows, highs, style: Style):
        self.see(xs, [*lows, *highs])
        places = [*zip(xs, highs), *reversed(list(zip(xs, lows)))]
        self.marks.append(lambda: f'<polygon points="{self.path(places)}" fill="{style.colour}" fill-opacity="0.15"/>')

    def line(self, xs, ys, style: Style, label: str = "", markers: int = 0):
        """`markers`: about so many marks along it."""
        places = [(x, y) for x, y in zip(xs, ys) if math.isfinite(y)]
        if not places:
            return
        self.see(xs, ys)
        dashed = f' stroke-dasharray="{style.dash}"' if style.dash else ""
        paint = f'fill="none" stroke="{style.colour}" stroke-width="1.8" stroke-linejoin="round"{dashed}'
        self.marks.append(lambda: f'<polyline points="{self.path(places)}" {paint}/>')
        if markers:
            every = max(1, len(places) // markers)
            self.dots(*zip(*places[every - 1 :: every]), style)
        if label:
            self.legend.append(Entry(*places[-1], style, label, True, bool(markers)))

    def dots(self, xs, ys, style: Style, label: str = "", r: float = 3.5):
        self.see(xs, ys)
        if label:
            self.legend.append(Entry(xs[-1], ys[-1], style, label, False, True))
        self.marks.append(lambda: "".join(marker(self.px(x), self.py(y), style, r) for x, y in zip(xs, ys)))

    def rule(self, y: float, style: Style, label: str):
        """A horizontal line right across."""
        self.see([], [y])
        self.marks.append(lambda: line(self.left, self.py(y), self.right, self.py(y), style.colour, 1.5, style.dash))
        self.legend.append(Entry(math.inf, y, style, label, True, False))

    def path(self, places) -> str:
        return " ".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in places)

    def px(self, x: float) -> float:
        return self.left + self.scaled(x, self.x, self.x_range) * (self.right - self.left)

    def py(self, y: float) -> float:
        return self.bottom - self.scaled(y, self.y, self.y_range) * (self.bottom - self.top)

    @staticmethod
    def scaled(value: float, axis: Axis, limits: tuple[float, float]) -> float:
        place = math.log2 if axis.scale == "log2" else float
        low, high = map(place, limits)
        return (place(value) - low) / (high - low)

    @staticmethod
    def limits(axis: Axis, seen: list[float]) -> tuple[float, float]:
        low = axis.low if axis.low is not None else min(seen, default=0.0)
        high = axis.high if axis.high is not None else max(seen, default=1.0)
        if low == high:
            low, high = (low / 2, high * 2) if axis.scale == "log2" else (low - 0.5, high + 0.5)
        if axis.scale == "log2":
            room = (high / low) ** 0.06
            return low / room, high * room
        room = 0.04 * (high - low)
        return low - room * (axis.low is None), high + room * (axis.high is None)

    def svg(self) -> str:
        self.x_range, self.y_range = self.limits(self.x, self.xs), self.limits(self.y, self.ys)
        self.left, self.top, self.bottom = 62, 34, self.height - 48
        widest = max((len(entry.label) for entry in self.legend), default=0)
        self.right = self.width - (widest * CHARACTER + 46 if widest else 16)
        body = [text(self.left, 18, self.title, size=13.5, weight="600"), *self.frame()]
        body += [mark() for mark in self.marks]
        return drawing(self.width, self.height, self.title, body + self.legend_marks())

    def frame(self) -> list[str]:
        body = []
        for y in self.y.ticks or round_ticks(*self.y_range):
            body.append(line(self.left, self.py(y), self.right, self.py(y)))
            body.append(text(self.left - 7, self.py(y) + 4, number(y), "end", 11, MUTED))
        for x in self.x.ticks or round_ticks(*self.x_range, max(3, int((self.right - self.left) / 50))):
            body.append(line(self.px(x), self.bottom, self.px(x), self.bottom + 4, MUTED))
            body.append(text(self.px(x), self.bottom + 17, number(x), "middle", 11, MUTED))
        body.append(line(self.left, self.bottom, self.right, self.bottom, MUTED))
        body.append(text((self.left + self.right) / 2, self.height - 12, self.x.label, "middle"))
        middle = (self.top + self.bottom) / 2
        turned = f' transform="rotate(-90 14 {middle:.1f})"'
        body.append(text(14, middle, self.y.label, "middle", extra=turned))
        return body

    def legend_marks(self) -> list[str]:
        entries = sorted(self.legend, key=lambda entry: -entry.y)
        gap, wanted = 16, [self.py(entry.y) for entry in entries]
        places = []
        for y in wanted:  # from the top, each at its line's end or below its neighbour
            places.append(max(y, places[-1] + gap) if places else max(y, self.top))
        lowest = self.bottom + 8
        for i in reversed(range(len(places))):  # and from the bottom, where they ran over
            places[i] = min(places[i], lowest)
            lowest = places[i] - gap
        body = []
        for entry, y, at in zip(entries, wanted, places):
            x = self.right + 12
            start = min(self.px(entry.x), self.right) if math.isfinite(entry.x) else self.right
            if abs(at - y) > 3 or start < self.right - 3:
                body.append(line(start + 4, y, x - 2, at, "#b6bcc4", 0.8))
            body += [line(x, at, x + 24, at, entry.style.colour, 2, entry.style.dash)] if entry.line else []
            body += [marker(x + 12, at, entry.style)] if entry.marker else []
            body.append(text(x + 30, at + 4, entry.label))
        return body


@dataclasses.dataclass(frozen=True)
class Row:
    """Of a chart of rows: single values, their mean and spread."""

    label: str
    values: list[float]
    mean: float | None
    deviation: float | None
    style: Style
    remark: str = ""

    def ends(self) -> tuple[float, ...]:
        """Of the bar: one deviation to either side."""
        return () if self.deviation is None else (self.mean - self.deviation, self.mean + self.deviation)


def rows_chart(title: str, x: Axis, rows: list[Row], rule: tuple[float, str] | None = None, width: float = 720) -> str:
    """A line of dots a row, with mean and spread; `rule` is a vertical line and its name."""
    chart = Chart(title, x, Axis(""), width, 34 + 26 * len(rows) + 62)
    chart.see([value for row in rows for value in (*row.values, *row.ends())] + ([rule[0]] if rule else []), [])
    chart.x_range, chart.left, chart.right = chart.limits(x, chart.xs), 24 + CHARACTER * max(len(r.label) for r in rows), width - 126
    chart.bottom = chart.height - 62
    body = [text(8, 18, title, size=13.5, weight="600")]
    for tick in x.ticks or round_ticks(*chart.x_range, 7):
        body.append(line(chart.px(tick), 30, chart.px(tick), chart.bottom))
        body.append(text(chart.px(tick), chart.bottom + 16, number(tick), "middle", 11, MUTED))
    body.append(line(chart.left, chart.bottom, chart.right, chart.bottom, MUTED))
    body.append(text((chart.left + chart.right) / 2, chart.bottom + 36, x.label, "middle"))
    if rule:
        body.append(line(chart.px(rule[0]), 30, chart.px(rule[0]), chart.bottom, INK, 1.2, "5 3"))
        body.append(text(chart.px(rule[0]), chart.bottom + 54, rule[1], "middle", 11, MUTED))
    for i, row in enumerate(rows):
        y = 34 + 26 * (i + 0.5)
        body.append(text(chart.left - 12, y + 4, row.label, "end"))
        if row.mean is not None:
            if row.ends():
                low, high = map(chart.px, row.ends())
                body.append(line(low, y, high, y, row.style.colour, 6))
            body.append(line(chart.px(row.mean), y - 9, chart.px(row.mean), y + 9, row.style.colour, 2.5))
        body += [marker(chart.px(value), y, row.style) for value in row.values]
        body.append(text(chart.right + 12, y + 4, row.remark))
    return drawing(width, chart.height, title, body)
