"""What videos will cost, from what others have cost: in proportion to their frames.

A video's extraction costs so much per frame, whatever its length; how many tracks it has makes it
more or less, which nobody knows beforehand. That is the error of the estimate, and its interval
(`python -m benchmarks.costs` measures both).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field

from scipy.special import stdtrit

from warehouse import Key

CONFIDENCE = 0.9  # that the truth is in the interval


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A quantity and its interval, which is from 0 to infinity where one video is all there is."""

    value: float
    low: float
    high: float

    def __add__(self, known: float) -> "Estimate":
        return Estimate(value=self.value + known, low=self.low + known, high=self.high + known)

    def __mul__(self, factor: float) -> "Estimate":
        return Estimate(value=self.value * factor, low=self.low * factor, high=self.high * factor)


NOTHING = Estimate(value=0.0, low=0.0, high=0.0)


def together(parts: Iterable[Estimate]) -> Estimate:
    """Of several quantities that err the same way, as stages do on videos of many tracks."""
    columns = list(zip(*map(astuple, parts), strict=True))
    return Estimate(**dict(zip(("value", "low", "high"), map(sum, columns), strict=True)))


def estimate(work: Sequence[float], costs: Sequence[float], waiting: Sequence[float]) -> Estimate:
    """What the waiting videos will cost together, given the costs of others.

    Args:
        work: of each video whose cost is known, such as its frames, above 0.
        waiting: the work of each of the others.

    Weighted least squares through 0, for errors whose variance grows with work to the power 1.5:
    between a video of many tracks, whose every frame costs more (2), and frames that each cost more
    or less (1). Two things make the interval, by Student's distribution: how far the cost of a unit
    is known, and how much single videos differ from it.
    """
    if not waiting:
        return NOTHING
    count, total = len(work), sum(waiting)
    roots = sum(math.sqrt(size) for size in work)
    unit = sum(cost / math.sqrt(size) for size, cost in zip(work, costs, strict=True)) / roots
    if count < 2:
        return Estimate(value=unit * total, low=0.0, high=math.inf)
    errors = [(cost - unit * size) ** 2 / size**1.5 for size, cost in zip(work, costs, strict=True)]
    variance = sum(errors) / (count - 1) * (total**2 / roots + sum(size**1.5 for size in waiting))
    reach = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * math.sqrt(variance)
    value = unit * total
    return Estimate(value=value, low=max(0.0, value - reach), high=value + reach)


def line_through(work: Sequence[float], costs: Sequence[float], at: float) -> float:
    """The cost at a work, on the least-squares line that does not fall."""
    middle, mean = sum(work) / len(work), sum(costs) / len(costs)
    spread = sum((size - middle) ** 2 for size in work)
    common = sum((w - middle) * (c - mean) for w, c in zip(work, costs, strict=True))
    return mean + max(0.0, common / spread if spread else 0.0) * (at - middle)


def spanning(work: Sequence[float], count: int) -> list[int]:
    """Positions of so many videos whose work spans that of all: the middles of equal parts."""
    order = sorted(range(len(work)), key=lambda n: (work[n], n))
    count = min(count, len(order))
    return [order[(2 * part + 1) * len(order) // (2 * count)] for part in range(count)]


@dataclass
class Running:
    """What a run costs, as it goes on; `waiting` has the work of each video that is not done."""

    waiting: dict[Key, float]
    work: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    def add(self, done: Iterable[tuple[Key, float]]) -> None:
        """Videos that are done, with their seconds: 0 where they failed or were there already."""
        for key, seconds in done:
            size = self.waiting.pop(key, 0)
            if seconds and size:
                self.work.append(size)
                self.costs.append(seconds)

    def in_all(self) -> Estimate | None:
        """Seconds of all videos, done or not; None while no cost is known."""
        if not self.work:
            return None
        return estimate(self.work, self.costs, list(self.waiting.values())) + sum(self.costs)

    def in_words(self) -> str:
        """That for people; "" while its error is not known."""
        found = self.in_all()
        if found is None or math.isinf(found.high):
            return ""
        return f"{hours(found)} worker-hours in all"

    def seconds_left(self, workers: int) -> float | None:
        """How long so many workers need for what waits."""
        found = self.in_all()
        return (found.value - sum(self.costs)) / workers if found else None


def hours(seconds: Estimate) -> str:
    """Seconds as hours, with their interval: 2.31 (2.25 to 2.37)."""
    value, low, high = (f"{each / 3600:.3g}" for each in astuple(seconds))
    return f"{value} ({low} to {high})"
