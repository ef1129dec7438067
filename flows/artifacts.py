"""Artifacts: what a flow run shows in Prefect's UI beside its log. All is in the warehouse, too."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from tasks.runs import Run
from tasks.stage import Outcome
from warehouse import Key, Warehouse
from warehouse.commits import STAGES
from warehouse.queries import load_query

UPDATE_EVERY_S = 2.0  # an update is a request to the server
FAILURES_SHOWN = 20


@contextmanager
def progress_shown(stage: str, total: int) -> Iterator[Callable[[int, int, str], None]]:
    """A progress artifact over videos; yields `advance(videos, how_many_failed, more to say)`."""
    key = stage.replace("_", "-")
    artifact: Any = create_progress_artifact(0.0, f"{key}-progress", f"{stage}: {total} videos")
    done = failures = 0
    last_update = time.monotonic()

    def advance(videos: int, failed: int, note: str) -> None:
        nonlocal done, failures, last_update
        done, failures = done + videos, failures + failed
        if done == total or time.monotonic() - last_update > UPDATE_EVERY_S:
            last_update = time.monotonic()
            text = f"{stage}: {done} of {total} videos, {failures} failed" + f", {note}" * bool(
                note
            )
            update_progress_artifact(artifact, 100 * done / total, text)

    yield advance


def show_outcomes(stage: str, store: Warehouse, outcomes: Mapping[Key, Outcome]) -> None:
    """What a stage made, where its rows are in the warehouse, and what failed."""
    failed = [outcome for outcome in outcomes.values() if outcome.status == "failed"]
    made = len(outcomes) - len(failed)
    partitions = {
        f"data/{table}/{key.dataset}/{key.split}" for key in outcomes for table in STAGES[stage]
    }
    lines = [f"### {stage}: {made} videos made, {len(failed)} failed", "", f"in {store.url}:"]
    lines += [f"- `{partition}`" for partition in sorted(partitions)]
    if failed:
        lines += ["", "| failed | error |", "|---|---|"]
        lines += [
            f"| {outcome.video_id} | {outcome.message.replace('|', ' ').splitlines()[0]} |"
            for outcome in failed[:FAILURES_SHOWN]
        ]
        lines += [f"and {len(failed) - FAILURES_SHOWN} more"] * (len(failed) > FAILURES_SHOWN)
    create_markdown_artifact("\n".join(lines), stage.replace("_", "-"), f"outcome of {stage}")


def show_run(store: Warehouse, run: Run) -> None:
    """Where a trained run is in the warehouse, and what it was made from."""
    text = f"""### {run.run_id}
in {store.url}:
- `{run.weights}`: the selector
- `data/runs` and `data/training_metrics`: its row, and its losses by epoch
- trained on {run.dataset}/{run.split}: `precompute` and `label` of these splits
"""
    create_markdown_artifact(text, "run", "trained run")


def show_label_statistics(store: Warehouse) -> None:
    """The pseudo-label statistics of every split, as a table."""
    with store.connect() as connection:
        rows = connection.sql(load_query("pseudo_label_statistics")).to_arrow_table().to_pylist()
    create_table_artifact(rows, "pseudo-labels", "statistics of the pseudo-labels")
