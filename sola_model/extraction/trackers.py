"""Frozen trackers by name, and which weights fit them, told without loading any.

"sam2" is package `sam2`, see `sola_model.extraction.checkpoints`. The others are video models of
`transformers`, named as their configurations name them.
"""

import json
import re
from pathlib import Path
from typing import Any

from sola_model.extraction.checkpoints import check_checkpoint, checkpoint_identity
from sola_model.identity import folder_identity

# Tracker, which is also the `model_type` in `config.json` of its weights -> its class.
VIDEO_MODELS = {
    "sam2_video": "Sam2VideoModel",
    "edgetam_video": "EdgeTamVideoModel",
    "sam3_tracker_video": "Sam3TrackerVideoModel",
}
PARTS = {"sam3_video": "sam3_tracker_video"}  # models of which a tracker is a part


def is_official(tracker: str, name: str) -> bool:
    """Whether weights are a checkpoint as Meta publishes them, or "demo", and fit the tracker."""
    if tracker in VIDEO_MODELS and tracker != "sam2_video":
        return False
    try:
        check_checkpoint(name)
    except ValueError:
        return False
    return True


def check_weights(tracker: str, name: str) -> None:
    """Raise ValueError for weights that do not fit a tracker, as far as can be told at once.

    A hub id is not looked up.
    """
    kind = _kind(name)
    if kind and kind != tracker:
        then = f"take --set tracker={kind}" if kind in VIDEO_MODELS else "give others with --sam2"
        raise ValueError(
            f"tracker {tracker!r} cannot take {name}, which are weights of type {kind!r}: {then}."
        )
    if tracker not in VIDEO_MODELS:
        return check_checkpoint(name)
    hub_id = not Path(name).exists() and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name)
    if not (kind or hub_id or is_official(tracker, name)):
        official = ", an official SAM2 checkpoint" if tracker == "sam2_video" else ""
        raise ValueError(
            f"tracker {tracker!r} cannot take {name!r}. Give with --sam2 a folder that "
            f"`save_pretrained` wrote (with config.json){official} or a hub id."
        )
    return None


def _kind(name: str) -> str | None:
    """The type of the weights in a folder, a tracker or another; None: there are none."""
    try:
        kind = json.loads((Path(name) / "config.json").read_text())["model_type"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return PARTS.get(kind, kind)


def weights_identity(tracker: str, name: str) -> str:
    """What names weights in fingerprints: sha256 of a file or of a folder's files, or the hub id.

    Raises:
        ValueError: they do not fit the tracker.
    """
    check_weights(tracker, name)
    if tracker not in VIDEO_MODELS or is_official(tracker, name):
        return checkpoint_identity(name)
    return folder_identity(Path(name)) if Path(name).is_dir() else name


def load_tracker(tracker: str, name: str, device: str) -> Any:
    """The frozen model of a tracker: a `SAM2Base`, or what does the same.

    Raises:
        ValueError: the weights are missing or do not fit.
    """
    if tracker in VIDEO_MODELS:
        from sola_model.extraction.transformers_video import load_video_model

        return load_video_model(tracker, name, device)
    from sola_model.extraction.sam2_models import load_sam2

    return load_sam2(name, device)
