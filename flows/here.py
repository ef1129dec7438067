"""Work that is too little to fan out: in this process, without Prefect and its server."""

import sys
from collections.abc import Sequence
from typing import Any

from flows.progress import frame_progress
from flows.runner import precision
from tasks.own_video.clips import FAILED
from tasks.own_video.outputs import Found, Outputs
from tasks.own_video.segmenting import prepare
from tasks.stage import Plan, make_each
from tasks.stages.evaluate import EVALUATE
from tasks.worker import device
from warehouse import WarehouseError

FEW = 16  # videos whose scores take less than a server and workers take to start


def is_little(plan: Plan) -> bool:
    """Whether a plan has nothing to make, or the scores of a few videos alone."""
    missing = plan.to_make()
    return not missing or (plan.stage is EVALUATE and len(missing) <= FEW)


def make_here(plan: Plan) -> int:
    """Make what is missing, computing as a worker does; gives the number of failures."""
    if device() == "cpu":
        import torch

        torch.set_num_threads(1)
    return make_one_by_one(plan)


def make_one_by_one(plan: Plan) -> int:
    """Make what is missing and show what fails; gives the number of failures."""
    failed = 0
    for outcome in make_each(plan.stage, plan.store, plan.to_make(), plan.subject):
        if outcome.status == "failed":
            failed += 1
            message = f"{plan.stage.name}: {outcome.video_id} failed: {outcome.message}"
            print(message, file=sys.stderr)
    return failed


def segment_here(
    warehouse: str, video: str, sentences: Sequence[str], run: str, outputs: Outputs, **how: Any
) -> list[Found] | None:
    """`flows.segment` of a video that has its tracks; None: there is more to make than scores.

    `how`: as `tasks.own_video.segmenting.prepare` takes it. Raises ValueError as the flow does.
    """
    asked = prepare(warehouse, video, sentences, run, outputs, precision(), **how)
    if not (asked.has_tracks() and is_little(asked.scores)):
        return None
    if failed := make_here(asked.scores):
        raise WarehouseError(FAILED.format(count=failed))
    with frame_progress("write", asked.frame_count()) as on_frame:
        return asked.write(on_frame)
