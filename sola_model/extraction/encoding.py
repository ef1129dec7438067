"""Image features of a video, every frame encoded once and shared by all prompts and tracks."""

from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sola_model.extraction.engine import AUTOMATIC, Engine, feature_budget, precision
from sola_model.extraction.frames import normalise, resize
from sola_model.extraction.host_memory import free_memory
from sola_model.extraction.sam2_models import SAM2Base
from sola_model.memory import in_batches

Item = TypeVar("Item")
Levels = list[Tensor]  # a frame's features: three levels of (hw, 1, C)


class EncodedVideo:
    """SAM2's features of each frame of a video.

    `size` is (height, width) of the video in pixels. Frames are read and resized in the background
    while others are encoded. Features that the device has no room for wait in host memory (CUDA),
    see `announce`, or are forgotten: of these frames, and of those that are not to be encoded yet,
    the resized pixels are kept, a fifth of a frame's features. With `prompt_features` "image" the
    frames are kept, for `install`.

    Source: `SAM2Base.forward_image` and `_prepare_backbone_features`.
    """

    def __init__(
        self,
        model: SAM2Base,
        frames_HW3: Iterable[np.ndarray],
        engine: Engine = AUTOMATIC,
        *,
        prompt_features: Literal["video", "image"] = "video",
        at_once: Collection[int] | None = None,
    ) -> None:
        """Encode RGB uint8 frames, all of one size.

        Args:
            at_once: the frames to encode now; others are encoded when they are needed. None: all.

        Raises:
            ValueError: there are no frames, or they differ in size. What the iterable raises is
                passed on.
        """
        self.model = model
        self.size = (0, 0)
        self._frames_HW3: list[np.ndarray] = []  # if prompts have features of their own
        # A frame is in one of these: features on the device, or on the host; a resized image.
        self._features: dict[int, Levels] = {}
        self._waiting: dict[int, Levels] = {}
        self._images_SS3: dict[int, Tensor] = {}
        self._arriving: dict[int, Levels] = {}
        self._copies = torch.cuda.Stream(model.device) if model.device.type == "cuda" else None
        self._room = feature_budget(engine, model.device)
        self._on_host = 0  # bytes
        for t, (frame_HW3, image_SS3) in enumerate(
            resized_ahead(frames_HW3, model.image_size, engine)
        ):
            size = frame_HW3.shape[:2]
            self.size = size if t == 0 else self.size
            if size != self.size:
                raise ValueError(
                    f"frame {t} is {size[1]}x{size[0]} (width x height), but the first is "
                    f"{self.size[1]}x{self.size[0]}; all frames of a video must have one size"
                )
            self._images_SS3[t] = image_SS3
            if at_once is None or t in at_once:
                self._encoded(t)
            if prompt_features == "image":
                self._frames_HW3.append(frame_HW3)
        if not len(self):
            raise ValueError("the video has no frames; give at least one")

    def __len__(self) -> int:
        return len(self._features) + len(self._waiting) + len(self._images_SS3)

    def _encoded(self, frame_index: int) -> Levels:
        """The features of a frame that has none; from now on it has them, where they fit."""
        image_SS3 = self._images_SS3[frame_index]
        features = self._encode(lambda: normalise(image_SS3.to(self.model.device)))
        size = sum(level.nbytes for level in features)
        if size <= self._room and (self._copies or self._host_holds(size)):
            self._room -= size
            self._features[frame_index] = features
            del self._images_SS3[frame_index]
        elif self._copies and self._host_holds(size):
            self._waiting[frame_index] = [level.cpu().pin_memory() for level in features]
            del self._images_SS3[frame_index]
        return features

    def _host_holds(self, size: int) -> bool:
        """Take so many bytes, if features then have at most half of what is still free.

        So any number of processes share what there is, and none needs to know of the others.
        """
        fits = 2 * (self._on_host + size) <= free_memory()
        self._on_host += fits * size
        return fits

    @torch.inference_mode()
    def _encode(self, image_3SS: Callable[[], Tensor]) -> Levels:
        def maps(_: slice) -> dict:
            return self.model.forward_image(image_3SS()[None])

        with precision(self.model.device):
            (encoded,) = in_batches("frames", 1, maps, 1)
            _, features, positions, sizes = self.model._prepare_backbone_features(encoded)
        self._position, self._sizes = positions[-1], sizes
        narrow = torch.bfloat16 if self._copies else torch.float32
        return [level.to(narrow) for level in features]

    def announce(self, frames: Iterable[int]) -> None:
        """Fetch features that are not on the device; drop what was fetched of other frames."""
        wanted = [t for t in frames if t not in self._features]
        self._arriving = {t: self._arriving.get(t) or self._fetch(t) for t in wanted}

    def _fetch(self, frame_index: int) -> Levels:
        if frame_index not in self._waiting:
            return self._encoded(frame_index)
        with torch.cuda.stream(self._copies):
            return [f.to(self.model.device, non_blocking=True) for f in self._waiting[frame_index]]

    def _at(self, frame_index: int) -> Levels:
        if frame_index in self._features:
            return self._features[frame_index]
        features = self._arriving.get(frame_index) or self._fetch(frame_index)
        if self._copies:
            current = torch.cuda.current_stream(self.model.device)
            current.wait_stream(self._copies)
            for level in features:
                level.record_stream(current)
        return features

    def install(self, predictor: Any, frame_index: int) -> None:
        """What `SAM2ImagePredictor.set_image` does; it encodes again if it must."""
        if self._frames_HW3:
            image_3SS = predictor._transforms(Image.fromarray(self._frames_HW3[frame_index]))
            *high, top = self._encode(lambda: image_3SS.to(self.model.device))
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


def resized_ahead(
    frames_HW3: Iterable[np.ndarray], side: int, engine: Engine
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Each frame, and what the model sees of it (S, S, 3), made in the background."""
    threads = min(engine.frames_ahead, torch.get_num_threads())
    with ThreadPoolExecutor(threads, "resize") as pool:
        started = ((frame, pool.submit(resize, frame, side)) for frame in frames_HW3)
        with closing(read_ahead(started, engine.frames_ahead)) as frames:
            for frame_HW3, image_SS3 in frames:
                yield frame_HW3, torch.from_numpy(image_SS3.result())


def read_ahead(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
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
