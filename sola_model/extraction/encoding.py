"""Image features of a video, every frame encoded once and shared by all prompts and tracks."""

from collections.abc import Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sola_model.extraction.engine import AUTOMATIC, Engine, feature_budget, precision
from sola_model.extraction.sam2_models import SAM2Base
from sola_model.memory import in_batches

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Item = TypeVar("Item")


class EncodedVideo:
    """SAM2's features of each frame of a video.

    `size` is (height, width) of the video in pixels. Frames are read and resized in the background
    while others are encoded. Features beyond the engine's budget wait in host memory, see
    `announce`. With `prompt_features` "image" the frames are kept, for `install`.

    Source: `SAM2Base.forward_image` and `_prepare_backbone_features`; frames are resized as
    `sam2.utils.misc.load_video_frames` does.
    """

    def __init__(
        self,
        model: SAM2Base,
        frames_HW3: Iterable[np.ndarray],
        engine: Engine = AUTOMATIC,
        *,
        prompt_features: Literal["video", "image"] = "video",
    ) -> None:
        """Encode RGB uint8 frames, all of one size.

        Raises:
            ValueError: there are no frames, or they differ in size. What the iterable raises is
                passed on.
        """
        self.model = model
        self.size = (0, 0)
        self.frames_on_device = 0
        self._frames_HW3: list[np.ndarray] = []  # if prompts have features of their own
        self._features: list[list[Tensor]] = []  # per frame: three levels of (hw, 1, C)
        self._arriving: dict[int, list[Tensor]] = {}
        self._copies = torch.cuda.Stream(model.device) if model.device.type == "cuda" else None
        budget = feature_budget(engine, model.device)
        prepared = ((frame, _prepare(frame, model.image_size)) for frame in frames_HW3)
        for frame_HW3, image_3HW in read_ahead(prepared, engine.frames_ahead):
            size = frame_HW3.shape[:2]
            self.size = self.size if self._features else size
            if size != self.size:
                raise ValueError(
                    f"frame {len(self)} is {size[1]}x{size[0]} (width x height), but the first is "
                    f"{self.size[1]}x{self.size[0]}; all frames of a video must have one size"
                )
            features = self._encode(image_3HW)
            fits = (len(self) + 1) * sum(level.nbytes for level in features) <= budget
            self.frames_on_device += fits
            self._features.append(features if fits else [_to_host(level) for level in features])
            if prompt_features == "image":
                self._frames_HW3.append(frame_HW3)
        if not self._features:
            raise ValueError("the video has no frames; give at least one")

    def __len__(self) -> int:
        return len(self._features)

    @torch.inference_mode()
    def _encode(self, image_3HW: Tensor) -> list[Tensor]:
        with precision(self.model.device):
            (encoded,) = in_batches("frames", 1, lambda _: self._maps(image_3HW), 1)
            _, features, positions, sizes = self.model._prepare_backbone_features(encoded)
        self._position, self._sizes = positions[-1], sizes
        narrow = torch.bfloat16 if self._copies else torch.float32
        return [level.to(narrow) for level in features]

    def _maps(self, image_3HW: Tensor) -> dict:
        return self.model.forward_image(image_3HW[None].to(self.model.device))

    def announce(self, frames: Iterable[int]) -> None:
        """Start copying features that wait in host memory; drop the copies of other frames."""
        wanted = [t for t in frames if t >= self.frames_on_device]
        self._arriving = {t: self._arriving.get(t) or self._copy(t) for t in wanted}

    def _copy(self, frame_index: int) -> list[Tensor]:
        if not self._copies:
            return self._features[frame_index]
        with torch.cuda.stream(self._copies):
            return [f.to(self.model.device, non_blocking=True) for f in self._features[frame_index]]

    def _at(self, frame_index: int) -> list[Tensor]:
        if frame_index < self.frames_on_device:
            return self._features[frame_index]
        features = self._arriving.get(frame_index) or self._copy(frame_index)
        if self._copies:
            current = torch.cuda.current_stream(self.model.device)
            current.wait_stream(self._copies)
            for level in features:
                level.record_stream(current)
        return features

    def install(self, predictor: Any, frame_index: int) -> None:
        """What `SAM2ImagePredictor.set_image` does; it encodes again if it must."""
        if self._frames_HW3:
            image_3HW = predictor._transforms(Image.fromarray(self._frames_HW3[frame_index]))
            *high, top = self._encode(image_3HW)
        else:
            *high, top = self._at(frame_index)
        levels = [*high, top + self.model.no_mem_embed]
        maps = [
            level.permute(1, 2, 0).view(1, -1, *size)
            for level, size in zip(levels, self._sizes, strict=True)
        ]
        predictor._features = {"image_embed": maps[-1], "high_res_feats": maps[:-1]}
        predictor._orig_hw = [self.size]
        predictor._is_image_set = True


def frame_arguments(frames: list[tuple[EncodedVideo, int]]) -> dict:
    """The arguments of `SAM2Base.track_step` that describe a frame, one frame for each object."""
    features = {(id(video), t): video._at(t) for video, t in dict.fromkeys(frames)}
    if len(features) == 1:
        (levels,) = features.values()
        stacked = [level.expand(-1, len(frames), -1) for level in levels]
    else:
        each = [features[id(video), t] for video, t in frames]
        stacked = [torch.cat(levels, dim=1) for levels in zip(*each, strict=True)]
    video = frames[0][0]
    return {
        "current_vision_feats": stacked,
        "current_vision_pos_embeds": [video._position.expand(-1, len(frames), -1)],  # of the last
        "feat_sizes": video._sizes,
    }


def _prepare(frame_HW3: np.ndarray, side: int) -> Tensor:
    """A frame as the model takes it (3, side, side)."""
    resized = np.asarray(Image.fromarray(frame_HW3).resize((side, side)))
    image_3HW = torch.from_numpy(resized / 255.0).permute(2, 0, 1).float()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (image_3HW - mean) / std


def _to_host(level: Tensor) -> Tensor:
    """Into memory from which the device can copy in the background."""
    return level.cpu().pin_memory() if level.is_cuda else level


def read_ahead(items: Iterable[Item], depth: int) -> Iterator[Item]:
    """The items, taken by a thread that stays at most `depth` of them ahead.

    What the iterable raises is raised here. The thread ends when this iterator does.
    """
    queue: Queue[tuple[Any, BaseException | None]] = Queue(depth)
    stopped = Event()

    def offer(item: Item | None, error: BaseException | None = None) -> None:
        while not stopped.is_set():
            try:
                return queue.put((item, error), timeout=0.1)
            except Full:
                pass

    def work() -> None:
        try:
            for item in items:
                offer(item)
                if stopped.is_set():
                    return
            offer(None, StopIteration())
        except BaseException as error:
            offer(None, error)

    thread = Thread(target=work, name="frames", daemon=True)
    thread.start()
    try:
        while True:
            item, error = queue.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        stopped.set()
        thread.join()
