"""Grounding DINO of its authors' package `groundingdino`. The only file that imports it.

A checkpoint is a file `{"model": state_dict}` as its authors publish them. Its architecture is
the packaged configuration that the file name stands for; a `.json` of the same name beside the
file changes settings of it, e.g. `{"text_encoder_type": "/models/bert-base-uncased"}`.

The package's wrapper of BERT does not work with transformers 5: it looks for `get_head_mask`,
which is gone, and hands a device to `get_extended_attention_mask`, which takes a dtype there.
`BertModel` itself accepts what the wrapper was made for, given a mask with an axis for heads, so
it takes the wrapper's place.

The package repeats attention masks for its heads in the wrong order, so that the captions of a
batch disturb each other; a hook puts them in order, and a batch equals single captions.

Shapes: as in `sola_model.detection.detector`.
"""

import importlib
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

CONFIGS = {
    "groundingdino_swint": "GroundingDINO_SwinT_OGC",
    "groundingdino_swinb": "GroundingDINO_SwinB_cfg",
}
# Tensors of published files that the package's model does not have either.
UNUSED = ("bert.embeddings.position_ids", "label_enc.weight")


class OriginalGroundingDino:
    """A frozen `groundingdino` model whose backbone runs once a frame; a `Detector`."""

    def __init__(self, checkpoint: Path, device: str = "cpu") -> None:
        """Load a file `groundingdino_swin[t|b]*.pth`.

        Raises ValueError if the package or the file is missing, or the file is none of its.
        """
        if not checkpoint.is_file():
            raise ValueError(f"there is no detector checkpoint {checkpoint}.")
        state = _read_state(checkpoint)
        self.model: Any = build_original(architecture(checkpoint))
        missing, unexpected = self.model.load_state_dict(state, strict=False)
        wrong = [*missing, *(key for key in unexpected if key not in UNUSED)]
        if wrong:
            raise ValueError(
                f"{checkpoint} does not fit the package's model: {len(wrong)} tensors are missing "
                f"or unknown, e.g. {wrong[0]}. Valid are groundingdino_swint_ogc.pth and "
                "groundingdino_swinb_cogcoor.pth as published; give a checkpoint of transformers "
                "as a folder instead."
            )
        self.model = self.model.requires_grad_(False).eval().to(device)
        self.backbone = _SharedJoiner(self.model.backbone)
        self.model.backbone = self.backbone
        self.tokenizer = self.model.tokenizer
        self.max_tokens: int = min(
            self.model.max_text_len, self.model.bert.config.max_position_embeddings
        )
        self.device = device

    def encode(self, pixels_13HW: Tensor) -> int:
        """See `sola_model.detection.detector.Detector`."""
        self._pixels = pixels_13HW
        return self.backbone.encode(_images(pixels_13HW)) * self.model.hidden_dim

    def find(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """See `sola_model.detection.detector.Detector`."""
        images = _images(self._pixels.expand(len(captions), -1, -1, -1))
        output = self.model(images, captions=captions)
        return output["pred_logits"], output["pred_boxes"]


def build_original(settings: dict[str, Any]) -> nn.Module:
    """The package's untrained model; `settings` are the variables of its configuration files.

    Raises ValueError if the package is not installed.
    """
    module = _package("groundingdino.models.GroundingDINO.groundingdino")
    wrapper = module.BertModelWarper
    module.BertModelWarper = _with_head_axis
    try:
        model = module.build_groundingdino(SimpleNamespace(**settings))
    finally:
        module.BertModelWarper = wrapper
    for layer in model.transformer.encoder.text_layers:
        layer.register_forward_pre_hook(_masks_in_order, with_kwargs=True)
    return model


def _with_head_axis(bert_model: nn.Module) -> nn.Module:
    """Let a `BertModel` take the attention masks (E, W, W) that the package makes."""

    def add_axis(_: nn.Module, args: tuple, tokens: dict) -> tuple[tuple, dict]:
        return args, tokens | {"attention_mask": tokens["attention_mask"][:, None]}

    bert_model.register_forward_pre_hook(add_axis, with_kwargs=True)
    return bert_model


def _masks_in_order(layer: nn.Module, args: tuple, inputs: dict) -> tuple[tuple, dict]:
    """All heads' masks of the first caption, then of the next: `MultiheadAttention`'s order."""
    return args, inputs | {"src_mask": inputs["src_mask"].repeat_interleave(layer.nhead, 0)}


class _SharedJoiner(nn.Module):
    """As `sola_model.detection.grounding_dino.SharedBackbone`, for one image."""

    def __init__(self, joiner: nn.Module) -> None:
        super().__init__()
        self.joiner: Any = joiner
        self.encoded: tuple[list, list] | None = None

    def __getitem__(self, index: int) -> nn.Module:
        return self.joiner[index]

    def encode(self, images: Any) -> int:
        self.encoded = self.joiner(images)
        return sum(level.tensors[0, 0].numel() for level in self.encoded[0])

    def forward(self, images: Any) -> tuple[list, list]:
        assert self.encoded is not None
        levels, places = self.encoded
        rows = len(images.tensors)
        return (
            [type(level)(*(_rows(x, rows) for x in level.decompose())) for level in levels],
            [_rows(place, rows) for place in places],
        )


def _rows(features: Tensor, rows: int) -> Tensor:
    return features.expand(rows, *features.shape[1:])


def _images(pixels_E3HW: Tensor) -> Any:
    """The package's batch of images, none of them padded."""
    misc = _package("groundingdino.util.misc")
    return misc.NestedTensor(pixels_E3HW, torch.zeros_like(pixels_E3HW[:, 0], dtype=torch.bool))


def _package(module: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its imports that timm has moved
            return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"a checkpoint .pth of Grounding DINO needs the package groundingdino ({error}). "
            "Install it with: pip install groundingdino-py - or use the same model from "
            "transformers, IDEA-Research/grounding-dino-tiny."
        ) from error


def architecture(checkpoint: Path) -> dict[str, Any]:
    """The settings that a checkpoint's name, and the `.json` beside it, stand for.

    Gradient checkpointing, which only training needs, is off.

    Raises ValueError for other names, or if the package is not installed.
    """
    for prefix, config in CONFIGS.items():
        if checkpoint.name.startswith(prefix):
            settings = vars(_package(f"groundingdino.config.{config}"))
            beside = checkpoint.with_suffix(".json")
            changes = json.loads(beside.read_text()) if beside.is_file() else {}
            named = {k: v for k, v in settings.items() if not k.startswith("__")}
            return named | {"use_checkpoint": False, "use_transformer_ckpt": False} | changes
    raise ValueError(
        f"cannot tell the architecture of {checkpoint.name!r}: keep the official file name, which "
        f"starts with {' or '.join(CONFIGS)}."
    )


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["model"]
        return {key.removeprefix("module."): tensor for key, tensor in state.items()}
    except Exception as error:  # torch.load raises whatever the content happens to cause
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is not a checkpoint of Grounding DINO's original package ({reason}). Valid is "
            "a torch file holding {'model': state_dict}, as published; download it again."
        ) from error
