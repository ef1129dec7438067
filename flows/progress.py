"""Progress on standard error: a bar where it is a terminal, else a plain line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sola_model.training import EpochMetrics

PLAIN_LINE_EVERY_S = 30.0


@contextmanager
def video_progress(stage: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """Progress over videos; yields `advance(videos, how_many_of_them_failed)`."""
    failed = 0
    with _progress(stage, total, "videos") as advance_by:

        def advance(videos: int, failed_videos: int) -> None:
            nonlocal failed
            failed += failed_videos
            advance_by(videos, f"{failed} failed")

        yield advance


@contextmanager
def epoch_progress(stage: str, total: int) -> Iterator[Callable[[EpochMetrics], None]]:
    """Progress over epochs, with losses; yields what to call after each epoch."""
    with _progress(stage, total, "epochs") as advance_by:
        done = 0

        def advance(metrics: EpochMetrics) -> None:
            nonlocal done
            note = f"loss {metrics.train_loss:.3f}"
            if metrics.validation_loss is not None:
                note += (
                    f", validation {metrics.validation_loss:.3f}, F1 {metrics.validation_f1:.2f}"
                )
            advance_by(metrics.epoch - done, note)  # a resumed run starts in the middle
            done = metrics.epoch

        yield advance


@contextmanager
def _progress(stage: str, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + " {task.fields[note]}"),
        TimeRemainingColumn(),
    )
    last_line = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        bar.add_task(stage, total=total, note="")
        (row,) = bar.tasks

        def advance(by: int, note: str) -> None:
            nonlocal last_line
            bar.update(row.id, advance=by, note=note)
            due = row.finished or time.monotonic() - last_line > PLAIN_LINE_EVERY_S
            if due and not console.is_terminal:
                last_line = time.monotonic()
                line = f"{stage}: {row.completed:.0f}/{total} {unit}, {note}"
                print(line, file=sys.stderr, flush=True)

        yield advance
