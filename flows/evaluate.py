"""Evaluate: scores -> selected tracks -> merged masks -> J&F (Figure 2, right).

sola evaluate --dataset mevis --split valid_u --run release-1a2b3c4d
"""

from prefect import flow

from flows.evaluation_artifact import show_evaluation
from flows.fanout import Summary, carry_out, ended
from tasks.runs import find_run
from tasks.stages.evaluate import score_plan
from warehouse import Warehouse


@flow(flow_run_name="evaluate {dataset}/{split}")
def evaluate(
    warehouse: str,
    dataset: str,
    split: str,
    run: str | None = None,
    workers: int | None = None,
    tracks: str | None = None,
) -> Summary:
    """Predict, and score where there is ground truth, with a run's selector (default: newest).

    `tracks` names the track set; by default it is one made as those that the run was trained on.
    """
    store = Warehouse(warehouse)
    trained = find_run(store, run)
    track_set = trained.tracks_of(store, dataset, split, tracks)
    summary = carry_out(score_plan(store, trained, dataset, split, track_set.name), workers)
    show_evaluation(store, trained, dataset, split, track_set)
    return ended(summary, summary.failed)
