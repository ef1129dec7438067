"""Search vectors: mask tracks -> their scores with reference texts, kept for `sola search`.

sola search "a square turning back" --dataset mevis
"""

from prefect import flow

from flows.fanout import Summary, over_videos
from tasks.search.track_search import embed_videos, reference_texts, wanted_vectors
from tasks.stages.evaluate import find_run
from warehouse import Warehouse


@flow
def index_tracks(
    warehouse: str,
    run: str | None = None,
    dataset: str | None = None,
    split: str | None = None,
    workers: int | None = None,
) -> Summary:
    """Make the vectors of a run (default: the newest) that are missing."""
    store = Warehouse(warehouse)
    trained = find_run(store, run)
    texts = reference_texts(store, trained)
    wanted = wanted_vectors(store, trained, texts, dataset, split)
    return over_videos("search", store, wanted, embed_videos, (trained, texts), workers)
