"""What videos will cost, from what others have cost: in proportion to their frames.

A video's extraction costs so much per frame, whatever its length; how many tracks it has makes it
more or less, which nobody knows beforehand. That is the error of the estimate, and its interval
(`python -m benchmarks.costs` measures both).
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Generic, TypeVar

from scipy.special import stdtrit

Name = TypeVar("Name", bound=Hashable)

CONFIDENCE = 0.9  # that the truth is in the interval
IN_SECONDS = 360.0  # below which hours say little


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A quantity and its interval, which is from 0 to infinity where one video is known."""

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
    """
    running = Running(dict(enumerate(waiting)))
    for size, cost in zip(work, costs, strict=True):
        running.know(size, cost)
    return running.left()


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


class Running(Generic[Name]):
    """What videos cost together, as one after the other is done.

    Weighted least squares through 0, for errors whose variance grows with work w to the power 1.5:
    between a video of many tracks, whose every frame costs more (2), and frames that each cost more
    or less (1). Two things make the interval, by Student's distribution: how far the cost of a unit
    of work is known, and how much single videos differ from it. Only sums are kept.
    """

    def __init__(self, waiting: Mapping[Name, float]) -> None:
        """`waiting`: the work of each video that is not done."""
        self._waiting = dict(waiting)
        self._left, self._left_powers = sum(waiting.values()), sum(w**1.5 for w in waiting.values())
        self._count, self._spent = 0, 0.0
        self._roots = self._ratios = self._squares = 0.0  # of w^0.5, c / w^0.5, c^2 / w^1.5

    def know(self, work: float, cost: float) -> None:
        """The cost of a video that is done."""
        self._count, self._spent = self._count + 1, self._spent + cost
        self._roots += math.sqrt(work)
        self._ratios += cost / math.sqrt(work)
        self._squares += cost**2 / work**1.5

    def add(self, done: Iterable[tuple[Name, float]]) -> None:
        """Videos that waited and are done, with their costs: 0 for failed ones and copies."""
        for name, cost in done:
            work = self._waiting.pop(name, 0.0)
            self._left -= work
            self._left_powers -= work**1.5
            if work and cost:
                self.know(work, cost)

    def left(self) -> Estimate:
        """What the waiting videos will cost; from nothing to anything while no cost is known."""
        if not self._waiting:
            return NOTHING
        if not self._count:
            return Estimate(value=0.0, low=0.0, high=math.inf)
        unit = self._ratios / self._roots
        value = unit * self._left
        if self._count < 2:
            return Estimate(value=value, low=0.0, high=math.inf)
        of_video = max(0.0, self._squares - unit * self._ratios) / (self._count - 1)
        variance = of_video * (self._left**2 / self._roots + self._left_powers)
        reach = float(stdtrit(self._count - 1, (1 + CONFIDENCE) / 2)) * math.sqrt(variance)
        return Estimate(value=value, low=max(0.0, value - reach), high=value + reach)

    def in_all(self) -> Estimate:
        """What all of them cost, done or not."""
        return self.left() + self._spent

    def in_words(self) -> str:
        """That for people, with its interval while videos wait; "" while its error is not known."""
        found = self.in_all()
        known = self._count and not math.isinf(found.high)
        if not known:
            return ""
        unit, seconds = ("seconds", 1) if found.value < IN_SECONDS else ("hours", 3600)
        value, low, high = (f"{each / seconds:.3g}" for each in astuple(found))
        interval = f" ({low} to {high})" if self._waiting else ""
        return f"{value}{interval} worker-{unit} in all"

    def seconds_left(self, workers: int) -> float | None:
        """How long so many workers need for what waits."""
        return self.left().value / workers if self._count else None


def hours(seconds: Estimate) -> str:
    """Seconds as hours, with their interval: 2.31 (2.25 to 2.37)."""
    value, low, high = (f"{each / 3600:.3g}" for each in astuple(seconds))
    return f"{value} ({low} to {high})"
