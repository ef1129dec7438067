"""How each video of a task went, and the loop that all stages share."""

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pyarrow as pa

from warehouse import Key, Warehouse

log = logging.getLogger(__name__)

PAUSES_S = (0.5, 4.0)  # before the second and the third try of what the system refused


class Outcome(NamedTuple):
    """How one video went: `status` is "done" or "failed", `message` the error if it failed."""

    video_id: str
    status: str
    message: str = ""


def publish_each(
    store: Warehouse,
    stage: str,
    wanted: Mapping[Key, str],
    make: Callable[[Key], dict[str, pa.Table]],
) -> list[Outcome]:
    """Make and publish the stage's tables of each key under its wanted fingerprint.

    Tables that were made before under this fingerprint are used again. An error becomes a failed
    commit; it neither stops the other videos nor hides what the key had before. What the operating
    system refuses (OSError) is tried again after a pause.
    """
    outcomes = []
    for key, fingerprint in wanted.items():
        try:
            _make_one(store, stage, key, fingerprint, make)
            outcomes.append(Outcome(key.video_id, "done"))
        except Exception as error:
            log.debug("%s %s\n%s", stage, key.video_id, traceback.format_exc())
            message = f"{type(error).__name__}: {error}"
            store.publish_failure(stage, key, fingerprint, message)
            outcomes.append(Outcome(key.video_id, "failed", message))
    return outcomes


def _make_one(
    store: Warehouse,
    stage: str,
    key: Key,
    fingerprint: str,
    make: Callable[[Key], dict[str, pa.Table]],
) -> None:
    for pause in (*PAUSES_S, None):
        try:
            if not store.reuse(stage, key, fingerprint):
                store.publish(stage, key, fingerprint, make(key))
            return
        except OSError as error:
            if pause is None:
                raise
            log.warning("%s %s: %s; trying again in %s s", stage, key.video_id, error, pause)
            time.sleep(pause)
