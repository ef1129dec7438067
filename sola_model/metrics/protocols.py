"""How the field scores each benchmark, where that is more than J&F of one mask per expression.

MeViS and Ref-YouTube-VOS: `metrics.j_and_f` of each expression over the annotated frames, then the
plain mean over expressions. Ref-DAVIS17 has four texts for each object; for each of the four the
objects are merged into one label per pixel and scored as DAVIS 2017 scores them; the result is
the mean of the four.

Axes: O objects, T frames, H and W in pixels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from sola_model.metrics.jf import RLE, Score, empty_rle, j_and_f, j_and_f_many

PROTOCOLS = ("mevis", "mevis-v2", "ref-youtube-vos", "davis", "davis-semi-supervised")

Masks = Sequence[RLE]  # of one object, one per frame

MAX_PROPOSALS = 20  # of DAVIS 2017 unsupervised
LEAST = 0.5  # score of an object's pixel; the background's is 0.1


def merge_objects(scores_OHW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """One label per pixel (H, W): 1 + the object with the highest score there, 0 background.

    Scores below 0.5 are none; of equal ones the first object's counts. As the inference script of
    ReferFormer (Wu et al., CVPR 2022) merges the objects of Ref-DAVIS17. At least one object.
    """
    found_HW = scores_OHW.max(axis=0) >= LEAST
    return np.where(found_HW, scores_OHW.argmax(axis=0) + 1, 0).astype(np.uint8)


def davis_unsupervised(
    objects: Sequence[Masks], proposals: Sequence[Masks], void: Masks | None = None
) -> list[Score]:
    """The score of each object with the proposal that it is matched with, over all frames.

    The matching maximises the sum of J&F (`_evaluate_unsupervised` of davis2017-evaluation); where
    proposals are fewer than objects, empty ones stand in.

    Raises ValueError for more than 20 proposals and when frames or sizes differ.
    """
    if len(proposals) > MAX_PROPOSALS:
        raise ValueError(
            f"there are {len(proposals)} proposals; DAVIS 2017 unsupervised allows "
            f"{MAX_PROPOSALS}. Give each object one label, counted from 1."
        )
    padded = _padded(proposals, objects)
    scores_OP = [j_and_f_many(masks, padded, void) for masks in objects]
    jf_OP = np.array([[score.jf for score in scores_P] for scores_P in scores_OP])
    matched = linear_sum_assignment(-jf_OP.T)  # (P, O), as there: it decides between equals
    return [scores_OP[o][p] for p, o in sorted(zip(*matched, strict=True), key=lambda po: po[1])]


def davis_semi_supervised(
    objects: Sequence[Masks], predictions: Sequence[Masks], void: Masks | None = None
) -> list[Score]:
    """The score of each object with the prediction of its number, without first and last frame.

    A prediction that is missing is empty (`_evaluate_semisupervised` of davis2017-evaluation).

    Raises ValueError for more predictions than objects, fewer than three frames, and when frames
    or sizes differ.
    """
    if len(predictions) > len(objects):
        raise ValueError(
            f"there are {len(predictions)} predictions for {len(objects)} objects; a label is the "
            "number of its object, counted from 1."
        )
    if len(objects[0]) < 3:
        raise ValueError(
            f"the video has {len(objects[0])} frames; DAVIS semi-supervised leaves out the first "
            "and the last and needs three."
        )
    between = [[*masks][1:-1] for masks in _padded(predictions, objects)]
    truths = [[*masks][1:-1] for masks in objects]
    void = void and [*void][1:-1]
    return [j_and_f(truth, mask, void) for truth, mask in zip(truths, between, strict=True)]


def _padded(masks: Sequence[Masks], objects: Sequence[Masks]) -> list[Masks]:
    """At least as many tracks as there are objects; those added are empty."""
    height, width = objects[0][0]["size"]
    empty = [empty_rle(height, width)] * len(objects[0])
    return [*masks, *[empty] * (len(objects) - len(masks))]
