"""Label: IoU of every mask track with the ground truth of every expression -> pseudo-labels.

sola label --dataset mevis --split train
"""

from prefect import flow

from flows.artifacts import show_label_statistics
from flows.fanout import Summary, ended, over_videos
from sola_model.recipes import recipe_by_name
from tasks.stages.label import label_videos, wanted_labels
from warehouse import Warehouse


@flow(flow_run_name="label {dataset}/{split}")
def label(
    warehouse: str, dataset: str, split: str, recipe: str = "release", workers: int | None = None
) -> Summary:
    """Label the precomputed videos of a split whose tracks or annotations are new."""
    store, settings = Warehouse(warehouse), recipe_by_name(recipe)
    wanted = wanted_labels(store, dataset, split, settings)
    summary = over_videos("label", store, wanted, label_videos, settings, workers)
    show_label_statistics(store)
    return ended(summary, summary.failed)
