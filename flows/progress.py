"""Progress on standard error: a bar where it is a terminal, else a plain line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

if TYPE_CHECKING:  # progress over videos needs no torch
    from sola_model.training.loop import Progress as TrainingProgress

PLAIN_LINE_EVERY_S = 30.0


@contextmanager
def video_progress(stage: str, total: int) -> Iterator[Callable[..., None]]:
    """Progress over videos; yields `advance(videos, how_many_of_them_failed)`.

    What is known beside that may follow: more to say, and the seconds left.
    """
    failed = 0
    with _progress(stage, total, "videos") as advance_by:

        def advance(
            videos: int, failed_videos: int, note: str = "", left_s: float | None = None
        ) -> None:
            nonlocal failed
            failed += failed_videos
            said = ", ".join(filter(None, [f"{failed} failed", note]))
            advance_by(videos, said, total, left_s)

        yield advance


@contextmanager
def frame_progress(stage: str, total: int) -> Iterator[Callable[[], None]]:
    """Progress over frames; yields what to call after each."""
    with _progress(stage, total, "frames") as advance_by:
        yield lambda: advance_by(1, "written", total)


@contextmanager
def run_progress(total: int) -> Iterator[Callable[[], None]]:
    """Progress over runs that are trained side by side; yields what to call after each."""
    with _progress("train", total, "runs") as advance_by:
        yield lambda: advance_by(1, "trained", total)


@contextmanager
def training_progress(epochs: int) -> Iterator[Callable[["TrainingProgress"], None]]:
    """Progress over expressions, with loss and J&F; yields what to call after each step."""
    done, validated = 0, ""
    with _progress("train", None, "expressions") as advance_by:

        def advance(now: "TrainingProgress") -> None:
            nonlocal done, validated
            if now.metrics is None and now.expressions == now.total:
                return  # the report of the last epoch follows
            if now.metrics is not None and now.metrics.validation_loss is not None:
                validated = f", validation {now.metrics.validation_loss:.3f}"
                if now.metrics.validation_jf is not None:
                    validated += f", J&F {100 * now.metrics.validation_jf:.1f}"
            note = f"epoch {now.epoch}/{epochs}, loss {now.loss:.3f}{validated}"
            advance_by(now.expressions - done, note, now.total)
            done = now.expressions

        yield advance


@contextmanager
def _progress(stage: str, total: int | None, unit: str) -> Iterator[Callable[..., None]]:
    """Yields `advance(by how many, note, of how many, seconds left)`.

    Speed is added, and the time left, by the number that is done unless it is given.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + ", {task.fields[note]}"),
    )
    last_line = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        bar.add_task(stage, total=total, note="")
        (row,) = bar.tasks

        def advance(
            by: int, note: str, of: int | None = total, left_s: float | None = None
        ) -> None:
            nonlocal last_line
            bar.update(row.id, advance=by, total=of)
            note += f", {row.speed:.3g} {unit}/s" if row.speed else ""
            if left := row.time_remaining if left_s is None else left_s:
                note += f", {timedelta(seconds=round(left))} left"
            bar.update(row.id, note=note)
            due = row.finished or time.monotonic() - last_line > PLAIN_LINE_EVERY_S
            if due and not console.is_terminal:
                last_line = time.monotonic()
                line = f"{stage}: {row.completed:.0f}/{of} {unit}, {note}"
                print(line, file=sys.stderr, flush=True)

        yield advance
