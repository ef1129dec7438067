"""Grounding DINO: boxes of what a caption names (paper, section 3.3 and supplement D).

One function, `detect`, serves the implementation in `transformers` and the original package. A
frame goes through the image backbone once, whatever the number of its captions.

Shapes: E captions, Q queries, W text tokens, H and W3 of an image as (H, W, 3) RGB.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_convert, clip_boxes_to_image

from sola_model.detection.grounding_dino import make_lean
from sola_model.detection.names import DEMO_DETECTOR, PAPER_DETECTOR
from sola_model.memory import in_batches
from sola_model.recipes import DetectorSettings

# Values of image features in a batch, over its captions: those that a CPU's cache holds.
FEATURES = {"cpu": 400_000, "mps": 4_000_000}
CAPTIONS_ON_GPU = 32  # in a batch, at first: halved where memory is too small


@dataclass(frozen=True, kw_only=True)
class Detection:
    """A box: its corners x1, y1, x2, y2 in pixels of the video, inside the image.

    score is that of the best token; token_scores has one for each token of the caption, special
    tokens included; phrase is the words that the box was found by.
    """

    xyxy: tuple[float, float, float, float]
    score: float
    phrase: str
    token_scores: tuple[float, ...]


class Detector(Protocol):
    """A loaded Grounding DINO. `tokenizer` is a `transformers` one; captions have `max_tokens`."""

    tokenizer: Any
    max_tokens: int
    device: str

    def encode(self, pixels_13HW: Tensor) -> int:
        """Encode the image that `find` looks at; returns how many values its features have."""
        ...

    def find(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Logits (E, Q, W or more) of words, and boxes (E, Q, 4): centre and size, 0..1."""
        ...


def detect(
    detector: Detector,
    frames: Iterable[tuple[int, np.ndarray]],
    captions: Sequence[str],
    settings: DetectorSettings,
) -> Iterator[tuple[int, list[list[Detection]]]]:
    """The boxes of every caption in every frame, best first.

    Equal to one call of the plain `transformers` pipeline for each frame and caption, but for
    boxes that reach out of the image, which are clipped to it, or left out if nothing remains.

    Args:
        frames: pairs of a frame's index and its image (H, W, 3), uint8 RGB.
        captions: see `normal_caption`.

    Yields:
        The frame's index and, for each caption, its detections.

    Raises:
        ValueError: a caption is empty or longer than the text encoder takes.
    """
    from transformers import GroundingDinoImageProcessor  # slow to import, needed only here

    for caption in captions:
        if fault := caption_fault(detector, caption):
            raise ValueError(fault)
    texts = [normal_caption(caption) for caption in captions]
    token_ids = [detector.tokenizer(text)["input_ids"] for text in texts]
    size = {"shortest_edge": settings.short_side, "longest_edge": settings.long_side}
    processor = GroundingDinoImageProcessor(size=size)
    for frame_index, image_HW3 in frames:
        pixels = processor(image_HW3, input_data_format="channels_last", return_tensors="pt")
        outputs = _scores_and_boxes(detector, pixels["pixel_values"], texts, image_HW3.shape[:2])
        yield (
            frame_index,
            [
                _detections(detector, scores_QW, boxes_Q4, ids, settings)
                for (scores_QW, boxes_Q4), ids in zip(outputs, token_ids, strict=True)
            ],
        )


def caption_fault(detector: Detector, caption: str) -> str | None:
    """Why a detector does not take a caption, and what to do; None where it does."""
    try:
        text = normal_caption(caption)
    except ValueError as error:
        return str(error)
    tokens = len(detector.tokenizer(text)["input_ids"])
    if tokens > detector.max_tokens:
        return (
            f"caption {text[:40]!r}... has {tokens} tokens, this detector takes at most "
            f"{detector.max_tokens}: shorten the expression."
        )
    return None


def normal_caption(text: str) -> str:
    """A caption as Grounding DINO takes it: lower case, stripped, with a full stop at its end.

    Raises ValueError if it has no words.
    """
    words = text.strip().lower().rstrip(". ")
    if not words:
        raise ValueError(f"caption {text!r} is empty: remove the expression or give it words.")
    return words + "."


