"""Evaluate: scores -> selected tracks -> merged masks -> J&F (Figure 2, right).

sola evaluate --dataset mevis --split valid_u --run release-1a2b3c4d
"""

from prefect import flow

from flows.evaluation_artifact import show_evaluation
from flows.fanout import Summary, ended, over_videos
from tasks.stages.evaluate import evaluate_videos, find_run, wanted_scores
from warehouse import Warehouse


@flow(flow_run_name="evaluate {dataset}/{split}")
def evaluate(
    warehouse: str,
    dataset: str,
    split: str,
    run: str | None = None,
    workers: int | None = None,
) -> Summary:
    """Predict, and score where there is ground truth, with a run's selector (default: newest)."""
    store = Warehouse(warehouse)
    trained = find_run(store, run)
    wanted = wanted_scores(store, trained, dataset, split)
    summary = over_videos("evaluate", store, wanted, evaluate_videos, trained, workers)
    show_evaluation(store, trained, dataset, split)
    return ended(summary, summary.failed)
