"""Search vectors: mask tracks -> their scores with reference texts, kept for `sola search`.

sola search "a square turning back" --dataset mevis
"""

from prefect import flow

from flows.fanout import Summary, carry_out
from tasks.runs import find_run
from tasks.search.vectors import searched, vector_plan
from warehouse import Warehouse


@flow
def index_tracks(
    warehouse: str,
    run: str | None = None,
    dataset: str | None = None,
    split: str | None = None,
    workers: int | None = None,
    tracks: str | None = None,
) -> Summary:
    """Make the vectors of a run (default: the newest) that are missing."""
    store = Warehouse(warehouse)
    trained = find_run(store, run)
    plan = vector_plan(store, searched(store, trained), dataset, split, tracks)
    return carry_out(plan, workers)
