"""The page's charts as inline SVG, drawn from the rows of its figures.

Colours are classes of style.css, so that they follow the reader's light or dark theme. Each chart
has a title and a description for readers who do not see it; its numbers stand in a table below it.
Widths are those of a phone: text stays legible there, and larger screens scale it up.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from markupsafe import Markup

WIDTH = 360
TEN = [n / 10 for n in range(0, 11, 2)]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """The area that data is drawn in, in the chart's own pixels, and the values at its edges."""

    height: int = 240
    left: int = 46
    right: int = WIDTH - 10
    top: int = 26
    bottom: int = 198
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return round(self.left + (value - low) / (high - low) * (self.right - self.left), 2)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return round(self.bottom - (value - low) / (high - low) * (self.bottom - self.top), 2)

    def points(self, values: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in values)

    def axes(
        self,
        x_ticks: Sequence[tuple[float, str]],
        y_ticks: Sequence[tuple[float, str]],
        x_name: str,
        y_name: str,
    ) -> Markup:
        parts = []
        for value, text in y_ticks:
            y = self.y(value)
            parts.append(_line(self.left, y, self.right, y, "grid"))
            parts.append(_text(self.left - 6, y + 4, text, "tick end"))
        for value, text in x_ticks:
            x = self.x(value)
            parts.append(_line(x, self.bottom, x, self.bottom + 4, "axis"))
            parts.append(_text(x, self.bottom + 17, text, "tick middle"))
        parts.append(_line(self.left, self.bottom, self.right, self.bottom, "axis"))
        middle = (self.top + self.bottom) / 2
        parts.append(_text((self.left + self.right) / 2, self.height - 6, x_name, "name middle"))
        parts.append(
            Markup('<text class="name middle" transform="translate(11 {}) rotate(-90)">{}</text>')
            .format(middle, y_name)
        )  # fmt: skip
        return _join(parts)


