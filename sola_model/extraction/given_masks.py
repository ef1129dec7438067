"""Object tokens of mask tracks that are given, made by any method.

In every frame by itself the given mask is a mask prompt on a conditioning frame: SAM2 takes it as
its output, and its decoder, prompted with it on the frame's features, gives the object pointer. No
memory takes part, unlike in the frames that a propagation goes through. Where the mask is empty the
pointer is SAM2's own for an object that is not there.

Source: `SAM2Base._use_mask_as_output`.
"""

from collections.abc import Sequence

import numpy as np
import torch

from sola_model.extraction.encoding import EncodedVideo, frame_arguments
from sola_model.extraction.engine import AUTOMATIC, Engine, precision
from sola_model.extraction.propagation import model_input
from sola_model.extraction.sam2_models import SAM2Base
from sola_model.masks.runs import RLE
from sola_model.memory import in_batches


@torch.inference_mode()
def given_tokens(
    model: SAM2Base,
    video: EncodedVideo,
    tracks: Sequence[Sequence[RLE]],
    engine: Engine = AUTOMATIC,
) -> np.ndarray:
    """tokens_NTD (float32) of N tracks with T masks each, at the video's size."""
    tokens_NTD = np.zeros((len(tracks), len(video), model.hidden_dim), np.float32)
    for t in range(len(video)):
        video.announce([t, t + 1] if t + 1 < len(video) else [t])
        masks = [track[t] for track in tracks]

        def pointers(part: slice, t: int = t, masks: list[RLE] = masks) -> np.ndarray:
            masks_B1HW = torch.cat([model_input(rle, model) for rle in masks[part]])
            output = model.track_step(
                frame_idx=0,
                is_init_cond_frame=True,
                **frame_arguments([(video, t)] * len(masks_B1HW)),
                point_inputs=None,
                mask_inputs=masks_B1HW,
                output_dict={"cond_frame_outputs": {}, "non_cond_frame_outputs": {}},
                num_frames=1,
                run_mem_encoder=False,
            )
            return output["obj_ptr"].float().cpu().numpy()

        with precision(model.device):
            parts = in_batches("objects", engine.objects, pointers, len(masks))
        if parts:
            tokens_NTD[:, t] = np.concatenate(parts)
    return tokens_NTD
