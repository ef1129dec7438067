"""Which mask tracks are background: the ablation of paper Table A.2a (supplement C).

"During training, background object tokens refer to object tokens corresponding to mask tracks
that have low IoU with the ground-truth mask track, while during inference, they are derived from
mask tracks obtained using grid point prompts." Without background a selector sees the other tracks
alone, in attention, norms, scores and losses alike. At inference these are the tracks of boxes.

Axes: E expressions of a video, N mask tracks.
"""

import numpy as np
from numpy.typing import NDArray


def training_foreground(labels_EN: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The tracks (N,) to train on where a recipe has background_in_training=False.

    Low IoU is: positive for none of the video's expressions, that is not above the recipe's label
    threshold with any object that is spoken of. Going by one expression alone would leave only its
    positives, and nothing to tell them from. A video may keep no track.
    """
    return np.logical_or.reduce(np.asarray(labels_EN, bool), axis=0)
