"""Label: IoU of every mask track with the ground truth of every expression -> pseudo-labels.

sola label --dataset mevis --split train
"""

from collections.abc import Sequence

from prefect import flow

from flows.artifacts import show_label_statistics
from flows.fanout import Summary, carry_out, ended
from sola_model.recipes import chosen_recipe
from tasks.stages.label import label_plan
from tasks.track_sets import tracks_for
from warehouse import Warehouse


@flow(flow_run_name="label {dataset}/{split}")
def label(
    warehouse: str,
    dataset: str,
    split: str,
    recipe: str = "release",
    workers: int | None = None,
    changes: Sequence[str] = (),
    tracks: str | None = None,
) -> Summary:
    """Label the precomputed videos of a split whose tracks or annotations are new.

    `tracks` names the track set; by default it is the split's.
    """
    store, settings = Warehouse(warehouse), chosen_recipe(recipe, changes, "label")
    track_set = tracks_for(store, dataset, split, tracks)
    summary = carry_out(label_plan(store, dataset, split, track_set.name, settings), workers)
    show_label_statistics(store)
    return ended(summary, summary.failed)
