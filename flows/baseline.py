"""Baseline: each frame's best box -> its mask -> J&F, without tracks or a selector (Table 4).

sola baseline --dataset mevis --split valid_u --sam2 sam2.1_hiera_large.pt
"""

from collections.abc import Sequence
from dataclasses import replace

from prefect import flow

from flows.fanout import Summary, carry_out, ended
from sola_model.detection.names import PAPER_DETECTOR
from sola_model.recipes import Recipe, chosen_recipe
from tasks.stages.baseline import baseline_plan
from warehouse import Warehouse


@flow(flow_run_name="baseline {dataset}/{split}")
def baseline(
    warehouse: str,
    dataset: str,
    split: str,
    recipe: str = "release",
    detector: str | None = None,
    sam2: str | None = None,
    workers: int | None = None,
    changes: Sequence[str] = (),
) -> Summary:
    """Score what the detector alone finds for each expression in the videos of a split.

    `detector` and `sam2` are paths, hub ids or "demo"; by default the recipe's SAM2 and the paper's
    Grounding DINO, or with the embedded SAM2 the embedded detector. The recipe has the detector's
    settings.
    """
    settings = baseline_settings(recipe, detector, sam2, changes)
    store = Warehouse(warehouse)
    summary = carry_out(baseline_plan(store, dataset, split, settings), workers)
    return ended(summary, summary.failed)


def baseline_settings(
    recipe: str, detector: str | None, sam2: str | None, changes: Sequence[str] = ()
) -> Recipe:
    """The recipe with this detector and SAM2; see `baseline`."""
    settings = chosen_recipe(recipe, changes, "baseline", sam2=sam2, detector=detector)
    usual = "demo" if settings.sam2 == "demo" else PAPER_DETECTOR
    return replace(settings, detector=settings.detector or usual)