class Charts:
    """Draws charts whose ids do not repeat on the page."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def bars(self, title: str, rows: Sequence[tuple[str, float, str]]) -> Markup:
        """Horizontal bars on a scale of 0 to 100 %: name, percentage, class of its colour."""
        row_height, left, right = 27, 104, WIDTH - 44
        scale = (right - left) / 100
        bottom = row_height * len(rows) + 4
        marks = {value: left + value * scale for value in (0, 25, 50, 75, 100)}
        parts = [_line(x, 2, x, bottom, "grid") for x in marks.values()]
        for n, (name, value, kind) in enumerate(rows):
            y = n * row_height + 6
            parts.append(_text(left - 8, y + 13, name, f"label end {kind}"))
            parts.append(_rect(left, y, value * scale, row_height - 9, kind))
            parts.append(_text(left + value * scale + 5, y + 13, f"{value:.1f}", "value"))
        parts.append(_line(left, 2, left, bottom, "axis"))
        for value, x in marks.items():
            parts.append(_text(x, bottom + 15, str(value), "tick middle"))
        parts.append(_text((left + right) / 2, bottom + 32, "J&F in percent", "name middle"))
        said = "; ".join(f"{name} {value:.1f}" for name, value, _ in rows)
        return self._chart(title, f"J&F in percent: {said}.", bottom + 38, parts)

    def thresholds(self, rows: Sequence[dict], tau: float) -> Markup:
        """J, F and J&F against tau, with a marker that the page's slider moves."""
        highest = max(row[name] for row in rows for name in ("jf", "j", "f"))
        top = min(100, 10 * math.ceil(highest / 10 + 0.2))
        plot = Plot(x_range=(0, 1), y_range=(0, top))
        step = 20 if top > 50 else 10
        parts = [
            plot.axes(
                [(v, f"{v:.1f}") for v in TEN],
                [(v, str(v)) for v in range(0, top + 1, step)],
                "threshold tau",
                "percent",
            )
        ]
        for name, kind in (("j", "second"), ("f", "third"), ("jf", "first")):
            parts.append(
                Markup('<polyline class="line {}" points="{}"/>').format(
                    kind, plot.points((row["tau"], row[name]) for row in rows)
                )
            )
        best = next(row for row in rows if row["best"])
        parts.append(
            Markup('<circle class="first" cx="{}" cy="{}" r="4"/>').format(
                plot.x(best["tau"]), plot.y(best["jf"])
            )
        )
        parts.append(
            Markup('<g class="marker" data-x="{}" transform="translate({} 0)">{}</g>').format(
                " ".join(str(plot.x(row["tau"])) for row in rows),
                plot.x(tau),
                _line(0, plot.top, 0, plot.bottom, "marker"),
            )
        )
        for n, (name, kind) in enumerate((("J&F", "first"), ("J", "second"), ("F", "third"))):
            x = plot.left + 64 * n
            parts.append(_line(x, 8, x + 18, 8, f"line {kind}"))
            parts.append(_text(x + 23, 12, name, "value"))
        said = (
            f"J&F is highest, {best['jf']:.1f}, at tau {best['tau']:.2f}, and goes from "
            f"{rows[0]['jf']:.1f} at {rows[0]['tau']:.2f} to {rows[-1]['jf']:.1f} at "
            f"{rows[-1]['tau']:.2f}."
        )
        return self._chart("J, F and J&F against the threshold tau", said, plot.height, parts)

    def reliability(self, rows: Sequence[dict]) -> Markup:
        """Share of positives against mean alignment score, points as large as their counts."""
        plot = Plot(x_range=(0, 1), y_range=(0, 1))
        ticks = [(v, f"{v:.1f}") for v in TEN]
        parts = [
            plot.axes(ticks, ticks, "mean alignment score", "share of positives"),
            _line(plot.x(0), plot.y(0), plot.x(1), plot.y(1), "reference"),
            Markup('<polyline class="line first" points="{}"/>').format(
                plot.points((row["mean_score"], row["positive_rate"]) for row in rows)
            ),
        ]
        most = max(row["pairs"] for row in rows)
        for row in rows:
            parts.append(
                Markup('<circle class="first" cx="{}" cy="{}" r="{}"/>').format(
                    plot.x(row["mean_score"]),
                    plot.y(row["positive_rate"]),
                    round(2.5 + 6 * math.sqrt(row["pairs"] / most), 1),
                )
            )
        said = "; ".join(
            f"of {row['pairs']} pairs with mean score {row['mean_score']:.2f}, "
            f"{row['positive_rate']:.2f} are positive"
            for row in rows
        )
        return self._chart("Calibration of alignment scores", said + ".", plot.height, parts)

    def histogram(self, rows: Sequence[dict]) -> Markup:
        """Pseudo-labels by mIoU, positives beside the others, on a logarithmic scale."""
        powers = math.ceil(math.log10(max(max(row["labels"] for row in rows), 10)))
        plot = Plot(x_range=(0, 1), y_range=(-0.3, powers))
        parts = [
            plot.axes(
                [(v, f"{v:.1f}") for v in TEN],
                [(n, f"{10**n:,}" if n < 4 else f"{10 ** (n - 3):,}k") for n in range(powers + 1)],
                "mIoU of track and target",
                "pairs (log scale)",
            )
        ]
        for row in rows:
            counts = {"muted": row["labels"] - row["positives"], "first": row["positives"]}
            for n, (kind, number) in enumerate(counts.items()):
                if number:
                    left = plot.x(row["miou_from"]) + 3 + 13 * n
                    top = plot.y(math.log10(number))
                    parts.append(_rect(left, top, 12, plot.bottom - top, kind))
        for n, (name, kind) in enumerate((("other pairs", "muted"), ("positives", "first"))):
            x = plot.left + 96 * n
            parts.append(_rect(x, 2, 11, 11, kind))
            parts.append(_text(x + 16, 12, name, "value"))
        said = "; ".join(
            f"from {row['miou_from']:.1f}: {row['labels']} pairs, {row['positives']} positive"
            for row in rows
        )
        return self._chart("Pseudo-labels by mIoU", said + ".", plot.height, parts)

    def _chart(self, title: str, said: str, height: float, parts: Iterable[Markup]) -> Markup:
        number = next(self._numbers)
        return Markup(
            '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-labelledby="c{n}t c{n}d">'
            '<title id="c{n}t">{}</title><desc id="c{n}d">{}</desc>{}</svg>'
        ).format(WIDTH, round(height), title, said, _join(parts), n=number)


def _join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    numbers = (round(value, 2) for value in (x1, y1, x2, y2))
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, *numbers)


def _rect(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    numbers = (round(value, 2) for value in (x, y, width, height))
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(kind, *numbers)


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(
        kind, round(x, 2), round(y, 2), text
    )
