"""What a few numbers say beyond their own spread: Student's t, Welch's test, Holm's correction, a power law with its
uncertainty. Textbook definitions, standard library only."""

import dataclasses
import functools
import math
from statistics import fmean, stdev, variance

SIGNIFICANT = 0.05


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised, I_x(a, b); by its continued fraction (Abramowitz and Stegun 26.5.8, evaluated by Lentz's method)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1 - incomplete_beta(1 - x, b, a)
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for coefficient in (even, odd):
            d = 1 / (1 + coefficient * d or tiny)
            c = 1 + coefficient / c or tiny
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(front) * fraction / a


def t_two_sided(t: float, df: float) -> float:
    """P(|T| >= |t|) of Student's t."""
    return incomplete_beta(df / (df + t * t), df / 2, 0.5)


@functools.cache
def t_quantile(df: float, level: float = 0.95) -> float:
    """The t that |T| exceeds with probability 1 - level."""
    low, high = 0.0, 1.0
    while t_two_sided(high, df) > 1 - level:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_two_sided(middle, df) > 1 - level else (low, middle)
    return high


def f_upper(f: float, df1: float, df2: float) -> float:
    """P(F >= f)."""
    return incomplete_beta(df2 / (df2 + df1 * f), df2 / 2, df1 / 2)


@dataclasses.dataclass(frozen=True)
class Difference:
    """Mean of a less mean of b, by Welch's test: two samples, each with a variance of its own."""

    mean: float
    low: float  # 95 % confidence interval
    high: float
    df: float
    p: float  # two-sided
    n: tuple[int, int]


def welch(a: list[float], b: list[float]) -> Difference | None:
    """None where a sample has fewer than two values: it then has no spread to judge by."""
    if min(len(a), len(b)) < 2:
        return None
    mean = fmean(a) - fmean(b)
    parts = variance(a) / len(a), variance(b) / len(b)
    error = math.sqrt(sum(parts))
    if error == 0:
        return Difference(mean, mean, mean, math.inf, float(mean == 0), (len(a), len(b)))
    df = sum(parts) ** 2 / (parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1))
    half = t_quantile(df) * error
    return Difference(mean, mean - half, mean + half, df, t_two_sided(mean / error, df), (len(a), len(b)))


def holm(ps: list[float]) -> list[float]:
    """Holm's adjusted p: where several differences are tested, the chance of naming even one wrongly stays at 5 %."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted, most = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        most = max(most, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = most
    return adjusted


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """y = scale x^-exponent, fitted as a straight line of log y in log x by least squares."""

    scale: float
    exponent: float
    error: float  # standard error of the exponent
    low: float  # its 95 % confidence interval
    high: float
    df: int
    r2: float
    misfit_p: float | None  # lack of fit: that the means lie as far from the law as they do, were it true
    objection: str  # why it should not be believed; empty: nothing speaks against it
    centre: float  # mean of log x
    spread: float  # sum of squares of log x about it
    deviation: float  # residual standard deviation of log y
    n: int

    def at(self, x: float) -> float:
        return self.scale * x**-self.exponent

    def band(self, x: float) -> tuple[float, float]:
        """95 % confidence band of the law at x."""
        half = t_quantile(self.df) * self.deviation * math.sqrt(1 / self.n + (math.log(x) - self.centre) ** 2 / self.spread)
        return self.at(x) * math.exp(-half), self.at(x) * math.exp(half)


def power_law(points: dict[float, list[float]]) -> PowerLaw | None:
    """Fitted to the values y at each x, all positive; None with fewer than three x, where a line says nothing."""
    pairs = [(math.log(x), math.log(y)) for x, ys in points.items() for y in ys]
    n, df = len(pairs), len(pairs) - 2
    if len(points) < 3:
        return None
    mx, my = fmean(x for x, _ in pairs), fmean(y for _, y in pairs)
    sxx = sum((x - mx) ** 2 for x, _ in pairs)
    slope = sum((x - mx) * (y - my) for x, y in pairs) / sxx
    squares = sum((y - my - slope * (x - mx)) ** 2 for x, y in pairs)
    total = sum((y - my) ** 2 for _, y in pairs)
    deviation = math.sqrt(squares / df)
    error = deviation / math.sqrt(sxx)
    half = t_quantile(df) * error
    low, high = -slope - half, -slope + half
    misfit_p = lack_of_fit(points, squares)
    if low <= 0 <= high:
        objection = "the 95 % interval of its exponent includes 0, so loss may not depend on the number at all"
    elif misfit_p is not None and misfit_p < SIGNIFICANT:
        objection = f"the means bend away from it by more than the seeds differ (lack of fit, p = {misfit_p:.2g})"
    else:
        objection = ""
    return PowerLaw(
        scale=math.exp(my - slope * mx),
        exponent=-slope,
        error=error,
        low=low,
        high=high,
        df=df,
        r2=1 - squares / total if total else 1.0,
        misfit_p=misfit_p,
        objection=objection,
        centre=mx,
        spread=sxx,
        deviation=deviation,
        n=n,
    )


def lack_of_fit(points: dict[float, list[float]], squares: float) -> float | None:
    """p of the F test of the residuals about the line against those of the repeats about their own means; None without
    repeats."""
    logs = [[math.log(y) for y in ys] for ys in points.values()]
    n, groups = sum(map(len, logs)), len(logs)
    pure = sum((len(ys) - 1) * variance(ys) for ys in logs if len(ys) > 1)
    if n <= groups or pure == 0:
        return None
    return f_upper(max(0.0, squares - pure) / (groups - 2) / (pure / (n - groups)), groups - 2, n - groups)


def mean_and_deviation(values: list[float]) -> tuple[float, float | None] | None:
    """Of a sample; one value has no deviation, and none has neither."""
    return (fmean(values), stdev(values) if len(values) > 1 else None) if values else None