@torch.inference_mode()
def _scores_and_boxes(
    detector: Detector, pixels_13HW: Tensor, texts: list[str], size: tuple[int, int]
) -> list[tuple[Tensor, Tensor]]:
    """Scores (Q, W or more) and corners (Q, 4) in pixels of each caption, on the CPU."""
    where = torch.device(detector.device)
    (features,) = in_batches("images", 1, lambda _: detector.encode(pixels_13HW.to(where)), 1)
    on_gpu = where.type == "cuda"
    batch = CAPTIONS_ON_GPU if on_gpu else max(1, FEATURES[where.type] // features)
    found: list[tuple[Tensor, Tensor]] = []
    for logits_EQW, boxes_EQ4 in in_batches(
        "captions", batch, lambda part: detector.find(texts[part]), len(texts)
    ):
        corners_EQ4 = box_convert(boxes_EQ4.cpu(), "cxcywh", "xyxy")
        corners_EQ4 = corners_EQ4 * torch.tensor([size[1], size[0]] * 2)
        scores_EQW = logits_EQW.sigmoid().cpu()
        found += zip(scores_EQW, clip_boxes_to_image(corners_EQ4, size), strict=True)
    return found


def _detections(
    detector: Detector,
    scores_QW: Tensor,
    boxes_Q4: Tensor,
    ids: list[int],
    settings: DetectorSettings,
) -> list[Detection]:
    scores_QW = scores_QW[:, : len(ids)]
    best_Q = scores_QW.amax(1)
    inside_Q = (boxes_Q4[:, 2:] > boxes_Q4[:, :2]).all(1)
    order = best_Q.argsort(descending=True, stable=True)
    kept = order[(best_Q > settings.box_threshold)[order] & inside_Q[order]]
    token_scores = scores_QW[kept].tolist()
    # As in `transformers`, the first token never belongs to a phrase.
    named = [
        [i for i, score in zip(ids[1:], scores[1:], strict=True) if score > settings.text_threshold]
        for scores in token_scores
    ]
    return [
        Detection(
            xyxy=tuple(corners),
            score=max(scores),
            phrase=detector.tokenizer.decode(ids),
            token_scores=tuple(scores),
        )
        for corners, scores, ids in zip(boxes_Q4[kept].tolist(), token_scores, named, strict=True)
    ]


def load_detector(name_or_path: str | Path, device: str = "cpu") -> Detector:
    """A frozen Grounding DINO by hub id, local folder, "demo" or original checkpoint.

    A hub id (`IDEA-Research/grounding-dino-tiny`) or a folder written by `save_pretrained` is
    read by `transformers`; a file `.pth` by the original package, which must be installed.

    Raises:
        ValueError: there is no such checkpoint, or it is of another format.
    """
    if str(name_or_path).endswith(".pth"):
        from sola_model.detection.detector_original import OriginalGroundingDino

        return OriginalGroundingDino(Path(name_or_path), device)
    return GroundingDino(str(name_or_path), device)


class GroundingDino:
    """`transformers.GroundingDinoForObjectDetection` with a backbone that runs once a frame."""

    def __init__(self, name_or_path: str, device: str = "cpu") -> None:
        """See `load_detector`."""
        from transformers import AutoConfig, AutoTokenizer, GroundingDinoForObjectDetection
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        source = str(DEMO_DETECTOR) if name_or_path == "demo" else name_or_path
        try:
            config = AutoConfig.from_pretrained(source)
            if config.model_type != "grounding-dino":
                raise ValueError(f"it holds a model of type {config.model_type!r}.")
            self.tokenizer = AutoTokenizer.from_pretrained(source)
            loaded: Any = GroundingDinoForObjectDetection.from_pretrained(
                source, dtype=torch.float32, output_loading_info=True
            )
            model, report = loaded
            if report["missing_keys"]:
                raise ValueError(f"weights are missing, e.g. {min(report['missing_keys'])}.")
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"detector {name_or_path!r} cannot be loaded: {error}\nGive a hub id such as "
                f"{PAPER_DETECTOR!r} (needs internet the first time), a folder "
                "written by save_pretrained, the original package's checkpoint as a file .pth, or "
                "'demo' for the embedded small model."
            ) from error
        self.max_tokens: int = min(config.max_text_len, config.text_config.max_position_embeddings)
        self.device = device
        self.model = model.requires_grad_(False).eval().to(device)
        self.backbone = make_lean(self.model)

    def encode(self, pixels_13HW: Tensor) -> int:
        """See `Detector`."""
        self._pixels = pixels_13HW
        return self.backbone.encode(pixels_13HW) * self.model.config.d_model

    def find(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """See `Detector`."""
        tokens = self.tokenizer(captions, padding=True, return_tensors="pt").to(self.device)
        pixels = self._pixels.expand(len(captions), -1, -1, -1)
        for embed in (self.model.model.encoder_output_class_embed, *self.model.class_embed):
            embed.max_text_len = tokens["input_ids"].shape[1]  # beyond, all logits are -inf
        output = self.model(pixel_values=pixels, **tokens)
        return output.logits, output.pred_boxes
