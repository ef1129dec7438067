"""Image features of a video, every frame encoded once and shared by all prompts and tracks."""

from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sola_model.sam2_models import SAM2Base

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class EncodedVideo:
    """SAM2's features of each frame of a video.

    `size` is (height, width) of the video in pixels. Source: `SAM2Base.forward_image` and
    `_prepare_backbone_features`; frames are resized as `sam2.utils.misc.load_video_frames` does.
    """

    def __init__(self, model: SAM2Base, frames_HW3: Iterable[np.ndarray]) -> None:
        """Encode RGB uint8 frames, all of one size.

        Raises:
            ValueError: there are no frames.
        """
        self.model = model
        self.size = (0, 0)
        self._features: list[list[Tensor]] = []  # per frame: three levels of (hw, 1, C)
        for frame_HW3 in frames_HW3:
            self.size = frame_HW3.shape[:2]
            self._features.append(self._encode(frame_HW3))
        if not self._features:
            raise ValueError("the video has no frames; give at least one")

    def __len__(self) -> int:
        return len(self._features)

    @torch.inference_mode()
    def _encode(self, frame_HW3: np.ndarray) -> list[Tensor]:
        side = self.model.image_size
        resized = np.asarray(Image.fromarray(frame_HW3).resize((side, side)))
        image_3HW = torch.from_numpy(resized / 255.0).permute(2, 0, 1).float()
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        image_13HW = ((image_3HW - mean) / std)[None].to(self.model.device)
        encoded = self.model.forward_image(image_13HW)
        _, features, self._positions, self._sizes = self.model._prepare_backbone_features(encoded)
        return features

    def batch(self, frame_index: int, size: int) -> dict:
        """The arguments of `SAM2Base.track_step` that describe a frame, for a batch of objects."""
        return {
            "current_vision_feats": [f.expand(-1, size, -1) for f in self._features[frame_index]],
            "current_vision_pos_embeds": [p.expand(-1, size, -1) for p in self._positions],
            "feat_sizes": self._sizes,
        }

    def install(self, predictor, frame_index: int) -> None:
        """What `SAM2ImagePredictor.set_image` does, without encoding the frame again."""
        *high, top = self._features[frame_index]
        levels = [*high, top + self.model.no_mem_embed]
        maps = [
            level.permute(1, 2, 0).view(1, -1, *size)
            for level, size in zip(levels, self._sizes, strict=True)
        ]
        predictor._features = {"image_embed": maps[-1], "high_res_feats": maps[:-1]}
        predictor._orig_hw = [self.size]
        predictor._is_image_set = True
